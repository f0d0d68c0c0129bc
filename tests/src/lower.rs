//! The int8 ONNX graph read back as integer operators, by following its nodes from one recorded value to the one
//! before it. Nothing here knows the fixed-point file.

use std::collections::BTreeMap;

use crate::graph::{Element, Graph, Node, OpRecord, Tensor};

/// Where an operator reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The raw image.
    Image,
    /// Output of an operator of `isobit.ops`, by its `op`.
    Op(usize),
}

/// Power-of-two quantization between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Real value of one step: `2^exponent`.
    pub exponent: i32,
    /// ONNX zero point: -128 (never negative) or 0.
    pub zero_point: i32,
}

/// The arithmetic between two recorded values.
#[derive(Clone, Debug, PartialEq)]
pub enum Main {
    /// Conv or Gemm with int8 weights and int32 biases behind DequantizeLinear.
    Linear(Linear),
    /// `x * mul + add` with f32 constants (values as written).
    Affine {
        /// Factors.
        mul: Tensor,
        /// Summands.
        add: Tensor,
    },
    /// Sum of two operands.
    Add,
    /// Only pooling, a function or a requantization.
    None,
}

/// A window: rows and columns, as the node's attributes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Rows and columns.
    pub size: [i64; 2],
    /// Step.
    pub stride: [i64; 2],
    /// Padding: top, left, bottom, right.
    pub pads: [i64; 4],
}

/// Integer weights of a convolution or dense layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Operator: `Conv` or `Gemm`.
    pub op: String,
    /// `[co, ci / groups, kh, kw]` or `[co, inputs]`.
    pub shape: Vec<usize>,
    /// Kernel, strides and padding; 1 x 1 for Gemm.
    pub geometry: Geometry,
    /// Groups; 1 for Gemm.
    pub groups: i64,
    /// int8 values in that order.
    pub weight: Vec<i32>,
    /// Per output channel.
    pub weight_exponents: Vec<i32>,
    /// int32 values; zeros where the node has no bias.
    pub bias: Vec<i64>,
    /// Per output channel; empty without bias.
    pub bias_exponents: Vec<i32>,
}

/// One operator of `isobit.ops` as the ONNX file computes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// Its record.
    pub record: OpRecord,
    /// What it reads.
    pub inputs: Vec<Operand>,
    /// Multiplications and sums.
    pub main: Main,
    /// QuantizeLinear nodes after it, in order; a repetition around a pool counts once.
    pub steps: Vec<Step>,
    /// Sigmoid, Tanh, Elu, Selu.
    pub function: Option<String>,
    /// A Relu on the way.
    pub relu: bool,
    /// A MaxPool on the way.
    pub max_pool: Option<Geometry>,
}

/// Why the graph is not made of exact integer operators.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// A value that the metadata names, or a node reads, is not in the graph.
    #[error("value `{0}` is not in the graph")]
    Value(String),
    /// A node that cannot stand between two recorded values.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// Node name.
        node: String,
        /// Operator.
        op: String,
        /// Found and expected.
        reason: String,
    },
    /// A scale that is not a power of two.
    #[error("scale `{name}`: {value} is not a power of two")]
    Scale {
        /// Initializer.
        name: String,
        /// Its value.
        value: f64,
    },
    /// Two records for one value or one operator.
    #[error("isobit.ops: operator {0} is recorded twice")]
    Twice(usize),
}

/// Reads the operators of `records` from the graph, in the order of their `op`.
///
/// # Errors
/// A graph that computes something else than integer operators with power-of-two scales.
pub fn lower(graph: &Graph, records: &[OpRecord]) -> Result<Vec<Lowered>, LowerError> {
    let producers: BTreeMap<&str, &Node> = graph
        .nodes
        .iter()
        .flat_map(|n| n.outputs.iter().map(move |o| (o.as_str(), n)))
        .collect();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut seen = Vec::new();
    for record in records {
        if known.insert(&record.value, record.op).is_some() || seen.contains(&record.op) {
            return Err(LowerError::Twice(record.op));
        }
        seen.push(record.op);
    }
    let mut records: Vec<&OpRecord> = records.iter().collect();
    records.sort_by_key(|r| r.op);
    let walk = Walk {
        graph,
        producers,
        known,
    };
    records.into_iter().map(|r| walk.operator(r)).collect()
}

