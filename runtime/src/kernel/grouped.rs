//! Convolution in the simplest way, value by value, for what the fast kernels of a small core leave out: grouped ones, those with
//! one output channel, and unusual depthwise ones.

use super::walk::{Corner, Walk, clip};
use super::{bias_of, centre, part, store, widen_by};
use crate::op::{Conv, Tensor, Window};

/// As the portable kernel, for weights in any order.
#[inline(never)]
pub(super) fn conv2d(conv: &Conv<'_>, input: Tensor, x: &[u8], output: Tensor, y: &mut [u8]) {
    let channels = usize::from(output.shape.c);
    let pool = conv.pool.unwrap_or(Window::ALONE);
    let inner = Walk::over(&conv.window, pool.size[1]);
    let mut walk = inner.scaled(pool.stride, output.shape.w);
    let size = output.dtype.size();
    for pixel in y.chunks_mut((channels * size).max(1)) {
        let corner = walk.next();
        for (channel, out) in pixel.chunks_mut(size).enumerate() {
            let mut best = [i32::MIN];
            window(conv, input, x, inner.from(corner), [channel, 0], &mut best);
            store(&conv.post, output.dtype, channel, &best, &[], out);
        }
    }
}

/// As the portable kernel's; the group of a channel is not needed.
pub(super) fn window(
    conv: &Conv<'_>,
    input: Tensor,
    x: &[u8],
    mut inner: Walk,
    [first, _]: [usize; 2],
    best: &mut [i32],
) {
    for _ in 0..conv
        .pool
        .map_or(1, |pool| u32::from(pool.size[0]) * u32::from(pool.size[1]))
    {
        let at = inner.next();
        for (j, best) in best.iter_mut().enumerate() {
            *best = sum(conv, &input, x, at, first + j).max(*best);
        }
    }
}

/// The accumulator of a channel at one position.
#[inline(never)]
fn sum(conv: &Conv<'_>, input: &Tensor, x: &[u8], at: Corner, channel: usize) -> i32 {
    let [v, h] = clip(at, conv.window.size, input.shape);
    let groups = usize::from(conv.groups.get());
    let ci = usize::from(input.shape.c);
    let depth = ci / groups;
    let group = channel / (conv.weights.channels / groups).max(1);
    let (first, step) = conv.weights.places(channel);
    let mut acc = bias_of(conv.bias, channel);
    for ky in 0..v.len {
        for kx in 0..h.len {
            let place = (v.start + ky) * usize::from(input.shape.w) + h.start + kx;
            let tap = (v.skip + ky) * usize::from(conv.window.size[1]) + h.skip + kx;
            let weights = conv.weights.bytes.get(first + tap * depth * step..);
            acc += dot(
                centre(input.dtype),
                part(x, place * ci + group * depth, depth),
                weights.unwrap_or_default(),
                step,
            );
        }
    }
    acc
}

/// `sum_i x[i] * weights[i * step]`.
#[inline(never)]
fn dot(from: u8, x: &[u8], weights: &[u8], step: usize) -> i32 {
    let mut sum = 0;
    let mut at = 0;
    for &value in x {
        let weight = weights.get(at).map_or(0, |&weight| weight as i8);
        sum += widen_by(from, value) * i32::from(weight);
        at += step;
    }
    sum
}
