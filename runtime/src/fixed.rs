//! The rounding rule, once.

use crate::shape::DType;

/// Exclusive limit of the magnitude of an accumulator: 2^24. Below it every integer is exact in f32.
pub const ACCUMULATOR_LIMIT: u32 = 1 << 24;

/// Least shift of a requantization (a left shift by 24).
pub const SHIFT_MIN: i8 = -24;
/// Greatest shift of a requantization (a right shift by 31).
pub const SHIFT_MAX: i8 = 31;

/// `acc * 2^-shift`, rounded half to even; not yet saturated to 8 bits.
///
/// For `shift > 0` this is `floor((acc + 2^(shift-1) - 1 + b) / 2^shift)`, where `b` is the bit of weight `2^shift` in
/// `acc` (two's complement): a tie goes up exactly if the quotient below it is odd. For `shift <= 0` the result is exact,
/// or has left -256..=255 in the direction of its sign, so that saturating it to 8 bits gives the exact answer.
///
/// Range: `|acc| < 2^24`, `-24 <= shift <= 31`. Source: ONNX QuantizeLinear (round half to even, then saturate).
///
/// ```
/// use runtime::fixed::round_shift;
/// assert_eq!(round_shift(5, 1), 2); // 2.5: the even neighbour
/// assert_eq!(round_shift(7, 1), 4); // 3.5
/// assert_eq!(round_shift(-5, 1), -2); // -2.5
/// assert_eq!(round_shift(-7, 2), -2); // -1.75
/// assert_eq!(round_shift(3, -2), 12);
/// assert_ne!(round_shift(1000, -20), 1000 << 20); // far outside 8 bits: only the sign is kept
/// ```
#[inline(always)]
pub const fn round_shift(acc: i32, shift: i8) -> i32 {
    if shift > 0 {
        let s = (shift as u32) & 31;
        let odd = (acc >> s) & 1;
        acc.wrapping_add((1i32 << (s - 1)) - 1 + odd) >> s
    } else {
        // A nonzero value shifted by 9 has left the range of 8 bits; so has a value beyond 256 without a shift.
        let s = shift.unsigned_abs();
        let s = if s > 9 { 9 } else { s };
        let clamped = if acc > 256 {
            256
        } else if acc < -256 {
            -256
        } else {
            acc
        };
        clamped << s
    }
}

/// Requantizes an accumulator: [`round_shift`], then saturation to `dtype` (`U8`: 0..=255, which is relu; `I8`: -128..=127).
/// The result is the stored byte; I8 in two's complement. (`I32` is treated as `I8`: it is never requantized.)
///
/// ```
/// use runtime::{DType, fixed::requantize};
/// assert_eq!(requantize(5, 1, DType::U8), 2);
/// assert_eq!(requantize(-900, 1, DType::U8), 0);
/// assert_eq!(requantize(-900, 1, DType::I8) as i8, -128);
/// assert_ne!(requantize(300, 0, DType::U8), 300u32 as u8); // saturates to 255, does not wrap
/// ```
#[inline(always)]
pub const fn requantize(acc: i32, shift: i8, dtype: DType) -> u8 {
    let q = round_shift(acc, shift);
    let (low, high) = match dtype {
        DType::U8 => (0, 255),
        DType::I8 | DType::I32 => (-128, 127),
    };
    (if q < low {
        low
    } else if q > high {
        high
    } else {
        q
    }) as u8
}
