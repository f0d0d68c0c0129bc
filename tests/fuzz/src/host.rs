//! What the trainer reads: data files, recipes, checkpoints, models.

use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;
use trainer::{
    architecture::{Architecture, Shape},
    checkpoint::{self, Checkpoint},
    dataset,
    recipe::Recipe,
    weights::Weights,
};
use verifier::graph::Graph;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::device::Target;

/// The names are those of the programs and of the corpora.
pub const TARGETS: [Target; 7] = [
    ("idx", idx),
    ("npz", npz),
    ("csv", csv),
    ("image", image),
    ("recipe", recipe),
    ("checkpoint", checkpoint),
    ("onnx", onnx),
];

/// Image of the data targets: 2 rows, 3 columns, 1 channel; 3 classes.
const INPUT: Shape = Shape { h: 2, w: 3, c: 1 };
const CLASSES: usize = 3;

/// A folder in memory, one per process.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        made.expect("a temporary folder")
    };
    FOLDER.get_or_init(make).path()
}

/// Writes a file of the target's folder and returns its path.
fn file(target: &str, name: &str, bytes: &[u8]) -> PathBuf {
    let folder = folder().join(target);
    let path = folder.join(name);
    if fs::write(&path, bytes).is_err() {
        fs::create_dir_all(&folder).expect("a temporary folder");
        fs::write(&path, bytes).expect("a temporary file");
    }
    path
}

/// A recipe with these `[data]` values and the smallest network.
fn data(format: &str, path: &Path, more: &str) -> Recipe {
    let text = format!(
        "name = 'fuzz'\n[data]\nformat = '{format}'\npath = '{}'\n{more}\n[network]\ninput = [2, 3, 1]\n\
         layers = [{{ type = 'flatten' }}, {{ type = 'dense', units = 3, activation = 'softmax' }}]\n",
        path.display()
    );
    Recipe::parse(&text, Path::new("fuzz.toml"), &[]).expect("a valid recipe")
}

/// IDX. The first byte chooses which of the four files the rest is, and whether it has the name of a compressed one.
pub fn idx(bytes: &[u8]) {
    let Some((&choice, content)) = bytes.split_first() else {
        return;
    };
    let images = [
        0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6,
    ];
    let labels = [0, 0, 8, 1, 0, 0, 0, 1, 2];
    let parts = [
        ("train-images-idx3-ubyte", images.as_slice()),
        ("train-labels-idx1-ubyte", labels.as_slice()),
        ("t10k-images-idx3-ubyte", images.as_slice()),
        ("t10k-labels-idx1-ubyte", labels.as_slice()),
    ];
    let mut folder = PathBuf::new();
    for (i, (name, valid)) in parts.into_iter().enumerate() {
        let chosen = usize::from(choice) % parts.len() == i;
        let path = file("idx", name, if chosen { content } else { valid });
        folder = path.parent().expect("a folder").into();
    }
    let recipe = data("idx", &folder, "");
    if let Ok(data) = dataset::load(&recipe.data, INPUT, CLASSES, Path::new("")) {
        check(&data.train);
        check(&data.test);
    }
}

fn check(part: &dataset::Labelled) {
    assert_eq!(part.images.len(), part.labels.len());
    assert_eq!(part.images.pixels.len(), part.len() * INPUT.len());
    assert!(part.labels.iter().all(|&label| (label as usize) < CLASSES));
}

