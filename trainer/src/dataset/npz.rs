//! NumPy archives with the arrays of Keras's mnist.npz: `x_train`, `y_train`, `x_test`, `y_test`.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, ErrorKind, Read},
    path::Path,
};

use npyz::{Deserialize, NpyFile, NpyHeader, Order};
use zip::{ZipArchive, result::ZipError};

use super::{DatasetError, Images, Labelled, Loaded, Wanted, check_labels, numbered};
use crate::architecture::Shape;

/// Longest header that is read; NumPy writes 118 bytes for an array of numbers.
const LONGEST_HEADER: usize = 1024;
/// First bytes of an array.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads the four arrays, or the two of the test part.
pub(super) fn load(
    path: &Path,
    input: Shape,
    classes: usize,
    wanted: Wanted,
) -> Result<Loaded, DatasetError> {
    let file = File::open(path).map_err(|source| DatasetError::Io {
        path: path.into(),
        source,
    })?;
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|error| DatasetError::File {
            path: path.into(),
            problem: format!("not a NumPy archive: {error}"),
        })?;
    let mut part = |part: &str| -> Result<Labelled, DatasetError> {
        let (x, y) = (format!("x_{part}"), format!("y_{part}"));
        let pixels = images(path, &mut archive, &x, input)?;
        let labels = labels(path, &mut archive, &y)?;
        let count = pixels.len() / input.len();
        if labels.len() != count {
            return Err(array_error(
                path,
                &y,
                format!("{} labels, but {x} has {count} images", labels.len()),
            ));
        }
        let labels = check_labels(path, &y, labels, classes)?;
        let images = Images {
            shape: input,
            pixels,
        };
        Ok(Labelled { images, labels })
    };
    Ok(Loaded {
        train: match wanted {
            Wanted::All => part("train")?,
            Wanted::Test => Labelled::none(input),
        },
        test: Some(part("test")?),
        class_names: numbered(classes),
    })
}

fn array_error(path: &Path, array: &str, problem: String) -> DatasetError {
    DatasetError::File {
        path: path.into(),
        problem: format!("array {array}: {problem}"),
    }
}

fn open<'a>(
    path: &Path,
    archive: &'a mut ZipArchive<BufReader<File>>,
    name: &str,
) -> Result<NpyFile<impl Read + 'a>, DatasetError> {
    let error = |problem| array_error(path, name, problem);
    let mut entry = archive
        .by_name(&format!("{name}.npy"))
        .map_err(|e| match e {
            ZipError::FileNotFound => {
                error("it is missing; expected x_train, y_train, x_test and y_test".into())
            }
            e => error(e.to_string()),
        })?;
    // The header's length is checked here, so that a damaged one reserves no memory.
    let mut start = [0; 12];
    let broken = |e: io::Error| match e.kind() {
        ErrorKind::UnexpectedEof => error("it ends inside its header".into()),
        _ => error(e.to_string()),
    };
    entry.read_exact(&mut start).map_err(broken)?;
    if !start.starts_with(MAGIC) {
        return Err(error("not a NumPy array".into()));
    }
    let length = match start[6] {
        1 => usize::from(u16::from_le_bytes([start[8], start[9]])),
        _ => u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize,
    };
    if length > LONGEST_HEADER {
        return Err(error(format!(
            "header of {length} bytes, expected at most {LONGEST_HEADER}"
        )));
    }
    let mut reader = Cursor::new(start).chain(entry);
    let header = NpyHeader::from_reader(&mut reader).map_err(broken)?;
    let sizes = header.shape().iter();
    let values = sizes.fold(1, |product: u64, &n| product.saturating_mul(n));
    if values != header.len() {
        return Err(error(format!(
            "its shape {:?} has more than 2^64 values",
            header.shape()
        )));
    }
    Ok(NpyFile::with_header(header, reader))
}

fn images(
    path: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    input: Shape,
) -> Result<Vec<u8>, DatasetError> {
    let npy = open(path, archive, name)?;
    let shape = npy.shape().to_vec();
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let got = match shape[..] {
        [_, h, w] => Some((size(h), size(w), 1)),
        [_, h, w, c] => Some((size(h), size(w), size(c))),
        _ => None,
    };
    if got != Some((input.h, input.w, input.c)) {
        return Err(DatasetError::Shape {
            path: path.into(),
            got: format!("shape {shape:?} in {name}"),
            expected: input,
        });
    }
    if npy.order() != Order::C {
        return Err(array_error(
            path,
            name,
            "Fortran order, expected C order".into(),
        ));
    }
    let dtype = npy.dtype().descr();
    let reader = npy
        .try_data::<u8>()
        .map_err(|_| array_error(path, name, format!("type {dtype}, expected unsigned bytes")))?;
    values(path, name, reader)
}

fn labels(
    path: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
) -> Result<Vec<i64>, DatasetError> {
    let npy = open(path, archive, name)?;
    if !matches!(npy.shape(), [_] | [_, 1]) {
        let problem = format!("shape {:?}, expected one label per image", npy.shape());
        return Err(array_error(path, name, problem));
    }
    fn widen<T: Into<i64>>(values: Vec<T>) -> Vec<i64> {
        values.into_iter().map(Into::into).collect()
    }
    let npy = match npy.try_data::<u8>() {
        Ok(reader) => return values(path, name, reader).map(widen),
        Err(npy) => npy,
    };
    let npy = match npy.try_data::<i32>() {
        Ok(reader) => return values(path, name, reader).map(widen),
        Err(npy) => npy,
    };
    match npy.try_data::<i64>() {
        Ok(reader) => values(path, name, reader),
        Err(npy) => {
            let problem = format!("type {}, expected u1, i4 or i8", npy.dtype().descr());
            Err(array_error(path, name, problem))
        }
    }
}

/// All values; memory grows with the data that is there, not with what the header says.
fn values<T: Deserialize, R: Read>(
    path: &Path,
    name: &str,
    reader: npyz::NpyReader<T, R>,
) -> Result<Vec<T>, DatasetError> {
    let mut values = Vec::new();
    let expected = reader.total_len();
    for value in reader {
        let value = value.map_err(|error| {
            let read = values.len();
            let problem = match error.kind() {
                ErrorKind::UnexpectedEof => {
                    format!("it ends after {read} values, but its header says {expected}")
                }
                _ => format!("value {read}: {error}"),
            };
            array_error(path, name, problem)
        })?;
        values.push(value);
    }
    Ok(values)
}
