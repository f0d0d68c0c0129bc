//! Section `train`.

use serde::{Deserialize, Serialize};

use super::{Callbacks, OptimizerRecipe, ScheduleRecipe};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    pub epochs: usize,
    pub batch: usize,
    pub seed: u64,
    pub loss: LossRecipe,
    pub optimizer: OptimizerRecipe,
    pub schedule: ScheduleRecipe,
    /// Gradient clipping, before the update; at most one of the three.
    pub clip: Clip,
    /// Exponential moving average of the weights, used for validation, the final weights and the export. 0: off; else its momentum, e.g. 0.999.
    pub ema: f32,
    pub callbacks: Callbacks,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch: 64,
            seed: 1,
            loss: LossRecipe::default(),
            optimizer: OptimizerRecipe::default(),
            schedule: ScheduleRecipe::default(),
            clip: Clip::default(),
            ema: 0.0,
            callbacks: Callbacks::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LossRecipe {
    CategoricalCrossentropy {
        #[serde(default)]
        label_smoothing: f32,
    },
    /// As the categorical one without smoothing; the two clip differently behind sigmoid.
    SparseCategoricalCrossentropy,
    BinaryCrossentropy {
        #[serde(default)]
        label_smoothing: f32,
    },
    MeanSquaredError,
}
impl Default for LossRecipe {
    fn default() -> Self {
        Self::CategoricalCrossentropy {
            label_smoothing: 0.0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clip {
    pub norm: Option<f32>,
    pub global_norm: Option<f32>,
    pub value: Option<f32>,
}
