//! Key `train.optimizer`.

use serde::{Deserialize, Serialize};

/// Keras's optimizers; every field has Keras's default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerRecipe {
    Sgd {
        #[serde(default = "lr_sgd")]
        learning_rate: f32,
        #[serde(default)]
        momentum: f32,
        #[serde(default)]
        nesterov: bool,
    },
    Rmsprop {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        rho: f32,
        #[serde(default)]
        momentum: f32,
        #[serde(default = "eps")]
        epsilon: f32,
        #[serde(default)]
        centered: bool,
    },
    Adam {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
        #[serde(default)]
        amsgrad: bool,
    },
    Nadam {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
    },
    Adamax {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
    },
    Adamw {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "wd")]
        weight_decay: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
        #[serde(default)]
        amsgrad: bool,
    },
    Adagrad {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p1")]
        initial_accumulator_value: f32,
        #[serde(default = "eps")]
        epsilon: f32,
    },
    Lion {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p99")]
        beta_2: f32,
    },
}
impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self::Rmsprop {
            learning_rate: 0.001,
            rho: 0.9,
            momentum: 0.0,
            epsilon: 1e-7,
            centered: false,
        }
    }
}

impl OptimizerRecipe {
    /// The learning rate, whichever the optimizer.
    pub fn learning_rate(&self) -> f32 {
        match *self {
            Self::Sgd { learning_rate, .. }
            | Self::Rmsprop { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::Nadam { learning_rate, .. }
            | Self::Adamax { learning_rate, .. }
            | Self::Adamw { learning_rate, .. }
            | Self::Adagrad { learning_rate, .. }
            | Self::Lion { learning_rate, .. } => learning_rate,
        }
    }
}

fn lr() -> f32 {
    0.001
}
fn lr_sgd() -> f32 {
    0.01
}
fn wd() -> f32 {
    0.004
}
fn p1() -> f32 {
    0.1
}
fn p9() -> f32 {
    0.9
}
fn p99() -> f32 {
    0.99
}
fn p999() -> f32 {
    0.999
}
fn eps() -> f32 {
    1e-7
}
