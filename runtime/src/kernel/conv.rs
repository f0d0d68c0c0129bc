//! Convolution (cross-correlation) with bias, max pooling over the accumulators, and requantization.

use super::walk::{Span, Walk, clip};
use super::{bias_of, centre, part, store, widen_by};
use crate::op::{Conv, Op, Tensor, Window};
use crate::shape::DType;
use crate::weight::{Layout, Weights};

/// Output channels whose accumulators are kept at the same time.
const BLOCK: usize = 16;

/// A stored byte as a number.
#[inline(always)]
fn widen(dtype: DType, byte: u8) -> i32 {
    match dtype {
        DType::U8 => i32::from(byte),
        DType::I8 | DType::I32 => i32::from(byte as i8),
    }
}

/// Values of a window that are widened at a time.
const CHUNK: usize = 64;

/// `acc[oy][ox][o] = bias[o] + sum_{ky,kx,i} x[oy * sh - pt + ky][ox * sw - pl + kx][g * ci/groups + i] * weight[o][ky][kx][i]`,
/// positions outside the map counting as 0; then the maximum over each pooling window; then requantization, once per stored value.
#[inline(never)]
pub(super) fn conv2d(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    let groups = usize::from(conv.groups.get());
    let size = output.dtype.size();
    let group_channels = (usize::from(output.shape.c) / groups).max(1);
    let pixel_len = (usize::from(output.shape.c) * size).max(1);
    // Depthwise weights in the order [kh][kw][co] make the channels one block, whatever the groups.
    let run = match conv.weights.layout {
        Layout::Hwo => usize::from(output.shape.c).max(1),
        _ => group_channels,
    };
    let pool = conv.pool.unwrap_or(Window::ALONE);
    let mut inner = Walk::over(&conv.window, pool.size[1]);
    let mut walk = inner.scaled(pool.stride, output.shape.w);
    for pixel in y.chunks_mut(pixel_len) {
        let corner = walk.next();
        for (group, part) in pixel.chunks_mut(run * size).enumerate() {
            for (block, out) in part.chunks_mut(BLOCK * size).enumerate() {
                let first = group * run + block * BLOCK;
                let mut best = [i32::MIN; BLOCK];
                let count = BLOCK.min(out.len() / size.max(1));
                let best = best.get_mut(..count).unwrap_or_default();
                inner.restart(corner);
                window(conv, input, x, &mut inner, [first, group], best);
                let mut rest = out;
                for (j, acc) in best.iter().enumerate() {
                    rest = store(&conv.post, output.dtype, first + j, *acc, rest);
                }
            }
        }
    }
}

/// Maximum over the pooling window, whose first position `inner` has, of the accumulators of the channels from `first` on.
pub(super) fn window(
    conv: &Conv<'_>,
    input: &Tensor,
    x: &[u8],
    inner: &mut Walk,
    [first, group]: [usize; 2],
    best: &mut [i32],
) {
    for _ in 0..conv
        .pool
        .map_or(1, |pool| u32::from(pool.size[0]) * u32::from(pool.size[1]))
    {
        let [v, h] = clip(inner.next(), conv.window.size, input.shape);
        match conv.weights.layout {
            Layout::Hwo => depthwise(conv, input, x, v, h, first, best),
            _ => rows(conv, input, x, v, h, first, group, best),
        }
    }
}

/// One map position; weights of one group. The window is copied, widened, a chunk at a time, in the order
/// of the weights (positions outside the map as 0); each chunk serves all channels of the block.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one position of a loop nest")]
fn rows(
    conv: &Conv<'_>,
    input: &Tensor,
    x: &[u8],
    v: Span,
    h: Span,
    first: usize,
    group: usize,
    best: &mut [i32],
) {
    let ci = usize::from(input.shape.c);
    let columns = usize::from(input.shape.w);
    let [kh, kw] = conv.window.size.map(usize::from);
    let groups = usize::from(conv.groups.get());
    let depth = ci / groups;
    let mut accs = [0; BLOCK];
    for (j, acc) in accs.iter_mut().take(best.len()).enumerate() {
        *acc = bias_of(conv.bias, first + j);
    }
    let mut chunk = Chunk::new(input.dtype);
    let mut multiply = |start: usize, values: &[i16]| {
        let accs = accs.get_mut(..best.len()).unwrap_or_default();
        multiply(&conv.weights, first, start, values, accs);
    };
    for ky in 0..kh {
        let row = ky.wrapping_sub(v.skip);
        if row >= v.len {
            chunk.zeros(kw * depth, &mut multiply);
            continue;
        }
        let at = ((v.start + row) * columns + h.start) * ci;
        chunk.zeros(h.skip * depth, &mut multiply);
        if groups == 1 {
            chunk.values(part(x, at, h.len * ci), &mut multiply);
        } else {
            for kx in 0..h.len {
                let values = part(x, at + kx * ci + group * depth, depth);
                chunk.values(values, &mut multiply);
            }
        }
        chunk.zeros((kw - h.skip - h.len) * depth, &mut multiply);
    }
    chunk.flush(&mut multiply);
    for (best, acc) in best.iter_mut().zip(accs) {
        *best = acc.max(*best);
    }
}

