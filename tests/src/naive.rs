//! An independent reference: ONNX nodes one by one, plain loops in f64.
//!
//! Every quantity of an int8 model (integers times powers of two, below 2^24 steps) is exact in f64, so the
//! only rounding is QuantizeLinear's own. Functions (sigmoid, tanh, elu, selu, softmax) are computed in f64
//! and rounded once to f32.

use std::collections::BTreeMap;

use crate::graph::{Attribute, Element, Graph, Node, Tensor};

mod shape;
mod window;

use shape::{broadcast, rank4, reduce_tail, reshape, transpose};
use window::{conv, pool};

/// Rounding of QuantizeLinear. The standard says half to even; the other one exists to show that a wrong
/// rule is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest integer, ties to the even one.
    #[default]
    HalfEven,
    /// To the nearest integer, ties towards positive infinity: `floor(x + 0.5)`.
    HalfUp,
}

/// Why a graph cannot be interpreted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NaiveError {
    /// An operator that the exporter does not write.
    #[error("node `{node}`: operator {op} is not supported by the reference")]
    Operator {
        /// Node name.
        node: String,
        /// Operator.
        op: String,
    },
    /// A value that no earlier node computes.
    #[error("node `{node}`: input `{value}` is not computed before it")]
    Missing {
        /// Node name.
        node: String,
        /// Value name.
        value: String,
    },
    /// Shapes or attributes that contradict the operator.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// Node name.
        node: String,
        /// Operator.
        op: String,
        /// Found and expected.
        reason: String,
    },
}

/// All values of the graph for a batch of raw images.
///
/// # Shapes
/// `images`: each `h * w * c` raw pixels, NHWC. Results by value name, as ONNX lays them out (NCHW).
///
/// # Errors
/// An operator outside the exporter's set, or one whose inputs do not fit.
pub fn run(
    graph: &Graph,
    images: &[&[u8]],
    rounding: Rounding,
) -> Result<BTreeMap<String, Tensor>, NaiveError> {
    let mut values: BTreeMap<String, Tensor> = BTreeMap::new();
    values.insert(graph.input.clone(), nchw(graph.image, images));
    for node in &graph.nodes {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(match name.as_str() {
                "" => None,
                _ => Some(
                    values
                        .get(name)
                        .or_else(|| graph.constants.get(name))
                        .ok_or_else(|| NaiveError::Missing {
                            node: node.name.clone(),
                            value: name.clone(),
                        })?,
                ),
            });
        }
        let result = apply(graph.opset, node, &inputs, rounding)?;
        values.insert(node.outputs[0].clone(), result);
    }
    Ok(values)
}

/// Raw NHWC images as one `[N, C, H, W]` tensor.
pub fn nchw([c, h, w]: [usize; 3], images: &[&[u8]]) -> Tensor {
    let mut data = Vec::with_capacity(images.len() * c * h * w);
    for image in images {
        for channel in 0..c {
            data.extend(image.iter().skip(channel).step_by(c).map(|&p| f64::from(p)));
        }
    }
    Tensor {
        shape: vec![images.len(), c, h, w],
        data,
        element: Element::U8,
    }
}

