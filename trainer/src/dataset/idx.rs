//! The IDX format of MNIST, plain or gzip: big-endian, `0 0 type dimensions`, one u32 per dimension, then the values.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>, "the IDX file format".

use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use verifier::compare::hex;

use super::{DatasetError, Images, Labelled, Loaded, Wanted, check_labels, numbered};
use crate::architecture::Shape;

/// Type code of unsigned bytes, the only one that images and labels have.
const UNSIGNED_BYTE: u8 = 0x08;
/// Bytes reserved before the data itself says how much there is.
const RESERVE: usize = 1 << 20;
/// File with the expected SHA-256 of the files beside it, in the format of `sha256sum`.
const CHECKSUMS: &str = "SHA256SUMS";

/// Reads the four files of a folder with their usual names, or the two of its test part.
pub(super) fn load(
    folder: &Path,
    input: Shape,
    classes: usize,
    wanted: Wanted,
) -> Result<Loaded, DatasetError> {
    let part = |name: &str| -> Result<Labelled, DatasetError> {
        let images = find(folder, name, "images", 3)?;
        let labels = find(folder, name, "labels", 1)?;
        read_part(&images, &labels, input, classes)
    };
    Ok(Loaded {
        train: match wanted {
            Wanted::All => part("train")?,
            Wanted::Test => Labelled::none(input),
        },
        test: Some(part("t10k")?),
        class_names: numbered(classes),
    })
}

/// `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, each plain or with `.gz`.
fn find(folder: &Path, part: &str, what: &str, dims: usize) -> Result<PathBuf, DatasetError> {
    let stem = format!("{part}-{what}");
    let names = ["-", "."].map(|sep| format!("{stem}{sep}idx{dims}-ubyte"));
    let names = names
        .iter()
        .flat_map(|name| [format!("{name}.gz"), name.clone()]);
    let names: Vec<String> = names.collect();
    names
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| DatasetError::Missing {
            path: folder.into(),
            wanted: names.join(", "),
        })
}

fn read_part(
    images_path: &Path,
    labels_path: &Path,
    input: Shape,
    classes: usize,
) -> Result<Labelled, DatasetError> {
    let (dims, pixels) = read(images_path, |dims| match *dims {
        [_, h, w] if (Shape { h, w, c: 1 }) == input => Ok(()),
        [_, h, w, c] if (Shape { h, w, c }) == input => Ok(()),
        ref other => Err(DatasetError::Shape {
            path: images_path.into(),
            got: sizes(other.get(1..).unwrap_or_default()),
            expected: input,
        }),
    })?;
    let (_, labels) = read(labels_path, |dims| match dims {
        [_] => Ok(()),
        other => Err(DatasetError::Byte {
            path: labels_path.into(),
            offset: 3,
            problem: format!("labels have {} dimensions, expected 1", other.len()),
        }),
    })?;
    if dims[0] != labels.len() {
        return Err(DatasetError::Counts {
            path: labels_path.into(),
            images_path: images_path.into(),
            images: dims[0],
            labels: labels.len(),
        });
    }
    let labels = labels.into_iter().map(i64::from).collect();
    let labels = check_labels(labels_path, "labels", labels, classes)?;
    Ok(Labelled {
        images: Images {
            shape: input,
            pixels,
        },
        labels,
    })
}

fn sizes(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
    dims.join("x")
}

/// Dimensions and values of a file; `accept` sees the dimensions before the values are read.
fn read(
    path: &Path,
    accept: impl FnOnce(&[usize]) -> Result<(), DatasetError>,
) -> Result<(Vec<usize>, Vec<u8>), DatasetError> {
    let io_error = |source| DatasetError::Io {
        path: path.into(),
        source,
    };
    check_sum(path)?;
    let file = File::open(path).map_err(io_error)?;
    let mut reader = BufReader::new(file);
    let mut magic = [0; 2];
    let got = fill(&mut reader, &mut magic).map_err(io_error)?;
    let start = Cursor::new(magic[..got].to_vec()).chain(reader);
    if magic == [0x1f, 0x8b] {
        parse(path, MultiGzDecoder::new(start), accept)
    } else {
        parse(path, start, accept)
    }
}

