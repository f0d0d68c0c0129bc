//! Depthwise convolution with weights in the order `[kh][kw][co]`, four channels at a time, for cores without vectors.
//!
//! For as many channels as fit, a table holds all that a position of the map needs besides the values: biases, the place of each
//! tap's values, weights that are widened already, shifts. It is made once and serves all positions. A window that
//! reaches over the border uses the rows and columns of the table whose taps lie in the map, so the inner loop knows no border.

use super::bias_of;
use super::walk::{Walk, clip};
use crate::op::{Conv, Tensor};
use crate::shape::DType;
use crate::weight::Layout;

#[cfg(any(feature = "encode", not(target_arch = "arm")))]
pub(super) mod twin;

/// Channels side by side.
pub(super) const QUAD: usize = 4;
/// Words of the table.
const WORDS: usize = 576;
/// Greatest shift for which 128 can be added before it.
const SHIFT_MAX: i8 = 23;

/// What a core has instructions for.
pub(super) trait Depthwise {
    /// True: weights as two words, halves 0 and 2, halves 1 and 3; false: as four words.
    const PAIRS: bool;
    /// All channels of the table at one position: `out = saturate(round_half_even((bias + sum over the window) * 2^-shift))`.
    /// Nothing happens if `work` is not what its fields say.
    fn pixel(work: &mut Work<'_>);
}

/// Words of a tap.
const fn step<D: Depthwise>() -> usize {
    if D::PAIRS { 3 } else { 5 }
}

/// One position of the map.
pub(super) struct Work<'a> {
    pub(super) table: &'a Table,
    /// The values of the first tap, from the table's first channel on, and all that follow.
    pub(super) values: &'a [u8],
    /// The first tap in the map, and the rows and columns from it on.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// The values are i8.
    pub(super) signed: bool,
    /// The table's channels.
    pub(super) out: &'a mut [u8],
}

/// Biases, taps and shifts of some channels, four at a time: 4 words of biases; for each tap the distance of its values from
/// those of the first tap, and its weights; 4 words of shifts, 1..=23. The distances grow from tap to tap, and are the same for all channels.
pub(super) struct Table {
    words: [i32; WORDS],
    /// Fours of channels.
    quads: usize,
    taps: usize,
    /// Taps of a kernel row.
    row: usize,
    /// Words of a tap.
    step: usize,
    /// In each byte 0x80 if the output is i8: what must be flipped in a result, which is 128 too large.
    flip: u32,
}

impl Table {
    /// Words of four channels.
    const fn words_of(taps: usize, step: usize) -> usize {
        2 * QUAD + taps * step
    }

    /// Makes the table of the channels from `first` on.
    #[inline(never)]
    fn fill<D: Depthwise>(&mut self, conv: &Conv<'_>, input: Tensor, first: usize, quads: usize) {
        self.quads = quads;
        let ci = usize::from(input.shape.c);
        let pitch = usize::from(input.shape.w) * ci;
        let mut words = self.words.iter_mut();
        let mut put = |word| {
            if let Some(place) = words.next() {
                *place = word;
            }
        };
        let centre = (self.flip & 0x80) as i32;
        for channel in (first..).step_by(QUAD).take(quads) {
            let channels = [channel, channel + 1, channel + 2, channel + 3];
            for channel in channels {
                let shift = conv.post.shift(channel);
                put(bias_of(conv.bias, channel) + (centre << (shift & 31)));
            }
            let (mut row, mut column) = (0, 0);
            for tap in 0..self.taps {
                put((row * pitch + column * ci) as i32);
                let weights = conv.weights.bytes.get(tap * ci + channel..);
                let weights = weights.and_then(<[u8]>::first_chunk).copied();
                let weights = weights.unwrap_or_default().map(|weight: u8| weight as i8);
                let [a, b, c, d] = weights.map(i32::from);
                if D::PAIRS {
                    put(a & 0xffff | c << 16);
                    put(b & 0xffff | d << 16);
                } else {
                    for weight in [a, b, c, d] {
                        put(weight);
                    }
                }
                column += 1;
                if column == self.row {
                    (row, column) = (row + 1, 0);
                }
            }
            for channel in channels {
                put(conv.post.shift(channel).into());
            }
        }
    }

    /// Distance of a tap's values from those of the first tap.
    #[inline(always)]
    fn place(&self, tap: usize) -> Option<usize> {
        let place = self.words.get(QUAD + tap * self.step)?;
        Some(*place as usize)
    }
}

