//! A run folder: what `trainer fit` writes and what the other commands start from.
//!
//! `recipe.toml` is the resolved recipe, `data.json` a [`DataRecord`], `weights.safetensors` the trained weights.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use verifier::compare::hex;

use crate::{
    architecture::{Architecture, ArchitectureError},
    dataset::{self, Dataset, DatasetError, Labelled},
    error::Error,
    file::write_atomic,
    preprocess::Preprocess,
    recipe::{Recipe, RecipeError},
    weights::{Weights, WeightsError},
};

mod lock;

pub use lock::Lock;

/// The resolved recipe; `data.path` is relative to the run folder, see [`store_recipe`].
pub const RECIPE: &str = "recipe.toml";
/// What the run took from its data.
pub const DATA: &str = "data.json";
/// Before the first step.
pub const INITIAL_WEIGHTS: &str = "initial.safetensors";
/// After the training.
pub const WEIGHTS: &str = "weights.safetensors";
/// After quantization-aware fine-tuning, batch norms folded.
pub const QAT_WEIGHTS: &str = "qat.safetensors";
/// The float network.
pub const FLOAT_MODEL: &str = "model.onnx";
/// The integer network for ONNX engines.
pub const INT8_MODEL: &str = "model.int8.onnx";
/// The integer network for the runtime.
pub const FIXED_MODEL: &str = "model.fxp";

/// Why a run folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Not a run folder.
    #[error("{}: no {missing} there; expected a run folder, written by `trainer fit`", dir.display())]
    NoRun {
        /// The folder.
        dir: PathBuf,
        /// The file.
        missing: &'static str,
    },
    /// The recipe in the folder is not valid.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The recipe in the folder describes no network.
    #[error("{}: {source}", path.display())]
    Architecture {
        /// The recipe.
        path: PathBuf,
        /// Which layer does not fit.
        source: ArchitectureError,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The training has not come to its end.
    #[error(
        "{}: the file is missing, because the training has not finished, or not its fine-tuning (`trainer quantize`)",
        path.display()
    )]
    Unfinished {
        /// The weights.
        path: PathBuf,
    },
    /// data.json is damaged or does not belong to the recipe.
    #[error("{}: {problem}", path.display())]
    Data {
        /// data.json.
        path: PathBuf,
        /// What was found and expected.
        problem: String,
    },
    /// The weights are damaged or do not belong to the recipe.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The weights.
        path: PathBuf,
        /// Which tensor.
        source: WeightsError,
    },
    /// Another process writes there.
    #[error("{}: another `trainer` is writing in this folder", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// A path that TOML cannot hold.
    #[error("{}: the path is not valid UTF-8, so that the recipe cannot hold it", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The run's data cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Other classes than those that the network was trained for.
    #[error("{}: the classes are {got}, the network was trained for {expected}", path.display())]
    Classes {
        /// The data.
        path: PathBuf,
        /// Names in order.
        got: String,
        /// Names in order.
        expected: String,
    },
    /// The images or labels are not the ones that the network was trained on.
    #[error(
        "{}: the images and labels have the sha256 {got}, the run was trained on {expected}",
        path.display()
    )]
    OtherData {
        /// The data.
        path: PathBuf,
        /// Of the data there.
        got: String,
        /// In data.json.
        expected: String,
    },
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NoRun { .. } | RunError::Recipe(_) | RunError::Architecture { .. } => {
                Self::Usage(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// What a run took from its data: everything besides the weights that a prediction needs, and a fingerprint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// sha256 over the parts for training, validation and test: number of images (u64), pixels, labels (u32), all
    /// little-endian; hexadecimal.
    pub sha256: String,
    /// Images trained on.
    pub train: usize,
    /// Images held out for validation.
    pub validation: usize,
    /// Test images.
    pub test: usize,
    /// In the order of the logits.
    pub class_names: Vec<String>,
    /// With the numbers from the data.
    pub preprocess: Preprocess,
}

impl DataRecord {
    /// The record of this data.
    pub fn new(data: &Dataset, preprocess: Preprocess) -> Self {
        Self {
            sha256: data_sha256(data),
            train: data.train.len(),
            validation: data.validation.as_ref().map_or(0, |part| part.len()),
            test: data.test.len(),
            class_names: data.class_names.clone(),
            preprocess,
        }
    }

    /// What does not fit the network.
    fn check(&self, architecture: &Architecture) -> Result<(), String> {
        let classes = architecture.classes();
        if self.class_names.len() != classes {
            let got = self.class_names.len();
            return Err(format!(
                "{got} class names, but the network has {classes} classes"
            ));
        }
        let (mean, std) = match &self.preprocess {
            Preprocess::None | Preprocess::Unit => return Ok(()),
            Preprocess::Global { mean, std } => {
                (std::slice::from_ref(mean), std::slice::from_ref(std))
            }
            Preprocess::PerPixel { mean, std } => (mean.as_slice(), std.as_slice()),
        };
        let per_pixel = matches!(self.preprocess, Preprocess::PerPixel { .. });
        let expected = if per_pixel {
            architecture.input.len()
        } else {
            1
        };
        if mean.len() != expected || std.len() != expected {
            return Err(format!(
                "preprocess: {} means and {} deviations, expected {expected} for an image of {}",
                mean.len(),
                std.len(),
                architecture.input
            ));
        }
        let bad_mean = mean.iter().find(|mean| !mean.is_finite());
        let bad_std = std.iter().find(|std| !std.is_finite() || **std <= 0.0);
        match (bad_mean, bad_std) {
            (None, None) => Ok(()),
            (Some(mean), _) => Err(format!("preprocess: the mean {mean} is not finite")),
            (_, Some(std)) => Err(format!("preprocess: the deviation {std} is not positive")),
        }
    }
}

fn data_sha256(data: &Dataset) -> String {
    let mut hash = Sha256::new();
    for part in [
        Some(&data.train),
        data.validation.as_ref(),
        Some(&data.test),
    ] {
        let Some(part) = part else {
            hash.update(0u64.to_le_bytes());
            continue;
        };
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(&part.images.pixels);
        let labels: Vec<u8> = part.labels.iter().flat_map(|l| l.to_le_bytes()).collect();
        hash.update(labels);
    }
    hex(&hash.finalize())
}

/// A finished training.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The folder.
    pub dir: PathBuf,
    /// As in the folder.
    pub recipe: Recipe,
    /// The recipe's network.
    pub architecture: Architecture,
    /// What the training took from its data.
    pub data: DataRecord,
    /// The final weights.
    pub weights: Weights,
}

