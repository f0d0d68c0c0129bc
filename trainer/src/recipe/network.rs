//! Section `network`: the layers in order.

use serde::{Deserialize, Serialize};

use crate::architecture::{Activation, Initializer, Padding, Shape};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub input: Shape,
    pub layers: Vec<LayerRecipe>,
}

/// One layer of the recipe. `name` defaults to the kind and a number (`conv1`); `input` names the layer it reads (default: the one before).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerRecipe {
    Conv {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        filters: usize,
        #[serde(default = "three")]
        kernel: [usize; 2],
        #[serde(default = "one")]
        stride: [usize; 2],
        #[serde(default)]
        padding: Padding,
        #[serde(default = "single")]
        groups: usize,
        #[serde(default = "yes")]
        use_bias: bool,
        #[serde(default)]
        activation: Activation,
        #[serde(default)]
        l1: f32,
        #[serde(default)]
        l2: f32,
        #[serde(default)]
        initializer: Initializer,
    },
    DepthwiseConv {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "single")]
        multiplier: usize,
        #[serde(default = "three")]
        kernel: [usize; 2],
        #[serde(default = "one")]
        stride: [usize; 2],
        #[serde(default)]
        padding: Padding,
        #[serde(default = "yes")]
        use_bias: bool,
        #[serde(default)]
        activation: Activation,
        #[serde(default)]
        l1: f32,
        #[serde(default)]
        l2: f32,
        #[serde(default)]
        initializer: Initializer,
    },
    /// `stride` defaults to `size`.
    MaxPool {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "two")]
        size: [usize; 2],
        #[serde(default)]
        stride: Option<[usize; 2]>,
        #[serde(default)]
        padding: Padding,
    },
    AvgPool {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "two")]
        size: [usize; 2],
        #[serde(default)]
        stride: Option<[usize; 2]>,
        #[serde(default)]
        padding: Padding,
    },
    GlobalAvgPool {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
    },
    BatchNorm {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "bn_momentum")]
        momentum: f32,
        #[serde(default = "bn_epsilon")]
        epsilon: f32,
    },
    Dropout {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        rate: f32,
    },
    Flatten {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
    },
    Dense {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        units: usize,
        #[serde(default = "yes")]
        use_bias: bool,
        #[serde(default)]
        activation: Activation,
        #[serde(default)]
        l1: f32,
        #[serde(default)]
        l2: f32,
        #[serde(default)]
        initializer: Initializer,
    },
    Activation {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        activation: Activation,
    },
    /// Sum of this layer's input and the output of the layer called `with`.
    Add {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        with: String,
        #[serde(default)]
        activation: Activation,
    },
}

impl LayerRecipe {
    /// Kind (as written in `type`), given name, given input.
    pub(crate) fn names(&self) -> (&'static str, Option<&String>, Option<&String>) {
        let (kind, name, input) = match self {
            Self::Conv { name, input, .. } => ("conv", name, input),
            Self::DepthwiseConv { name, input, .. } => ("depthwise_conv", name, input),
            Self::MaxPool { name, input, .. } => ("max_pool", name, input),
            Self::AvgPool { name, input, .. } => ("avg_pool", name, input),
            Self::GlobalAvgPool { name, input } => ("global_avg_pool", name, input),
            Self::BatchNorm { name, input, .. } => ("batch_norm", name, input),
            Self::Dropout { name, input, .. } => ("dropout", name, input),
            Self::Flatten { name, input } => ("flatten", name, input),
            Self::Dense { name, input, .. } => ("dense", name, input),
            Self::Activation { name, input, .. } => ("activation", name, input),
            Self::Add { name, input, .. } => ("add", name, input),
        };
        (kind, name.as_ref(), input.as_ref())
    }
}

fn three() -> [usize; 2] {
    [3, 3]
}
fn two() -> [usize; 2] {
    [2, 2]
}
fn one() -> [usize; 2] {
    [1, 1]
}
fn single() -> usize {
    1
}
fn yes() -> bool {
    true
}
fn bn_momentum() -> f32 {
    0.99
}
fn bn_epsilon() -> f32 {
    1e-3
}