fn apply(
    opset: i64,
    node: &Node,
    inputs: &[Option<&Tensor>],
    rounding: Rounding,
) -> Result<Tensor, NaiveError> {
    let fail = |reason: String| NaiveError::Node {
        node: node.name.clone(),
        op: node.op.clone(),
        reason,
    };
    let input = |i: usize| inputs.get(i).copied().flatten();
    let need = |i: usize| input(i).ok_or_else(|| fail(format!("input {i} is missing")));
    if node.op == "Constant" {
        return match node.attributes.get("value") {
            Some(Attribute::Tensor(t)) => Ok(t.clone()),
            _ => Err(fail("attribute `value` is missing".into())),
        };
    }
    let x = need(0)?;
    let map = |f: &dyn Fn(f64) -> f64| {
        Ok(Tensor {
            shape: x.shape.clone(),
            data: x.data.iter().map(|&v| f(v)).collect(),
            element: x.element,
        })
    };
    let narrow = |v: f64| f64::from(v as f32);
    match node.op.as_str() {
        "Identity" | "Dropout" => Ok(x.clone()),
        "Cast" => match node.int("to", 0) {
            1 => Ok(Tensor {
                element: Element::F32,
                ..x.clone()
            }),
            other => Err(fail(format!("cast to type {other}, expected 1 (float)"))),
        },
        "QuantizeLinear" => quantize(node, x, need(1)?, input(2), rounding).map_err(fail),
        "DequantizeLinear" => dequantize(node, x, need(1)?, input(2)).map_err(fail),
        "Relu" => map(&|v| v.max(0.0)),
        "Sigmoid" => map(&|v| narrow(1.0 / (1.0 + (-v).exp()))),
        "Tanh" => map(&|v| narrow(v.tanh())),
        "Elu" => {
            let alpha = f64::from(node.float("alpha", 1.0));
            map(&|v| narrow(if v > 0.0 { v } else { alpha * v.exp_m1() }))
        }
        "Selu" => {
            let alpha = f64::from(node.float("alpha", 1.673_263_2));
            let gamma = f64::from(node.float("gamma", 1.050_701));
            map(&|v| narrow(gamma * if v > 0.0 { v } else { alpha * v.exp_m1() }))
        }
        "Clip" => {
            let low = input(1).map_or(f64::NEG_INFINITY, |t| t.data[0]);
            let high = input(2).map_or(f64::INFINITY, |t| t.data[0]);
            map(&|v| v.max(low).min(high))
        }
        "Conv" => conv(node, x, need(1)?, input(2)).map_err(fail),
        "Gemm" => gemm(node, x, need(1)?, input(2)).map_err(fail),
        "MatMul" => gemm(node, x, need(1)?, None).map_err(fail),
        "MaxPool" => pool(node, x, true).map_err(fail),
        "AveragePool" => pool(node, x, false).map_err(fail),
        "GlobalAveragePool" => {
            let [n, c, h, w] = rank4(x).map_err(fail)?;
            let data = x
                .data
                .chunks(h * w)
                .map(|map| map.iter().sum::<f64>() / (h * w) as f64)
                .collect();
            Ok(Tensor {
                shape: vec![n, c, 1, 1],
                data,
                element: x.element,
            })
        }
        "BatchNormalization" => {
            batch_normalization(node, x, [need(1)?, need(2)?, need(3)?, need(4)?]).map_err(fail)
        }
        "Add" => broadcast(x, need(1)?, |a, b| a + b).map_err(fail),
        "Sub" => broadcast(x, need(1)?, |a, b| a - b).map_err(fail),
        "Mul" => broadcast(x, need(1)?, |a, b| a * b).map_err(fail),
        "Div" => broadcast(x, need(1)?, |a, b| a / b).map_err(fail),
        "Flatten" => {
            let axis =
                usize::try_from(node.int("axis", 1)).map_err(|_| fail("negative axis".into()))?;
            let rows = x.shape[..axis.min(x.shape.len())].iter().product::<usize>();
            Ok(Tensor {
                shape: vec![rows, x.data.len() / rows.max(1)],
                ..x.clone()
            })
        }
        "Reshape" => reshape(x, need(1)?).map_err(fail),
        "Squeeze" | "ReduceMean" if opset >= 13 => reduce_tail(node, x, input(1)).map_err(fail),
        "Transpose" => transpose(node, x).map_err(fail),
        "Softmax" => {
            let axis = node.int("axis", -1);
            if axis != -1 && axis != x.shape.len() as i64 - 1 {
                return Err(fail(format!("axis {axis}, expected the last one")));
            }
            let row = x.shape.last().copied().unwrap_or(1).max(1);
            let mut data = Vec::with_capacity(x.data.len());
            for logits in x.data.chunks(row) {
                let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.iter().map(|v| (v - top).exp()).sum();
                data.extend(logits.iter().map(|v| narrow((v - top).exp() / sum)));
            }
            Ok(Tensor { data, ..x.clone() })
        }
        _ => Err(NaiveError::Operator {
            node: node.name.clone(),
            op: node.op.clone(),
        }),
    }
}

/// `x / 1`, `x mod 1` of a scale or zero point per axis: the index of element `i` along `axis`.
fn along(shape: &[usize], axis: usize, i: usize) -> usize {
    let inner: usize = shape[axis + 1..].iter().product();
    i / inner % shape[axis]
}

fn axis_of(node: &Node, rank: usize) -> Result<usize, String> {
    let axis = node.int("axis", 1);
    let positive = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(positive)
        .ok()
        .filter(|&a| a < rank)
        .ok_or(format!("axis {axis} for rank {rank}"))
}

