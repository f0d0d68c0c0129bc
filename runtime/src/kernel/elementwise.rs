//! Operators that read and write value by value; the output may lie on an input.

use core::cell::Cell;

use super::{requantized, widen};
use crate::fixed::requantize;
use crate::op::{Add, Affine, AffineParam, Tensor};
use crate::shape::DType;

/// `y = saturate(round_half_even((x * mul + add) * 2^-shift))`, parameters per channel or per value.
pub(super) fn affine(
    affine: &Affine<'_>,
    input: Tensor,
    x: &[Cell<u8>],
    dtype: DType,
    y: &[Cell<u8>],
) {
    let run = affine.params.len().max(1);
    for (x, y) in x.chunks(run).zip(y.chunks(run)) {
        for ((x, y), bytes) in x.iter().zip(y).zip(affine.params) {
            let param = AffineParam::from_bytes(bytes);
            let acc = widen(input.dtype, x.get()) * i32::from(param.mul) + param.add;
            y.set(requantize(acc, param.shift as i8, dtype));
        }
    }
}

/// `y = table[x as u8]`.
pub(super) fn table(table: &[u8; 256], x: &[Cell<u8>], y: &[Cell<u8>]) {
    for (x, y) in x.iter().zip(y) {
        y.set(*table.get(usize::from(x.get())).unwrap_or(&0));
    }
}

/// `acc = (a << shift_a) + (b << shift_b)`, then requantization, or the accumulators themselves.
pub(super) fn add(
    add: &Add<'_>,
    a: Tensor,
    [xa, xb]: [&[Cell<u8>]; 2],
    output: Tensor,
    y: &[Cell<u8>],
) {
    let sum = |xa: &Cell<u8>, xb: &Cell<u8>| {
        (widen(a.dtype, xa.get()) << (add.shift_a & 31))
            + (widen(add.b.dtype, xb.get()) << (add.shift_b & 31))
    };
    if output.dtype == DType::I32 {
        for ((xa, xb), y) in xa.iter().zip(xb).zip(y.chunks(4)) {
            let acc = sum(xa, xb);
            for (y, byte) in y.iter().zip(acc.to_le_bytes()) {
                y.set(byte);
            }
        }
        return;
    }
    let channels = usize::from(output.shape.c).max(1);
    for ((xa, xb), y) in xa
        .chunks(channels)
        .zip(xb.chunks(channels))
        .zip(y.chunks(channels))
    {
        for (channel, ((xa, xb), y)) in xa.iter().zip(xb).zip(y).enumerate() {
            let acc = sum(xa, xb);
            y.set(requantized(
                &add.post,
                add.post.shift(channel),
                output.dtype,
                acc,
            ));
        }
    }
}
