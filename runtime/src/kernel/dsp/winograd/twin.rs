//! The routines in plain Rust, instruction by instruction.

use super::{PAIRS, Pixels, Products, Sums, TILES, Values, Winograd};
use crate::kernel::dsp::twin::{Twin, halves, pair_of, smlad, sxtb16};
use crate::weight::winograd::{FREQUENCIES, QUAD};

/// Bytes 0 and 2, zero-extended to halves.
fn uxtb16(word: u32) -> u32 {
    word & 0x00ff_00ff
}

/// Both halves of the sum, each modulo 2^16.
fn sadd16(a: u32, b: u32) -> u32 {
    let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
    pair_of((a0 + b0) as i16, (a1 + b1) as i16)
}

/// Both halves of the difference, each modulo 2^16.
fn ssub16(a: u32, b: u32) -> u32 {
    let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
    pair_of((a0 - b0) as i16, (a1 - b1) as i16)
}

/// `B^T d`.
fn spread([a, b, c, d]: [u32; 4]) -> [u32; 4] {
    [ssub16(a, c), sadd16(b, c), ssub16(c, b), ssub16(b, d)]
}

/// `A^T m`.
fn gather([a, b, c, d]: [i32; 4]) -> [i32; 2] {
    [
        a.wrapping_add(b).wrapping_add(c),
        b.wrapping_sub(c).wrapping_sub(d),
    ]
}

impl Winograd for Twin {
    fn transform(pixels: &Pixels<'_>, tile: usize, tiles: usize, values: &mut Values) {
        let extend = if pixels.signed { sxtb16 } else { uxtb16 };
        let channels = pixels.channels.min(2 * PAIRS / tiles);
        let pixel = |place: usize| pixels.x.get(place..)?.get(..channels);
        let places = pixels.places.map(|place| pixel(place).unwrap_or_default());
        for first in (0..channels).step_by(QUAD) {
            let words = places.map(|pixel| {
                let byte = |i: usize| pixel.get(first + i).copied().unwrap_or(0);
                u32::from_le_bytes(core::array::from_fn(byte))
            });
            for half in 0..2 {
                let d = words.map(|word| extend(word.rotate_right(8 * half)));
                let columns: [[u32; 4]; 4] =
                    core::array::from_fn(|x| spread(core::array::from_fn(|y| d[4 * x + y])));
                for y in 0..4 {
                    let row = spread(columns.map(|column| column[y]));
                    for (x, value) in row.into_iter().enumerate() {
                        let pair = first / 2 + half as usize;
                        values[4 * y + x][pair * tiles + tile] = value;
                    }
                }
            }
        }
    }

    fn multiply(values: &Values, tiles: usize, weights: &[u8], products: &mut Products) {
        let rows = weights.len() / FREQUENCIES;
        let pairs = rows / (4 * QUAD);
        if pairs == 0 || pairs * tiles > PAIRS {
            return;
        }
        for ((values, row), products) in values.iter().zip(weights.chunks(rows)).zip(products) {
            *products = [[0; TILES]; QUAD];
            for (values, words) in values
                .chunks(tiles)
                .zip(row.as_chunks::<4>().0.chunks(QUAD))
            {
                for (products, word) in products.iter_mut().zip(words) {
                    for (product, &value) in products.iter_mut().zip(values) {
                        *product = smlad(value, u32::from_le_bytes(*word), *product);
                    }
                }
            }
        }
    }

    fn sums(products: &Products, sums: &mut Sums, at: usize) {
        for (tile, sums) in sums.iter_mut().enumerate() {
            let Some(sums) = sums.get_mut(at..at + QUAD) else {
                return;
            };
            for (channel, sums) in sums.iter_mut().enumerate() {
                let m = |y: usize, x: usize| products[4 * y + x][channel][tile];
                let columns: [[i32; 2]; 4] =
                    core::array::from_fn(|x| gather(core::array::from_fn(|y| m(y, x))));
                let [a, b] = [0, 1].map(|y| gather(columns.map(|column| column[y])));
                *sums = [a[0], a[1], b[0], b[1]].map(|sum| sum >> 2);
            }
        }
    }
}
