//! Kernels for cores with the DSP extension (Cortex-M4, M7, M33, M55): safe loops over a few multiply-accumulate routines
//! on pairs of 16-bit values. `docs/kernels.md` gives their instruction budgets.
//!
//! The activations of up to four map positions are gathered once, widened to pairs of 16 bits, into a buffer on the stack; all
//! output channels then read them from there, two channels (one block of [`Layout::Ohwi2o`]) by four positions at a time.

mod conv;
mod gather;
mod offsets;
#[cfg(not(all(kernels = "dsp", target_arch = "arm")))]
pub(super) mod twin;
#[cfg(feature = "winograd")]
pub(super) mod winograd;

use super::{plain, requantize_plain, store};
use crate::op::Conv;
use crate::shape::DType;
#[cfg(feature = "encode")]
pub(super) use conv::BUFFERS;
pub(super) use conv::conv2d;
pub(super) use offsets::Offsets;

/// Multiply-accumulate on pairs: the routines that a core has instructions for.
///
/// A pair is a word with two i16, the first in the low half. A word of weights is `w[c][k], w[c+1][k], w[c][k+1], w[c+1][k+1]`
/// (each an i8), as in [`Layout::Ohwi2o`]; a word of activations holds values `k` and `k + 1` of one position.
pub(super) trait Dsp {
    /// Widens bytes (i8 if `signed`, else u8) to pairs: bytes `4 i..4 i + 4` become words `2 i * stride` and `(2 i + 1) * stride`,
    /// as far as both are there. Nothing happens if `stride` is neither 1 nor 4.
    fn widen4(signed: bool, bytes: &[[u8; 4]], words: &mut [u32], stride: usize);
    /// `words[i][p]` becomes the pair of bytes (i8 if `signed`, else u8) of `values[p]` at the `i`th pair of offsets.
    /// Nothing happens if a slice is shorter than the offsets reach.
    fn list4(signed: bool, values: [&[u8]; 4], offsets: &Offsets, words: &mut [[u32; 4]]);
    /// For each block of `acts.len()` words of weights: the maximum over the four positions of both channels' sums.
    /// Blocks without weights stay as they are.
    fn max4(acts: &[[u32; 4]], weights: &[[u8; 4]], maxima: &mut [[i32; 2]]);
    /// `sums[channel][position] += sum of products`, one block, over the shorter of activations and weights.
    fn add4(acts: &[[u32; 4]], weights: &[[u8; 4]], sums: &mut [[i32; 4]; 2]);
    /// `sums[channel] += sum of products`, one block, one position, over the shorter of activations and weights.
    fn add1(acts: &[u32], weights: &[[u8; 4]], sums: &mut [i32; 2]);
    /// As [`super::requantize_plain`].
    fn requantize(
        sums: &[i32],
        stride: usize,
        bias: &[[u8; 4]],
        shifts: &[u8],
        signed: bool,
        out: &mut [u8],
    ) {
        requantize_plain(sums, stride, bias, shifts, signed, out);
    }
}

/// Words per position of the buffer of activations.
const STEPS: usize = 144;

/// Widened activations: word `k / 2` of position `p`.
type Buffer = [[u32; 4]; STEPS];

/// A stored byte as the low half of a pair whose high half is 0.
#[inline(always)]
fn half(signed: bool, byte: u8) -> u32 {
    if signed {
        u32::from(byte as i8 as u16)
    } else {
        u32::from(byte)
    }
}

/// What becomes of a layer's sums.
struct Finish<'a> {
    conv: &'a Conv<'a>,
    dtype: DType,
    /// Requantization shifts right by 1 to 31 bits, without a table.
    plain: bool,
}

impl<'a> Finish<'a> {
    fn new(conv: &'a Conv<'a>, dtype: DType) -> Self {
        Self {
            conv,
            dtype,
            plain: plain(&conv.post, dtype),
        }
    }

    /// Adds the bias, requantizes and stores the channels from `first` on of one pixel; their sums are `stride` apart.
    #[inline(never)]
    fn run<D: Dsp>(&self, first: usize, sums: &[i32], stride: usize, out: &mut [u8]) {
        let (post, dtype) = (&self.conv.post, self.dtype);
        let bias = self.conv.bias.get(first..).unwrap_or_default();
        if self.plain {
            let shifts = match post.shifts {
                [_] => Some(post.shifts),
                all => all.get(first..),
            };
            let signed = dtype != DType::U8;
            return D::requantize(sums, stride, bias, shifts.unwrap_or_default(), signed, out);
        }
        store(post, dtype, first, (sums, stride), bias, out);
    }
}
