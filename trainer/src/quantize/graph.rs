//! From layers to the operators of the integer runtime, still in real numbers: batch norm and preprocessing folded,
//! activations and max pooling fused, dropout and flatten gone.

pub mod preprocess;

use super::{QuantizeError, table};
use crate::{
    architecture::{Activation, Architecture, Layer, LayerKind, Shape, Source, Window},
    layout::transpose,
    preprocess::Preprocess,
    weights::Weights,
};

/// What an operator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The raw image.
    Image,
    /// Output of a node.
    Node(usize),
}

/// Where the statistics of a tensor are found in a calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tap {
    /// The preprocessed image.
    Input,
    /// A layer's value before its activation function.
    PreActivation(usize),
    /// A layer's output.
    Output(usize),
}

/// Max pooling window without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub size: [usize; 2],
    pub stride: [usize; 2],
}

/// What a node computes before its activation, in real numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// `y = x * mul + add`, per channel (length `c`) or per value.
    Affine { mul: Vec<f64>, add: Vec<f64> },
    /// Weight OHWI `[co][kh][kw][ci / groups]`; pad `[top, left]`.
    Conv {
        kernel: [usize; 2],
        stride: [usize; 2],
        pad: [usize; 2],
        groups: usize,
        weight: Vec<f64>,
        bias: Vec<f64>,
    },
    /// Weight `[out][in]`.
    Dense { weight: Vec<f64>, bias: Vec<f64> },
    /// Pad `[top, left]`; padding is ignored.
    MaxPool {
        size: [usize; 2],
        stride: [usize; 2],
        pad: [usize; 2],
    },
    /// No padding.
    AvgPool {
        size: [usize; 2],
        stride: [usize; 2],
    },
    /// Sum of the two inputs.
    Add,
    /// Only the activation function.
    Function,
}

/// One operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The layer that it implements; with fused layers the first one.
    pub layer: String,
    pub kind: NodeKind,
    pub inputs: Vec<Operand>,
    pub activation: Activation,
    /// Fused max pooling, without padding.
    pub pool: Option<Pool>,
    /// Shape of the (first) input as the node sees it.
    pub input: Shape,
    /// Shape before fused pooling.
    pub unpooled: Shape,
    pub output: Shape,
    pub pre_activation: Tap,
    pub result: Tap,
}

/// Nodes in topological order; the last one gives the logits, and nothing else reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

/// Padding `[top, left]` and whether any window reaches outside the map.
fn padding(window: &Window, input: Shape, output: Shape) -> ([usize; 2], bool) {
    let total = window.overhang(input, output);
    ([total[0] / 2, total[1] / 2], total != [0, 0])
}

/// Builds the operators of a network.
pub fn build(
    architecture: &Architecture,
    preprocess: &Preprocess,
    weights: &Weights,
) -> Result<Graph, QuantizeError> {
    let mut builder = Builder {
        architecture,
        weights,
        nodes: Vec::new(),
        values: Vec::new(),
        uses: vec![0; architecture.layers.len()],
    };
    builder.count_uses();
    for index in 0..architecture.layers.len() {
        builder.push_layer(index)?;
    }
    let mut nodes = builder.finish()?;
    preprocess::fold(&mut nodes, architecture.input, preprocess)?;
    Ok(Graph { nodes })
}

struct Builder<'a> {
    architecture: &'a Architecture,
    weights: &'a Weights,
    nodes: Vec<Node>,
    /// The operand that holds the output of each layer.
    values: Vec<Operand>,
    /// How many layers (other than dropout and flatten) read a layer's output, the logits counting as a reader.
    uses: Vec<usize>,
}

fn is_alias(layer: &Layer) -> bool {
    matches!(layer.kind, LayerKind::Dropout { .. } | LayerKind::Flatten)
        || matches!(
            layer.kind,
            LayerKind::Activation {
                activation: Activation::Linear
            }
        )
}

