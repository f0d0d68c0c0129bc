//! Standalone pooling.

use super::walk::{Corner, Walk, clip};
use super::{centre, part, store, widen_by};
use crate::op::{Kind, Op, Post};

/// Max pooling: the maximum over each window, positions outside the map ignored, same type in and out. Average pooling:
/// `acc = multiplier * sum(window)`, then requantization. Other operators do nothing.
#[inline(never)]
pub(super) fn pool(op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    // A shift by 0 leaves a stored value as it is.
    let same = Post {
        shifts: &[0],
        table: None,
    };
    let (window, post, multiplier) = match &op.kind {
        Kind::MaxPool(window) => (window, &same, None),
        Kind::AvgPool(avg) => (&avg.window, &avg.post, Some(avg.multiplier)),
        _ => return,
    };
    let (shape, from) = (input.shape, centre(input.dtype));
    let (channels, pitch) = (
        usize::from(shape.c),
        usize::from(shape.w) * usize::from(shape.c),
    );
    values(
        op,
        post,
        Walk::over(window, output.shape.w),
        y,
        &mut |at, channel| {
            let [v, h] = clip(at, window.size, shape);
            let mut row = v.start * pitch + h.start * channels + channel;
            let (mut sum, mut most) = (0, i32::MIN);
            // Whole rows are one row.
            let (rows, len) = match h.len * channels {
                len if len == pitch => (1, v.len * len),
                len => (v.len, len),
            };
            for _ in 0..rows {
                let mut rest = part(x, row, len - channel.min(len));
                while let Some(&value) = rest.first() {
                    let value = widen_by(from, value);
                    sum += value;
                    most = most.max(value);
                    rest = rest.get(channels..).unwrap_or_default();
                }
                row += pitch;
            }
            multiplier.map_or(most, |factor| sum * i32::from(factor))
        },
    );
}

/// Stores what `value` computes for each window and channel, one after the other.
#[inline(never)]
pub(super) fn values(
    op: &Op<'_>,
    post: &Post<'_>,
    mut walk: Walk,
    y: &mut [u8],
    value: &mut dyn FnMut(Corner, usize) -> i32,
) {
    let (channels, dtype) = (usize::from(op.output.shape.c), op.output.dtype);
    let mut rest = y;
    while !rest.is_empty() {
        let at = walk.next();
        for channel in 0..channels.max(1) {
            rest = store(post, dtype, channel, value(at, channel), rest);
        }
    }
}
