//! Operators that read and write value by value; the output may lie on an input.

use core::cell::Cell;

use super::{store_one, widen};
use crate::op::{Add, Affine, AffineParam, Tensor};
use crate::shape::DType;

/// `y = saturate(round_half_even((x * mul + add) * 2^-shift))`, parameters per channel or per value.
#[inline(never)]
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
            // The rounding of `requantize`; a shift by 0 has no half.
            let shift = u32::from(param.shift & 31);
            let half = (1i32.wrapping_shl(shift) as u32 >> 1) as i32;
            let even = !(acc >> shift) & 1;
            let q = acc.wrapping_add(half - even.min(half)) >> shift;
            y.set(match dtype {
                DType::U8 => q.clamp(0, 255),
                DType::I8 | DType::I32 => q.clamp(-128, 127),
            } as u8);
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
#[inline(never)]
pub(super) fn add(
    add: &Add<'_>,
    a: Tensor,
    [xa, xb]: [&[Cell<u8>]; 2],
    output: Tensor,
    y: &[Cell<u8>],
) {
    let channels = usize::from(output.shape.c);
    let mut channel = 0;
    for ((xa, xb), y) in xa.iter().zip(xb).zip(y.chunks(output.dtype.size())) {
        let acc = (widen(a.dtype, xa.get()) << (add.shift_a & 31))
            + (widen(add.b.dtype, xb.get()) << (add.shift_b & 31));
        let mut bytes = acc.to_le_bytes();
        let bytes = bytes.get_mut(..y.len()).unwrap_or_default();
        store_one(&add.post, output.dtype, channel, acc, bytes);
        for (y, byte) in y.iter().zip(bytes) {
            y.set(*byte);
        }
        channel += 1;
        if channel == channels {
            channel = 0;
        }
    }
}
