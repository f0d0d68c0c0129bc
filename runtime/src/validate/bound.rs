//! Ranges: shifts, weights, and the bound of the accumulators.

use super::saturated;
use super::transform::check_transforms;
use crate::error::OpProblem;
use crate::fixed::{ACCUMULATOR_LIMIT, SHIFT_MAX, SHIFT_MIN};
use crate::format::{record, u8_at, u16_at};
use crate::op::{Affine, AffineParam, Post, tri};
use crate::shape::DType;
use crate::weight::{Facts, Layout, Tally, Weights, winograd};

pub(super) const fn check_post(post: Post<'_>) -> Result<(), OpProblem> {
    let mut rest = post.shifts;
    let mut channel = 0;
    while let [shift, tail @ ..] = rest {
        let shift = *shift as i8;
        if shift < SHIFT_MIN || shift > SHIFT_MAX {
            return Err(OpProblem::Shift {
                channel,
                got: shift,
            });
        }
        channel += 1;
        rest = tail;
    }
    Ok(())
}

pub(super) const fn check_bound(channel: usize, bound: u64) -> Result<(), OpProblem> {
    if bound < ACCUMULATOR_LIMIT as u64 {
        return Ok(());
    }
    Err(OpProblem::Bound {
        channel: saturated(channel),
        got: if bound > u32::MAX as u64 {
            u32::MAX
        } else {
            bound as u32
        },
    })
}

pub(super) const fn magnitude(value: i32) -> u64 {
    value.unsigned_abs() as u64
}

/// Magnitude of a weight byte; 128 stands for the forbidden -128.
const fn weight_magnitude(byte: u8) -> u64 {
    (if byte < 128 {
        byte
    } else {
        0u8.wrapping_sub(byte)
    }) as u64
}

/// `sum(|w|)` of a channel's weights, or `None` if one is -128.
const fn weight_sum(weights: &[u8]) -> Option<u64> {
    let mut sum = 0;
    let mut rest = weights;
    while let [a, tail @ ..] = rest {
        if *a == 128 {
            return None;
        }
        sum += weight_magnitude(*a);
        rest = tail;
    }
    Some(sum)
}

pub(super) const fn check_channel(
    channel: usize,
    sum: Option<u64>,
    bias: i32,
    dtype: DType,
) -> Result<(), OpProblem> {
    match sum {
        Some(sum) => check_bound(
            channel,
            sum.saturating_mul(dtype.magnitude()) + magnitude(bias),
        ),
        None => Err(OpProblem::Weight {
            channel: channel as u16,
        }),
    }
}

/// Weights in their range, padding 0, and the bound of every output channel.
pub(super) const fn check_weights(
    weights: Weights<'_>,
    bias: &[[u8; 4]],
    dtype: DType,
) -> Result<(), OpProblem> {
    match weights.layout {
        Layout::Hwo => check_columns(weights, bias, dtype),
        Layout::Ohwi2o => check_blocks(weights, bias, dtype),
        Layout::Winograd if winograd::ENABLED => check_transforms(weights, bias, dtype),
        Layout::Ohwi | Layout::Winograd => check_rows(weights, bias, dtype),
    }
}

/// Channels whose weights are one contiguous run each.
const fn check_rows(weights: Weights<'_>, bias: &[[u8; 4]], dtype: DType) -> Result<(), OpProblem> {
    let mut rest = weights.bytes;
    let mut biases = bias;
    let mut channel = 0;
    while let [bias, tail @ ..] = biases {
        let (row, others) = match rest.split_at_checked(weights.per_channel) {
            Some(parts) => parts,
            None => return Err(OpProblem::Section { offset: 0, len: 0 }),
        };
        let bias = i32::from_le_bytes(*bias);
        tri!(check_channel(channel, weight_sum(row), bias, dtype));
        rest = others;
        biases = tail;
        channel += 1;
    }
    Ok(())
}

/// Depthwise weights `[kh][kw][co]`.
const fn check_columns(
    weights: Weights<'_>,
    bias: &[[u8; 4]],
    dtype: DType,
) -> Result<(), OpProblem> {
    let mut biases = bias;
    let mut channel = 0;
    while let [bias, tail @ ..] = biases {
        let mut sum = Some(0);
        let mut at = channel;
        while at < weights.bytes.len() {
            let byte = u8_at(weights.bytes, at);
            sum = match sum {
                Some(sum) if byte != 128 => Some(sum + weight_magnitude(byte)),
                _ => None,
            };
            at += weights.channels;
        }
        let bias = i32::from_le_bytes(*bias);
        tri!(check_channel(channel, sum, bias, dtype));
        biases = tail;
        channel += 1;
    }
    Ok(())
}

