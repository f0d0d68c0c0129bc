//! Standalone pooling.

use super::{BLOCK, Span, part, store, widen};
use crate::op::{AvgPool, Post, Tensor, Window};

/// Maximum over each window; positions outside the map are ignored. Same type in and out.
pub(super) fn max_pool(window: &Window, input: Tensor, x: &[u8], output: Tensor, y: &mut [u8]) {
    // A shift by 0 leaves a stored value as it is.
    let post = Post {
        shifts: &[0],
        table: None,
    };
    pool(window, None, &post, input, x, output, y);
}

/// `acc = multiplier * sum(window)`, then requantization.
pub(super) fn avg_pool(avg: &AvgPool<'_>, input: Tensor, x: &[u8], output: Tensor, y: &mut [u8]) {
    let multiplier = Some(avg.multiplier);
    pool(&avg.window, multiplier, &avg.post, input, x, output, y);
}

/// The sum over each window times a multiplier, or without one the maximum, channel by channel.
#[inline(never)]
fn pool(
    window: &Window,
    multiplier: Option<i8>,
    post: &Post<'_>,
    input: Tensor,
    x: &[u8],
    output: Tensor,
    y: &mut [u8],
) {
    let channels = usize::from(input.shape.c);
    let columns = usize::from(input.shape.w);
    let size = output.dtype.size();
    let pixel_len = (channels * size).max(1);
    let row_len = (usize::from(output.shape.w) * pixel_len).max(1);
    let (start, factor) = match multiplier {
        Some(factor) => (0, i32::from(factor)),
        None => (i32::MIN, 1),
    };
    for (oy, row) in y.chunks_mut(row_len).enumerate() {
        let v = Span::of(window, 0, oy, input);
        for (ox, pixel) in row.chunks_mut(pixel_len).enumerate() {
            let h = Span::of(window, 1, ox, input);
            for (block, out) in pixel.chunks_mut(BLOCK * size).enumerate() {
                let first = block * BLOCK;
                let mut accs = [start; BLOCK];
                for iy in v.start..v.start + v.len {
                    for ix in h.start..h.start + h.len {
                        let at = (iy * columns + ix) * channels + first;
                        let values = part(x, at, BLOCK.min(channels - first.min(channels)));
                        for (acc, &value) in accs.iter_mut().zip(values) {
                            let value = widen(input.dtype, value);
                            *acc = match multiplier {
                                Some(_) => *acc + value,
                                None => value.max(*acc),
                            };
                        }
                    }
                }
                for acc in &mut accs {
                    *acc = acc.wrapping_mul(factor);
                }
                store(post, output.dtype, first, (&accs, 1), &[], out);
            }
        }
    }
}
