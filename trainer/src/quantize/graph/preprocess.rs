//! Preprocessing becomes part of the network: folded into the operators that read the image, or an operator of its own.

use super::{Node, NodeKind, Operand, Tap};
use crate::{
    architecture::{Activation, Shape},
    preprocess::Preprocess,
    quantize::QuantizeError,
};

/// Preprocessing as `x * mul + add`, one entry for all values or one per value; `None`: the pixels as they are.
pub fn affine(preprocess: &Preprocess) -> Option<(Vec<f64>, Vec<f64>)> {
    let of = |mean: f32, std: f32| (1.0 / f64::from(std), -f64::from(mean) / f64::from(std));
    match preprocess {
        Preprocess::None => None,
        Preprocess::Unit => Some((vec![1.0 / 255.0], vec![0.0])),
        Preprocess::Global { mean, std } => {
            let (mul, add) = of(*mean, *std);
            Some((vec![mul], vec![add]))
        }
        Preprocess::PerPixel { mean, std } => Some(
            mean.iter()
                .zip(std)
                .map(|(&mean, &std)| of(mean, std))
                .unzip(),
        ),
    }
}

/// Folds the preprocessing into the nodes that read the image, or puts an affine node before them.
pub(super) fn fold(
    nodes: &mut Vec<Node>,
    image: Shape,
    preprocess: &Preprocess,
) -> Result<(), QuantizeError> {
    let Some((mul, add)) = affine(preprocess) else {
        return Ok(());
    };
    if mul.len() != 1 && mul.len() != image.len() {
        return Err(QuantizeError::WeightSize {
            name: "preprocess.mean".into(),
            expected: image.len(),
            got: mul.len(),
        });
    }
    let scalar = mul.len() == 1;
    let folds = |node: &Node| match &node.kind {
        NodeKind::Dense { .. } => scalar,
        NodeKind::Conv {
            kernel,
            stride,
            pad,
            ..
        } => {
            let inside =
                |n: usize, out: usize, axis: usize| (out - 1) * stride[axis] + kernel[axis] <= n;
            let padded = *pad != [0, 0]
                || !inside(node.input.h, node.unpooled.h, 0)
                || !inside(node.input.w, node.unpooled.w, 1);
            scalar && (add[0] == 0.0 || !padded)
        }
        NodeKind::Affine { .. } => scalar,
        _ => false,
    };
    let reads_image = |node: &Node| node.inputs.contains(&Operand::Image);
    if nodes.iter().filter(|node| reads_image(node)).all(folds) {
        for node in nodes.iter_mut().filter(|node| reads_image(node)) {
            match &mut node.kind {
                NodeKind::Conv { weight, bias, .. } | NodeKind::Dense { weight, bias } => {
                    let per_channel = weight.len() / bias.len();
                    for (row, bias) in weight.chunks_mut(per_channel).zip(bias) {
                        *bias += add[0] * row.iter().sum::<f64>();
                        row.iter_mut().for_each(|w| *w *= mul[0]);
                    }
                }
                NodeKind::Affine {
                    mul: outer,
                    add: offset,
                } => {
                    for (outer, offset) in outer.iter_mut().zip(offset) {
                        *offset += *outer * add[0];
                        *outer *= mul[0];
                    }
                }
                _ => unreachable!("checked by folds"),
            }
        }
        return Ok(());
    }
    for node in nodes.iter_mut() {
        for input in &mut node.inputs {
            *input = match *input {
                Operand::Image => Operand::Node(0),
                Operand::Node(node) => Operand::Node(node + 1),
            };
        }
    }
    let spread = |values: Vec<f64>| {
        if scalar {
            vec![values[0]; image.c]
        } else {
            values
        }
    };
    nodes.insert(
        0,
        Node {
            layer: "input.preprocess".into(),
            kind: NodeKind::Affine {
                mul: spread(mul),
                add: spread(add),
            },
            inputs: vec![Operand::Image],
            activation: Activation::Linear,
            pool: None,
            input: image,
            unpooled: image,
            output: image,
            pre_activation: Tap::Input,
            result: Tap::Input,
        },
    );
    Ok(())
}
