//! Depthwise convolution with weights in the order `[kh][kw][co]`, four channels at a time, for cores without vectors.
//!
//! For as many channels as fit, a table holds all that a position of the map needs besides the values: biases, the place of each
//! tap's values, weights that are widened already, shifts. It is made once and serves all positions. A window that
//! reaches over the border uses the rows and columns of the table whose taps lie in the map, so the inner loop knows no border.

use super::bias_of;
use super::walk::{Span, Walk, clip};
use crate::op::{Conv, Op};
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
    /// All channels of a table at one position: `out = saturate(round_half_even((bias + sum over the window) * 2^-shift))`.
    /// `values` begins with the first value that lies under the window, and `part` says which part of the window lies in the map.
    /// Nothing happens if that is not so.
    fn pixel(table: &Table, values: &[u8], part: &[Span; 2], out: &mut [u8]);
}

/// Words of a tap.
const fn step<D: Depthwise>() -> usize {
    if D::PAIRS { 3 } else { 5 }
}

/// Biases, taps and shifts of some channels, four at a time: 4 words of biases; for each tap the distance of its values from
/// those of the first tap, and its weights; 4 words of shifts, 1..=23. `quads * quad` is at most [`WORDS`].
pub(super) struct Table {
    words: [i32; WORDS],
    /// Fours of channels, and the words of four.
    quads: usize,
    quad: usize,
    /// Words of a tap.
    step: usize,
    /// Rows and columns of the window, 1 or more.
    size: [usize; 2],
    /// Values from one row of the map to the next, and from one column.
    pitch: usize,
    channels: usize,
    /// The values are i8.
    signed: bool,
    /// In each byte 0x80 if the output is i8: what must be flipped in a result, which is 128 too large.
    flip: u32,
}

impl Table {
    /// Makes the table of the channels from `first` on, as many as fit; their number.
    #[inline(never)]
    fn fill<D: Depthwise>(&mut self, conv: &Conv<'_>, first: usize) -> usize {
        let most = WORDS / self.quad.max(1);
        self.quads = ((self.channels - first) / QUAD).min(most);
        let centre = (self.flip & 0x80) as i32;
        let mut rest = &mut self.words[..];
        let end = first + QUAD * self.quads;
        for channel in (first..end).step_by(QUAD) {
            let Some((words, later)) = rest.split_at_mut_checked(self.quad) else {
                return 0;
            };
            rest = later;
            let Some((biases, words)) = words.split_first_chunk_mut::<QUAD>() else {
                return 0;
            };
            let Some((taps, shifts)) = words.split_last_chunk_mut::<QUAD>() else {
                return 0;
            };
            for (i, (bias, place)) in biases.iter_mut().zip(shifts).enumerate() {
                let shift = conv.post.shift(channel + i);
                *place = shift.into();
                *bias = bias_of(conv.bias, channel + i) + (centre << (shift & 31));
            }
            let mut weights = conv.weights.bytes.get(channel..).unwrap_or_default();
            let (mut place, mut column) = (0, 0);
            for tap in taps.chunks_exact_mut(step::<D>()) {
                let [a, b, c, d] = weights.first_chunk().copied().unwrap_or([0; QUAD]);
                let (a, b) = (i32::from(a as i8), i32::from(b as i8));
                let (c, d) = (i32::from(c as i8), i32::from(d as i8));
                match tap {
                    [to, even, odd] => {
                        *to = place;
                        *even = a & 0xffff | c << 16;
                        *odd = b & 0xffff | d << 16;
                    }
                    [to, weights @ ..] => {
                        *to = place;
                        for (to, weight) in weights.iter_mut().zip([a, b, c, d]) {
                            *to = weight;
                        }
                    }
                    [] => {}
                }
                weights = weights.get(self.channels..).unwrap_or_default();
                place += self.channels as i32;
                column += 1;
                if column == self.size[1] {
                    column = 0;
                    place += self.pitch as i32 - (self.size[1] * self.channels) as i32;
                }
            }
        }
        QUAD * self.quads
    }

