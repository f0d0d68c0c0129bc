//! Operators that read and write value by value; the output may lie on an input.

use core::cell::Cell;

use super::{centre, store, widen_by};
use crate::fixed::{round_right, saturate};
use crate::op::{Add, Affine, AffineParam, Tensor};
use crate::shape::DType;

/// `y = saturate(round_half_even((x * mul + add) * 2^-shift))`, parameters per channel or per value.
#[inline(never)]
pub(super) fn affine(
    affine: &Affine<'_>,
    input: &Tensor,
    x: &[Cell<u8>],
    dtype: DType,
    y: &[Cell<u8>],
) {
    let (from, signed) = (centre(input.dtype), dtype != DType::U8);
    let run = affine.params.len().max(1);
    let (mut x, mut y) = (x, y);
    while !x.is_empty() {
        for ((x, y), bytes) in x.iter().zip(y).zip(affine.params) {
            let param = AffineParam::from_bytes(bytes);
            let acc = widen_by(from, x.get()) * i32::from(param.mul) + param.add;
            y.set(saturate(round_right(acc, param.shift.into()), signed));
        }
        x = x.get(run..).unwrap_or_default();
        y = y.get(run..).unwrap_or_default();
    }
}

/// `y = table[x as u8]`.
pub(super) fn table(table: &[u8; 256], x: &[Cell<u8>], y: &[Cell<u8>]) {
    for (x, y) in x.iter().zip(y) {
        y.set(*table.get(usize::from(x.get())).unwrap_or(&0));
    }
}

/// `acc = (a << shift_a) + (b << shift_b)`, then requantization, or the accumulators themselves.
#[inline(never)]
pub(super) fn add(
    add: &Add<'_>,
    a: &Tensor,
    [xa, xb]: [&[Cell<u8>]; 2],
    output: &Tensor,
    y: &[Cell<u8>],
) {
    let (from_a, from_b) = (centre(a.dtype), centre(add.b.dtype));
    // One shift, not a large one, and without a table: what must be added to flipped bytes, and to the result before it is
    // flipped, is the same for all values.
    if let ([shift], None) = (add.post.shifts, add.post.table)
        && let shift @ -8..=23 = *shift as i8
        && add.shift_a.max(add.shift_b) <= 14
    {
        let to = centre(output.dtype);
        let left = shift.min(0).unsigned_abs();
        let (shift_a, shift_b, shift) = (add.shift_a + left, add.shift_b + left, shift.max(0));
        let rest = (i32::from(to) << shift)
            - (i32::from(from_a) << shift_a)
            - (i32::from(from_b) << shift_b);
        for ((xa, xb), y) in xa.iter().zip(xb).zip(y) {
            let a = i32::from(xa.get() ^ from_a) << shift_a;
            let b = i32::from(xb.get() ^ from_b) << shift_b;
            let q = round_right(a + b + rest, shift as u32);
            y.set(saturate(q, false) ^ to);
        }
        return;
    }
    let channels = usize::from(output.shape.c);
    let (mut rest, mut channel) = (y, 0);
    for (xa, xb) in xa.iter().zip(xb) {
        let acc = (widen_by(from_a, xa.get()) << (add.shift_a & 31))
            + (widen_by(from_b, xb.get()) << (add.shift_b & 31));
        // The output may lie on an input.
        let mut bytes = [0; 4];
        store(&add.post, output.dtype, channel, acc, &mut bytes);
        for byte in bytes.iter().take(output.dtype.size()) {
            if let Some((y, later)) = rest.split_first() {
                y.set(*byte);
                rest = later;
            }
        }
        channel += 1;
        if channel == channels {
            channel = 0;
        }
    }
}
