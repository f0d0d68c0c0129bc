//! Post-training quantization: a trained network becomes integer operators with power-of-two scales.
//!
//! The result is exact by construction: for every output channel `sum(|w|) * max|x| + |bias| < 2^24`, so that f32
//! engines and the integer runtime compute the same numbers in any order. See [`Quantized`].

pub mod graph;
pub mod operator;
pub mod scale;
pub mod search;
pub mod table;

use runtime::encode::{DType, OpSpec};

use crate::{
    architecture::{Activation, Architecture, OutputActivation, Shape},
    calibrate::Calibration,
    preprocess::Preprocess,
    weights::Weights,
};
use graph::{Graph, Node, Operand, Tap};
pub use scale::Method;

/// Accumulators stay below this magnitude: every integer up to here is an f32.
pub const ACCUMULATOR_LIMIT: i64 = 1 << 24;

/// Why a network cannot be quantized.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    #[error("the network has no layers")]
    NoLayers,
    #[error("weights: `{name}` is missing")]
    MissingWeight { name: String },
    #[error("weights: `{name}` should have {expected} values, got {got}")]
    WeightSize {
        name: String,
        expected: usize,
        got: usize,
    },
    #[error("weights: `{name}` contains {value}")]
    NotFinite { name: String, value: f32 },
    #[error("calibration: expected statistics of {expected} layers, got {got}")]
    CalibrationSize { expected: usize, got: usize },
    #[error(
        "layer `{layer}`: average pooling with padding cannot be quantized; use padding = \"valid\" or a size that divides the map"
    )]
    PaddedAveragePool { layer: String },
    #[error(
        "layer `{layer}`: reads {expected:?} but the value has the shape {got:?}; only dense, batch_norm and activations may follow a flatten of a map"
    )]
    Reshaped {
        layer: String,
        expected: Shape,
        got: Shape,
    },
    #[error("layer `{layer}`: {what} is {got}, the fixed-point format allows at most {max}")]
    TooLarge {
        layer: String,
        what: &'static str,
        got: usize,
        max: usize,
    },
    #[error(
        "layer `{layer}`, channel {channel}: {what} needs a shift of {shift}, allowed is {min}..={max}; the weights or the calibrated range are extreme"
    )]
    Shift {
        layer: String,
        channel: usize,
        what: &'static str,
        shift: i64,
        min: i64,
        max: i64,
    },
    #[error(
        "layer `{layer}`, channel {channel}: accumulators may reach {bound}, the limit is 2^24 = 16777216"
    )]
    Bound {
        layer: String,
        channel: usize,
        bound: i64,
    },
    #[error(
        "layer `{layer}`: no scale keeps the {activation:?} table clear of rounding boundaries"
    )]
    Table {
        layer: String,
        activation: Activation,
    },
    #[error("layer `{layer}`: the logits should have the shape 1 x 1 x classes, got {got:?}")]
    Logits { layer: String, got: Shape },
}

/// A tensor of the integer network: real value `q * 2^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// NHWC.
    pub shape: Shape,
    pub dtype: DType,
    /// For the logits 0: their exponents are per class, in [`Quantized::logit_exponents`].
    pub exponent: i32,
}

/// An integer operator with what ONNX and reports need to know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// The layer that it implements; with fused layers the first one.
    pub layer: String,
    pub spec: OpSpec,
    pub activation: Activation,
    /// Exponent of the tensor before the activation function; only with a table.
    pub table_exponent: Option<i32>,
    /// Per output channel: conv and dense weights; one entry: average pooling's multiplier.
    pub weight_exponents: Vec<i32>,
}

/// An integer network.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Tensor 0 is the raw image; tensor `i + 1` is the output of operator `i`.
    pub tensors: Vec<Tensor>,
    pub operators: Vec<Operator>,
    /// Logit `i` is `accumulator * 2^logit_exponents[i]`.
    pub logit_exponents: Vec<i32>,
    pub output: OutputActivation,
}

/// Quantizes a trained network. `method` decides how activation exponents follow from `calibration`.
pub fn quantize(
    architecture: &Architecture,
    preprocess: &Preprocess,
    weights: &Weights,
    calibration: &Calibration,
    method: Method,
) -> Result<Quantized, QuantizeError> {
    let graph = graph::build(architecture, preprocess, weights)?;
    let scales = choose_scales(&graph, architecture, calibration, method, &[])?;
    assemble(&graph, architecture, &scales)
}

/// Exponents of a node's tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeScale {
    pub dtype: DType,
    pub exponent: i32,
    /// With a table: the exponent before it, and the table.
    pub table: Option<(i32, Box<[u8; 256]>)>,
}

/// What is added to the exponents that a method chooses for a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adjustment {
    /// To the one before an activation table.
    pub before: i32,
    /// To the one of the output.
    pub after: i32,
}

