//! Weights transformed for Winograd's algorithm: a file means a convolution or is refused.

use super::bound::check_channel;
use crate::error::OpProblem;
use crate::op::tri;
use crate::shape::DType;
use crate::weight::Weights;
use crate::weight::winograd::{FREQUENCIES, QUAD, TAPS, kernels, recover};

const fn zero(u: &[i16; FREQUENCIES]) -> bool {
    let mut frequency = 0;
    while frequency < FREQUENCIES {
        if u[frequency] != 0 {
            return false;
        }
        frequency += 1;
    }
    true
}

/// Every transform is one of weights in their range, what fills a block is 0, and the bound of every output channel holds. The
/// kernels compute four times an accumulator modulo 2^32, so its bound of 2^24 serves them too.
pub(super) const fn check_transforms(
    weights: Weights<'_>,
    bias: &[[u8; 4]],
    dtype: DType,
) -> Result<(), OpProblem> {
    let inputs = weights.per_channel / TAPS;
    let mut biases = bias;
    let mut first = 0;
    while first < weights.channels {
        // Sums of magnitudes; none if a weight is -128.
        let mut sums = [Some(0), Some(0), Some(0), Some(0)];
        let mut quad = 0;
        while quad < inputs.div_ceil(QUAD) {
            let kernels = kernels(&weights, first / QUAD, quad);
            let mut i = 0;
            while i < QUAD * QUAD {
                let (channel, input) = (i / QUAD, i % QUAD);
                let u = &kernels[channel][input];
                if first + channel >= weights.channels || quad * QUAD + input >= inputs {
                    if !zero(u) {
                        return Err(OpProblem::Padding {
                            channel: first as u16,
                        });
                    }
                } else {
                    match recover(u) {
                        Some(g) => sums[channel] = sum(sums[channel], &g),
                        None => {
                            return Err(OpProblem::Transform {
                                channel: (first + channel) as u16,
                            });
                        }
                    }
                }
                i += 1;
            }
            quad += 1;
        }
        let mut channel = 0;
        while channel < QUAD
            && let [bias, tail @ ..] = biases
        {
            let bias = i32::from_le_bytes(*bias);
            tri!(check_channel(first + channel, sums[channel], bias, dtype));
            biases = tail;
            channel += 1;
        }
        first += QUAD;
    }
    Ok(())
}

/// `sum` plus the magnitudes of a kernel's weights.
const fn sum(sum: Option<u64>, g: &[i8; TAPS]) -> Option<u64> {
    let mut sum = match sum {
        Some(sum) => sum,
        None => return None,
    };
    let mut tap = 0;
    while tap < TAPS {
        if g[tap] == i8::MIN {
            return None;
        }
        sum += g[tap].unsigned_abs() as u64;
        tap += 1;
    }
    Some(sum)
}
