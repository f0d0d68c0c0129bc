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
    /// Values between the windows of neighbouring rows and columns of the map.
    step: [usize; 2],
    /// Values from the first window to the tensor's first value.
    before: usize,
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
            step: [usize::from(sh) * pitch, usize::from(sw) * ci],
            before: usize::from(top) * pitch + usize::from(left) * ci,
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

    /// True if all windows of a rectangle of the map lie in the tensor.
    #[inline(always)]
    fn holds(&self, [top, left]: [usize; 2], [bottom, right]: [usize; 2]) -> bool {
        let [rows, columns] = self.inside;
        top >= rows[0] && bottom <= rows[1] && left >= columns[0] && right <= columns[1]
    }

    /// Index of the first value of a window that lies in the tensor.
    #[inline(always)]
    fn start(&self, [row, column]: [usize; 2]) -> usize {
        let [down, right] = self.step;
        let at = row
            .wrapping_mul(down)
            .wrapping_add(column.wrapping_mul(right));
        at.wrapping_sub(self.before)
    }

    /// Writes the whole windows of four map positions, in the order of the map, if there is a list of their places and all of
    /// them lie in the tensor.
    pub(super) fn listed<D: Dsp>(
        &self,
        positions: &[[usize; 2]; 4],
        buffer: &mut [[u32; 4]],
    ) -> bool {
        let [a, b, c, d] = *positions;
        let left = a[1].min(b[1]).min(c[1]).min(d[1]);
        let right = a[1].max(b[1]).max(c[1]).max(d[1]);
        if self.offsets.pairs().is_empty() || !self.holds([a[0], left], [d[0], right]) {
            return false;
        }
        let values = positions.map(|at| self.x.get(self.start(at)..).unwrap_or_default());
        D::list4(self.signed, values, &self.offsets, buffer);
        true
    }

    /// Writes a lane of the buffer: values `range` of the window of a map position, counted `[kh][kw][ci]`; what lies outside
    /// of the input is 0. The high half of the last word is 0 if the range has an odd length.
    #[inline(never)]
    pub(super) fn window<D: Dsp>(&self, at: [usize; 2], range: Range<usize>, lane: Lane<'_>) {
        let mut to = lane;
        let run = usize::from(self.window.size[1]) * usize::from(self.input.shape.c);
        let end = range.end.min(self.len);
        let start = self.holds(at, at).then(|| self.start(at));
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
                    to.values::<D>(self.signed, part(self.x, first, until - from));
                }
                None => self.clipped::<D>(at, ky, from..until, &mut to),
            }
        }
    }

    /// Row `ky` of a window that does not lie in the tensor as a whole.
    #[inline(never)]
    fn clipped<D: Dsp>(
        &self,
        [row, column]: [usize; 2],
        ky: usize,
        range: Range<usize>,
        to: &mut Lane<'_>,
    ) {
        let v = Span::of(&self.window, 0, row, self.input);
        let h = Span::of(&self.window, 1, column, self.input);
        let row = ky.wrapping_sub(v.skip);
        if row >= v.len {
            to.zeros(range.len());
            return;
        }
        let ci = usize::from(self.input.shape.c);
        let (left, right) = (h.skip * ci, (h.skip + h.len) * ci);
        let first = left.max(range.start).min(range.end);
        let last = right.min(range.end).max(first);
        let at = (v.start + row) * self.pitch + h.start * ci + first.saturating_sub(left);
        to.zeros(first - range.start);
        to.values::<D>(self.signed, part(self.x, at, last - first));
        to.zeros(range.end - last);
    }
}

/// One position of a buffer under construction: every `stride`th word from the first on.
pub(super) struct Lane<'b> {
    words: &'b mut [u32],
    /// 1 or 4.
    stride: usize,
    /// Values written.
    at: usize,
}

impl<'b> Lane<'b> {
    /// Lane `p` of four.
    pub(super) fn of_four(buffer: &'b mut [[u32; 4]], p: usize) -> Self {
        Self {
            words: buffer.as_flattened_mut().get_mut(p..).unwrap_or_default(),
            stride: 4,
            at: 0,
        }
    }

    /// The only lane.
    pub(super) fn alone(words: &'b mut [u32]) -> Self {
        Self {
            words,
            stride: 1,
            at: 0,
        }
    }

    /// One value as the low half of a pair.
    fn put(&mut self, half: u32) {
        if let Some(word) = self.words.get_mut(self.at / 2 * self.stride) {
            *word = if self.at.is_multiple_of(2) {
                half
            } else {
                *word | half << 16
            };
        }
        self.at += 1;
    }

    fn zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.put(0);
        }
    }

    fn bytes(&mut self, signed: bool, bytes: &[u8]) {
        for &byte in bytes {
            self.put(half(signed, byte));
        }
    }

    /// Values, i8 if `signed`, else u8.
    #[inline(never)]
    pub(super) fn values<D: Dsp>(&mut self, signed: bool, values: &[u8]) {
        // Whole words begin at an even value.
        let odd = (self.at % 2).min(values.len());
        let (head, rest) = values.split_at_checked(odd).unwrap_or((values, &[]));
        self.bytes(signed, head);
        let (fours, tail) = rest.as_chunks::<4>();
        let words = self.words.get_mut(self.at / 2 * self.stride..);
        D::widen4(signed, fours, words.unwrap_or_default(), self.stride);
        self.at += 4 * fours.len();
        self.bytes(signed, tail);
    }
}