    /// What the instructions need, if all that they read and write is there.
    #[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
    #[inline(always)]
    pub(super) fn arguments(
        &self,
        values: &[u8],
        [v, h]: &[Span; 2],
        out: &mut [u8],
    ) -> Option<Arguments> {
        let [kh, kw] = self.size;
        let len = QUAD * self.quads;
        let (down, right) = (v.len.checked_sub(1)?, h.len.checked_sub(1)?);
        if v.skip > kh
            || v.len > kh - v.skip
            || h.skip > kw
            || h.len > kw - h.skip
            || len == 0
            || out.len() != len
            || values.len() < down * self.pitch + right * self.channels + len
        {
            return None;
        }
        // Whole rows are one row.
        let (rows, columns) = if h.len == kw {
            (1, v.len * kw)
        } else {
            (v.len, h.len)
        };
        let bytes = |taps: usize| taps.wrapping_mul(4 * self.step);
        let first = v.skip * kw + h.skip;
        let skipped = v.skip * self.pitch + h.skip * self.channels;
        let end = out.as_mut_ptr_range();
        Some(Arguments {
            values: values.as_ptr().wrapping_sub(skipped),
            table: self.words.as_ptr(),
            out: end.start,
            first: bytes(first),
            rows,
            columns: columns + 1,
            signed: self.signed.into(),
            row: bytes(kw.wrapping_sub(columns)),
            rest: bytes((kh * kw).wrapping_sub(first + rows * kw)),
            flip: self.flip,
            end: end.end,
        })
    }
}

/// What the assembly reads; distances are in bytes.
#[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
#[repr(C)]
pub(super) struct Arguments {
    /// Where the values of the window's first tap are, or would be.
    values: *const u8,
    table: *const i32,
    out: *mut u8,
    /// From the window's first tap in the table to the first in the map.
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
pub(super) fn runs<D: Depthwise>(conv: &Conv<'_>, dtype: DType) -> bool {
    let shifts = 1..=SHIFT_MAX;
    conv.weights.layout == Layout::Hwo
        && conv.pool.is_none()
        && conv.weights.channels >= QUAD
        && conv.weights.per_channel <= (WORDS - 2 * QUAD) / step::<D>()
        && dtype != DType::I32
        && conv
            .post
            .shifts
            .iter()
            .all(|&shift| shifts.contains(&(shift as i8)))
}

/// As [`super::conv::conv2d`], for the layers that [`runs`] says.
#[inline(never)]
pub(super) fn conv2d<D: Depthwise>(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    let channels = usize::from(output.shape.c);
    let signed = output.dtype != DType::U8 || conv.post.table.is_some();
    let mut table = Table {
        words: [0; WORDS],
        quads: 0,
        quad: 2 * QUAD + conv.weights.per_channel * step::<D>(),
        step: step::<D>(),
        size: [conv.window.size[0].into(), conv.window.size[1].into()],
        pitch: usize::from(input.shape.w) * channels,
        channels,
        signed: input.dtype != DType::U8,
        flip: if signed { 0x8080_8080 } else { 0 },
    };
    let mut done = 0;
    while done < channels {
        // The last channels are computed again if a whole four does not remain.
        let first = done.min(channels.saturating_sub(QUAD));
        done = first + table.fill::<D>(conv, first).max(1);
        let mut walk = Walk::over(&conv.window, output.shape.w);
        let mut rest = &mut *y;
        while let Some((pixel, later)) = rest.split_at_mut_checked(channels) {
            rest = later;
            let part = clip(walk.next(), conv.window.size, input.shape);
            let [v, h] = &part;
            let start = v.start * table.pitch + h.start * channels + first;
            D::pixel(
                &table,
                x.get(start..).unwrap_or_default(),
                &part,
                pixel.get_mut(first..done).unwrap_or_default(),
            );
        }
    }
    if let Some(table) = conv.post.table {
        for value in y {
            *value = *table.get(usize::from(*value)).unwrap_or(&0);
        }
    }
}
