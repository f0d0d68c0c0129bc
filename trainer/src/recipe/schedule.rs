//! Key `train.schedule`.

use serde::{Deserialize, Serialize};

/// Learning rate as a function of the step (0 before the first update). The optimizer's `learning_rate` is Keras's
/// `initial_learning_rate`. Steps are updates, not epochs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleRecipe {
    #[default]
    Constant,
    InverseTime {
        #[serde(default = "one_f")]
        decay_steps: f32,
        decay_rate: f32,
        #[serde(default)]
        staircase: bool,
    },
    Exponential {
        #[serde(default = "one_f")]
        decay_steps: f32,
        decay_rate: f32,
        #[serde(default)]
        staircase: bool,
    },
    /// `step <= boundaries[i]` keeps `values[i]`; one value more than boundaries; the optimizer's rate is not used.
    Piecewise {
        boundaries: Vec<u64>,
        values: Vec<f32>,
    },
    Polynomial {
        decay_steps: f32,
        #[serde(default = "end_lr")]
        end_learning_rate: f32,
        #[serde(default = "one_f")]
        power: f32,
        #[serde(default)]
        cycle: bool,
    },
    /// With `warmup_target`: linear from the optimizer's rate to it in `warmup_steps`, then cosine. `decay_steps` defaults to the rest of the run.
    Cosine {
        #[serde(default)]
        decay_steps: Option<u64>,
        #[serde(default)]
        alpha: f32,
        #[serde(default)]
        warmup_target: Option<f32>,
        #[serde(default)]
        warmup_steps: u64,
    },
    CosineRestarts {
        first_decay_steps: u64,
        #[serde(default = "two_f")]
        t_mul: f32,
        #[serde(default = "one_f")]
        m_mul: f32,
        #[serde(default)]
        alpha: f32,
    },
    /// PyTorch's OneCycleLR (cosine): from `max / div_factor` up to `max` (the optimizer's rate) in `pct_start` of the run, down to `max / div_factor / final_div_factor`.
    OneCycle {
        #[serde(default = "pct")]
        pct_start: f32,
        #[serde(default = "div")]
        div_factor: f32,
        #[serde(default = "final_div")]
        final_div_factor: f32,
        #[serde(default)]
        total_steps: Option<u64>,
    },
}

fn one_f() -> f32 {
    1.0
}
fn two_f() -> f32 {
    2.0
}
fn end_lr() -> f32 {
    1e-4
}
fn pct() -> f32 {
    0.3
}
fn div() -> f32 {
    25.0
}
fn final_div() -> f32 {
    1e4
}
