//! One node at fixed activation exponents becomes one integer operator.

use runtime::encode::{AffineParam, OpSpec, PoolSpec, Post, TensorId};

use super::{
    ACCUMULATOR_LIMIT, NodeScale, Operator, QuantizeError, Tensor,
    graph::{Node, NodeKind, Operand},
    scale::{max_magnitude, pow2, quantize_weight, weight_exponent},
};
use crate::architecture::Shape;

/// Shifts that the runtime accepts.
const SHIFTS: std::ops::RangeInclusive<i32> = -24..=31;

/// An operator with the exponents of its accumulators (per output channel, or one for all).
#[derive(Debug)]
pub struct Built {
    pub operator: Operator,
    pub accumulator_exponents: Vec<i32>,
}

/// Index of the tensor that an operand reads.
fn tensor_id(operand: Operand) -> TensorId {
    match operand {
        Operand::Image => 0,
        Operand::Node(node) => node + 1,
    }
}

fn fits<T: TryFrom<usize>>(
    node: &Node,
    what: &'static str,
    got: usize,
    max: usize,
) -> Result<T, QuantizeError> {
    T::try_from(got).map_err(|_| QuantizeError::TooLarge {
        layer: node.layer.clone(),
        what,
        got,
        max,
    })
}

fn pair_u8(node: &Node, what: &'static str, pair: [usize; 2]) -> Result<[u8; 2], QuantizeError> {
    Ok([
        fits(node, what, pair[0], 255)?,
        fits(node, what, pair[1], 255)?,
    ])
}

fn pair_u16(node: &Node, what: &'static str, pair: [usize; 2]) -> Result<[u16; 2], QuantizeError> {
    Ok([
        fits(node, what, pair[0], 65535)?,
        fits(node, what, pair[1], 65535)?,
    ])
}

/// Builds the operator of `node`, which reads `tensors` and writes tensor `output`. Without a scale the accumulators
/// themselves are the result.
pub fn build(
    node: &Node,
    tensors: &[Tensor],
    output: TensorId,
    scale: Option<&NodeScale>,
) -> Result<Built, QuantizeError> {
    let Shape { h, w, c } = node.output;
    for (what, extent) in [("height", h), ("width", w), ("number of channels", c)] {
        let _: u16 = fits(node, what, extent, 65535)?;
    }
    let input = tensor_id(node.inputs[0]);
    let read = tensors[input];
    // Exponent of what requantization produces: the tensor, or the input of the table.
    let target = scale.map(|s| s.table.as_ref().map_or(s.exponent, |(before, _)| *before));
    let mut weight_exponents = Vec::new();
    let mut accumulator_exponents = Vec::new();
    let table = || scale.and_then(|s| s.table.as_ref().map(|(_, table)| table.clone()));
    let spec = match &node.kind {
        NodeKind::Affine { mul, add } => {
            let target = target.ok_or_else(|| QuantizeError::Logits {
                layer: node.layer.clone(),
                got: node.output,
            })?;
            let params = (0..mul.len())
                .map(|i| affine(node, i, mul[i], add[i], read, target))
                .collect::<Result<_, _>>()?;
            OpSpec::Affine {
                input,
                output,
                params,
            }
        }
        NodeKind::Conv {
            kernel,
            stride,
            pad,
            groups,
            weight,
            bias,
        } => {
            let linear = linear(node, weight, bias, read, target)?;
            weight_exponents = linear.exponents;
            accumulator_exponents = weight_exponents.iter().map(|e| e + read.exponent).collect();
            let pool = node.pool.map(|pool| -> Result<PoolSpec, QuantizeError> {
                Ok(PoolSpec {
                    size: pair_u8(node, "pool size", pool.size)?,
                    stride: pair_u8(node, "pool stride", pool.stride)?,
                })
            });
            OpSpec::Conv {
                input,
                output,
                kernel: pair_u8(node, "kernel size", *kernel)?,
                stride: pair_u8(node, "stride", *stride)?,
                pad: pair_u8(node, "padding", *pad)?,
                conv: pair_u16(node, "map size", [node.unpooled.h, node.unpooled.w])?,
                groups: fits(node, "number of groups", *groups, 65535)?,
                weight: linear.weight,
                bias: linear.bias,
                pool: pool.transpose()?,
                post: Post {
                    shift: linear.shift,
                    table: table(),
                },
            }
        }
        NodeKind::Dense { weight, bias } => {
            let linear = linear(node, weight, bias, read, target)?;
            weight_exponents = linear.exponents;
            accumulator_exponents = weight_exponents.iter().map(|e| e + read.exponent).collect();
            OpSpec::Dense {
                input,
                output,
                weight: linear.weight,
                bias: linear.bias,
                post: Post {
                    shift: linear.shift,
                    table: table(),
                },
            }
        }
        NodeKind::MaxPool { size, stride, pad } => OpSpec::MaxPool {
            input,
            output,
            size: pair_u8(node, "pool size", *size)?,
            stride: pair_u8(node, "pool stride", *stride)?,
            pad: pair_u8(node, "padding", *pad)?,
        },
        NodeKind::AvgPool { size, stride } => {
            let count = size[0] * size[1];
            let (multiplier, exponent) = average(node, count, max_magnitude(read.dtype))?;
            weight_exponents = vec![exponent];
            let accumulator = read.exponent + exponent;
            accumulator_exponents = vec![accumulator];
            OpSpec::AvgPool {
                input,
                output,
                size: pair_u16(node, "pool size", *size)?,
                stride: pair_u16(node, "pool stride", *stride)?,
                multiplier,
                post: Post {
                    shift: shift(node, accumulator, target)?,
                    table: table(),
                },
            }
        }
        NodeKind::Add => {
            let b = tensor_id(node.inputs[1]);
            let accumulator = read.exponent.min(tensors[b].exponent);
            let shifts = [
                read.exponent - accumulator,
                tensors[b].exponent - accumulator,
            ];
            let bound = (max_magnitude(read.dtype) << shifts[0].min(32))
                + (max_magnitude(tensors[b].dtype) << shifts[1].min(32));
            check_bound(node, 0, bound)?;
            accumulator_exponents = vec![accumulator];
            OpSpec::Add {
                a: input,
                b,
                output,
                shift_a: shifts[0] as u8,
                shift_b: shifts[1] as u8,
                post: Post {
                    shift: shift(node, accumulator, target)?,
                    table: table(),
                },
            }
        }
        NodeKind::Function => OpSpec::Table {
            input,
            output,
            table: table().ok_or_else(|| QuantizeError::Table {
                layer: node.layer.clone(),
                activation: node.activation,
            })?,
        },
    };
    let operator = Operator {
        layer: node.layer.clone(),
        spec,
        activation: node.activation,
        table_exponent: if node.needs_table() || matches!(node.kind, NodeKind::Function) {
            target
        } else {
            None
        },
        weight_exponents,
    };
    Ok(Built {
        operator,
        accumulator_exponents,
    })
}