impl Run {
    /// Reads a run folder and checks that its files belong together.
    ///
    /// # Errors
    /// A missing or damaged file, or weights or data.json that do not fit the recipe's network.
    pub fn open(dir: &Path) -> Result<Self, RunError> {
        Self::open_with(dir, &[])
    }

    /// The same with changes of the recipe, as [`Recipe::load`] takes them; they are not written.
    ///
    /// # Errors
    /// As [`Run::open`], and a wrong change.
    pub fn open_with(dir: &Path, sets: &[String]) -> Result<Self, RunError> {
        let path = dir.join(RECIPE);
        if let Some(missing) = [RECIPE, DATA]
            .into_iter()
            .find(|name| !dir.join(name).is_file())
        {
            return Err(RunError::NoRun {
                dir: dir.into(),
                missing,
            });
        }
        let recipe = Recipe::load(&path, sets)?;
        let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)
            .map_err(|source| RunError::Architecture { path, source })?;
        let data = read_data_record(&dir.join(DATA), &architecture)?;
        let weights = read_weights(&dir.join(WEIGHTS), &architecture)?;
        Ok(Self {
            dir: dir.into(),
            recipe,
            architecture,
            data,
            weights,
        })
    }

    /// The test images: those of the run's data, or of `other` data in the same format (a path relative to the current
    /// folder; all of its images if it has no test part of its own). Training images are read only if the test part is chosen from
    /// them, and of CSV files, whose training rows name the classes.
    ///
    /// # Errors
    /// Data that cannot be read, or with other classes than the network's.
    pub fn load_test(&self, other: Option<&Path>) -> Result<Labelled, RunError> {
        let (input, classes) = (self.architecture.input, self.architecture.classes());
        let mut wanted = self.recipe.data.clone();
        let Some(path) = other else {
            let (test, names) = dataset::load_own_test(&wanted, input, classes, &self.dir)?;
            self.check_classes(&self.dir.join(&wanted.path), &names)?;
            return Ok(test);
        };
        wanted.path = path.into();
        let (test, names) = dataset::load_test(&wanted, input, classes, Path::new(""))?;
        self.check_classes(path, &names)?;
        Ok(test)
    }

    fn load_data(&self) -> Result<Dataset, RunError> {
        let (input, classes) = (self.architecture.input, self.architecture.classes());
        let data = dataset::load(&self.recipe.data, input, classes, &self.dir)?;
        self.check_classes(&self.dir.join(&self.recipe.data.path), &data.class_names)?;
        Ok(data)
    }

    fn check_classes(&self, path: &Path, names: &[String]) -> Result<(), RunError> {
        if names == self.data.class_names {
            return Ok(());
        }
        Err(RunError::Classes {
            path: path.into(),
            got: names.join(", "),
            expected: self.data.class_names.join(", "),
        })
    }

    /// Reads the data that the run was trained on.
    ///
    /// # Errors
    /// As [`Run::load_test`], and data that has changed since.
    pub fn load_own_data(&self) -> Result<Dataset, RunError> {
        let data = self.load_data()?;
        let got = data_sha256(&data);
        if got == self.data.sha256 {
            return Ok(data);
        }
        Err(RunError::OtherData {
            path: self.dir.join(&self.recipe.data.path),
            got,
            expected: self.data.sha256.clone(),
        })
    }
}

