//! One description of a network: input shape, preprocessing, layers. It serves the trainer, the
//! ONNX exporter, the quantizer and through it the device.
//!
//! Letters: `h` rows, `w` columns, `c` channels; tensors are NHWC, conv kernels HWIO
//! (depthwise: `h, w, in, multiplier`), dense kernels `(in, out)`, as in Keras.

use std::fmt;

use serde::{Deserialize, Serialize};

mod resolve;
#[cfg(test)]
mod tests;

pub use resolve::ArchitectureError;

/// Height, width and channels of one sample. A flattened sample is `1 x 1 x c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 3]", into = "[usize; 3]")]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// Number of values of one sample.
    pub fn len(self) -> usize {
        self.h * self.w * self.c
    }

    /// True if a sample has no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl From<[usize; 3]> for Shape {
    fn from([h, w, c]: [usize; 3]) -> Self {
        Self { h, w, c }
    }
}

impl From<Shape> for [usize; 3] {
    fn from(s: Shape) -> Self {
        [s.h, s.w, s.c]
    }
}

/// `28x28x1`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.h, self.w, self.c)
    }
}

/// Elementwise function after a layer. At 0: relu' = 0, elu' = 1, selu' = 1.0507 (as in Keras).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Identity.
    #[default]
    Linear,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x` for `x > 0`, else `exp(x) - 1`.
    Elu,
    /// `1.0507 * x` for `x > 0`, else `1.0507 * 1.67326 * (exp(x) - 1)`.
    Selu,
    /// Softmax over the channels; only on the last layer.
    Softmax,
}

/// Zero padding of conv and pooling windows, with Keras's meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// No padding: output `(n - k) / s + 1`.
    #[default]
    Valid,
    /// Output `ceil(n / s)`; odd padding goes after.
    Same,
}

/// A window (kernel or pool) with its stride: `[rows, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Rows and columns of the window.
    pub size: [usize; 2],
    /// Step in rows and columns.
    pub stride: [usize; 2],
    /// Padding rule.
    pub padding: Padding,
}

impl Window {
    /// Rows and columns of padding that windows over `input` need for this `output`; before the input lies half of it,
    /// rounded down.
    pub fn overhang(&self, input: Shape, output: Shape) -> [usize; 2] {
        let along = |n: usize, out: usize, axis: usize| {
            ((out - 1) * self.stride[axis] + self.size[axis]).saturating_sub(n)
        };
        match self.padding {
            Padding::Valid => [0, 0],
            Padding::Same => [along(input.h, output.h, 0), along(input.w, output.w, 1)],
        }
    }
}

/// Penalty on a layer's kernel: `l1 * sum|w| + l2 * sum w^2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Regularizer {
    /// Factor of the absolute values.
    pub l1: f32,
    /// Factor of the squares.
    pub l2: f32,
}

/// What a layer computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LayerKind {
    /// Cross-correlation. `groups = 1`: kernel `[kh, kw, ci, co]`; grouped: `[kh, kw, ci / groups, co]`.
    /// `groups == ci` is depthwise: output channel `in * multiplier + m`, kernel `[kh, kw, 1, ci * multiplier]`
    /// (the same order of values as Keras's `[kh, kw, ci, multiplier]`).
    Conv {
        filters: usize,
        window: Window,
        groups: usize,
        use_bias: bool,
        activation: Activation,
        regularizer: Regularizer,
        initializer: Initializer,
    },
    /// Maximum over a window; padding is ignored; a tie goes to the first maximum in row-major order.
    MaxPool { window: Window },
    /// Mean over a window; padding is not counted.
    AvgPool { window: Window },
    /// Mean over all rows and columns; output `1 x 1 x c`.
    GlobalAvgPool,
    /// Per-channel normalization; weights `gamma`, `beta`, `moving_mean`, `moving_variance`.
    BatchNorm { momentum: f32, epsilon: f32 },
    /// Training only: zeroes values with probability `rate`, scales the others by `1 / (1 - rate)`.
    Dropout { rate: f32 },
    /// `h x w x c` to `1 x 1 x (h * w * c)`, row-major.
    Flatten,
    /// `y = x * kernel + bias`; needs a flat input; kernel `[in, units]`.
    Dense {
        units: usize,
        use_bias: bool,
        activation: Activation,
        regularizer: Regularizer,
        initializer: Initializer,
    },
    /// An activation as a layer of its own (for example after `BatchNorm` or `Add`).
    Activation { activation: Activation },
    /// Sum of the two inputs of the layer, then the activation.
    Add { activation: Activation },
}

/// Distribution of a kernel's initial values, as in Keras. Biases start at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initializer {
    #[default]
    GlorotUniform,
    GlorotNormal,
    HeUniform,
    HeNormal,
    LecunUniform,
    LecunNormal,
}

