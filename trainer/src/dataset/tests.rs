use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;
use crate::recipe::Recipe;

const INPUT: Shape = Shape { h: 2, w: 3, c: 1 };

fn data(format: &str, path: &Path, more: &str) -> Data {
    let path = path.display();
    let text = format!(
        "name = 'a'\n[data]\nformat = '{format}'\npath = '{path}'\n{more}\n[network]\ninput = [2, 3, 1]\nlayers = []"
    );
    Recipe::parse(&text, "a.toml".as_ref(), &[]).unwrap().data
}

fn load_from(format: &str, path: &Path, more: &str) -> Result<Dataset, DatasetError> {
    load(&data(format, path, more), INPUT, 3, Path::new(""))
}

/// The error of loading, without the folder's name.
fn message(format: &str, folder: &Path, path: &Path, more: &str) -> String {
    let error = load_from(format, path, more).unwrap_err().to_string();
    error.replace(&folder.display().to_string(), "DIR")
}

fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte.gz";

/// Four training and two test images of 2x3.
fn idx_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
    let pixels: Vec<u8> = (0..36).collect();
    write(TRAIN_IMAGES, idx(&[4, 2, 3], &pixels[..24]));
    write(TRAIN_LABELS, gzip(&idx(&[4], &[0, 1, 2, 1])));
    write(
        "t10k-images-idx3-ubyte.gz",
        gzip(&idx(&[2, 2, 3], &pixels[24..])),
    );
    write("t10k-labels-idx1-ubyte", idx(&[2], &[2, 0]));
    folder
}

#[test]
fn idx_plain_and_gzip() {
    let folder = idx_folder();
    let dataset = load_from("idx", folder.path(), "").unwrap();
    assert_eq!(dataset.train.images.pixels, (0..24).collect::<Vec<u8>>());
    assert_eq!(dataset.train.labels, [0, 1, 2, 1]);
    assert_eq!(dataset.test.images.get(1), [30, 31, 32, 33, 34, 35]);
    assert_eq!(dataset.test.labels, [2, 0]);
    assert_eq!(dataset.class_names, ["0", "1", "2"]);
}

