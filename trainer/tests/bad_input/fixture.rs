//! The folder that every case starts from.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
    process::Command,
    sync::OnceLock,
};

use image::GrayImage;
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

/// `FORMAT` and `PATH` are the only words in capitals.
pub const RECIPE: &str = r#"name = "small"
[data]
format = "idx"
path = "idx"
[network]
input = [4, 4, 1]
layers = [
    { type = "conv", filters = 2, kernel = [3, 3], activation = "relu" },
    { type = "flatten" },
    { type = "dense", units = 2, activation = "softmax" },
]
[train]
epochs = 1
batch = 4
"#;

/// Images of class `i % 2`: the left or the right half is bright.
fn pixels(count: u32) -> Vec<u8> {
    let image = |i: u32| (0..16).map(move |p| if (p % 4 / 2) == i % 2 { 200 } else { i as u8 });
    (0..count).flat_map(image).collect()
}

fn labels(count: u32) -> Vec<u8> {
    (0..count).map(|i| (i % 2) as u8).collect()
}

/// An IDX file of unsigned bytes.
pub fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
    bytes.extend(values);
    bytes
}

/// A NumPy file: type, Fortran order, shape, values.
pub fn npy(descr: &str, fortran: bool, shape: &str, values: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(values);
    bytes
}

/// The archive with its arrays, one of them replaced or, with no content, left out.
pub fn npz(replaced: &str, content: Option<Vec<u8>>) -> Vec<u8> {
    let arrays = [
        ("x_train", npy("|u1", false, "(8, 4, 4)", &pixels(8))),
        ("y_train", npy("|u1", false, "(8,)", &labels(8))),
        ("x_test", npy("|u1", false, "(4, 4, 4)", &pixels(4))),
        ("y_test", npy("|u1", false, "(4,)", &labels(4))),
    ];
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        let bytes = if name == replaced {
            content.clone()
        } else {
            Some(array)
        };
        if let Some(bytes) = bytes {
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default())
                .unwrap();
            zip.write_all(&bytes).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

/// Rows of a label and 16 pixels.
pub fn csv(count: u32) -> String {
    let pixels = pixels(count);
    let rows = labels(count).into_iter().zip(pixels.chunks(16));
    let row = |(label, pixels): (u8, &[u8])| {
        let pixels: Vec<String> = pixels.iter().map(ToString::to_string).collect();
        format!("{label},{}\n", pixels.join(","))
    };
    rows.map(row).collect()
}

fn make() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(root.path().join(name), bytes).unwrap();
    write("recipe.toml", RECIPE.as_bytes());
    write("a.npz", &npz("", None));
    write("a.csv", csv(8).as_bytes());
    fs::create_dir(root.path().join("idx")).unwrap();
    for (part, count) in [("train", 8), ("t10k", 4)] {
        let images = idx(&[count, 4, 4], &pixels(count));
        write(&format!("idx/{part}-images-idx3-ubyte"), &images);
        let labels = idx(&[count], &labels(count));
        write(&format!("idx/{part}-labels-idx1-ubyte"), &labels);
    }
    for (class, shade) in [("dark", 10), ("light", 240)] {
        let folder = root.path().join("images").join(class);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..4 {
            let image = GrayImage::from_pixel(4, 4, image::Luma([shade + number]));
            image.save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["fit", "recipe.toml", "--out", "run", "--quiet"])
        .current_dir(root.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    root
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// recipe.toml, idx/, a.npz, a.csv, images/ and run/, all good.
pub fn copy() -> TempDir {
    static FIRST: OnceLock<TempDir> = OnceLock::new();
    let first = FIRST.get_or_init(make);
    let root = tempfile::tempdir().unwrap();
    copy_folder(first.path(), root.path());
    root
}