/// Where a layer reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The preprocessed image.
    Input,
    /// The output of an earlier layer, by its position in `Architecture::layers`.
    Layer(usize),
}

/// A layer with everything inferred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Unique name, also the prefix of its weights: `conv1`, `dense2`, or the recipe's `name`.
    pub name: String,
    /// What it computes.
    pub kind: LayerKind,
    /// One input; `Add` has two.
    pub inputs: Vec<Source>,
    /// Shape of the (first) input.
    pub input: Shape,
    /// Shape of the output.
    pub output: Shape,
}

/// Probabilities from logits: the output layer's activation is kept apart from the layers, whose
/// last one gives logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputActivation {
    /// One class of many.
    Softmax,
    /// Independent classes, with log loss.
    Sigmoid,
    /// None: the outputs are used as they are (MSE).
    Linear,
}

/// A whole network. The layers are in topological order; the last one's output (activation
/// `Linear`) is the logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Raw image.
    pub input: Shape,
    /// Layers in order.
    pub layers: Vec<Layer>,
    /// From logits to probabilities.
    pub output: OutputActivation,
}

impl Layer {
    /// The layer's kind as the recipe calls it; a convolution in groups of one channel is a `depthwise_conv`.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            LayerKind::Conv { groups, .. } if groups > 1 && groups == self.input.c => {
                "depthwise_conv"
            }
            LayerKind::Conv { .. } => "conv",
            LayerKind::MaxPool { .. } => "max_pool",
            LayerKind::AvgPool { .. } => "avg_pool",
            LayerKind::GlobalAvgPool => "global_avg_pool",
            LayerKind::BatchNorm { .. } => "batch_norm",
            LayerKind::Dropout { .. } => "dropout",
            LayerKind::Flatten => "flatten",
            LayerKind::Dense { .. } => "dense",
            LayerKind::Activation { .. } => "activation",
            LayerKind::Add { .. } => "add",
        }
    }

    /// Names and shapes of the layer's weights, in Keras's order: the part after `<layer>.`, and the dimensions.
    pub fn weight_shapes(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (kernel, bias) = match self.kind {
            LayerKind::Conv {
                filters,
                window,
                groups,
                use_bias,
                ..
            } => {
                let [kh, kw] = window.size;
                let kernel = vec![kh, kw, self.input.c / groups, filters];
                (kernel, use_bias.then_some(filters))
            }
            LayerKind::Dense {
                units, use_bias, ..
            } => (vec![self.input.c, units], use_bias.then_some(units)),
            LayerKind::BatchNorm { .. } => {
                return ["gamma", "beta", "moving_mean", "moving_variance"]
                    .map(|name| (name, vec![self.input.c]))
                    .into();
            }
            _ => return Vec::new(),
        };
        let mut shapes = vec![("kernel", kernel)];
        shapes.extend(bias.map(|n| ("bias", vec![n])));
        shapes
    }

    /// Number of weights, moving statistics included (Keras's "total params").
    pub fn parameters(&self) -> u64 {
        let shapes = self.weight_shapes();
        shapes.iter().map(|(_, shape)| product(shape)).sum()
    }

    /// Number of weights that the optimizer changes.
    pub fn trainable_parameters(&self) -> u64 {
        let shapes = self.weight_shapes();
        let trainable = shapes
            .iter()
            .filter(|(name, _)| !name.starts_with("moving"));
        trainable.map(|(_, shape)| product(shape)).sum()
    }

    /// Multiply-accumulates of one image, as if nothing were padded: padding counts like any other pixel.
    pub fn macs(&self) -> u64 {
        match self.kind {
            LayerKind::Conv { window, groups, .. } => {
                let [kh, kw] = window.size;
                product(&[kh, kw, self.input.c / groups]) * self.output.len() as u64
            }
            LayerKind::Dense { units, .. } => product(&[self.input.c, units]),
            _ => 0,
        }
    }

    /// The layer's activation, for the kinds that have one.
    fn activation_mut(&mut self) -> Option<&mut Activation> {
        match &mut self.kind {
            LayerKind::Conv { activation, .. }
            | LayerKind::Dense { activation, .. }
            | LayerKind::Activation { activation }
            | LayerKind::Add { activation } => Some(activation),
            _ => None,
        }
    }
}

fn product(sizes: &[usize]) -> u64 {
    sizes.iter().map(|&n| n as u64).product()
}

impl Architecture {
    /// Number of classes: values of the last layer.
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.output.c)
    }

    /// Number of weights of all layers, moving statistics included.
    pub fn parameters(&self) -> u64 {
        self.layers.iter().map(Layer::parameters).sum()
    }

    /// Multiply-accumulates of one image.
    pub fn macs(&self) -> u64 {
        self.layers.iter().map(Layer::macs).sum()
    }
}
