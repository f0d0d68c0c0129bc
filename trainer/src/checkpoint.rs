//! The checkpoint of a run: everything that a training needs to continue as if it had never stopped, in one file.
//!
//! A safetensors file. Its metadata entry `isobit.training` is [`Progress`] as JSON; its tensors (f32) are
//!
//! - `weight/<name>`: the weights, moving statistics included;
//! - `slot/<slot>/<name>`: the optimizer's state, slots named as in Keras;
//! - `average/<name>`: with `train.ema`, the averaged weights;
//! - `kept/<name>`: with early stopping and `restore_best`, the best weights so far.
//!
//! No random generator is in it: all random numbers derive from seed, epoch and step (see [`crate::random`]).

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::{
    architecture::Architecture,
    callbacks::{EpochLog, rule},
    file::write_atomic,
    optimizer::OptimizerState,
    weights::{Array, Weights, WeightsError, safetensors},
};

/// File in the run folder.
pub const FILE: &str = "checkpoint.safetensors";

const METADATA: &str = "isobit.training";

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no checkpoint.
    #[error("{}: {problem}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What was found and expected.
        problem: String,
    },
    /// The tensors do not fit the network.
    #[error("{}: {source}", path.display())]
    Weights {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        source: WeightsError,
    },
}

/// Everything besides the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The resolved recipe, TOML.
    pub recipe: String,
    /// Of the run's data, as in data.json.
    pub data_sha256: String,
    /// Updates done.
    pub step: u64,
    /// Nadam: product of its momentum schedule so far; 1 otherwise.
    pub u_product: f32,
    /// Finished epochs.
    pub history: Vec<EpochLog>,
    /// The part of the running epoch that is done.
    pub running: Running,
    /// Early stopping, reduce-on-plateau, best so far.
    pub rules: rule::State,
    /// Learning rate set by reduce-on-plateau.
    pub learning_rate: Option<f32>,
    /// The training is over.
    pub finished: Option<Finished>,
}

/// The part of an epoch that is done, for its averages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// Updates.
    pub steps: usize,
    /// Images.
    pub samples: usize,
    /// Sum of the images' losses, penalties included.
    pub loss_sum: f64,
    /// Images that were classified correctly.
    pub correct: usize,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Time, seconds.
    pub seconds: f64,
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// The final weights are the kept ones.
    pub restore: bool,
    /// Early stopping's reason; none: after the last epoch.
    pub stopped: Option<String>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Everything besides the tensors.
    pub progress: Progress,
    /// All weights after [`Progress::step`] updates.
    pub weights: Weights,
    /// The optimizer's slots, as [`OptimizerState::slots`].
    pub slots: BTreeMap<(String, String), Vec<f32>>,
    /// Averaged trainable weights; none before the first update or without `train.ema`.
    pub average: Weights,
    /// Weights of early stopping's best epoch.
    pub kept: Option<Weights>,
}

impl Checkpoint {
    /// Before the first step.
    pub fn start(recipe: String, data_sha256: String, weights: Weights) -> Self {
        Self {
            progress: Progress {
                recipe,
                data_sha256,
                step: 0,
                u_product: 1.0,
                history: Vec::new(),
                running: Running::default(),
                rules: rule::State::default(),
                learning_rate: None,
                finished: None,
            },
            weights,
            slots: BTreeMap::new(),
            average: Weights::default(),
            kept: None,
        }
    }

    /// What the optimizer needs.
    pub fn optimizer(&self) -> OptimizerState {
        OptimizerState {
            step: self.progress.step,
            u_product: self.progress.u_product,
            slots: self.slots.clone(),
        }
    }

    /// The weights of a finished training: the kept ones where early stopping restores them, else the averaged ones, else
    /// the last ones.
    pub fn final_weights(&self) -> Weights {
        let restore = self.progress.finished.as_ref().is_some_and(|f| f.restore);
        if let (true, Some(kept)) = (restore, &self.kept) {
            return kept.clone();
        }
        let mut weights = self.weights.clone();
        weights.0.extend(self.average.0.clone());
        weights
    }