fn check_bound(node: &Node, channel: usize, bound: i64) -> Result<(), QuantizeError> {
    if bound < ACCUMULATOR_LIMIT {
        Ok(())
    } else {
        Err(QuantizeError::Bound {
            layer: node.layer.clone(),
            channel,
            bound,
        })
    }
}

/// The one shift from accumulators to the output; none for logits.
fn shift(node: &Node, accumulator: i32, target: Option<i32>) -> Result<Vec<i8>, QuantizeError> {
    let Some(target) = target else {
        return Ok(Vec::new());
    };
    let shift = target - accumulator;
    if SHIFTS.contains(&shift) {
        return Ok(vec![shift as i8]);
    }
    Err(shift_error(
        node,
        0,
        "the output",
        shift,
        *SHIFTS.start(),
        *SHIFTS.end(),
    ))
}

fn shift_error(
    node: &Node,
    channel: usize,
    what: &'static str,
    shift: i32,
    min: i32,
    max: i32,
) -> QuantizeError {
    QuantizeError::Shift {
        layer: node.layer.clone(),
        channel,
        what,
        shift: shift.into(),
        min: min.into(),
        max: max.into(),
    }
}

/// Integer weights of a conv or dense operator.
struct Linear {
    weight: Vec<i8>,
    bias: Vec<i32>,
    exponents: Vec<i32>,
    shift: Vec<i8>,
}

