//! The DSP routines in plain Rust, instruction by instruction: the host runs the loops of a Cortex-M core with it.

use super::{Dsp, Offsets};
use crate::kernel::depthwise::{self, Depthwise};

/// Software twin of the core's instructions.
pub(in crate::kernel) struct Twin;

/// Bytes 0 and 2, zero-extended to halves.
pub(super) fn uxtb16(word: u32) -> u32 {
    word & 0x00ff_00ff
}

/// Bytes 0 and 2, sign-extended to halves.
pub(super) fn sxtb16(word: u32) -> u32 {
    let [a, _, b, _] = word.to_le_bytes();
    pair_of(i16::from(a as i8), i16::from(b as i8))
}

pub(super) fn pair_of(low: i16, high: i16) -> u32 {
    u32::from(low as u16) | u32::from(high as u16) << 16
}

pub(super) fn halves(word: u32) -> [i32; 2] {
    [i32::from(word as i16), i32::from((word >> 16) as i16)]
}

/// `acc + a.low * b.low + a.high * b.high`, wrapping.
pub(super) fn smlad(a: u32, b: u32, acc: i32) -> i32 {
    let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
    acc.wrapping_add((a0 * b0).wrapping_add(a1 * b1))
}

/// Low halves of both.
fn pkhbt(low: u32, high: u32) -> u32 {
    low & 0xffff | high << 16
}

/// High halves of both.
fn pkhtb(high: u32, low: u32) -> u32 {
    high & 0xffff_0000 | low >> 16
}

/// The pairs of both channels of a word of weights.
fn weight_pairs(word: &[u8; 4]) -> [u32; 2] {
    let word = u32::from_le_bytes(*word);
    [sxtb16(word), sxtb16(word.rotate_right(8))]
}

impl Dsp for Twin {
    fn widen4(signed: bool, bytes: &[[u8; 4]], words: &mut [u32], stride: usize) {
        let extend = if signed { sxtb16 } else { uxtb16 };
        for (i, bytes) in bytes.iter().enumerate() {
            let (at, next) = (2 * i * stride, (2 * i + 1) * stride);
            if next >= words.len() {
                return;
            }
            let bytes = u32::from_le_bytes(*bytes);
            let (even, odd) = (extend(bytes), extend(bytes.rotate_right(8)));
            words[at] = pkhbt(even, odd);
            words[next] = pkhtb(odd, even);
        }
    }

    fn list4(signed: bool, values: [&[u8]; 4], offsets: &Offsets, words: &mut [[u32; 4]]) {
        if values.iter().any(|values| values.len() < offsets.reach()) {
            return;
        }
        for (words, pair) in words.iter_mut().zip(offsets.pairs()) {
            for (word, values) in words.iter_mut().zip(values) {
                let [low, high] = pair.map(|offset| match values[usize::from(offset)] {
                    byte if signed => i16::from(byte as i8),
                    byte => i16::from(byte),
                });
                *word = pair_of(low, high);
            }
        }
    }

    fn max4(acts: &[[u32; 4]], weights: &[[u8; 4]], maxima: &mut [[i32; 2]]) {
        for (maxima, block) in maxima
            .iter_mut()
            .zip(weights.chunks_exact(acts.len().max(1)))
        {
            let mut sums = [[0; 4]; 2];
            Self::add4(acts, block, &mut sums);
            *maxima = sums.map(|sums| sums.into_iter().fold(i32::MIN, i32::max));
        }
    }

    fn add4(acts: &[[u32; 4]], weights: &[[u8; 4]], sums: &mut [[i32; 4]; 2]) {
        for (acts, word) in acts.iter().zip(weights) {
            for (sums, weights) in sums.iter_mut().zip(weight_pairs(word)) {
                for (sum, &act) in sums.iter_mut().zip(acts) {
                    *sum = smlad(act, weights, *sum);
                }
            }
        }
    }

    fn add1(acts: &[u32], weights: &[[u8; 4]], sums: &mut [i32; 2]) {
        for (&act, word) in acts.iter().zip(weights) {
            for (sum, weights) in sums.iter_mut().zip(weight_pairs(word)) {
                *sum = smlad(act, weights, *sum);
            }
        }
    }
}

impl Depthwise for Twin {
    const PAIRS: bool = true;

    fn pixel(work: &mut depthwise::Work<'_>) {
        depthwise::twin::pixel(Self::PAIRS, work);
    }
}