/// Reads a safetensors file that has exactly the network's weights.
///
/// # Errors
/// A missing or damaged file; a tensor too many, too few, or of another shape.
pub fn read_weights(path: &Path, architecture: &Architecture) -> Result<Weights, RunError> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => RunError::Unfinished { path: path.into() },
        _ => RunError::File {
            path: path.into(),
            source,
        },
    })?;
    let read = || {
        let weights = Weights::from_safetensors(&bytes)?;
        weights.check(architecture)?;
        Ok(weights)
    };
    read().map_err(|source| RunError::Weights {
        path: path.into(),
        source,
    })
}

/// Writes a safetensors file.
///
/// # Errors
/// The file cannot be written.
pub fn write_weights(path: &Path, weights: &Weights) -> Result<(), RunError> {
    let bytes = weights
        .to_safetensors()
        .map_err(|source| RunError::Weights {
            path: path.into(),
            source,
        })?;
    write(path, &bytes)
}

/// Reads a model file of a run folder; the folder needs nothing else.
///
/// # Errors
/// Exit code 2 if it cannot be read.
pub fn read_model(dir: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let path = dir.join(name);
    fs::read(&path).map_err(|error| {
        Error::Usage(format!(
            "{}: {error}; expected a run folder, written by `trainer fit` or `trainer export`",
            path.display()
        ))
    })
}

/// Removes a file of the run folder, if it is there.
///
/// # Errors
/// The file cannot be removed.
pub fn remove(path: &Path) -> Result<(), RunError> {
    absent(path, fs::remove_file(path))
}

/// Removes a folder in the run folder with all its files, if it is there.
///
/// # Errors
/// It cannot be removed.
pub fn remove_folder(path: &Path) -> Result<(), RunError> {
    absent(path, fs::remove_dir_all(path))
}

fn absent(path: &Path, removed: io::Result<()>) -> Result<(), RunError> {
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RunError::File {
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}

fn read_data_record(path: &Path, architecture: &Architecture) -> Result<DataRecord, RunError> {
    let failed = |problem: String| RunError::Data {
        path: path.into(),
        problem,
    };
    let text = fs::read_to_string(path).map_err(|source| RunError::File {
        path: path.into(),
        source,
    })?;
    let record: DataRecord =
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    record.check(architecture).map_err(failed)?;
    Ok(record)
}

/// Writes data.json.
///
/// # Errors
/// The file cannot be written.
pub fn store_data_record(dir: &Path, record: &DataRecord) -> Result<(), RunError> {
    let path = dir.join(DATA);
    let mut text = serde_json::to_string_pretty(record).map_err(|error| RunError::Data {
        path: path.clone(),
        problem: error.to_string(),
    })?;
    text.push('\n');
    write(&path, text.as_bytes())
}

/// Writes recipe.toml into the run folder and returns the recipe as it is written there. `data.path`, relative to `base` until
/// now, becomes relative to the run folder, with `/` between the parts, so that both may be moved or committed together; it
/// becomes absolute where the data and the run folder have nothing but the root in common.
///
/// # Errors
/// The data does not exist, its path cannot be written as TOML, or the file cannot be written.
pub fn store_recipe(dir: &Path, recipe: &Recipe, base: &Path) -> Result<Recipe, RunError> {
    let real = |path: &Path| {
        path.canonicalize().map_err(|source| RunError::File {
            path: path.into(),
            source,
        })
    };
    let data = real(&base.join(&recipe.data.path))?;
    let path = relative(&real(dir)?, &data).unwrap_or(data);
    if path.to_str().is_none() {
        return Err(RunError::Path { path });
    }
    let mut stored = recipe.clone();
    stored.data.path = path;
    write(&dir.join(RECIPE), stored.to_toml().as_bytes())?;
    Ok(stored)
}

/// The way from `folder` to `path`, both absolute; `None` if it leads over the root.
fn relative(folder: &Path, path: &Path) -> Option<PathBuf> {
    let common = folder
        .components()
        .zip(path.components())
        .take_while(|(a, b)| a == b)
        .count();
    let shared = path.components().take(common);
    if !shared
        .into_iter()
        .any(|c| matches!(c, Component::Normal(_)))
    {
        return None;
    }
    let up = folder.components().skip(common).map(|_| "..");
    let down = path.components().skip(common);
    let down = down.map(|part| part.as_os_str().to_str());
    let parts: Option<Vec<&str>> = up.map(Some).chain(down).collect();
    let parts = parts?;
    Some(if parts.is_empty() {
        ".".into()
    } else {
        parts.join("/").into()
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    write_atomic(path, bytes).map_err(|source| RunError::File {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests;