fn parameter<'a>(
    node: &Node,
    x: &Tensor,
    t: &'a Tensor,
) -> Result<impl Fn(usize) -> f64 + use<'a>, String> {
    let axis = if t.data.len() == 1 {
        0
    } else {
        axis_of(node, x.shape.len())?
    };
    if t.data.len() != 1 && t.data.len() != x.shape[axis] {
        return Err(format!(
            "{} scales for axis {axis} of {:?}",
            t.data.len(),
            x.shape
        ));
    }
    let shape = x.shape.clone();
    Ok(move |i: usize| {
        if t.data.len() == 1 {
            t.data[0]
        } else {
            t.data[along(&shape, axis, i)]
        }
    })
}

fn quantize(
    node: &Node,
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
    rounding: Rounding,
) -> Result<Tensor, String> {
    let element = zero.map_or(Element::U8, |z| z.element);
    let (low, high) = element.range();
    let scale = parameter(node, x, scale)?;
    let zero = zero.map(|z| parameter(node, x, z)).transpose()?;
    let data = x.data.iter().enumerate().map(|(i, v)| {
        let steps = v / scale(i);
        let rounded = match rounding {
            Rounding::HalfEven => steps.round_ties_even(),
            Rounding::HalfUp => (steps + 0.5).floor(),
        };
        (rounded + zero.as_ref().map_or(0.0, |z| z(i))).clamp(low, high)
    });
    Ok(Tensor {
        shape: x.shape.clone(),
        data: data.collect(),
        element,
    })
}

fn dequantize(
    node: &Node,
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
) -> Result<Tensor, String> {
    let scale = parameter(node, x, scale)?;
    let zero = zero.map(|z| parameter(node, x, z)).transpose()?;
    let data = x
        .data
        .iter()
        .enumerate()
        .map(|(i, v)| (v - zero.as_ref().map_or(0.0, |z| z(i))) * scale(i));
    Ok(Tensor {
        shape: x.shape.clone(),
        data: data.collect(),
        element: Element::F32,
    })
}

fn gemm(node: &Node, a: &Tensor, b: &Tensor, c: Option<&Tensor>) -> Result<Tensor, String> {
    let transposed = node.int("transB", 0) != 0;
    if node.int("transA", 0) != 0
        || node.float("alpha", 1.0) != 1.0
        || node.float("beta", 1.0) != 1.0
    {
        return Err("transA, alpha and beta are not used by the exporter".into());
    }
    let ([n, k], &[b0, b1]) = (
        <[usize; 2]>::try_from(a.shape.as_slice())
            .map_err(|_| format!("shape {:?}, expected [n, k]", a.shape))?,
        b.shape.as_slice(),
    ) else {
        return Err(format!("weight {:?}, expected rank 2", b.shape));
    };
    let (depth, m) = if transposed { (b1, b0) } else { (b0, b1) };
    if depth != k {
        return Err(format!("weight {:?} for input {:?}", b.shape, a.shape));
    }
    let mut data = Vec::with_capacity(n * m);
    for row in a.data.chunks(k) {
        for o in 0..m {
            let weight = |i: usize| {
                if transposed {
                    b.data[o * k + i]
                } else {
                    b.data[i * m + o]
                }
            };
            let start = c.map_or(0.0, |c| c.data[o % c.data.len()]);
            data.push(
                row.iter()
                    .enumerate()
                    .fold(start, |sum, (i, v)| sum + v * weight(i)),
            );
        }
    }
    Ok(Tensor {
        shape: vec![n, m],
        data,
        element: Element::F32,
    })
}

fn batch_normalization(
    node: &Node,
    x: &Tensor,
    [gamma, beta, mean, variance]: [&Tensor; 4],
) -> Result<Tensor, String> {
    if x.shape.len() < 2 || gamma.data.len() != x.shape[1] {
        return Err(format!(
            "{} channels for input {:?}",
            gamma.data.len(),
            x.shape
        ));
    }
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    let data = x.data.iter().enumerate().map(|(i, v)| {
        let c = along(&x.shape, 1, i);
        (v - mean.data[c]) / (variance.data[c] + epsilon).sqrt() * gamma.data[c] + beta.data[c]
    });
    Ok(Tensor {
        data: data.collect(),
        ..x.clone()
    })
}
