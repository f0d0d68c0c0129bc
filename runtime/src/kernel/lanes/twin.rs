//! The inner loop in plain Rust, with the same splits: the host runs the rest of these kernels with it.

use super::{Lanes, Work};

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
                let pairs = weights.as_chunks::<2>().0;
                let groups = work.taps.chunks(8).zip(pairs.chunks(8));
                for (group, (taps, pairs)) in groups.enumerate() {
                    let together = if (u16::from_le_bytes(splits) >> group) & 1 == 1 {
                        2
                    } else {
                        4
                    };
                    for (taps, pairs) in taps.chunks(together).zip(pairs.chunks(together)) {
                        let mut words = [0u32; 2];
                        for (tap, &[even, odd]) in taps.iter().zip(pairs) {
                            let weight = i32::from((if channel == 0 { even } else { odd }) as i8);
                            for (word, &value) in words.iter_mut().zip(tap) {
                                *word = word.wrapping_add(value.wrapping_mul(weight as u32));
                            }
                        }
                        for (acc, word) in acc.as_chunks_mut::<2>().0.iter_mut().zip(words) {
                            let low = i32::from(word as i16);
                            acc[0] += low;
                            acc[1] += (word as i32).wrapping_sub(low) >> 16;
                        }
                    }
                }
            }
        }
    }
}
