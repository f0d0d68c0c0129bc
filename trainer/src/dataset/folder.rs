//! One sub-folder per class with PNG, JPEG or BMP files; or `train/` and `test/` with such sub-folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use image::{DynamicImage, ImageError, ImageReader, Limits, imageops::FilterType};
use rayon::prelude::*;

use super::{DatasetError, Images, Labelled, Loaded, Wanted};
use crate::architecture::Shape;

/// Largest width and height of a file that is decoded.
const LARGEST_SIDE: u32 = 16_384;
/// Memory for the pixels of one file, bytes: a photo of 89 million RGB pixels.
const MOST_MEMORY: u64 = 256 << 20;

/// Reads a folder, or its test part; class names are the names of the sub-folders (of the training part) in order.
pub(super) fn load(
    folder: &Path,
    input: Shape,
    classes: usize,
    wanted: Wanted,
) -> Result<Loaded, DatasetError> {
    let (train, test) = (folder.join("train"), folder.join("test"));
    let official = train.is_dir() && test.is_dir();
    let train = if official { train } else { folder.into() };
    let names = class_names(&train)?;
    if names.is_empty() {
        return Err(DatasetError::File {
            path: train,
            problem: format!(
                "no sub-folders; expected one for each of the {classes} classes, or `train` and `test` with them"
            ),
        });
    }
    if names.len() != classes {
        return Err(DatasetError::File {
            path: train,
            problem: format!(
                "{} sub-folders ({}), but the network has {classes} classes",
                names.len(),
                names.join(", ")
            ),
        });
    }
    let test = if official {
        if let Some(other) = class_names(&test)?
            .iter()
            .find(|name| !names.contains(name))
        {
            return Err(DatasetError::File {
                path: test.join(other),
                problem: "there is no such class in the training part".into(),
            });
        }
        Some(read_classes(&test, &names, input)?)
    } else {
        None
    };
    Ok(Loaded {
        train: match wanted {
            Wanted::Test if official => Labelled::none(input),
            _ => read_classes(&train, &names, input)?,
        },
        test,
        class_names: names,
    })
}

/// Entries of a folder by name; hidden ones are left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let error = |source| DatasetError::Io {
        path: folder.into(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn class_names(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let names = folders.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    Ok(names.collect())
}

fn read_classes(folder: &Path, names: &[String], input: Shape) -> Result<Labelled, DatasetError> {
    let mut paths = Vec::new();
    let mut labels = Vec::new();
    for (label, name) in (0..).zip(names) {
        let class = folder.join(name);
        let files = entries(&class)?;
        if files.is_empty() {
            return Err(DatasetError::File {
                path: class,
                problem: "no images of this class".into(),
            });
        }
        labels.resize(labels.len() + files.len(), label);
        paths.extend(files);
    }
    let mut pixels = zeros(folder, paths.len(), input)?;
    let failed = pixels
        .par_chunks_exact_mut(input.len())
        .zip(&paths)
        .map(|(out, path)| read_image(path, input).map(|image| out.copy_from_slice(&image)))
        .find_first(Result::is_err);
    if let Some(Err(error)) = failed {
        return Err(error);
    }
    let images = Images {
        shape: input,
        pixels,
    };
    Ok(Labelled { images, labels })
}

/// Memory for the pixels of so many images.
fn zeros(folder: &Path, images: usize, input: Shape) -> Result<Vec<u8>, DatasetError> {
    let mut pixels = Vec::new();
    let len = images.saturating_mul(input.len());
    if pixels.try_reserve_exact(len).is_err() {
        return Err(DatasetError::File {
            path: folder.into(),
            problem: format!("there is not enough memory for {images} images of {input}"),
        });
    }
    pixels.resize(len, 0);
    Ok(pixels)
}

/// One PNG, JPEG or BMP file, converted to grey (1 channel) or RGB (3 channels) and resized (bilinear) to `shape`.
///
/// # Errors
/// [`DatasetError`] for an unreadable file, or a shape of other than 1 or 3 channels.
pub fn read_image(path: &Path, shape: Shape) -> Result<Vec<u8>, DatasetError> {
    let failed = |problem: String| DatasetError::File {
        path: path.into(),
        problem,
    };
    if shape.h > LARGEST_SIDE as usize || shape.w > LARGEST_SIDE as usize {
        return Err(failed(format!(
            "network.input is {shape}, but image files have at most {LARGEST_SIDE} rows and columns"
        )));
    }
    let open = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let mut reader = open.map_err(|source| DatasetError::Io {
        path: path.into(),
        source,
    })?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| match error {
        ImageError::Unsupported(_) => failed("not a PNG, JPEG or BMP image".into()),
        error => failed(format!("not a readable PNG, JPEG or BMP image: {error}")),
    })?;
    let (w, h) = (shape.w as u32, shape.h as u32);
    let image = match shape.c {
        1 => DynamicImage::ImageLuma8(image.into_luma8()),
        3 => DynamicImage::ImageRgb8(image.into_rgb8()),
        c => {
            return Err(failed(format!(
                "network.input has {c} channels, expected 1 (grey) or 3 (RGB) for image files"
            )));
        }
    };
    if (image.width(), image.height()) == (w, h) {
        return Ok(image.into_bytes());
    }
    Ok(image.resize_exact(w, h, FilterType::Triangle).into_bytes())
}
