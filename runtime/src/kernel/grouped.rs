//! Convolution in the simplest way, value by value, for what the fast kernels of a small core leave out: grouped ones, those with
//! one output channel, and unusual depthwise ones.

use super::pool::values;
use super::walk::{Corner, Walk};
use super::{bias_of, centre, part, widen_by};
use crate::op::{Conv, Op, Tensor, Window};

/// As the portable kernel, for weights in any order.
#[inline(never)]
pub(super) fn conv2d(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let pool = conv.pool.unwrap_or(Window::ALONE);
    let mut inner = Walk::over(&conv.window, pool.size[1]);
    let outer = inner.scaled(pool.stride, op.output.shape.w);
    values(op, &conv.post, outer, y, &mut |at, channel| {
        inner.restart(at);
        greatest(conv, &op.input, x, &mut inner, channel)
    });
}

/// The maximum over the pooling window, whose first position `inner` has, of a channel's accumulators.
pub(super) fn greatest(
    conv: &Conv<'_>,
    input: &Tensor,
    x: &[u8],
    inner: &mut Walk,
    channel: usize,
) -> i32 {
    let mut best = i32::MIN;
    for _ in 0..conv.pool.map_or(1, |pool| pool.size[0] * pool.size[1]) {
        best = sum(conv, input, x, inner.next(), channel).max(best);
    }
    best
}

/// The accumulator of a channel at one position.
#[inline(never)]
fn sum(conv: &Conv<'_>, input: &Tensor, x: &[u8], [top, left]: Corner, channel: usize) -> i32 {
    let groups = usize::from(conv.groups.get());
    let depth = usize::from(input.shape.c) / groups;
    let group = channel / (conv.weights.channels / groups).max(1);
    let from = centre(input.dtype);
    let mut acc = bias_of(conv.bias, channel);
    let [kh, kw] = conv.window.size;
    let (mut row, mut column) = (top, left);
    let mut index = 0;
    for _ in 0..u32::from(kh) * u32::from(kw) {
        // A negative number is a large one.
        if (row as usize) < input.shape.h.into() && (column as usize) < input.shape.w.into() {
            let place = row as usize * usize::from(input.shape.w) + column as usize;
            let pixel = part(x, (place * groups + group) * depth, depth);
            for (i, &value) in pixel.iter().enumerate() {
                let weight = conv.weights.get(channel, index + i).unwrap_or(0);
                acc += widen_by(from, value) * i32::from(weight);
            }
        }
        index += depth;
        column += 1;
        if column == left + kw as isize {
            (row, column) = (row + 1, left);
        }
    }
    acc
}