/// Chooses the type and the exponent of every node's output: `method`'s choice plus the node's adjustment (none where the
/// list ends). Max pooling and a relu of its own keep the exponent that they read.
pub fn choose_scales(
    graph: &Graph,
    architecture: &Architecture,
    calibration: &Calibration,
    method: Method,
    adjustments: &[Adjustment],
) -> Result<Vec<NodeScale>, QuantizeError> {
    if calibration.layers.len() != architecture.layers.len() {
        return Err(QuantizeError::CalibrationSize {
            expected: architecture.layers.len(),
            got: calibration.layers.len(),
        });
    }
    let histogram = |tap: Tap| match tap {
        Tap::Input => &calibration.input,
        Tap::PreActivation(layer) => &calibration.layers[layer].pre_activation,
        Tap::Output(layer) => &calibration.layers[layer].output,
    };
    let mut scales: Vec<NodeScale> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let adjustment = adjustments.get(index).copied().unwrap_or_default();
        let result = |dtype| {
            scale::activation_exponent(histogram(node.result), dtype, method, |x| x)
                + adjustment.after
        };
        let read = |operand: Operand| match operand {
            Operand::Image => (DType::U8, 0),
            Operand::Node(i) => (scales[i].dtype, scales[i].exponent),
        };
        let input = read(node.inputs[0]);
        let scale = match node.kind {
            graph::NodeKind::MaxPool { .. } => NodeScale {
                dtype: input.0,
                exponent: input.1,
                table: None,
            },
            graph::NodeKind::Function => {
                let dtype = table::output_dtype(node.activation, input.0);
                let wanted = if node.activation == Activation::Relu {
                    input.1
                } else {
                    result(dtype)
                };
                table_scale(node, input, (dtype, wanted), true)?
            }
            _ if node.needs_table() => {
                let pre = histogram(node.pre_activation);
                let before =
                    scale::activation_exponent(pre, DType::I8, method, |x| node.function(x))
                        + adjustment.before;
                let dtype = table::output_dtype(node.activation, DType::I8);
                table_scale(node, (DType::I8, before), (dtype, result(dtype)), false)?
            }
            _ => {
                let unsigned = node.activation == Activation::Relu
                    || matches!(
                        node.kind,
                        graph::NodeKind::AvgPool { .. } | graph::NodeKind::Add
                    ) && node.inputs.iter().all(|&i| read(i).0 == DType::U8);
                let dtype = if unsigned { DType::U8 } else { DType::I8 };
                NodeScale {
                    dtype,
                    exponent: result(dtype),
                    table: None,
                }
            }
        };
        scales.push(scale);
    }
    Ok(scales)
}

fn table_scale(
    node: &Node,
    input: (DType, i32),
    output: (DType, i32),
    input_is_fixed: bool,
) -> Result<NodeScale, QuantizeError> {
    let (before, exponent, table) =
        table::nearest_table(node.activation, input, output, input_is_fixed).ok_or_else(|| {
            QuantizeError::Table {
                layer: node.layer.clone(),
                activation: node.activation,
            }
        })?;
    Ok(NodeScale {
        dtype: output.0,
        exponent,
        table: Some((before, table)),
    })
}

/// Turns every node into an integer operator at these scales.
pub fn assemble(
    graph: &Graph,
    architecture: &Architecture,
    scales: &[NodeScale],
) -> Result<Quantized, QuantizeError> {
    let mut tensors = vec![Tensor {
        shape: architecture.input,
        dtype: DType::U8,
        exponent: 0,
    }];
    let mut operators = Vec::with_capacity(graph.nodes.len());
    let mut logit_exponents = Vec::new();
    for (index, (node, scale)) in graph.nodes.iter().zip(scales).enumerate() {
        let is_logits = index + 1 == graph.nodes.len();
        if is_logits && (node.output.h != 1 || node.output.w != 1) {
            return Err(QuantizeError::Logits {
                layer: node.layer.clone(),
                got: node.output,
            });
        }
        let built = operator::build(node, &tensors, index + 1, (!is_logits).then_some(scale))?;
        tensors.push(if is_logits {
            Tensor {
                shape: node.output,
                dtype: DType::I32,
                exponent: 0,
            }
        } else {
            Tensor {
                shape: node.output,
                dtype: scale.dtype,
                exponent: scale.exponent,
            }
        });
        if is_logits {
            let classes = node.output.len();
            let exponents = &built.accumulator_exponents;
            logit_exponents = (0..classes)
                .map(|class| exponents[class % exponents.len()])
                .collect();
        }
        operators.push(built.operator);
    }
    Ok(Quantized {
        tensors,
        operators,
        logit_exponents,
        output: architecture.output,
    })
}
