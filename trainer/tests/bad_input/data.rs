//! Data files of every format.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    Case, case, check, edit,
    fixture::{csv, idx, npy, npz},
    nothing, remove, replace, write,
};

const TRAIN_IMAGES: &str = "idx/train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "idx/train-labels-idx1-ubyte";

/// Training on other data than the recipe's, with a change of the folder.
fn other(
    name: &str,
    format: &str,
    path: &str,
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> Case {
    let args =
        format!("fit recipe.toml --out out --set data.format={format} --set data.path={path}");
    case(name, &args, change)
}

#[test]
fn idx_files() {
    let idx_case = |name: &str, change: Box<dyn Fn(&Path) + Send + Sync>| {
        case(name, "fit recipe.toml --out out", change)
    };
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let whole = gzip(&idx(&[8, 4, 4], &[0; 128]));
    let cut = whole[..whole.len() - 12].to_vec();
    let cases = vec![
        other("no such folder", "idx", "missing", nothing),
        other("a file for a folder", "idx", "a.csv", nothing),
        idx_case("labels missing", Box::new(remove(TRAIN_LABELS))),
        idx_case("empty file", Box::new(write(TRAIN_IMAGES, ""))),
        idx_case(
            "cut in its header",
            Box::new(write(TRAIN_IMAGES, [0, 0, 8, 3, 0, 0])),
        ),
        idx_case(
            "another magic number",
            Box::new(write(TRAIN_IMAGES, "GIF89a")),
        ),
        idx_case(
            "floats",
            Box::new(edit(TRAIN_IMAGES, |bytes| bytes[2] = 0x0d)),
        ),
        idx_case(
            "cut in its values",
            Box::new(edit(TRAIN_IMAGES, |bytes| bytes.truncate(100))),
        ),
        idx_case(
            "more than it says",
            Box::new(edit(TRAIN_IMAGES, |bytes| bytes.push(0))),
        ),
        idx_case(
            "a header that claims 64 GB",
            Box::new(edit(TRAIN_IMAGES, |bytes| bytes[4..8].fill(0xff))),
        ),
        idx_case(
            "other rows and columns",
            Box::new(write(TRAIN_IMAGES, idx(&[8, 2, 8], &[0; 128]))),
        ),
        idx_case("damaged gzip", Box::new(write(TRAIN_IMAGES, cut))),
        idx_case(
            "fewer labels",
            Box::new(write(TRAIN_LABELS, idx(&[7], &[0; 7]))),
        ),
        idx_case(
            "images for labels",
            Box::new(write(TRAIN_LABELS, idx(&[8, 1], &[0; 8]))),
        ),
        idx_case(
            "a label too large",
            Box::new(write(TRAIN_LABELS, idx(&[8], &[2; 8]))),
        ),
        idx_case(
            "no images",
            Box::new(|folder: &Path| {
                write(TRAIN_IMAGES, idx(&[0, 4, 4], &[]))(folder);
                write(TRAIN_LABELS, idx(&[0], &[]))(folder);
            }),
        ),
        idx_case(
            "another checksum",
            Box::new(write(
                "idx/SHA256SUMS",
                format!("{}  train-images-idx3-ubyte\n", "0".repeat(64)),
            )),
        ),
        case(
            "a test part of all images",
            "fit recipe.toml --out out --set data.split.mode=joined --set data.split.test=12",
            nothing,
        ),
        case(
            "a validation part of no images",
            "fit recipe.toml --out out --set data.validation=0.01",
            nothing,
        ),
    ];
    insta::assert_snapshot!("idx", check(cases));
}

#[test]
fn npz_files() {
    let npz_case = |name: &str, bytes: Vec<u8>| other(name, "npz", "a.npz", write("a.npz", bytes));
    let array = |name: &str, array: &str, bytes: Vec<u8>| npz_case(name, npz(array, Some(bytes)));
    let long = {
        let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
        bytes.extend([0xff; 8]);
        bytes
    };
    let cut = npz("", None)[..200].to_vec();
    let cases = vec![
        other("no such archive", "npz", "b.npz", nothing),
        other("a folder for an archive", "npz", "images", nothing),
        other("not an archive", "npz", "a.csv", nothing),
        npz_case("cut archive", cut),
        npz_case("an array is missing", npz("y_test", None)),
        array("empty array", "x_train", Vec::new()),
        array("not an array", "x_train", vec![b'x'; 200]),
        array("header of 4 GB", "x_train", long),
        array(
            "floats",
            "x_train",
            npy("<f4", false, "(8, 4, 4)", &[0; 512]),
        ),
        array(
            "columns first",
            "x_train",
            npy("|u1", true, "(8, 4, 4)", &[0; 128]),
        ),
        array(
            "other rows and columns",
            "x_train",
            npy("|u1", false, "(8, 2, 8)", &[0; 128]),
        ),
        array(
            "one dimension",
            "x_train",
            npy("|u1", false, "(128,)", &[0; 128]),
        ),
        array(
            "fewer values than it says",
            "x_train",
            npy("|u1", false, "(8, 4, 4)", &[0; 9]),
        ),
        array(
            "a shape beyond all measure",
            "x_train",
            npy("|u1", false, "(4611686018427387904, 4, 4)", &[0; 9]),
        ),
        array(
            "one-hot labels",
            "y_train",
            npy("|u1", false, "(8, 2)", &[0; 16]),
        ),
        array(
            "labels as floats",
            "y_train",
            npy("<f8", false, "(8,)", &[0; 64]),
        ),
        array(
            "fewer labels",
            "y_train",
            npy("|u1", false, "(7,)", &[0; 7]),
        ),
        array(
            "a label too large",
            "y_train",
            npy("|u1", false, "(8,)", &[9; 8]),
        ),
        array(
            "a negative label",
            "y_train",
            npy("<i4", false, "(8,)", &[0xff; 32]),
        ),
    ];
    insta::assert_snapshot!("npz", check(cases));
}

#[test]
fn csv_files() {
    let csv_case =
        |name: &str, change: Box<dyn Fn(&Path) + Send + Sync>| other(name, "csv", "a.csv", change);
    let second_row = |row: &str| {
        let text = csv(8);
        let mut lines: Vec<&str> = text.lines().collect();
        lines[1] = row;
        lines.join("\n")
    };
    let cell = |value: &str| {
        let row = csv(2).lines().nth(1).unwrap().to_owned();
        let (start, _) = row.rsplit_once(',').unwrap();
        second_row(&format!("{start},{value}"))
    };
    let written = |name: &str, text: String| csv_case(name, Box::new(write("a.csv", text)));
    let text = csv(8);
    let cases = vec![
        other("no such file", "csv", "b.csv", nothing),
        other("a folder without train.csv", "csv", "images", nothing),
        written("empty file", String::new()),
        written(
            "a header and no rows",
            "y,".to_owned() + &["p"; 16].join(",") + "\n",
        ),
        written("NaN", cell("NaN")),
        written("infinite", cell("inf")),
        written("negative pixel", cell("-1")),
        written("pixel above 255", cell("256")),
        written("pixel that is no whole number", cell("0.5")),
        written("pixel as text", cell("white")),
        written("empty pixel", cell("")),
        written("a column too many", cell("1,2")),
        written("a row that ends early", second_row("1,2,3")),
        written("empty label", second_row(&csv(1).trim_end()[1..])),
        written(
            "one class by name only",
            text.lines()
                .map(|row| format!("cat{}\n", &row[1..]))
                .collect(),
        ),
        written("a label too large", text.replace("\n1,", "\n2,")),
        written("a quote that does not end", second_row("\"1,2,3")),
        csv_case(
            "not UTF-8",
            Box::new(edit("a.csv", |bytes| bytes[4] = 0xff)),
        ),
        other(
            "no such column",
            "csv",
            "a.csv --set data.label_column=target",
            nothing,
        ),
        written("one row", csv(1)),
    ];
    insta::assert_snapshot!("csv", check(cases));
}

#[test]
fn image_folders() {
    let in_images = |name: &str, change: Box<dyn Fn(&Path) + Send + Sync>| {
        other(name, "folder", "images", change)
    };
    // 60,000 x 60,000 pixels of 24 bits in 54 bytes.
    let mut huge = vec![0; 54];
    huge[..2].copy_from_slice(b"BM");
    for (at, value) in [
        (2, 54u32),
        (10, 54),
        (14, 40),
        (18, 60_000),
        (22, 60_000),
        (26, 24 << 16 | 1),
    ] {
        huge[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mkdir =
        |name: &'static str| move |folder: &Path| fs::create_dir(folder.join(name)).unwrap();
    let cases = vec![
        other("no such folder", "folder", "missing", nothing),
        other("a file for a folder", "folder", "a.csv", nothing),
        other("no classes", "folder", "idx", nothing),
        in_images("a class too many", Box::new(mkdir("images/grey"))),
        in_images(
            "a class without images",
            Box::new(|folder: &Path| {
                let light = folder.join("images/light");
                fs::remove_dir_all(&light).unwrap();
                fs::create_dir(&light).unwrap();
            }),
        ),
        in_images("empty image", Box::new(write("images/dark/0.png", ""))),
        in_images(
            "text for an image",
            Box::new(write("images/dark/notes.txt", "dark")),
        ),
        in_images("a folder for an image", Box::new(mkdir("images/dark/more"))),
        in_images(
            "cut image",
            Box::new(edit("images/dark/0.png", |bytes| bytes.truncate(40))),
        ),
        in_images(
            "an image of 10 GB",
            Box::new(write("images/dark/huge.bmp", huge)),
        ),
        in_images(
            "a test class that is not trained",
            Box::new(|folder: &Path| {
                let images = folder.join("images");
                for part in ["train", "test"] {
                    for class in ["dark", "light"] {
                        let to: PathBuf = images.join(part).join(class);
                        fs::create_dir_all(&to).unwrap();
                        fs::copy(images.join(class).join("0.png"), to.join("0.png")).unwrap();
                    }
                }
                fs::rename(images.join("test/dark"), images.join("test/grey")).unwrap();
            }),
        ),
        in_images(
            "four channels",
            Box::new(replace("recipe.toml", "[4, 4, 1]", "[4, 4, 4]")),
        ),
        in_images(
            "images that need more memory than there is",
            Box::new(replace("recipe.toml", "[4, 4, 1]", "[46340, 46340, 1]")),
        ),
    ];
    insta::assert_snapshot!("folder", check(cases));
}