/// Adds `values`, which are values `start..` of a window, times the weights of the channels from `first` on.
#[inline(never)]
fn multiply(weights: &Weights<'_>, first: usize, start: usize, values: &[i16], accs: &mut [i32]) {
    if weights.layout == Layout::Ohwi2o {
        // Blocks of channels begin at an even one.
        let blocks = weights.blocks().skip(first / 2);
        for (accs, block) in accs.chunks_mut(2).zip(blocks) {
            let pairs = part(block, 2 * start, 2 * values.len()).as_chunks::<2>().0;
            for (acc, sum) in accs.iter_mut().zip(dot_pairs(values, pairs)) {
                *acc += sum;
            }
        }
        return;
    }
    for (j, acc) in accs.iter_mut().enumerate() {
        let at = (first + j) * weights.per_channel + start;
        *acc += dot_wide(values, part(weights.bytes, at, values.len()));
    }
}

/// Values of a window, widened to 16 bits, that wait for their multiplication.
struct Chunk {
    /// Stored type of the values.
    dtype: DType,
    values: [i16; CHUNK],
    len: usize,
    /// Position in the window of the first value.
    start: usize,
}

impl Chunk {
    #[inline(always)]
    fn new(dtype: DType) -> Self {
        Self {
            dtype,
            values: [0; CHUNK],
            len: 0,
            start: 0,
        }
    }

    #[inline(never)]
    fn values(&mut self, mut values: &[u8], multiply: &mut impl FnMut(usize, &[i16])) {
        while !values.is_empty() {
            let room = self.values.get_mut(self.len..).unwrap_or_default();
            let count = room.len().min(values.len());
            let (now, later) = values.split_at_checked(count).unwrap_or((values, &[]));
            for (to, &from) in room.iter_mut().zip(now) {
                *to = widen(self.dtype, from) as i16;
            }
            self.advance(count, multiply);
            values = later;
        }
    }

    #[inline(never)]
    fn zeros(&mut self, mut count: usize, multiply: &mut impl FnMut(usize, &[i16])) {
        while count > 0 {
            let room = self.values.get_mut(self.len..).unwrap_or_default();
            let now = room.len().min(count);
            for to in room.iter_mut().take(now) {
                *to = 0;
            }
            self.advance(now, multiply);
            count -= now;
        }
    }

    #[inline(always)]
    fn advance(&mut self, count: usize, multiply: &mut impl FnMut(usize, &[i16])) {
        self.len += count;
        if self.len >= CHUNK {
            self.flush(multiply);
        }
    }

    #[inline(always)]
    fn flush(&mut self, multiply: &mut impl FnMut(usize, &[i16])) {
        if let Some(values) = self.values.get(..self.len) {
            multiply(self.start, values);
        }
        self.start += self.len;
        self.len = 0;
    }
}

/// `sum_i x[i] * w[i]`, over the shorter of the two.
#[inline(always)]
fn dot_wide(x: &[i16], w: &[u8]) -> i32 {
    x.iter()
        .zip(w)
        .map(|(&x, &w)| i32::from(x) * i32::from(w as i8))
        .sum()
}

/// `sum_i x[i] * w[i][j]` for both `j`, over the shorter of the two.
#[inline(always)]
fn dot_pairs(x: &[i16], w: &[[u8; 2]]) -> [i32; 2] {
    let (mut first, mut second) = (0, 0);
    for (&x, &pair) in x.iter().zip(w) {
        // Both weights as halves of 16 bits: vector units multiply and add those in pairs.
        let pair = i16::from_le_bytes(pair);
        first += i32::from(x) * i32::from((pair << 8) >> 8);
        second += i32::from(x) * i32::from(pair >> 8);
    }
    [first, second]
}

/// One map position; weights `[kh][kw][co]`, one output channel per input channel.
#[inline(always)]
fn depthwise(
    conv: &Conv<'_>,
    input: &Tensor,
    x: &[u8],
    v: Span,
    h: Span,
    first: usize,
    best: &mut [i32],
) {
    let ci = usize::from(input.shape.c);
    let columns = usize::from(input.shape.w);
    let kw = usize::from(conv.window.size[1]);
    let flip = centre(input.dtype);
    let mut accs = [0; BLOCK];
    for (j, acc) in accs.iter_mut().take(best.len()).enumerate() {
        *acc = bias_of(conv.bias, first + j);
    }
    for ky in 0..v.len {
        for kx in 0..h.len {
            let x_at = ((v.start + ky) * columns + h.start + kx) * ci + first;
            let w_at = ((v.skip + ky) * kw + h.skip + kx) * ci + first;
            let values = part(x, x_at, best.len());
            let weights = part(conv.weights.bytes, w_at, best.len());
            for ((acc, &value), &weight) in accs.iter_mut().zip(values).zip(weights) {
                *acc += widen_by(flip, value) * i32::from(weight as i8);
            }
        }
    }
    for (best, acc) in best.iter_mut().zip(accs) {
        *best = acc.max(*best);
    }
}