impl Builder<'_> {
    fn root(&self, source: Source) -> Option<usize> {
        match source {
            Source::Input => None,
            Source::Layer(i) if is_alias(&self.architecture.layers[i]) => {
                self.root(self.architecture.layers[i].inputs[0])
            }
            Source::Layer(i) => Some(i),
        }
    }

    fn count_uses(&mut self) {
        let layers = &self.architecture.layers;
        let read = layers
            .iter()
            .filter(|layer| !is_alias(layer))
            .flat_map(|layer| layer.inputs.iter().copied());
        let logits = (!layers.is_empty()).then(|| Source::Layer(layers.len() - 1));
        for root in read
            .chain(logits)
            .filter_map(|source| self.root(source))
            .collect::<Vec<_>>()
        {
            self.uses[root] += 1;
        }
    }

    fn operand(&self, source: Source) -> Operand {
        match source {
            Source::Input => Operand::Image,
            Source::Layer(i) => self.values[i],
        }
    }

    fn shape(&self, operand: Operand) -> Shape {
        match operand {
            Operand::Image => self.architecture.input,
            Operand::Node(node) => self.nodes[node].output,
        }
    }

    fn tap(&self, source: Source) -> Tap {
        match source {
            Source::Input => Tap::Input,
            Source::Layer(i) => Tap::Output(i),
        }
    }

    fn weight(&self, layer: &Layer, part: &str, len: usize) -> Result<Vec<f64>, QuantizeError> {
        let name = format!("{}.{part}", layer.name);
        let array = self
            .weights
            .0
            .get(&name)
            .ok_or_else(|| QuantizeError::MissingWeight { name: name.clone() })?;
        if array.data.len() != len {
            return Err(QuantizeError::WeightSize {
                name,
                expected: len,
                got: array.data.len(),
            });
        }
        if let Some(value) = array.data.iter().find(|v| !v.is_finite()) {
            return Err(QuantizeError::NotFinite {
                name,
                value: *value,
            });
        }
        Ok(array.data.iter().map(|&v| f64::from(v)).collect())
    }

    fn bias(&self, layer: &Layer, use_bias: bool, len: usize) -> Result<Vec<f64>, QuantizeError> {
        if use_bias {
            self.weight(layer, "bias", len)
        } else {
            Ok(vec![0.0; len])
        }
    }

    /// The node that alone feeds `source`, if nothing else reads it.
    fn fusible(&mut self, source: Source) -> Option<&mut Node> {
        let root = self.root(source)?;
        match self.values[root] {
            Operand::Node(node) if self.uses[root] == 1 => Some(&mut self.nodes[node]),
            _ => None,
        }
    }

    fn push_layer(&mut self, index: usize) -> Result<(), QuantizeError> {
        let layer = &self.architecture.layers[index];
        let source = layer.inputs[0];
        let operand = self.operand(source);
        if is_alias(layer) || self.fuse(index)? {
            self.values.push(operand);
            return Ok(());
        }
        let seen = self.shape(operand);
        let kind = self.kind(layer)?;
        let elementwise = matches!(
            kind,
            NodeKind::Affine { .. } | NodeKind::Function | NodeKind::Dense { .. }
        );
        let inputs: Vec<Operand> = layer.inputs.iter().map(|&s| self.operand(s)).collect();
        let reshaped = inputs.iter().any(|&i| self.shape(i) != layer.input);
        let same = inputs.iter().all(|&i| self.shape(i) == seen);
        if reshaped && !elementwise && !(matches!(kind, NodeKind::Add) && same) {
            return Err(QuantizeError::Reshaped {
                layer: layer.name.clone(),
                expected: layer.input,
                got: seen,
            });
        }
        let keeps_shape = matches!(
            kind,
            NodeKind::Affine { .. } | NodeKind::Function | NodeKind::Add
        );
        let output = if keeps_shape { seen } else { layer.output };
        let (activation, pre_activation) = match layer.kind {
            LayerKind::Conv { activation, .. }
            | LayerKind::Dense { activation, .. }
            | LayerKind::Add { activation } => (activation, Tap::PreActivation(index)),
            LayerKind::Activation { activation } => (activation, self.tap(source)),
            _ => (Activation::Linear, Tap::Output(index)),
        };
        self.nodes.push(Node {
            layer: layer.name.clone(),
            kind,
            inputs,
            activation,
            pool: None,
            input: seen,
            unpooled: output,
            output,
            pre_activation,
            result: Tap::Output(index),
        });
        self.values.push(Operand::Node(self.nodes.len() - 1));
        Ok(())
    }

    /// Merges a layer into the node before it where the result is the same.
    fn fuse(&mut self, index: usize) -> Result<bool, QuantizeError> {
        let layer = &self.architecture.layers[index];
        let source = layer.inputs[0];
        match layer.kind {
            LayerKind::BatchNorm { .. } => {
                let (mul, add) = self.batch_norm(layer)?;
                let channels = layer.input.c;
                let Some(node) = self.fusible(source) else {
                    return Ok(false);
                };
                if node.activation != Activation::Linear
                    || node.pool.is_some()
                    || node.output.c != channels
                {
                    return Ok(false);
                }
                let (NodeKind::Conv { weight, bias, .. } | NodeKind::Dense { weight, bias }) =
                    &mut node.kind
                else {
                    return Ok(false);
                };
                let per_channel = weight.len() / channels;
                for (c, row) in weight.chunks_mut(per_channel).enumerate() {
                    row.iter_mut().for_each(|w| *w *= mul[c]);
                    bias[c] = bias[c] * mul[c] + add[c];
                }
                node.pre_activation = Tap::Output(index);
                node.result = Tap::Output(index);
                Ok(true)
            }
            LayerKind::Activation { activation } => {
                let tap = self.tap(source);
                let Some(node) = self.fusible(source) else {
                    return Ok(false);
                };
                let takes_function = matches!(
                    node.kind,
                    NodeKind::Conv { .. }
                        | NodeKind::Dense { .. }
                        | NodeKind::AvgPool { .. }
                        | NodeKind::Add
                );
                let takes_relu =
                    matches!(node.kind, NodeKind::Affine { .. }) && activation == Activation::Relu;
                if node.activation != Activation::Linear || !(takes_function || takes_relu) {
                    return Ok(false);
                }
                node.activation = activation;
                node.pre_activation = tap;
                node.result = Tap::Output(index);
                Ok(true)
            }
            LayerKind::MaxPool { window } => {
                let (_, overhangs) = padding(&window, layer.input, layer.output);
                let overlaps = (0..2).any(|axis| window.stride[axis] < window.size[axis]);
                let Some(node) = self.fusible(source) else {
                    return Ok(false);
                };
                let is_conv = matches!(node.kind, NodeKind::Conv { .. });
                if overhangs
                    || overlaps
                    || !is_conv
                    || node.pool.is_some()
                    || node.output != layer.input
                {
                    return Ok(false);
                }
                node.pool = Some(Pool {
                    size: window.size,
                    stride: window.stride,
                });
                node.output = layer.output;
                node.result = Tap::Output(index);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn batch_norm(&self, layer: &Layer) -> Result<(Vec<f64>, Vec<f64>), QuantizeError> {
        let LayerKind::BatchNorm { epsilon, .. } = layer.kind else {
            return Ok((Vec::new(), Vec::new()));
        };
        let c = layer.input.c;
        let gamma = self.weight(layer, "gamma", c)?;
        let beta = self.weight(layer, "beta", c)?;
        let mean = self.weight(layer, "moving_mean", c)?;
        let variance = self.weight(layer, "moving_variance", c)?;
        let mul: Vec<f64> = (0..c)
            .map(|i| gamma[i] / (variance[i] + f64::from(epsilon)).sqrt())
            .collect();
        let add = (0..c).map(|i| beta[i] - mean[i] * mul[i]).collect();
        Ok((mul, add))
    }

    fn kind(&self, layer: &Layer) -> Result<NodeKind, QuantizeError> {
        Ok(match &layer.kind {
            LayerKind::Conv {
                filters,
                window,
                groups,
                use_bias,
                ..
            } => {
                let [kh, kw] = window.size;
                let (co, ci) = (*filters, layer.input.c / groups);
                let hwio = self.weight(layer, "kernel", kh * kw * ci * co)?;
                let weight = transpose(&hwio, co);
                NodeKind::Conv {
                    kernel: window.size,
                    stride: window.stride,
                    pad: padding(window, layer.input, layer.output).0,
                    groups: *groups,
                    weight,
                    bias: self.bias(layer, *use_bias, co)?,
                }
            }
            LayerKind::Dense {
                units, use_bias, ..
            } => {
                let (ci, co) = (layer.input.len(), *units);
                let io = self.weight(layer, "kernel", ci * co)?;
                let weight = transpose(&io, co);
                NodeKind::Dense {
                    weight,
                    bias: self.bias(layer, *use_bias, co)?,
                }
            }
            LayerKind::MaxPool { window } => NodeKind::MaxPool {
                size: window.size,
                stride: window.stride,
                pad: padding(window, layer.input, layer.output).0,
            },
            LayerKind::AvgPool { window } => {
                if padding(window, layer.input, layer.output).1 {
                    return Err(QuantizeError::PaddedAveragePool {
                        layer: layer.name.clone(),
                    });
                }
                NodeKind::AvgPool {
                    size: window.size,
                    stride: window.stride,
                }
            }
            LayerKind::GlobalAvgPool => NodeKind::AvgPool {
                size: [layer.input.h, layer.input.w],
                stride: [layer.input.h, layer.input.w],
            },
            LayerKind::BatchNorm { .. } => {
                let (mul, add) = self.batch_norm(layer)?;
                NodeKind::Affine { mul, add }
            }
            LayerKind::Add { .. } => NodeKind::Add,
            LayerKind::Activation { .. } => NodeKind::Function,
            LayerKind::Dropout { .. } | LayerKind::Flatten => {
                unreachable!("dropout and flatten have no operator")
            }
        })
    }

    /// Makes sure that the last node can store i32 accumulators, with an exact 1x1 average pooling where it cannot.
    fn finish(mut self) -> Result<Vec<Node>, QuantizeError> {
        let Some(last) = self.architecture.layers.len().checked_sub(1) else {
            return Err(QuantizeError::NoLayers);
        };
        let operand = self.values[last];
        let stores_accumulators = |node: &Node| {
            node.activation == Activation::Linear
                && matches!(
                    node.kind,
                    NodeKind::Conv { .. }
                        | NodeKind::Dense { .. }
                        | NodeKind::AvgPool { .. }
                        | NodeKind::Add
                )
        };
        let root = self.root(Source::Layer(last));
        let only_reader = root.is_some_and(|root| self.uses[root] == 1);
        let is_last = operand == Operand::Node(self.nodes.len().wrapping_sub(1));
        if only_reader && is_last && self.nodes.last().is_some_and(stores_accumulators) {
            return Ok(self.nodes);
        }
        let shape = self.shape(operand);
        self.nodes.push(Node {
            layer: "output.logits".into(),
            kind: NodeKind::AvgPool {
                size: [1, 1],
                stride: [1, 1],
            },
            inputs: vec![operand],
            activation: Activation::Linear,
            pool: None,
            input: shape,
            unpooled: shape,
            output: shape,
            pre_activation: Tap::Output(last),
            result: Tap::Output(last),
        });
        Ok(self.nodes)
    }
}

impl Node {
    /// True if the activation needs a table (everything but identity and relu).
    pub fn needs_table(&self) -> bool {
        matches!(
            self.activation,
            Activation::Sigmoid | Activation::Tanh | Activation::Elu | Activation::Selu
        )
    }

    /// The activation function in f64.
    pub fn function(&self, x: f64) -> f64 {
        table::function(self.activation, x)
    }
}
