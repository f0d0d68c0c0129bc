//! The rounding rule, once.

use crate::shape::DType;

/// Exclusive limit of the magnitude of an accumulator: 2^24. Below it every integer is exact in f32.
pub const ACCUMULATOR_LIMIT: u32 = 1 << 24;

/// Least shift of a requantization (a left shift by 24).
pub const SHIFT_MIN: i8 = -24;
/// Greatest shift of a requantization (a right shift by 31).
pub const SHIFT_MAX: i8 = 31;

/// `acc * 2^-shift`, rounded half to even: the one place of the rule.
///
/// This is `floor((acc + floor((2^shift - e) / 2)) / 2^shift)`, where `e` is 1 if the bit of weight `2^shift` in `acc` (two's
/// complement) is 0: a tie goes up exactly if the quotient below it is odd.
///
/// Range: `|acc| < 2^24`, `0 <= shift <= 31`. Source: ONNX QuantizeLinear (round half to even, then saturate).
///
/// ```
/// use runtime::fixed::round_right;
/// assert_eq!(round_right(5, 1), 2); // 2.5: the even neighbour
/// assert_eq!(round_right(7, 1), 4); // 3.5
/// assert_eq!(round_right(-5, 1), -2); // -2.5
/// assert_eq!(round_right(-7, 2), -2); // -1.75
/// assert_ne!(round_right(-5, 1), -5 >> 1); // a shift alone rounds down, to -3
/// ```
#[inline(always)]
pub const fn round_right(acc: i32, shift: u32) -> i32 {
    let s = shift & 31;
    let even = !(acc >> s) as u32 & 1;
    acc.wrapping_add((((1u32 << s) - even) >> 1) as i32) >> s
}

/// `acc * 2^-shift`, rounded half to even ([`round_right`]); not yet saturated to 8 bits. For a negative shift the result is
/// exact, or has left -256..=255 in the direction of its sign, so that saturating it to 8 bits gives the exact answer.
///
/// Range: `|acc| < 2^24`, `-24 <= shift <= 31`.
///
/// ```
/// use runtime::fixed::round_shift;
/// assert_eq!(round_shift(7, 1), 4); // 3.5: the even neighbour
/// assert_eq!(round_shift(3, -2), 12);
/// assert_ne!(round_shift(1000, -20), 1000 << 20); // far outside 8 bits: only the sign is kept
/// ```
#[inline(always)]
pub const fn round_shift(acc: i32, shift: i8) -> i32 {
    if shift >= 0 {
        return round_right(acc, shift as u32);
    }
    // A nonzero value shifted by 9 has left the range of 8 bits; so has a value beyond 256 without a shift.
    let s = shift.unsigned_abs();
    let s = if s > 9 { 9 } else { s };
    clamp(acc, -256, 256) << s
}

const fn clamp(value: i32, low: i32, high: i32) -> i32 {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

/// The nearest value of 8 bits, as the stored byte: -128..=127 in two's complement if `signed`, else 0..=255 (which is relu).
#[inline(always)]
pub(crate) const fn saturate(q: i32, signed: bool) -> u8 {
    // The same limits for both; 128 is added and subtracted modulo 2^8.
    let centre = (signed as i32) << 7;
    (clamp(q.wrapping_add(centre), 0, 255) ^ centre) as u8
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
    saturate(round_shift(acc, shift), !matches!(dtype, DType::U8))
}
