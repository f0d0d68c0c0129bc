//! The values under a kernel window, as pairs in the order of the weights.

use core::ops::Range;

use super::offsets::Offsets;
use super::{Dsp, half};
use crate::kernel::{Span, part};
use crate::op::{Tensor, Window};
use crate::shape::DType;

/// Values of a row of a window below which a list of places is faster than row by row.
const SHORT: usize = 16;

/// Reads windows of a tensor.
pub(super) struct Gather<'a> {
    x: &'a [u8],
    input: Tensor,
    window: Window,
    signed: bool,
    /// Values of a window: `kh * kw * ci`.
    len: usize,
    /// Values of a row of the tensor.
    pitch: usize,
    /// Places of a window's values, if its rows are short.
    offsets: Offsets,
    /// First and last row, and first and last column of the map whose windows lie in the tensor.
    inside: [[usize; 2]; 2],
}

impl<'a> Gather<'a> {
    pub(super) fn new(x: &'a [u8], input: Tensor, window: Window) -> Self {
        let [kh, kw] = window.size.map(usize::from);
        let shape = input.shape;
        let ci = usize::from(shape.c);
        let (run, pitch) = (kw * ci, usize::from(shape.w) * ci);
        let inside = |size: u16, stride: u16, pad: u8, limit: u16| {
            let (stride, pad) = (usize::from(stride).max(1), usize::from(pad));
            // No window fits if the first comes after the last.
            match (usize::from(limit) + pad).checked_sub(usize::from(size)) {
                Some(last) => [pad.div_ceil(stride), last / stride],
                None => [1, 0],
            }
        };
        let ([sh, sw], [top, left]) = (window.stride, window.pad);
        let [rows, columns] = window.size;
        Self {
            x,
            input,
            window,
            signed: input.dtype != DType::U8,
            len: kh * run,
            pitch,
            offsets: if run < SHORT {
                Offsets::new(kh, run, pitch)
            } else {
                Offsets::NONE
            },
            inside: [
                inside(rows, sh, top, shape.h),
                inside(columns, sw, left, shape.w),
            ],
        }
    }

    /// Index of the first value of the window of a map position, if all of them lie in the tensor.
    #[inline(always)]
    fn start(&self, [row, column]: [usize; 2]) -> Option<usize> {
        let [rows, columns] = self.inside;
        if row < rows[0] || row > rows[1] || column < columns[0] || column > columns[1] {
            return None;
        }
        let [sh, sw] = self.window.stride.map(usize::from);
        let [top, left] = self.window.pad.map(usize::from);
        let top = (row * sh).wrapping_sub(top);
        let left = (column * sw).wrapping_sub(left);
        let at = top
            .wrapping_mul(self.pitch)
            .wrapping_add(left.wrapping_mul(usize::from(self.input.shape.c)));
        Some(at)
    }

    /// Writes the whole windows of four map positions, if there is a list of their places and all of them lie in the tensor.
    pub(super) fn listed<D: Dsp>(
        &self,
        positions: &[[usize; 2]; 4],
        buffer: &mut [[u32; 4]],
    ) -> bool {
        if self.offsets.pairs().is_empty() {
            return false;
        }
        let mut values: [&[u8]; 4] = [&[]; 4];
        for (values, &at) in values.iter_mut().zip(positions) {
            let Some(start) = self.start(at) else {
                return false;
            };
            *values = self.x.get(start..).unwrap_or_default();
        }
        D::list4(self.signed, values, &self.offsets, buffer);
        true
    }