    /// Writes the file; a crash at any moment leaves the old or the new one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let format = |problem: String| CheckpointError::Format {
            path: path.into(),
            problem,
        };
        let json =
            serde_json::to_string(&self.progress).map_err(|error| format(error.to_string()))?;
        let kept = self.kept.iter().map(|kept| ("kept", kept));
        let weights = [("weight", &self.weights), ("average", &self.average)]
            .into_iter()
            .chain(kept)
            .flat_map(|(group, weights)| {
                weights.0.iter().map(move |(name, Array { shape, data })| {
                    (format!("{group}/{name}"), shape.clone(), data.as_slice())
                })
            });
        let slots = self.slots.iter().map(|((slot, weight), data)| {
            let name = format!("slot/{slot}/{weight}");
            (name, vec![data.len()], data.as_slice())
        });
        let metadata = HashMap::from([(METADATA.to_owned(), json)]);
        let file = safetensors(weights.chain(slots), Some(metadata))
            .map_err(|error| format(error.to_string()))?;
        write_atomic(path, &file).map_err(|source| CheckpointError::File {
            path: path.into(),
            source,
        })
    }

    /// Reads the file and checks its weights.
    ///
    /// # Errors
    /// A missing or damaged file, or one of another network.
    pub fn read(path: &Path, architecture: &Architecture) -> Result<Self, CheckpointError> {
        let bytes = read(path)?;
        let weights_error = |source| CheckpointError::Weights {
            path: path.into(),
            source,
        };
        let format = |problem: String| CheckpointError::Format {
            path: path.into(),
            problem,
        };
        let progress = progress(&bytes).map_err(format)?;
        let mut checkpoint = Self::start(String::new(), String::new(), Weights::default());
        checkpoint.progress = progress;
        let all = Weights::from_safetensors(&bytes).map_err(weights_error)?;
        for (name, array) in all.0 {
            match name.split_once('/') {
                Some(("weight", name)) => drop(checkpoint.weights.0.insert(name.into(), array)),
                Some(("average", name)) => drop(checkpoint.average.0.insert(name.into(), array)),
                Some(("kept", name)) => {
                    let kept = checkpoint.kept.get_or_insert_default();
                    kept.0.insert(name.into(), array);
                }
                Some(("slot", rest)) if rest.contains('/') => {
                    let (slot, weight) = rest.split_once('/').unwrap_or_default();
                    let key = (slot.into(), weight.into());
                    checkpoint.slots.insert(key, array.data);
                }
                _ => return Err(format(format!("unknown tensor `{name}`"))),
            }
        }
        checkpoint
            .weights
            .check(architecture)
            .map_err(weights_error)?;
        checkpoint
            .final_weights()
            .check(architecture)
            .map_err(weights_error)?;
        if let Some(kept) = &checkpoint.kept {
            kept.check(architecture).map_err(weights_error)?;
        }
        Ok(checkpoint)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    fs::read(path).map_err(|source| CheckpointError::File {
        path: path.into(),
        source,
    })
}

fn progress(bytes: &[u8]) -> Result<Progress, String> {
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| format!("not a safetensors file: {error}"))?;
    let json = header.metadata().as_ref().and_then(|all| all.get(METADATA));
    let Some(json) = json else {
        return Err(format!("no `{METADATA}` in it; expected a checkpoint"));
    };
    serde_json::from_str(json).map_err(|error| format!("`{METADATA}`: {error}"))
}

/// What a checkpoint says besides its tensors.
///
/// # Errors
/// A missing or damaged file.
pub fn read_progress(path: &Path) -> Result<Progress, CheckpointError> {
    progress(&read(path)?).map_err(|problem| CheckpointError::Format {
        path: path.into(),
        problem,
    })
}

#[cfg(test)]
mod tests;
