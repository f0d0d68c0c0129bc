//! Images and labels from files. Pixels stay `u8` until they become a batch.

mod csv_table;
mod error;
mod folder;
mod idx;
mod npz;
mod split;
#[cfg(test)]
mod tests;

use std::{fs, path::Path};

pub use error::DatasetError;
pub use folder::read_image;

use crate::{
    architecture::Shape,
    recipe::{Data, Format},
};

/// Images of one shape, one after another, NHWC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Rows, columns and channels of each image.
    pub shape: Shape,
    /// `n * h * w * c` raw values, 0 to 255.
    pub pixels: Vec<u8>,
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.shape.len()
    }

    /// True without images.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The `h * w * c` pixels of image `i`.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn get(&self, i: usize) -> &[u8] {
        &self.pixels[i * self.shape.len()..][..self.shape.len()]
    }
}

/// Images with a class number each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    pub images: Images,
    /// Class of each image, below the number of classes.
    pub labels: Vec<u32>,
}

impl Labelled {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True without images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A copy of the images with these positions, in this order.
    pub fn select(&self, positions: &[u32]) -> Self {
        let mut pixels = Vec::with_capacity(positions.len() * self.images.shape.len());
        for &i in positions {
            pixels.extend_from_slice(self.images.get(i as usize));
        }
        Self {
            images: Images {
                shape: self.images.shape,
                pixels,
            },
            labels: positions.iter().map(|&i| self.labels[i as usize]).collect(),
        }
    }
}

/// Everything that a run trains and tests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    pub train: Labelled,
    /// Held out of the training part, if the recipe asks for it.
    pub validation: Option<Labelled>,
    pub test: Labelled,
    /// One name per class; the number where the format knows no names.
    pub class_names: Vec<String>,
}

/// What a format's reader gives: with a test part of its own, or all in one.
struct Loaded {
    train: Labelled,
    test: Option<Labelled>,
    class_names: Vec<String>,
}

/// Reads, checks and splits the recipe's data. `base` is the folder that `data.path` is relative to.
///
/// # Errors
/// [`DatasetError`] names the file and the place in it.
pub fn load(
    data: &Data,
    input: Shape,
    classes: usize,
    base: &Path,
) -> Result<Dataset, DatasetError> {
    let path = base.join(&data.path);
    let loaded = read(data, &path, input, classes)?;
    split::split(loaded, data, &path)
}

/// Reads images that a trained network is tested on: the test part that the data has of its own, or else all images.
/// `data.split`, `data.validation` and `data.limit` play no role. `base` is as in [`load`].
///
/// # Errors
/// As [`load`].
pub fn load_test(
    data: &Data,
    input: Shape,
    classes: usize,
    base: &Path,
) -> Result<(Labelled, Vec<String>), DatasetError> {
    let path = base.join(&data.path);
    let loaded = read(data, &path, input, classes)?;
    let test = loaded.test.unwrap_or(loaded.train);
    if test.is_empty() {
        return Err(DatasetError::File {
            path,
            problem: "there are no test images".into(),
        });
    }
    Ok((test, loaded.class_names))
}

fn read(data: &Data, path: &Path, input: Shape, classes: usize) -> Result<Loaded, DatasetError> {
    let found = fs::metadata(path).map_err(|source| DatasetError::Io {
        path: path.into(),
        source,
    })?;
    let wrong = |problem: &str| DatasetError::File {
        path: path.into(),
        problem: problem.into(),
    };
    match data.format {
        Format::Idx | Format::Folder if !found.is_dir() => {
            return Err(wrong("not a folder, but data.format needs one"));
        }
        Format::Npz if found.is_dir() => return Err(wrong("a folder, expected a file")),
        _ => {}
    }
    match data.format {
        Format::Idx => idx::load(path, input, classes),
        Format::Npz => npz::load(path, input, classes),
        Format::Csv => csv_table::load(path, &data.label_column, input, classes),
        Format::Folder => folder::load(path, input, classes),
    }
}

fn numbered(classes: usize) -> Vec<String> {
    (0..classes).map(|i| i.to_string()).collect()
}

/// Class numbers as `u32`, all below `classes`.
fn check_labels(
    path: &Path,
    what: &str,
    labels: Vec<i64>,
    classes: usize,
) -> Result<Vec<u32>, DatasetError> {
    let convert = |(index, label): (usize, i64)| match u32::try_from(label) {
        Ok(class) if (class as usize) < classes => Ok(class),
        _ => Err(DatasetError::Image {
            path: path.into(),
            index,
            problem: format!(
                "{what}: label {label}, but the network has {classes} classes: expected 0 to {}",
                classes - 1
            ),
        }),
    };
    labels.into_iter().enumerate().map(convert).collect()
}
