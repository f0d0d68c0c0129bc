//! Standalone pooling.

use super::{BLOCK, Span, part, store, widen};
use crate::op::{AvgPool, Tensor, Window};
use crate::shape::DType;

/// Folds the values of each window, channel by channel, and hands blocks of channels to `finish`
/// (first channel, folded values, their bytes of the output).
#[inline(always)]
fn pool(
    window: &Window,
    input: Tensor,
    x: &[u8],
    output: Tensor,
    y: &mut [u8],
    (start, fold): (i32, impl Fn(i32, i32) -> i32),
    finish: impl Fn(usize, &mut [i32], &mut [u8]),
) {
    let channels = usize::from(input.shape.c);
    let columns = usize::from(input.shape.w);
    let size = output.dtype.size();
    let pixel_len = (channels * size).max(1);
    let row_len = (usize::from(output.shape.w) * pixel_len).max(1);
    for (oy, row) in y.chunks_mut(row_len).enumerate() {
        let v = Span::new(
            oy,
            window.size[0],
            window.stride[0],
            window.pad[0],
            input.shape.h,
        );
        for (ox, pixel) in row.chunks_mut(pixel_len).enumerate() {
            let h = Span::new(
                ox,
                window.size[1],
                window.stride[1],
                window.pad[1],
                input.shape.w,
            );
            for (block, out) in pixel.chunks_mut(BLOCK * size).enumerate() {
                let first = block * BLOCK;
                let mut accs = [start; BLOCK];
                for iy in v.start..v.start + v.len {
                    for ix in h.start..h.start + h.len {
                        let at = (iy * columns + ix) * channels;
                        let values = part(x, at + first, BLOCK.min(channels - first.min(channels)));
                        for (acc, &value) in accs.iter_mut().zip(values) {
                            *acc = fold(*acc, widen(input.dtype, value));
                        }
                    }
                }
                finish(first, &mut accs, out);
            }
        }
    }
}

/// Maximum over each window; positions outside the map are ignored. Same type in and out.
pub(super) fn max_pool(window: &Window, input: Tensor, x: &[u8], output: Tensor, y: &mut [u8]) {
    let fold = (i32::MIN, |a: i32, b: i32| a.max(b));
    pool(window, input, x, output, y, fold, |_, accs, out| {
        for (y, &acc) in out.iter_mut().zip(accs.iter()) {
            *y = acc as u8;
        }
    });
}

/// `acc = multiplier * sum(window)`, then requantization.
pub(super) fn avg_pool(avg: &AvgPool<'_>, input: Tensor, x: &[u8], output: Tensor, y: &mut [u8]) {
    let dtype: DType = output.dtype;
    let fold = (0, |a: i32, b: i32| a + b);
    pool(
        &avg.window,
        input,
        x,
        output,
        y,
        fold,
        |first, accs, out| {
            for acc in accs.iter_mut() {
                *acc *= i32::from(avg.multiplier);
            }
            store(&avg.post, dtype, first, accs, out);
        },
    );
}