/// Per output channel: the exponent with the smallest error of the weights, made coarser until the accumulator bound
/// and the shift range hold.
fn linear(
    node: &Node,
    weight: &[f64],
    bias: &[f64],
    read: Tensor,
    target: Option<i32>,
) -> Result<Linear, QuantizeError> {
    let mut linear = Linear {
        weight: Vec::with_capacity(weight.len()),
        bias: Vec::with_capacity(bias.len()),
        exponents: Vec::with_capacity(bias.len()),
        shift: Vec::new(),
    };
    let per_channel = weight.len() / bias.len();
    for (channel, (row, &bias)) in weight.chunks(per_channel).zip(bias).enumerate() {
        // Without weights only the bias matters: 16 bits below the output, or of its own.
        let mut exponent =
            weight_exponent(row).unwrap_or_else(|| target.unwrap_or(0) - 16 - read.exponent);
        if let Some(target) = target {
            exponent = exponent.max(target - read.exponent - SHIFTS.end());
        }
        let (quantized, quantized_bias) = loop {
            let quantized: Vec<i8> = row.iter().map(|&w| quantize_weight(w, exponent)).collect();
            let quantized_bias = (bias * pow2(-exponent - read.exponent)).round_ties_even();
            let sum: i64 = quantized.iter().map(|&w| i64::from(w).abs()).sum();
            let bound = (sum * max_magnitude(read.dtype)) as f64 + quantized_bias.abs();
            if bound < ACCUMULATOR_LIMIT as f64 {
                break (quantized, quantized_bias as i32);
            }
            exponent += 1;
        };
        if let Some(target) = target {
            let shift = target - read.exponent - exponent;
            if !SHIFTS.contains(&shift) {
                return Err(shift_error(
                    node,
                    channel,
                    "the output",
                    shift,
                    *SHIFTS.start(),
                    *SHIFTS.end(),
                ));
            }
            linear.shift.push(shift as i8);
        }
        if !(-100..=100).contains(&(exponent + read.exponent)) {
            return Err(shift_error(
                node,
                channel,
                "the accumulator",
                exponent + read.exponent,
                -100,
                100,
            ));
        }
        linear.weight.extend(quantized);
        linear.bias.push(quantized_bias);
        linear.exponents.push(exponent);
    }
    Ok(linear)
}

/// `y = (x * mul + add) * 2^-shift` in steps of the output, with as many bits of the factor as the bound allows.
fn affine(
    node: &Node,
    channel: usize,
    mul: f64,
    add: f64,
    read: Tensor,
    target: i32,
) -> Result<AffineParam, QuantizeError> {
    let factor = mul * pow2(read.exponent - target);
    let offset = add * pow2(-target);
    let fitting = (0..=*SHIFTS.end()).rev().find_map(|shift| {
        let mul = (factor * pow2(shift)).round_ties_even();
        let add = (offset * pow2(shift)).round_ties_even();
        let bound = mul.abs() * max_magnitude(read.dtype) as f64 + add.abs();
        (mul.abs() <= f64::from(i16::MAX) && bound < ACCUMULATOR_LIMIT as f64).then_some(
            AffineParam {
                mul: mul as i16,
                add: add as i32,
                shift: shift as u8,
            },
        )
    });
    fitting.ok_or_else(|| shift_error(node, channel, "the affine factor", -1, 0, *SHIFTS.end()))
}

