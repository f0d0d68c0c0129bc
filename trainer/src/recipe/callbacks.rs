//! Section `train.callbacks`.

use serde::{Deserialize, Serialize};

/// What happens around the steps. An absent table switches the callback off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Callbacks {
    pub early_stopping: Option<EarlyStopping>,
    pub reduce_on_plateau: Option<ReduceOnPlateau>,
    pub checkpoint: CheckpointRecipe,
    /// Dashed reference line in the curves at this accuracy (0..1).
    pub reference_accuracy: Option<f32>,
    /// Write TensorBoard event files to `tensorboard` in the run folder.
    pub tensorboard: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    #[serde(default)]
    pub monitor: Monitor,
    #[serde(default)]
    pub patience: usize,
    #[serde(default)]
    pub min_delta: f32,
    #[serde(default)]
    pub restore_best: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReduceOnPlateau {
    #[serde(default)]
    pub monitor: Monitor,
    #[serde(default = "p1")]
    pub factor: f32,
    #[serde(default = "ten")]
    pub patience: usize,
    #[serde(default = "end_lr")]
    pub min_delta: f32,
    #[serde(default)]
    pub cooldown: usize,
    #[serde(default)]
    pub min_lr: f32,
}

fn p1() -> f32 {
    0.1
}
fn end_lr() -> f32 {
    1e-4
}
fn ten() -> usize {
    10
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    Loss,
    Accuracy,
    #[default]
    ValLoss,
    ValAccuracy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRecipe {
    /// Every so many epochs.
    pub every_epochs: usize,
    /// Also every so many steps; 0: only at epoch ends.
    pub every_steps: u64,
    /// Keep `best.safetensors`, the best weights by `monitor`.
    pub best: bool,
    pub monitor: Monitor,
}
impl Default for CheckpointRecipe {
    fn default() -> Self {
        Self {
            every_epochs: 1,
            every_steps: 0,
            best: true,
            monitor: Monitor::ValAccuracy,
        }
    }
}
