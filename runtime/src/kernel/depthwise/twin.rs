//! The inner loop in plain Rust, on the same table: the host runs it in place of the instructions.

use super::{QUAD, Table, Work};
use crate::fixed::{round_right, saturate};

/// As [`super::Depthwise::pixel`]; `pairs` as there.
pub(in crate::kernel) fn pixel(pairs: bool, work: &mut Work<'_>) {
    let table = work.table;
    let len = Table::words_of(table.taps, table.step);
    let Some(origin) = table.place(work.first) else {
        return;
    };
    let quads = table
        .words
        .chunks_exact(len)
        .zip(work.out.chunks_exact_mut(QUAD));
    for (quad, (words, out)) in quads.enumerate() {
        let mut sums = [words[0], words[1], words[2], words[3]];
        for row in 0..work.rows {
            for column in 0..work.columns {
                let tap = work.first + row * table.row + column;
                let entry = &words[QUAD + tap * table.step..][..table.step];
                let at = entry[0] as usize - origin + QUAD * quad;
                for (i, (sum, &value)) in sums.iter_mut().zip(&work.values[at..]).enumerate() {
                    let value = if work.signed {
                        i32::from(value as i8)
                    } else {
                        i32::from(value)
                    };
                    let weight = match (pairs, i / 2) {
                        (false, _) => entry[1 + i],
                        (true, 0) => i32::from(entry[1 + i] as i16),
                        (true, _) => entry[i - 1] >> 16,
                    };
                    *sum += value * weight;
                }
            }
        }
        let shifts = &words[len - QUAD..];
        for ((out, sum), &shift) in out.iter_mut().zip(sums).zip(shifts) {
            *out = saturate(round_right(sum, shift as u32), false) ^ table.flip as u8;
        }
    }
}
