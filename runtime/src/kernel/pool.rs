//! Standalone pooling.

use super::walk::{Walk, clip};
use super::{BLOCK, part, store, widen};
use crate::op::{Kind, Post, Tensor};

/// Max pooling: the maximum over each window, positions outside the map ignored, same type in and out. Average pooling:
/// `acc = multiplier * sum(window)`, then requantization. Other operators do nothing.
#[inline(never)]
pub(super) fn pool(kind: &Kind<'_>, input: Tensor, x: &[u8], output: Tensor, y: &mut [u8]) {
    // A shift by 0 leaves a stored value as it is.
    let same = Post {
        shifts: &[0],
        table: None,
    };
    let (window, post, multiplier) = match kind {
        Kind::MaxPool(window) => (window, &same, None),
        Kind::AvgPool(avg) => (&avg.window, &avg.post, Some(avg.multiplier)),
        _ => return,
    };
    let channels = usize::from(input.shape.c);
    let columns = usize::from(input.shape.w);
    let size = output.dtype.size();
    let pixel_len = (channels * size).max(1);
    let (start, factor) = match multiplier {
        Some(factor) => (0, i32::from(factor)),
        None => (i32::MIN, 1),
    };
    let mut walk = Walk::over(window, output.shape.w);
    for pixel in y.chunks_mut(pixel_len) {
        let [v, h] = clip(walk.next(), window.size, input.shape);
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
            store(post, output.dtype, first, &accs, &[], out);
        }
    }
}
