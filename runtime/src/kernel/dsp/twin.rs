//! The DSP routines in plain Rust, instruction by instruction: the host runs the loops of a Cortex-M core with it.

use super::{Dsp, Offsets, Sums};
use crate::kernel::depthwise::{self, Depthwise, Table};
use crate::kernel::walk::Span;

/// Software twin of the core's instructions.
pub(in crate::kernel) struct Twin;

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

/// The pairs of both channels of a word of weights.
fn weight_pairs(word: &[u8; 4]) -> [u32; 2] {
    let word = u32::from_le_bytes(*word);
    [sxtb16(word), sxtb16(word.rotate_right(8))]
}

impl Dsp for Twin {
    fn widen(signed: bool, values: &[u8], words: &mut [u32], at: usize) {
        for (half, &value) in (at..).zip(values) {
            let value = if signed {
                i16::from(value as i8)
            } else {
                i16::from(value)
            };
            let Some(word) = words.get_mut(half / 2 * 4) else {
                return;
            };
            let [low, high] = halves(*word).map(|half| half as i16);
            *word = if half % 2 == 0 {
                pair_of(value, high)
            } else {
                pair_of(low, value)
            };
        }
    }

    fn list4(
        signed: bool,
        values: &[u8],
        starts: &[usize; 4],
        offsets: &Offsets,
        words: &mut [[u32; 4]],
    ) {
        if starts
            .iter()
            .any(|start| start + offsets.reach() > values.len())
        {
            return;
        }
        for (words, pair) in words.iter_mut().zip(offsets.pairs()) {
            for (word, start) in words.iter_mut().zip(starts) {
                let [low, high] = pair.map(|offset| match values[start + usize::from(offset)] {
                    byte if signed => i16::from(byte as i8),
                    byte => i16::from(byte),
                });
                *word = pair_of(low, high);
            }
        }
    }

    fn blocks(
        single: bool,
        acts: &[[u32; 4]],
        weights: &[[u8; 4]],
        pitch: usize,
        sums: &mut [Sums],
        more: bool,
    ) {
        let lanes = if single { 1 } else { 4 };
        for (sums, block) in sums.iter_mut().zip(weights.chunks(pitch.max(1))) {
            let Some(block) = block.get(..acts.len()) else {
                return;
            };
            for (channel, sums) in sums.iter_mut().enumerate() {
                for (position, sum) in sums.iter_mut().take(lanes).enumerate() {
                    let first = if more { *sum } else { 0 };
                    *sum = acts.iter().zip(block).fold(first, |sum, (acts, word)| {
                        smlad(acts[position], weight_pairs(word)[channel], sum)
                    });
                }
            }
        }
    }
}

impl Depthwise for Twin {
    const PAIRS: bool = true;

    fn pixel(table: &Table, values: &[u8], part: &[Span; 2], out: &mut [u8]) {
        depthwise::twin::pixel(Self::PAIRS, table, values, part, out);
    }
}