    /// Writes lane `p` of the buffer: values `range` of the window of a map position, counted `[kh][kw][ci]`; what lies outside
    /// of the input is 0. The high half of the last word is 0 if the range has an odd length.
    #[inline(never)]
    pub(super) fn window<D: Dsp, const P: usize>(
        &self,
        at: [usize; 2],
        range: Range<usize>,
        p: usize,
        buffer: &mut [[u32; P]],
    ) {
        let run = usize::from(self.window.size[1]) * usize::from(self.input.shape.c);
        let mut to = Lane {
            buffer,
            p,
            at: 0,
            signed: self.signed,
        };
        let end = range.end.min(self.len);
        let start = self.start(at);
        let mut begin = 0;
        for ky in 0..usize::from(self.window.size[0]) {
            let from = range.start.saturating_sub(begin).min(run);
            let until = end.saturating_sub(begin).min(run);
            begin += run;
            if from >= until {
                continue;
            }
            match start {
                Some(start) => {
                    let first = start + ky * self.pitch + from;
                    to.values::<D>(part(self.x, first, until - from));
                }
                None => self.clipped::<D, P>(at, ky, from..until, &mut to),
            }
        }
    }

    /// Row `ky` of a window that does not lie in the tensor as a whole.
    #[inline(never)]
    fn clipped<D: Dsp, const P: usize>(
        &self,
        [row, column]: [usize; 2],
        ky: usize,
        range: Range<usize>,
        to: &mut Lane<'_, P>,
    ) {
        let shape = self.input.shape;
        let ([kh, kw], [sh, sw]) = (self.window.size, self.window.stride);
        let [top, left] = self.window.pad;
        let v = Span::new(row, kh, sh, top, shape.h);
        let h = Span::new(column, kw, sw, left, shape.w);
        let row = ky.wrapping_sub(v.skip);
        if row >= v.len {
            to.zeros(range.len());
            return;
        }
        let ci = usize::from(shape.c);
        let (left, right) = (h.skip * ci, (h.skip + h.len) * ci);
        let first = left.max(range.start).min(range.end);
        let last = right.min(range.end).max(first);
        let at = (v.start + row) * self.pitch + h.start * ci + first.saturating_sub(left);
        to.zeros(first - range.start);
        to.values::<D>(part(self.x, at, last - first));
        to.zeros(range.end - last);
    }
}

/// All values of a vector.
pub(super) fn vector<D: Dsp>(signed: bool, x: &[u8], buffer: &mut [u32]) {
    let mut to = Lane {
        buffer: buffer.as_chunks_mut::<1>().0,
        p: 0,
        at: 0,
        signed,
    };
    to.values::<D>(x);
}

/// One position of the buffer under construction.
struct Lane<'b, const P: usize> {
    buffer: &'b mut [[u32; P]],
    p: usize,
    /// Values written.
    at: usize,
    signed: bool,
}

impl<const P: usize> Lane<'_, P> {
    /// One value as the low half of a pair.
    #[inline(always)]
    fn put(&mut self, half: u32) {
        let p = self.p % P;
        if let Some(word) = self.buffer.get_mut(self.at / 2) {
            word[p] = if self.at.is_multiple_of(2) {
                half
            } else {
                word[p] | half << 16
            };
        }
        self.at += 1;
    }

    #[inline(always)]
    fn zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.put(0);
        }
    }

    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.put(half(self.signed, byte));
        }
    }

    #[inline(always)]
    fn values<D: Dsp>(&mut self, values: &[u8]) {
        // Whole words begin at an even value.
        let odd = (self.at % 2).min(values.len());
        let (head, rest) = values.split_at_checked(odd).unwrap_or((values, &[]));
        self.bytes(head);
        let (fours, tail) = rest.as_chunks::<4>();
        let words = self.buffer.get_mut(self.at / 2..).unwrap_or_default();
        match words.as_flattened_mut().as_chunks_mut::<4>() {
            (lanes, []) if P == 4 => D::widen4(self.signed, fours, lanes, self.p),
            _ => {
                for (pairs, bytes) in words.as_chunks_mut::<2>().0.iter_mut().zip(fours) {
                    let [a, b, c, d] = bytes.map(|byte| half(self.signed, byte));
                    let p = self.p % P;
                    [pairs[0][p], pairs[1][p]] = [a | b << 16, c | d << 16];
                }
            }
        }
        self.at += 4 * fours.len();
        self.bytes(tail);
    }
}