#[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
impl Work<'_> {
    /// What the instructions need, if all that they read and write is there.
    #[inline(always)]
    pub(super) fn arguments(&mut self) -> Option<Arguments> {
        let table = self.table;
        let len = QUAD * table.quads;
        // Of numbers that are so small no sum overflows.
        let counts = [self.rows, self.columns, table.quads, table.taps];
        let small = counts.iter().all(|&count| count >= 1 && count <= WORDS);
        if !small || self.first >= table.taps || table.row > table.taps || self.out.len() != len {
            return None;
        }
        let after = self.first + (self.rows - 1) * table.row + self.columns;
        if after > table.taps || table.quads * Table::words_of(table.taps, table.step) > WORDS {
            return None;
        }
        let first = table.place(self.first)?;
        let reach = table.place(after - 1)?.checked_sub(first)? + len;
        if reach > self.values.len() {
            return None;
        }
        let bytes = |taps: usize| taps.wrapping_mul(4 * table.step);
        let end = self.out.as_mut_ptr_range();
        Some(Arguments {
            values: self.values.as_ptr().wrapping_sub(first),
            table: table.words.as_ptr(),
            out: end.start,
            first: bytes(self.first),
            rows: self.rows,
            columns: self.columns + 1,
            signed: self.signed.into(),
            row: bytes(table.row.wrapping_sub(self.columns)),
            rest: bytes(table.taps.wrapping_sub(self.first + self.rows * table.row)),
            flip: table.flip,
            end: end.end,
        })
    }
}

/// What the assembly reads; distances are in bytes.
#[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
#[repr(C)]
pub(super) struct Arguments {
    /// Where the values of the first tap are, or would be.
    values: *const u8,
    table: *const i32,
    out: *mut u8,
    /// From the first tap in the table to the first in the map.
    first: usize,
    rows: usize,
    /// And one.
    columns: usize,
    signed: usize,
    /// From the last tap of a row in the map to the first of the next one.
    row: usize,
    /// From what would be the next row's first tap to the shifts.
    rest: usize,
    flip: u32,
    end: *mut u8,
}

/// True for the layers that this kernel runs.
pub(super) fn runs<D: Depthwise>(conv: &Conv<'_>, output: Tensor) -> bool {
    let shifts = 1..=SHIFT_MAX;
    conv.weights.layout == Layout::Hwo
        && conv.pool.is_none()
        && conv.weights.channels >= QUAD
        && conv.weights.per_channel <= (WORDS - 2 * QUAD) / step::<D>()
        && output.dtype != DType::I32
        && conv
            .post
            .shifts
            .iter()
            .all(|&shift| shifts.contains(&(shift as i8)))
}

/// As [`super::conv::conv2d`], for the layers that [`runs`] says.
#[inline(never)]
pub(super) fn conv2d<D: Depthwise>(
    conv: &Conv<'_>,
    input: Tensor,
    x: &[u8],
    output: Tensor,
    y: &mut [u8],
) {
    let [kh, kw] = conv.window.size.map(usize::from);
    let channels = usize::from(output.shape.c);
    let columns = usize::from(input.shape.w);
    let signed = output.dtype != DType::U8 || conv.post.table.is_some();
    let mut table = Table {
        words: [0; WORDS],
        quads: 0,
        taps: kh * kw,
        row: kw,
        step: step::<D>(),
        flip: if signed { 0x8080_8080 } else { 0 },
    };
    let most = WORDS / Table::words_of(table.taps, table.step).max(1);
    let mut done = 0;
    while done < channels {
        // The last channels are computed again if a whole four does not remain.
        let first = done.min(channels.saturating_sub(QUAD));
        let quads = ((channels - first) / QUAD).min(most).max(1);
        done = first + QUAD * quads;
        table.fill::<D>(conv, input, first, quads);
        let mut walk = Walk::over(&conv.window, output.shape.w);
        for pixel in y.chunks_exact_mut(channels.max(1)) {
            let [v, h] = clip(walk.next(), conv.window.size, input.shape);
            let start = (v.start * columns + h.start) * channels + first;
            // A whole window is one row of all taps.
            let (from, rows, columns) = if v.len == kh && h.len == kw {
                (0, 1, table.taps)
            } else {
                (v.skip * kw + h.skip, v.len, h.len)
            };
            D::pixel(&mut Work {
                table: &table,
                values: x.get(start..).unwrap_or_default(),
                first: from,
                rows,
                columns,
                signed: input.dtype != DType::U8,
                out: pixel.get_mut(first..done).unwrap_or_default(),
            });
        }
    }
    if let Some(table) = conv.post.table {
        for value in y {
            *value = *table.get(usize::from(*value)).unwrap_or(&0);
        }
    }
}
