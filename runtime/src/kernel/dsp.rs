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

#[cfg(feature = "encode")]
pub(super) use conv::BUFFERS;
pub(super) use conv::conv2d;
pub(super) use offsets::Offsets;

/// Multiply-accumulate on pairs: the routines that a core has instructions for.
///
/// A pair is a word with two i16, the first in the low half. A word of weights is `w[c][k], w[c+1][k], w[c][k+1], w[c+1][k+1]`
/// (each an i8), as in [`Layout::Ohwi2o`]; a word of activations holds values `k` and `k + 1` of one position.
pub(super) trait Dsp {
    /// Widens values (i8 if `signed`, else u8) to halves: value `i` becomes half `at + i`, where halves `2 j` and `2 j + 1` are
    /// the low and the high one of word `4 j`, as far as there are words.
    fn widen(signed: bool, values: &[u8], words: &mut [u32], at: usize);
    /// `words[i][p]` becomes the pair of bytes (i8 if `signed`, else u8) of `values[starts[p]..]` at the `i`th pair of offsets.
    /// Nothing happens if there are less values than that reaches.
    fn list4(
        signed: bool,
        values: &[u8],
        starts: &[usize; 4],
        offsets: &Offsets,
        words: &mut [[u32; 4]],
    );
    /// `sums[block][channel][position] = sum of products` of the activations and the first `acts.len()` words of each block of
    /// weights, at the first position only if `single`; if `more`, that is added to what `sums` hold. A block begins `pitch`
    /// words after the one before it. Blocks without weights stay as they are.
    fn blocks(
        single: bool,
        acts: &[[u32; 4]],
        weights: &[[u8; 4]],
        pitch: usize,
        sums: &mut [Sums],
        more: bool,
    );
}

/// `[channel][position]` of one block.
pub(super) type Sums = [[i32; 4]; 2];

/// Words per position of the buffer of widened activations; word `k / 2` of position `p` is `[k / 2][p]`.
const STEPS: usize = 144;
