//! Errors of reading data.

use std::{io, path::PathBuf};

use crate::{architecture::Shape, error::Error};

/// Why the data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// No place in the file to name.
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    #[error("{}: none of these files is there: {wanted}", path.display())]
    Missing { path: PathBuf, wanted: String },
    #[error("{}: sha256 is {got}, expected {expected} as listed in {}", path.display(), list.display())]
    Checksum {
        path: PathBuf,
        list: PathBuf,
        expected: String,
        got: String,
    },
    /// `offset` counts uncompressed bytes.
    #[error("{}: byte {offset}: {problem}", path.display())]
    Byte {
        path: PathBuf,
        offset: u64,
        problem: String,
    },
    #[error("{}: image {index} (counted from 0): {problem}", path.display())]
    Image {
        path: PathBuf,
        index: usize,
        problem: String,
    },
    #[error("{}: row {row}, column {column}: {problem}", path.display())]
    Cell {
        path: PathBuf,
        row: u64,
        column: usize,
        problem: String,
    },
    #[error("{}: images of {got}, but network.input is {expected}", path.display())]
    Shape {
        path: PathBuf,
        got: String,
        expected: Shape,
    },
    #[error("{}: {labels} labels, but {} has {images} images", path.display(), images_path.display())]
    Counts {
        path: PathBuf,
        images_path: PathBuf,
        images: usize,
        labels: usize,
    },
    #[error("{}: {problem}", path.display())]
    Split { path: PathBuf, problem: String },
}

impl From<DatasetError> for Error {
    fn from(error: DatasetError) -> Self {
        Self::Failed(error.to_string())
    }
}