/// NumPy archives. The first byte chooses: the rest is the archive, or one of the four arrays in a valid archive.
pub fn npz(bytes: &[u8]) {
    let Some((&choice, content)) = bytes.split_first() else {
        return;
    };
    let archive = if choice >= 128 {
        content.to_vec()
    } else {
        let method = if choice & 4 == 0 {
            CompressionMethod::Stored
        } else {
            CompressionMethod::Deflated
        };
        let options = SimpleFileOptions::default().compression_method(method);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (i, name) in ["x_train", "y_train", "x_test", "y_test"]
            .iter()
            .enumerate()
        {
            zip.start_file(format!("{name}.npy"), options)
                .expect("an entry");
            let valid = array(name.starts_with('x'));
            let chosen = usize::from(choice) % 4 == i;
            zip.write_all(if chosen { content } else { &valid })
                .expect("memory");
        }
        zip.finish().expect("memory").into_inner()
    };
    let path = file("npz", "a.npz", &archive);
    let recipe = data("npz", &path, "");
    if let Ok(data) = dataset::load(&recipe.data, INPUT, CLASSES, Path::new("")) {
        check(&data.train);
        check(&data.test);
    }
}

/// A valid array: two images, or their labels.
pub fn array(images: bool) -> Vec<u8> {
    let shape = if images { "(2, 2, 3)" } else { "(2,)" };
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + if images { 12 } else { 2 }, 1);
    bytes
}

/// CSV. The first byte chooses the column of the label.
pub fn csv(bytes: &[u8]) {
    let Some((&choice, content)) = bytes.split_first() else {
        return;
    };
    let path = file("csv", "a.csv", content);
    let column = ["first", "last", "y"][usize::from(choice) % 3];
    let recipe = data("csv", &path, &format!("label_column = '{column}'"));
    if let Ok(data) = dataset::load(&recipe.data, INPUT, CLASSES, Path::new("")) {
        check(&data.train);
        check(&data.test);
    }
}

/// PNG, JPEG and BMP files, as a folder of images has them.
pub fn image(bytes: &[u8]) {
    let path = file("image", "a", bytes);
    if let Ok(pixels) = dataset::read_image(&path, INPUT) {
        assert_eq!(pixels.len(), INPUT.len());
    }
}

/// A recipe, after a 0xff byte `--set` values, one after each further 0xff; the resolved text gives the same recipe.
pub fn recipe(bytes: &[u8]) {
    let mut parts = bytes.split(|&byte| byte == 0xff);
    let mut text = || {
        parts
            .next()
            .map(|part| String::from_utf8_lossy(part).into_owned())
    };
    let Some(recipe) = text() else { return };
    let sets: Vec<String> = std::iter::from_fn(text).take(4).collect();
    let path = Path::new("fuzz.toml");
    let Ok(recipe) = Recipe::parse(&recipe, path, &sets) else {
        return;
    };
    let _ = Architecture::resolve(&recipe.network, &recipe.train.loss)
        .map(|architecture| (architecture.parameters(), architecture.macs()));
    let resolved = recipe.to_toml();
    let again = Recipe::parse(&resolved, path, &[]);
    let again = again.unwrap_or_else(|error| panic!("{error}:\n{resolved}"));
    assert_eq!(again.hash(), recipe.hash());
}

/// A checkpoint, and a file of weights.
pub fn checkpoint(bytes: &[u8]) {
    static ARCHITECTURE: OnceLock<Architecture> = OnceLock::new();
    let architecture = ARCHITECTURE.get_or_init(|| {
        let recipe = data("idx", Path::new("."), "");
        Architecture::resolve(&recipe.network, &recipe.train.loss).expect("a valid network")
    });
    let path = file("checkpoint", checkpoint::FILE, bytes);
    let _ = checkpoint::read_progress(&path);
    if let Ok(checkpoint) = Checkpoint::read(&path, architecture) {
        let weights = checkpoint.final_weights();
        assert!(weights.check(architecture).is_ok());
        checkpoint
            .write(&path)
            .expect("what was read can be written");
        let again = Checkpoint::read(&path, architecture);
        assert_eq!(again.expect("what was written can be read"), checkpoint);
    }
    if let Ok(weights) = Weights::from_safetensors(bytes) {
        let _ = weights.check(architecture);
    }
}

/// An ONNX file, as `predict` and `verify` read it.
pub fn onnx(bytes: &[u8]) {
    if let Ok(graph) = Graph::parse(bytes) {
        let _ = graph.ops();
    }
}
