//! From the sums of four positions to output values.

use super::store;
use crate::op::{Conv, Post};
use crate::shape::DType;

#[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
use super::asm::requantize;

/// Most channels that are stored at a time.
pub(super) const RUN: usize = 64;

/// Which of the four sums of a channel counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// The one at this place.
    At(usize),
    /// The greatest.
    #[cfg(any(feature = "encode", kernels = "dsp"))]
    Greatest,
}

impl Lane {
    /// The sum that counts.
    #[inline(always)]
    fn of(self, sums: &[i32; 4]) -> i32 {
        match self {
            Self::At(p) => sums.get(p).copied().unwrap_or(0),
            #[cfg(any(feature = "encode", kernels = "dsp"))]
            Self::Greatest => sums.iter().fold(i32::MIN, |best, &sum| best.max(sum)),
        }
    }
}

/// The requantization of a layer.
pub(super) struct Finish<'a> {
    post: &'a Post<'a>,
    dtype: DType,
    /// It shifts right by 1 to 31 bits, without a table.
    plain: bool,
    /// The one shift of all channels, if that is so.
    same: [u8; RUN],
}

impl<'a> Finish<'a> {
    pub(super) fn new(conv: &'a Conv<'a>, dtype: DType) -> Self {
        let post = &conv.post;
        let right = post.shifts.iter().all(|&shift| shift as i8 > 0);
        let plain = right && post.table.is_none() && dtype != DType::I32;
        Self {
            post,
            dtype,
            plain,
            same: [post.shifts.first().copied().unwrap_or(0); RUN],
        }
    }

    /// Stores the sums of the output channels from `first` on plus their biases, at most [`RUN`] of them: as many as there are
    /// sums and biases.
    #[inline(never)]
    pub(super) fn store(
        &self,
        first: usize,
        sums: &[[i32; 4]],
        lane: Lane,
        bias: &[[u8; 4]],
        out: &mut [u8],
    ) {
        // Signed values after a pool are rare.
        if self.plain && (matches!(lane, Lane::At(_)) || self.dtype == DType::U8) {
            let shifts = match self.post.shifts {
                [_] => &self.same,
                all => all.get(first..).unwrap_or_default(),
            };
            return requantize(sums, lane, bias, shifts, self.dtype != DType::U8, out);
        }
        let mut rest = out;
        for (i, (sums, bias)) in sums.iter().zip(bias).enumerate() {
            let acc = lane.of(sums) + i32::from_le_bytes(*bias);
            rest = store(self.post, self.dtype, first + i, acc, rest);
        }
    }
}

/// `out[i] = saturate(round_half_even((sum[i] + bias[i]) * 2^-shifts[i]))`, to i8 if `signed`, else to u8, over the
/// shortest of all. Shifts are 1..=31. Not the greatest of i8.
#[cfg(not(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm")))]
fn requantize(
    sums: &[[i32; 4]],
    lane: Lane,
    bias: &[[u8; 4]],
    shifts: &[u8],
    signed: bool,
    out: &mut [u8],
) {
    use crate::fixed::{round_right, saturate};
    for (((sums, bias), shift), out) in sums.iter().zip(bias).zip(shifts).zip(out) {
        let acc = lane.of(sums).wrapping_add(i32::from_le_bytes(*bias));
        *out = saturate(round_right(acc, u32::from(*shift)), signed);
    }
}