/// Reads until `buffer` is full or the data ends; returns the number of bytes.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

/// Dimensions and values of uncompressed IDX data.
fn parse(
    path: &Path,
    mut reader: impl Read,
    accept: impl FnOnce(&[usize]) -> Result<(), DatasetError>,
) -> Result<(Vec<usize>, Vec<u8>), DatasetError> {
    let at = |offset: usize, problem: String| DatasetError::Byte {
        path: path.into(),
        offset: offset as u64,
        problem,
    };
    let broken = |offset: usize| {
        move |error: io::Error| DatasetError::Byte {
            path: path.into(),
            offset: offset as u64,
            problem: format!("damaged or truncated gzip data: {error}"),
        }
    };
    let mut magic = [0; 4];
    let got = fill(&mut reader, &mut magic).map_err(broken(0))?;
    if got < 4 {
        return Err(at(got, "the file ends inside its magic number".into()));
    }
    let [0, 0, UNSIGNED_BYTE, count @ 1..=4] = magic else {
        return Err(at(
            0,
            format!(
                "magic number {:02x} {:02x} {:02x} {:02x}, expected 00 00 08 and 1 to 4 dimensions",
                magic[0], magic[1], magic[2], magic[3]
            ),
        ));
    };
    let mut dims = Vec::with_capacity(count.into());
    for i in 0..usize::from(count) {
        let mut word = [0; 4];
        let offset = 4 + 4 * i;
        if fill(&mut reader, &mut word).map_err(broken(offset))? < 4 {
            return Err(at(offset, "the file ends inside its header".into()));
        }
        dims.push(u32::from_be_bytes(word) as usize);
    }
    accept(&dims)?;
    let header = 4 + 4 * dims.len();
    let expected = dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    let Some(expected) = expected else {
        return Err(at(4, format!("dimensions {} overflow", sizes(&dims))));
    };
    let mut values = Vec::with_capacity(expected.min(RESERVE));
    let result = (&mut reader).take(expected as u64).read_to_end(&mut values);
    result.map_err(broken(header + values.len()))?;
    if values.len() < expected {
        return Err(at(
            header + values.len(),
            format!(
                "the file ends here, but the header says {} = {expected} values",
                sizes(&dims)
            ),
        ));
    }
    let more = fill(&mut reader, &mut [0]).map_err(broken(header + expected))?;
    if more > 0 {
        return Err(at(
            header + expected,
            format!("data after the {expected} values that the header says"),
        ));
    }
    Ok((dims, values))
}

/// Compares a file with the list beside it, if there is one and it names the file.
fn check_sum(path: &Path) -> Result<(), DatasetError> {
    let list = path.with_file_name(CHECKSUMS);
    let Ok(text) = fs::read_to_string(&list) else {
        return Ok(());
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let entry = text.lines().find_map(|line| {
        let (sum, file) = line.split_once(char::is_whitespace)?;
        (file.trim_start_matches([' ', '*']) == name).then(|| sum.to_ascii_lowercase())
    });
    let Some(expected) = entry else { return Ok(()) };
    let mut hasher = Sha256::new();
    let hashed = File::open(path).and_then(|mut file| {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match fill(&mut file, &mut buffer)? {
                0 => return Ok(()),
                n => hasher.update(&buffer[..n]),
            }
        }
    });
    hashed.map_err(|source| DatasetError::Io {
        path: path.into(),
        source,
    })?;
    let got = hex(&hasher.finalize());
    if got == expected {
        return Ok(());
    }
    Err(DatasetError::Checksum {
        path: path.into(),
        list,
        expected,
        got,
    })
}