#[test]
fn wrong_idx_files() {
    let broken = |name: &str, bytes: &[u8]| {
        let folder = idx_folder();
        fs::write(folder.path().join(name), bytes).unwrap();
        message("idx", folder.path(), folder.path(), "")
    };
    let folder = idx_folder();
    fs::remove_file(folder.path().join(TRAIN_LABELS)).unwrap();
    let labels = gzip(&idx(&[4], &[0, 1, 2, 1]));
    let messages = [
        message("idx", folder.path(), folder.path(), ""),
        broken(TRAIN_IMAGES, &[0, 0]),
        broken(TRAIN_IMAGES, b"GIF89a00"),
        broken(TRAIN_IMAGES, &[0, 0, 8, 3, 0, 0, 0, 4, 0]),
        broken(TRAIN_IMAGES, &idx(&[4, 3, 2], &[0; 24])),
        broken(TRAIN_IMAGES, &idx(&[4, 2, 3], &[0; 20])),
        broken(TRAIN_IMAGES, &idx(&[u32::MAX, 2, 3], &[0; 20])),
        broken(TRAIN_IMAGES, &idx(&[4, 2, 3], &[0; 25])),
        broken(TRAIN_LABELS, &labels[..labels.len() - 10]),
        broken(TRAIN_LABELS, &idx(&[3], &[0, 1, 2])),
        broken(TRAIN_LABELS, &idx(&[4], &[0, 1, 3, 2])),
        broken(TRAIN_LABELS, &idx(&[4, 1], &[0, 1, 2, 1])),
        broken(
            "SHA256SUMS",
            format!("{}  {TRAIN_IMAGES}\n", "0".repeat(64)).as_bytes(),
        ),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

fn write_csv(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn csv_with_label_first_last_and_named() {
    let split = "split = { test = 1 }";
    for (text, more) in [
        ("0,1,2,3,4,5,6\n1,2,2,2,2,2,2\n", ""),
        ("label,a,b,c,d,e,f\n0,1,2,3,4,5,6\n1,2,2,2,2,2,2.0\n", ""),
        ("1,2,3,4,5,6,0\n2,2,2,2,2,2,1\n", "label_column = 'last'"),
        (
            "a,b,y,c,d,e,f\n1,2,0,3,4,5,6\n2,2,1,2,2,2,2\n",
            "label_column = 'y'",
        ),
    ] {
        let (_folder, path) = write_csv(text);
        let dataset = load_from("csv", &path, &format!("{more}\n{split}")).unwrap();
        let mut rows = [(&dataset.train, 0), (&dataset.test, 0)]
            .map(|(part, i)| (part.labels[i], part.images.get(i).to_vec()));
        rows.sort();
        assert_eq!(
            rows,
            [(0, vec![1, 2, 3, 4, 5, 6]), (1, vec![2; 6])],
            "{text}"
        );
    }
}

#[test]
fn csv_names_classes() {
    let (_folder, path) = write_csv("cat,1,2,3,4,5,6\nant,1,1,1,1,1,1\nbee,0,0,0,0,0,0\n");
    let dataset = load_from("csv", &path, "split = { test = 1 }").unwrap();
    assert_eq!(dataset.class_names, ["ant", "bee", "cat"]);
}

#[test]
fn wrong_csv_files() {
    let wrong = |text: &str, more: &str| {
        let (folder, path) = write_csv(text);
        message("csv", folder.path(), &path, more)
    };
    let folder = tempfile::tempdir().unwrap();
    let messages = [
        message("csv", folder.path(), &folder.path().join("none.csv"), ""),
        wrong("0,1,2,3,4,5,6\n1,2,2,NaN,2,2,2\n", ""),
        wrong("0,1,2,3,4,5,256\n", ""),
        wrong("0,1,2,3,4,5,-1\n", ""),
        wrong("0,1,2,3,4,5,0.5\n", ""),
        wrong("0,1,2,3,4,5\n", ""),
        wrong(",1,2,3,4,5,6\n", ""),
        wrong("0,1,2,3,4,5,6\n3,1,2,3,4,5,6\n", ""),
        wrong("a,1,2,3,4,5,6\nb,1,2,3,4,5,6\n", ""),
        wrong("a,b,c,d,e,f,g\n0,1,2,3,4,5,6\n", "label_column = 'y'"),
        wrong("", ""),
        wrong("0,1,2,3,4,5,6\n1,1,2,3,4,5,6\n", "split = { test = 2 }"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

fn write_npz(arrays: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    for (name, bytes) in arrays {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
    (folder, path)
}

/// A NumPy array, version 1.0.
fn npy(dtype: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

fn npz_arrays() -> Vec<(&'static str, Vec<u8>)> {
    let pixels: Vec<u8> = (0..18).collect();
    vec![
        ("x_train", npy("|u1", "(2, 2, 3)", &pixels[..12])),
        (
            "y_train",
            npy(
                "<i8",
                "(2,)",
                &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            ),
        ),
        ("x_test", npy("|u1", "(1, 2, 3)", &pixels[12..])),
        ("y_test", npy("|u1", "(1,)", &[0])),
    ]
}

#[test]
fn npz_of_keras() {
    let (_folder, path) = write_npz(&npz_arrays());
    let dataset = load_from("npz", &path, "").unwrap();
    assert_eq!(dataset.train.labels, [1, 2]);
    assert_eq!(dataset.train.images.get(1), [6, 7, 8, 9, 10, 11]);
    assert_eq!(dataset.test.images.pixels, [12, 13, 14, 15, 16, 17]);
}

#[test]
fn wrong_npz_files() {
    let wrong = |position: usize, bytes: Vec<u8>| {
        let mut arrays = npz_arrays();
        arrays[position].1 = bytes;
        let (folder, path) = write_npz(&arrays);
        message("npz", folder.path(), &path, "")
    };
    let (folder, path) = write_npz(&npz_arrays()[..3]);
    let (text_folder, text) = write_csv("no archive");
    let messages = [
        message("npz", folder.path(), &path, ""),
        message("npz", text_folder.path(), &text, ""),
        wrong(0, npy("<f4", "(2, 2, 3)", &[0; 48])),
        wrong(0, npy("|u1", "(2, 3, 2)", &[0; 12])),
        wrong(0, npy("|u1", "(4000000000, 2, 3)", &[0; 12])),
        wrong(1, npy("|u1", "(3,)", &[0; 3])),
        wrong(1, npy("|u1", "(2,)", &[0, 7])),
        wrong(1, npy("<f4", "(2,)", &[0; 8])),
        wrong(3, b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

fn image_folder(parts: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in parts {
        for (class, value) in [("ant", 10), ("bee", 20), ("cat", 30)] {
            let class = folder.path().join(part).join(class);
            fs::create_dir_all(&class).unwrap();
            for (name, w, h) in [("a.png", 3, 2), ("b.bmp", 6, 4)] {
                let image = image::RgbImage::from_pixel(w, h, image::Rgb([value; 3]));
                image.save(class.join(name)).unwrap();
            }
        }
    }
    folder
}

#[test]
fn folders_of_images() {
    let folder = image_folder(&["train", "test"]);
    let dataset = load_from("folder", folder.path(), "").unwrap();
    assert_eq!(dataset.class_names, ["ant", "bee", "cat"]);
    assert_eq!(dataset.train.labels, [0, 0, 1, 1, 2, 2]);
    assert_eq!(dataset.train.images.get(3), [20; 6]);
    assert_eq!(dataset.test.len(), 6);
    let folder = image_folder(&[""]);
    let dataset = load_from("folder", folder.path(), "").unwrap();
    assert_eq!((dataset.train.len(), dataset.test.len()), (5, 1));
}

#[test]
fn wrong_image_folders() {
    let folder = image_folder(&[""]);
    let bad = folder.path().join("bee/b.bmp");
    fs::write(&bad, b"BM but no image").unwrap();
    let unreadable = message("folder", folder.path(), folder.path(), "");
    fs::remove_file(bad).unwrap();
    fs::remove_file(folder.path().join("bee/a.png")).unwrap();
    let empty = message("folder", folder.path(), folder.path(), "");
    fs::remove_dir(folder.path().join("bee")).unwrap();
    let classes = message("folder", folder.path(), folder.path(), "");
    let missing = message("folder", folder.path(), &folder.path().join("none"), "");
    insta::assert_snapshot!([unreadable, empty, classes, missing].join("\n"));
}

#[test]
fn the_test_part_alone_is_the_same() {
    let idx = idx_folder();
    let (_npz, npz) = write_npz(&npz_arrays());
    let folder = image_folder(&["train", "test"]);
    for (format, path) in [
        ("idx", idx.path()),
        ("npz", &npz),
        ("folder", folder.path()),
    ] {
        for more in ["", "split = { mode = 'joined', test = 2 }"] {
            let all = load_from(format, path, more).unwrap();
            let data = data(format, path, more);
            let (test, names) = load_own_test(&data, INPUT, 3, Path::new("")).unwrap();
            assert_eq!(
                (test, names),
                (all.test, all.class_names),
                "{format} {more}"
            );
        }
    }
    fs::remove_file(idx.path().join(TRAIN_IMAGES)).unwrap();
    let official = data("idx", idx.path(), "");
    assert!(load_own_test(&official, INPUT, 3, Path::new("")).is_ok());
    let joined = data("idx", idx.path(), "split = { mode = 'joined', test = 2 }");
    assert!(load_own_test(&joined, INPUT, 3, Path::new("")).is_err());
}

#[test]
fn splits_are_seeded_and_lose_nothing() {
    let folder = idx_folder();
    let joined = |seed| {
        let more = format!("validation = 0.25\nsplit = {{ mode = 'joined', seed = {seed} }}");
        load_from("idx", folder.path(), &more).unwrap()
    };
    let dataset = joined(1);
    assert_eq!(dataset, joined(1));
    assert!((2..9).any(|seed| joined(seed) != dataset));
    let validation = dataset.validation.as_ref().unwrap();
    assert_eq!(
        (dataset.train.len(), validation.len(), dataset.test.len()),
        (3, 1, 2)
    );
    let parts = [&dataset.train, validation, &dataset.test];
    let mut all: Vec<u8> = parts.iter().flat_map(|p| p.images.pixels.clone()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..36).collect::<Vec<u8>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), dims in prop::collection::vec(0_u32..5, 0..5)) {
        let folder = idx_folder();
        let path = folder.path().join(TRAIN_IMAGES);
        for content in [bytes.clone(), gzip(&bytes), idx(&dims, &bytes)] {
            fs::write(&path, content).unwrap();
            let _ = load_from("idx", folder.path(), "");
        }
        fs::write(&path, &bytes).unwrap();
        let _ = load_from("csv", &path, "");
        let _ = load_from("npz", &path, "");
        let mut arrays = npz_arrays();
        arrays[0].1.splice(6.., bytes);
        let (_folder, path) = write_npz(&arrays);
        let _ = load_from("npz", &path, "");
    }
}