struct Walk<'a> {
    graph: &'a Graph,
    producers: BTreeMap<&'a str, &'a Node>,
    known: BTreeMap<&'a str, usize>,
}

impl Walk<'_> {
    fn operator(&self, record: &OpRecord) -> Result<Lowered, LowerError> {
        let mut lowered = Lowered {
            record: record.clone(),
            inputs: Vec::new(),
            main: Main::None,
            steps: Vec::new(),
            function: None,
            relu: false,
            max_pool: None,
        };
        let mut value = record.value.as_str();
        // Only a pool lies between here and the first of `steps`: the same step once more changes nothing.
        let mut repeats = false;
        loop {
            if value != record.value
                && let Some(operand) = self.operand(value)
            {
                lowered.inputs.push(operand);
                break;
            }
            let node = *self
                .producers
                .get(value)
                .ok_or_else(|| LowerError::Value(value.into()))?;
            let fail = |reason: &str| {
                Err(LowerError::Node {
                    node: node.name.clone(),
                    op: node.op.clone(),
                    reason: reason.into(),
                })
            };
            let first = node.inputs.first().map_or("", String::as_str);
            match node.op.as_str() {
                "Identity" | "Flatten" | "Reshape" | "Squeeze" | "Cast" => {}
                "DequantizeLinear" => {
                    if self.step(node)? != self.step(self.producer(first)?)? {
                        return fail(
                            "scale and zero point differ from those of its QuantizeLinear",
                        );
                    }
                }
                "QuantizeLinear" => {
                    let step = self.step(node)?;
                    if !(repeats && lowered.steps.first() == Some(&step)) {
                        lowered.steps.insert(0, step);
                    }
                    repeats = true;
                }
                "Relu" => {
                    repeats = false;
                    lowered.relu = true;
                }
                "MaxPool" => {
                    let Some([h, w]) = node
                        .ints("kernel_shape")
                        .and_then(|k| <[i64; 2]>::try_from(k).ok())
                    else {
                        return fail("kernel_shape of two values is expected");
                    };
                    if lowered.max_pool.replace(geometry(node, [h, w])).is_some() {
                        return fail("a second pool between two recorded values");
                    }
                }
                "Sigmoid" | "Tanh" | "Elu" | "Selu" => {
                    repeats = false;
                    if lowered.function.replace(node.op.clone()).is_some() {
                        return fail("a second function between two recorded values");
                    }
                }
                "Conv" | "Gemm" => {
                    if lowered.main != Main::None {
                        return fail("a second sum of products between two recorded values");
                    }
                    lowered.main = Main::Linear(self.linear(node)?);
                }
                "Mul" | "Add" if self.constant(node).is_some() => {
                    let Some((constant, variable)) = self.constant(node) else {
                        return fail("no constant");
                    };
                    lowered.main = match (node.op.as_str(), lowered.main) {
                        ("Add", Main::None) => Main::Affine {
                            mul: scalar(1.0),
                            add: constant.clone(),
                        },
                        ("Mul", Main::None) => Main::Affine {
                            mul: constant.clone(),
                            add: scalar(0.0),
                        },
                        ("Mul", Main::Affine { mul, add }) if mul == scalar(1.0) => Main::Affine {
                            mul: constant.clone(),
                            add,
                        },
                        _ => {
                            return fail(
                                "expected one Mul, then one Add, between two recorded values",
                            );
                        }
                    };
                    value = variable;
                    continue;
                }
                "Add" => {
                    if lowered.main != Main::None {
                        return fail("a second sum between two recorded values");
                    }
                    lowered.main = Main::Add;
                    for input in &node.inputs {
                        match self.operand(input) {
                            Some(operand) => lowered.inputs.push(operand),
                            None => return fail("a summand is no recorded value"),
                        }
                    }
                    break;
                }
                _ => return fail("the exporter does not write this operator into an int8 model"),
            }
            value = first;
        }
        Ok(lowered)
    }

    /// The recorded tensor that `value` is, through nodes that only change its shape.
    fn operand(&self, value: &str) -> Option<Operand> {
        if let Some(op) = self.known.get(value) {
            return Some(Operand::Op(*op));
        }
        if value == self.graph.input {
            return Some(Operand::Image);
        }
        let node = self.producers.get(value)?;
        let image_step = || {
            self.step(node).is_ok_and(|s| {
                s == Step {
                    exponent: 0,
                    zero_point: -128,
                }
            })
        };
        match node.op.as_str() {
            "Identity" | "Flatten" | "Reshape" | "Squeeze" => self.operand(&node.inputs[0]),
            // The image as int8 and back: exact, because every pixel is a step.
            "Cast" => (node.inputs[0] == self.graph.input).then_some(Operand::Image),
            "DequantizeLinear" | "QuantizeLinear" if image_step() => self
                .operand(&node.inputs[0])
                .filter(|o| *o == Operand::Image),
            _ => None,
        }
    }

    fn producer(&self, value: &str) -> Result<&Node, LowerError> {
        self.producers
            .get(value)
            .copied()
            .ok_or_else(|| LowerError::Value(value.into()))
    }

    fn initializer(&self, node: &Node, input: usize) -> Result<&Tensor, LowerError> {
        let name = node.inputs.get(input).map_or("", String::as_str);
        self.graph
            .constants
            .get(name)
            .ok_or_else(|| LowerError::Value(format!("{name} (initializer of {})", node.name)))
    }

    fn constant<'b>(&self, node: &'b Node) -> Option<(&Tensor, &'b str)> {
        match node.inputs.as_slice() {
            [a, b] => match (self.graph.constants.get(a), self.graph.constants.get(b)) {
                (None, Some(t)) => Some((t, a)),
                (Some(t), None) => Some((t, b)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Per-tensor scale and zero point of a QuantizeLinear or DequantizeLinear.
    fn step(&self, node: &Node) -> Result<Step, LowerError> {
        let fail = |reason: String| LowerError::Node {
            node: node.name.clone(),
            op: node.op.clone(),
            reason,
        };
        if node.op != "QuantizeLinear" && node.op != "DequantizeLinear" {
            return Err(fail("expected QuantizeLinear or DequantizeLinear".into()));
        }
        let scale = self.initializer(node, 1)?;
        let zero = self.initializer(node, 2)?;
        if !scale.shape.is_empty() || !zero.shape.is_empty() {
            return Err(fail(format!(
                "scale {:?} and zero point {:?}, expected rank 0",
                scale.shape, zero.shape
            )));
        }
        if zero.element != Element::I8 || ![0.0, -128.0].contains(&zero.data[0]) {
            return Err(fail(format!(
                "zero point {} of type {:?}, expected int8 0 or -128",
                zero.data[0], zero.element
            )));
        }
        Ok(Step {
            exponent: power(&node.inputs[1], scale.data[0])?,
            zero_point: zero.data[0] as i32,
        })
    }

    /// An initializer of integers behind a DequantizeLinear with scales per output channel.
    fn integers(
        &self,
        node: &Node,
        input: usize,
        element: Element,
    ) -> Result<(&Tensor, Vec<i32>), LowerError> {
        let fail = |reason: String| LowerError::Node {
            node: node.name.clone(),
            op: node.op.clone(),
            reason,
        };
        let dequantize = self.producer(&node.inputs[input])?;
        if dequantize.op != "DequantizeLinear" {
            return Err(fail(format!(
                "input {input} comes from {}, expected DequantizeLinear",
                dequantize.op
            )));
        }
        let values = self.initializer(dequantize, 0)?;
        let scale = self.initializer(dequantize, 1)?;
        let channels = values.shape.first().copied().unwrap_or(0);
        let zero = dequantize
            .inputs
            .get(2)
            .filter(|n| !n.is_empty())
            .and_then(|n| self.graph.constants.get(n));
        if values.element != element || zero.is_some_and(|z| z.data.iter().any(|&v| v != 0.0)) {
            return Err(fail(format!(
                "input {input} has type {:?}, expected {element:?} with zero point 0",
                values.element
            )));
        }
        let exponents = match scale.data.as_slice() {
            [one] => vec![power(&dequantize.inputs[1], *one)?; channels],
            many if many.len() == channels && dequantize.int("axis", 1) == 0 => many
                .iter()
                .map(|&s| power(&dequantize.inputs[1], s))
                .collect::<Result<_, _>>()?,
            many => {
                return Err(fail(format!(
                    "{} scales for {channels} output channels",
                    many.len()
                )));
            }
        };
        Ok((values, exponents))
    }

    fn linear(&self, node: &Node) -> Result<Linear, LowerError> {
        let fail = |reason: &str| {
            Err(LowerError::Node {
                node: node.name.clone(),
                op: node.op.clone(),
                reason: reason.into(),
            })
        };
        if node.op == "Gemm"
            && (node.int("transB", 0) != 1
                || node.int("transA", 0) != 0
                || node.float("alpha", 1.0) != 1.0
                || node.float("beta", 1.0) != 1.0)
        {
            return fail("expected transB = 1, transA = 0, alpha = beta = 1");
        }
        let (weight, weight_exponents) = self.integers(node, 1, Element::I8)?;
        let channels = weight.shape[0];
        let (bias, bias_exponents) = if node.inputs.get(2).is_some_and(|n| !n.is_empty()) {
            let (bias, exponents) = self.integers(node, 2, Element::I32)?;
            if bias.data.len() != channels {
                return fail("one bias per output channel is expected");
            }
            (bias.data.iter().map(|&b| b as i64).collect(), exponents)
        } else {
            (vec![0; channels], Vec::new())
        };
        let size = match weight.shape.as_slice() {
            [_, _, h, w] => [*h as i64, *w as i64],
            _ => [1, 1],
        };
        if node
            .ints("dilations")
            .is_some_and(|d| d.iter().any(|&d| d != 1))
            || node.text("auto_pad").is_some()
        {
            return fail("dilations and auto_pad are not expected");
        }
        Ok(Linear {
            geometry: geometry(node, size),
            groups: node.int("group", 1),
            op: node.op.clone(),
            shape: weight.shape.clone(),
            weight: weight.data.iter().map(|&w| w as i32).collect(),
            weight_exponents,
            bias,
            bias_exponents,
        })
    }
}

fn geometry(node: &Node, size: [i64; 2]) -> Geometry {
    let list = |name| node.ints(name).unwrap_or(&[]);
    Geometry {
        size,
        stride: list("strides").try_into().unwrap_or([1, 1]),
        pads: list("pads").try_into().unwrap_or([0; 4]),
    }
}

fn scalar(value: f64) -> Tensor {
    Tensor {
        shape: Vec::new(),
        data: vec![value],
        element: Element::F32,
    }
}

/// `e` with `value == 2^e`.
fn power(name: &str, value: f64) -> Result<i32, LowerError> {
    let exponent = value.log2().round();
    if value > 0.0 && value.is_finite() && exponent.exp2() == value {
        Ok(exponent as i32)
    } else {
        Err(LowerError::Scale {
            name: name.into(),
            value,
        })
    }
}

impl Linear {
    /// Largest `sum(|w|) * max_input + |bias|` of the output channels, and its channel.
    pub fn bound(&self, max_input: i64) -> (i64, usize) {
        let per_channel = self.weight.len() / self.bias.len().max(1);
        self.weight
            .chunks(per_channel.max(1))
            .zip(&self.bias)
            .enumerate()
            .map(|(c, (w, b))| {
                (
                    w.iter().map(|w| i64::from(w.abs())).sum::<i64>() * max_input + b.abs(),
                    c,
                )
            })
            .max_by_key(|(bound, c)| (*bound, std::cmp::Reverse(*c)))
            .unwrap_or((0, 0))
    }
}

/// The exponents that the accumulators must have for these input steps; checks that the biases agree.
///
/// # Errors
/// The first channel whose bias has another scale than its products: channel, expected and found exponent.
pub fn accumulator_exponents(linear: &Linear, input: i32) -> Result<Vec<i32>, (usize, i32, i32)> {
    let exponents: Vec<i32> = linear.weight_exponents.iter().map(|e| e + input).collect();
    match linear
        .bias_exponents
        .iter()
        .zip(&exponents)
        .position(|(b, e)| b != e)
    {
        Some(c) if linear.bias[c] != 0 => Err((c, exponents[c], linear.bias_exponents[c])),
        _ => Ok(exponents),
    }
}
