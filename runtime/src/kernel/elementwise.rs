//! Operators that read and write value by value; the output may lie on an input.

use core::cell::Cell;

use super::{BLOCK, store, widen};
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
    let channels = usize::from(output.shape.c).max(1);
    let size = output.dtype.size();
    let pixels = xa.chunks(channels).zip(xb.chunks(channels));
    for ((xa, xb), y) in pixels.zip(y.chunks(channels * size)) {
        let blocks = xa.chunks(BLOCK).zip(xb.chunks(BLOCK));
        for ((block, (xa, xb)), y) in blocks.enumerate().zip(y.chunks(BLOCK * size)) {
            let mut accs = [0; BLOCK];
            for ((acc, xa), xb) in accs.iter_mut().zip(xa).zip(xb) {
                *acc = (widen(a.dtype, xa.get()) << (add.shift_a & 31))
                    + (widen(add.b.dtype, xb.get()) << (add.shift_b & 31));
            }
            // The output may lie on an input.
            let mut bytes = [0; 4 * BLOCK];
            let out = bytes.get_mut(..y.len()).unwrap_or_default();
            store(&add.post, output.dtype, block * BLOCK, (&accs, 1), &[], out);
            for (y, byte) in y.iter().zip(out) {
                y.set(*byte);
            }
        }
    }
}
