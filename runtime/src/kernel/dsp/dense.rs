//! Fully connected.

use super::gather::Lane;
use super::{Buffer, Dsp, STEPS};
use crate::kernel::{bias_of, store};
use crate::op::{Dense, Tensor};
use crate::shape::DType;

/// Values that the buffer holds, for one position.
const WIDTH: usize = 8 * STEPS;

/// As the portable kernel: the input is widened, as much of it as the buffer holds at a time.
#[inline(never)]
pub(super) fn dense<D: Dsp>(
    layer: &Dense<'_>,
    input: Tensor,
    x: &[u8],
    dtype: DType,
    y: &mut [u8],
) {
    let signed = input.dtype != DType::U8;
    let mut buffer: Buffer = [[0; 4]; STEPS];
    let acts = buffer.as_flattened_mut();
    let resident = x.len() <= WIDTH;
    let mut first = 0;
    for (y, weights) in y.chunks_mut(2 * dtype.size()).zip(layer.weights.blocks()) {
        let mut rest = weights.as_chunks::<4>().0;
        let mut sums = [bias_of(layer.bias, first), bias_of(layer.bias, first + 1)];
        for values in x.chunks(WIDTH) {
            if first == 0 || !resident {
                Lane::alone(acts).values::<D>(signed, values);
            }
            let steps = values.len().div_ceil(2);
            let (words, others) = rest.split_at_checked(steps).unwrap_or((rest, &[]));
            D::add1(acts.get(..steps).unwrap_or_default(), words, &mut sums);
            rest = others;
        }
        store(&layer.post, dtype, first, &sums, y);
        first += 2;
    }
}
