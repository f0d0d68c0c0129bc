//! The recipe: everything that a run needs besides the data itself. TOML; unknown keys are errors.
//! Names and defaults are Keras's.

use serde::{Deserialize, Serialize};

mod callbacks;
mod check;
mod data;
mod difference;
mod file;
mod network;
mod optimizer;
mod quantize;
mod schedule;
#[cfg(test)]
mod tests;
mod train;

pub use callbacks::{Callbacks, CheckpointRecipe, EarlyStopping, Monitor, ReduceOnPlateau};
pub use data::{Augment, Data, Format, LabelColumn, PreprocessMode, Split, SplitMode, Statistics};
pub use difference::Difference;
pub use file::{RecipeError, default_path};
pub use network::{LayerRecipe, Network};
pub use optimizer::OptimizerRecipe;
pub use quantize::{CalibrationMethod, Export, Quantize, Winograd};
pub use schedule::ScheduleRecipe;
pub use train::{Clip, LossRecipe, Train};

/// A whole recipe file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run; default folder `runs/<name>`.
    pub name: String,
    pub data: Data,
    pub network: Network,
    #[serde(default)]
    pub train: Train,
    #[serde(default)]
    pub quantize: Quantize,
    #[serde(default)]
    pub export: Export,
}
