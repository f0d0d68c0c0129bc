//! The inner loops in plain Rust, with the same splits: the host runs the rest of these kernels with it.

use super::{Lanes, Result, Work};
use crate::kernel::depthwise::{self, Depthwise, Table};
use crate::kernel::walk::Span;

/// Software twin of the core's instructions.
pub(in crate::kernel) struct Twin;

impl Lanes for Twin {
    fn multiply(work: &mut Work<'_>) {
        let pairs = work
            .accs
            .chunks_mut(2)
            .zip(work.splits.as_chunks::<2>().0.chunks(2));
        for ((accs, splits), weights) in pairs.zip(work.weights.chunks(work.block.max(1))) {
            for (channel, (acc, &splits)) in accs.iter_mut().zip(splits).enumerate() {
                if work.fresh {
                    *acc = [0; 4];
                }
                let pairs = weights.as_chunks::<2>().0;
                let groups = work.taps.chunks(8).zip(pairs.chunks(8));
                for (group, (taps, pairs)) in groups.enumerate() {
                    let split = (u16::from_le_bytes(splits) >> group) & 1 == 1;
                    let together = if split || taps.len() < 8 { 2 } else { 4 };
                    for (taps, pairs) in taps.chunks(together).zip(pairs.chunks(together)) {
                        let mut words = [0u32; 2];
                        for (tap, &[even, odd]) in taps.iter().zip(pairs) {
                            let weight = i32::from((if channel == 0 { even } else { odd }) as i8);
                            for (word, &value) in words.iter_mut().zip(tap) {
                                *word = word.wrapping_add(value.wrapping_mul(weight as u32));
                            }
                        }
                        for (acc, word) in acc.as_chunks_mut::<2>().0.iter_mut().zip(words) {
                            acc[0] = acc[0].wrapping_add(word as i32);
                            acc[1] += (word.wrapping_add(1 << 15) as i32) >> 16;
                        }
                    }
                }
                if matches!(work.result, Result::Words) {
                    continue;
                }
                for acc in acc.as_chunks_mut::<2>().0 {
                    acc[0] = acc[0].wrapping_sub(acc[1] << 16);
                }
                if matches!(work.result, Result::Maximum) {
                    acc[0] = acc.iter().fold(i32::MIN, |best, &sum| best.max(sum));
                }
            }
        }
    }

    fn add1(signed: bool, x: &[u8], weights: &[[u8; 2]], sums: &mut [i32; 2]) {
        for (&x, weights) in x.iter().zip(weights) {
            let x = if signed {
                i32::from(x as i8)
            } else {
                i32::from(x)
            };
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                *sum += x * i32::from(weight as i8);
            }
        }
    }
}

impl Depthwise for Twin {
    const PAIRS: bool = false;

    fn pixel(table: &Table, values: &[u8], part: &[Span; 2], out: &mut [u8]) {
        depthwise::twin::pixel(Self::PAIRS, table, values, part, out);
    }
}