/// Blocks of two channels that alternate; what fills a block is 0.
const fn check_blocks(
    weights: Weights<'_>,
    bias: &[[u8; 4]],
    dtype: DType,
) -> Result<(), OpProblem> {
    let block_len = Layout::Ohwi2o.bytes(1, weights.per_channel);
    let mut rest = weights.bytes;
    let mut biases = bias;
    let mut channel = 0;
    while let [first, tail @ ..] = biases {
        let (mut block, others) = match rest.split_at_checked(block_len) {
            Some(parts) => parts,
            None => return Err(OpProblem::Section { offset: 0, len: 0 }),
        };
        let (mut sums, mut valid) = ([0, 0], [true, true]);
        let mut left = weights.per_channel;
        while let [a, b, more @ ..] = block
            && left > 0
        {
            valid = [valid[0] && *a != 128, valid[1] && *b != 128];
            sums = [
                sums[0] + weight_magnitude(*a),
                sums[1] + weight_magnitude(*b),
            ];
            block = more;
            left -= 1;
        }
        let [a, b] = [
            if valid[0] { Some(sums[0]) } else { None },
            if valid[1] { Some(sums[1]) } else { None },
        ];
        let padding = matches!(weight_sum(block), Some(0));
        tri!(check_channel(channel, a, i32::from_le_bytes(*first), dtype));
        biases = match tail {
            [second, tail @ ..] => {
                let bias = i32::from_le_bytes(*second);
                tri!(check_channel(channel + 1, b, bias, dtype));
                tail
            }
            [] => tail,
        };
        if !padding || (tail.is_empty() && !matches!(b, Some(0))) {
            return Err(OpProblem::Padding {
                channel: channel as u16,
            });
        }
        rest = others;
        channel += 2;
    }
    Ok(())
}

/// The facts are those of the weights.
pub(super) const fn check_facts(weights: Weights<'_>, facts: Facts<'_>) -> Result<(), OpProblem> {
    let block_len = Layout::block(weights.per_channel);
    let mut rest = weights.bytes;
    let mut channel = 0;
    while channel < weights.channels {
        let (mut block, others) = match rest.split_at_checked(block_len) {
            Some(parts) => parts,
            None => return Err(OpProblem::Section { offset: 0, len: 0 }),
        };
        let mut tallies = [Tally::NEW; 2];
        let mut section = 0;
        let mut left = weights.per_channel;
        while let [a, b, more @ ..] = block
            && left > 0
        {
            left -= 1;
            let complete = tallies[0].add(*a as i8);
            tallies[1].add(*b as i8);
            if complete || left == 0 {
                let mut second = 0;
                while second < 2 && channel + second < weights.channels {
                    let at =
                        4 * weights.channels + 2 * (section * weights.channels + channel + second);
                    if u16_at(facts.bytes, at) != tallies[second].split {
                        return Err(OpProblem::Facts {
                            channel: (channel + second) as u16,
                        });
                    }
                    second += 1;
                }
                section += 1;
            }
            block = more;
        }
        let mut second = 0;
        while second < 2 && channel + second < weights.channels {
            if facts.sum(channel + second) != tallies[second].sum {
                return Err(OpProblem::Facts {
                    channel: (channel + second) as u16,
                });
            }
            second += 1;
        }
        rest = others;
        channel += 2;
    }
    Ok(())
}

pub(super) const fn check_affine(affine: &Affine<'_>, dtype: DType) -> Result<(), OpProblem> {
    let mut rest = affine.params;
    let mut channel = 0;
    while let [bytes, tail @ ..] = rest {
        let param = AffineParam::from_bytes(bytes);
        if param.shift > SHIFT_MAX as u8 {
            return Err(OpProblem::Shift {
                channel: channel as u16,
                got: param.shift as i8,
            });
        }
        if bytes[3] != 0 {
            return Err(OpProblem::Reserved {
                offset: record::BIAS as u8,
            });
        }
        tri!(check_bound(
            channel,
            magnitude(param.mul as i32) * dtype.magnitude() + magnitude(param.add),
        ));
        rest = tail;
        channel += 1;
    }
    Ok(())
}
