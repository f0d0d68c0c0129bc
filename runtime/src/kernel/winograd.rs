//! Convolutions whose weights are stored transformed ([`Layout::Winograd`]).
//!
//! [`direct`] recovers the weights and runs the portable kernel with them: the definition of what such a layer computes.

#[cfg(any(feature = "encode", kernels = "portable"))]
use super::conv::window;
#[cfg(not(any(feature = "encode", kernels = "portable")))]
use super::grouped::greatest;
use super::store;
use super::walk::Walk;
use crate::op::{Conv, Op, Window};
use crate::weight::winograd::{INPUTS_MAX, QUAD, TAPS, kernel, kernels};
use crate::weight::{Layout, Weights};

/// Weights of an output channel, at most.
const TAPS_MAX: usize = TAPS * INPUTS_MAX as usize;

/// As [`super::conv::conv2d`], four output channels after another, whose weights are recovered first.
#[inline(never)]
pub(super) fn direct(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    let weights = &conv.weights;
    let (channels, size) = (usize::from(output.shape.c), output.dtype.size());
    let pixel_len = (channels * size).max(1);
    let pool = conv.pool.unwrap_or(Window::ALONE);
    let mut inner = Walk::over(&conv.window, pool.size[1]);
    let outer = inner.scaled(pool.stride, output.shape.w);
    let mut recovered = [0; QUAD * TAPS_MAX];
    for first in (0..channels).step_by(QUAD) {
        let count = QUAD.min(channels - first);
        recover(weights, first / QUAD, &mut recovered);
        let layer = Conv {
            weights: Weights {
                bytes: &recovered,
                layout: Layout::Ohwi,
                channels: count,
                per_channel: weights.per_channel,
            },
            facts: None,
            bias: conv.bias.get(first..).unwrap_or_default(),
            ..*conv
        };
        let mut walk = outer;
        for pixel in y.chunks_mut(pixel_len) {
            let corner = walk.next();
            let mut best = [i32::MIN; QUAD];
            let at = first * size..(first + count) * size;
            if let (Some(best), Some(out)) = (best.get_mut(..count), pixel.get_mut(at)) {
                #[cfg(any(feature = "encode", kernels = "portable"))]
                {
                    inner.restart(corner);
                    window(&layer, input, x, &mut inner, [0, 0], best);
                }
                #[cfg(not(any(feature = "encode", kernels = "portable")))]
                for (channel, best) in best.iter_mut().enumerate() {
                    inner.restart(corner);
                    *best = greatest(&layer, input, x, &mut inner, channel);
                }
                let mut rest = out;
                for (j, acc) in best.iter().enumerate() {
                    rest = store(&conv.post, output.dtype, first + j, *acc, rest);
                }
            }
        }
    }
}

/// The weights of a block of output channels as `[4][3][3][ci]`.
#[inline(never)]
fn recover(weights: &Weights<'_>, block: usize, to: &mut [u8]) {
    let inputs = (weights.per_channel / TAPS).max(1);
    for quad in 0..inputs.div_ceil(QUAD) {
        let kernels = kernels(weights, block, quad);
        for (channel, kernels) in kernels.iter().enumerate() {
            let row = to.get_mut(channel * weights.per_channel..);
            let row = row.unwrap_or_default();
            for (input, u) in (quad * QUAD..inputs).zip(kernels) {
                let places = row.iter_mut().skip(input).step_by(inputs);
                for (place, weight) in places.zip(kernel(u)) {
                    *place = weight as u8;
                }
            }
        }
    }
}
