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
    recipe::{Data, Format, SplitMode},
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
    /// No images of this shape.
    fn none(shape: Shape) -> Self {
        Self {
            images: Images {
                shape,
                pixels: Vec::new(),
            },
            labels: Vec::new(),
        }
    }

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

/// Which images a format's reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Those of the test part, where the data has one of its own and it can be read alone; else all.
    Test,
}

/// What a format's reader gives: with a test part of its own, or all in one.
struct Loaded {
    /// Empty where only the test part was wanted and read.
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
    let loaded = read(data, &path, input, classes, Wanted::All)?;
    split::split(loaded, data, &path)
}

/// Reads the test part of the recipe's data, as [`load`] gives it, with the names of the classes. The training part is read only
/// where the test part is chosen from it.
///
/// # Errors
/// As [`load`], of what is read.
pub fn load_own_test(
    data: &Data,
    input: Shape,
    classes: usize,
    base: &Path,
) -> Result<(Labelled, Vec<String>), DatasetError> {
    let official = data.split.mode == SplitMode::Official;
    let wanted = if official { Wanted::Test } else { Wanted::All };
    let path = base.join(&data.path);
    let loaded = read(data, &path, input, classes, wanted)?;
    match loaded.test {
        Some(test) if official => non_empty(test, loaded.class_names, &path),
        _ => {
            let split = split::split(loaded, data, &path)?;
            Ok((split.test, split.class_names))
        }
    }
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
    let loaded = read(data, &path, input, classes, Wanted::Test)?;
    let test = loaded.test.unwrap_or(loaded.train);
    non_empty(test, loaded.class_names, &path)
}

fn non_empty(
    test: Labelled,
    class_names: Vec<String>,
    path: &Path,
) -> Result<(Labelled, Vec<String>), DatasetError> {
    if test.is_empty() {
        return Err(DatasetError::File {
            path: path.into(),
            problem: "there are no test images".into(),
        });
    }
    Ok((test, class_names))
}

fn read(
    data: &Data,
    path: &Path,
    input: Shape,
    classes: usize,
    wanted: Wanted,
) -> Result<Loaded, DatasetError> {
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
        Format::Idx => idx::load(path, input, classes, wanted),
        Format::Npz => npz::load(path, input, classes, wanted),
        Format::Csv => csv_table::load(path, &data.label_column, input, classes),
        Format::Folder => folder::load(path, input, classes, wanted),
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