/// Multiplier and exponent with `multiplier * 2^exponent` nearest to `1 / count`: 1 for powers of two, else up to 7 bits.
fn average(node: &Node, count: usize, max_input: i64) -> Result<(i8, i32), QuantizeError> {
    if count.is_power_of_two() {
        check_bound(node, 0, count as i64 * max_input)?;
        return Ok((1, -(count.trailing_zeros() as i32)));
    }
    let candidate = |bits: i32| {
        let multiplier = (pow2(bits) / count as f64).round_ties_even();
        let error = (multiplier * pow2(-bits) * count as f64 - 1.0).abs();
        let bound = multiplier as i64 * count as i64 * max_input;
        ((1.0..=127.0).contains(&multiplier) && bound < ACCUMULATOR_LIMIT).then_some((
            error,
            multiplier as i8,
            -bits,
        ))
    };
    (0..40)
        .filter_map(candidate)
        .reduce(|best, next| if next.0 < best.0 { next } else { best })
        .map(|(_, multiplier, exponent)| (multiplier, exponent))
        .ok_or(QuantizeError::Bound {
            layer: node.layer.clone(),
            channel: 0,
            bound: count as i64 * max_input,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runtime::encode::DType;

    use super::*;
    use crate::{architecture::Activation, quantize::graph::Tap};

    fn tensor(dtype: DType, exponent: i32, c: usize) -> Tensor {
        Tensor {
            shape: Shape { h: 1, w: 1, c },
            dtype,
            exponent,
        }
    }

    fn node(kind: NodeKind, ci: usize, co: usize) -> Node {
        let (input, output) = (Shape { h: 1, w: 1, c: ci }, Shape { h: 1, w: 1, c: co });
        Node {
            layer: "dense1".into(),
            kind,
            inputs: vec![Operand::Image],
            activation: Activation::Linear,
            pool: None,
            input,
            unpooled: output,
            output,
            pre_activation: Tap::Input,
            result: Tap::Input,
        }
    }

    fn dense(weight: Vec<f64>, bias: Vec<f64>) -> Node {
        let (ci, co) = (weight.len() / bias.len(), bias.len());
        node(NodeKind::Dense { weight, bias }, ci, co)
    }

    proptest! {
        /// Whatever the weights: the bound holds, and the exponent is no coarser than the bound or the error demand.
        #[test]
        fn bound_holds(
            weight in prop::collection::vec(-20.0f64..20.0, 2..900),
            bias in -5000.0f64..5000.0,
            exponent in -12i32..3,
            signed: bool,
        ) {
            let dtype = if signed { DType::I8 } else { DType::U8 };
            let read = tensor(dtype, exponent, weight.len());
            let built = build(&dense(weight.clone(), vec![bias]), &[read], 1, None).unwrap();
            let OpSpec::Dense { weight: w, bias: b, .. } = built.operator.spec else { panic!("dense") };
            let largest = if signed { 128 } else { 255 };
            let sum: i64 = w.iter().map(|&w| i64::from(w).abs()).sum();
            prop_assert!(sum * largest + i64::from(b[0]).abs() < 1 << 24);
            let scale = 2f64.powi(built.operator.weight_exponents[0]);
            let accumulator = scale * 2f64.powi(exponent);
            prop_assert!((f64::from(b[0]) * accumulator - bias).abs() <= accumulator / 2.0);
            let optimal = weight_exponent(&weight).unwrap();
            if built.operator.weight_exponents[0] > optimal {
                let finer: i64 = weight.iter()
                    .map(|&x| i64::from(quantize_weight(x, built.operator.weight_exponents[0] - 1)).abs()).sum();
                prop_assert!((finer * largest) as f64 + (bias / accumulator * 2.0).round_ties_even().abs() >= (1 << 24) as f64);
            }
        }

        /// An affine value is off by at most a few hundredths of a step where the format has the bits for it.
        #[test]
        fn affine_is_close(mul in -0.05f64..0.05, add in -3.0f64..3.0, x in 0i64..256) {
            let kind = NodeKind::Affine { mul: vec![mul], add: vec![add] };
            let param = affine(&node(kind, 1, 1), 0, mul, add, tensor(DType::U8, 0, 1), -5).unwrap();
            let steps = (x * i64::from(param.mul) + i64::from(param.add)) as f64 / 2f64.powi(param.shift.into());
            prop_assert!((x * i64::from(param.mul) + i64::from(param.add)).abs() < 1 << 24);
            prop_assert!((steps - (x as f64 * mul + add) * 32.0).abs() < 0.05);
        }
    }

    #[test]
    fn averages() {
        let node = dense(vec![1.0], vec![0.0]);
        assert_eq!(average(&node, 4, 255), Ok((1, -2)));
        assert_eq!(average(&node, 1, 128), Ok((1, 0)));
        // 1/9: 57 * 2^-9 = 0.11133 and 114 * 2^-10 are the same; the smaller multiplier comes first.
        assert_eq!(average(&node, 9, 255), Ok((57, -9)));
        // 28 x 28 values of 255: 84 * 2^-16 would exceed 2^24, 42 * 2^-15 does not.
        let (multiplier, _) = average(&node, 784, 255).unwrap();
        assert!(i64::from(multiplier) * 784 * 255 < 1 << 24);
        assert!(matches!(
            average(&node, 66_000, 255),
            Err(QuantizeError::Bound { .. })
        ));
    }

    #[test]
    fn a_channel_without_weights_keeps_its_bias() {
        let built = build(
            &dense(vec![0.0, 0.0], vec![0.75]),
            &[tensor(DType::U8, -3, 2)],
            1,
            None,
        )
        .unwrap();
        let OpSpec::Dense { bias, .. } = built.operator.spec else {
            panic!("dense")
        };
        assert_eq!(
            f64::from(bias[0]) * 2f64.powi(built.accumulator_exponents[0]),
            0.75
        );
    }

    #[test]
    fn extreme_scales_are_refused_with_the_layer() {
        let scale = NodeScale {
            dtype: DType::I8,
            exponent: -60,
            table: None,
        };
        let error = build(
            &dense(vec![1.0], vec![0.0]),
            &[tensor(DType::U8, 0, 1)],
            1,
            Some(&scale),
        )
        .unwrap_err();
        assert!(matches!(error, QuantizeError::Shift { .. }));
        assert!(
            error
                .to_string()
                .starts_with("layer `dense1`, channel 0: the output needs a shift of"),
            "{error}"
        );
    }
}
