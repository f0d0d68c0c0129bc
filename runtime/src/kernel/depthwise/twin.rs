//! The inner loop in plain Rust, on the same table: the host runs it in place of the instructions.

use super::{QUAD, Table};
use crate::fixed::{round_right, saturate};
use crate::kernel::walk::Span;

/// As [`super::Depthwise::pixel`]; `pairs` as there.
pub(in crate::kernel) fn pixel(
    pairs: bool,
    table: &Table,
    values: &[u8],
    [v, h]: &[Span; 2],
    out: &mut [u8],
) {
    let kw = table.size[1];
    let origin = v.skip * table.pitch + h.skip * table.channels;
    let quads = table.words.chunks_exact(table.quad);
    for (quad, (words, out)) in quads.zip(out.chunks_exact_mut(QUAD)).enumerate() {
        let mut sums = [words[0], words[1], words[2], words[3]];
        for row in v.skip..v.skip + v.len {
            for column in h.skip..h.skip + h.len {
                let entry = &words[QUAD + (row * kw + column) * table.step..][..table.step];
                let at = entry[0] as usize - origin + QUAD * quad;
                for (i, (sum, &value)) in sums.iter_mut().zip(&values[at..]).enumerate() {
                    let value = if table.signed {
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
        let shifts = &words[table.quad - QUAD..];
        for ((out, sum), &shift) in out.iter_mut().zip(sums).zip(shifts) {
            *out = saturate(round_right(sum, shift as u32), false) ^ table.flip as u8;
        }
    }
}
