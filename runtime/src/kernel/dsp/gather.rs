//! The values under a kernel window, as pairs in the order of the weights.

use super::Dsp;
use super::offsets::Offsets;
use crate::kernel::part;
use crate::kernel::walk::{Corner, clip};
use crate::op::{Tensor, Window};
use crate::shape::DType;

/// Values of a row of a window below which a list of places is faster than row by row.
const SHORT: usize = 16;

/// Reads windows of a tensor.
pub(super) struct Gather<'a> {
    x: &'a [u8],
    input: &'a Tensor,
    /// Rows and columns of the window.
    size: [u16; 2],
    /// Values of a row of the window, and of the tensor.
    run: usize,
    pitch: usize,
    /// Rows and columns of the tensor that a whole window can begin in.
    rows: usize,
    columns: usize,
    /// Places of a window's values, if its rows are short.
    offsets: &'a Offsets,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        x: &'a [u8],
        input: &'a Tensor,
        window: &Window,
        offsets: &'a mut Offsets,
    ) -> Self {
        let ci = usize::from(input.shape.c);
        let run = usize::from(window.size[1]) * ci;
        let pitch = usize::from(input.shape.w) * ci;
        let rows = if run < SHORT { window.size[0] } else { 0 };
        offsets.list(rows.into(), run, pitch);
        Self {
            x,
            input,
            size: window.size,
            run,
            pitch,
            rows: (usize::from(input.shape.h) + 1).saturating_sub(window.size[0].into()),
            columns: (usize::from(input.shape.w) + 1).saturating_sub(window.size[1].into()),
            offsets,
        }
    }

    /// Fills a lane of `words` for each position, at most four, counted from `corner`: the values of its window from `from` on, counted
    /// `[kh][kw][ci]`, in pairs, as many as there is room for; what lies outside of the input is 0. The high half of the last
    /// word is anything if the window ends in it.
    #[inline(never)]
    pub(super) fn fill<D: Dsp>(
        &self,
        positions: &[Corner],
        corner: Corner,
        from: usize,
        words: &mut [[u32; 4]],
    ) {
        let signed = self.input.dtype != DType::U8;
        let ci = usize::from(self.input.shape.c);
        if !self.offsets.pairs().is_empty() {
            let mut starts = [0; 4];
            let mut whole = 0;
            for (start, at) in starts.iter_mut().zip(positions) {
                // A negative number is a large one.
                let top = (corner[0] + at[0]) as usize;
                let left = (corner[1] + at[1]) as usize;
                if top >= self.rows || left >= self.columns {
                    break;
                }
                *start = top * self.pitch + left * ci;
                whole += 1;
            }
            if whole == 4 {
                return D::list4(signed, self.x, &starts, self.offsets, words);
            }
        }
        for (p, at) in positions.iter().enumerate() {
            let at = [corner[0] + at[0], corner[1] + at[1]];
            let [v, h] = clip(at, self.size, self.input.shape);
            let words = words.as_flattened_mut().get_mut(p..).unwrap_or_default();
            if v.len < self.size[0].into() || h.len < self.size[1].into() {
                for word in words.iter_mut().step_by(4) {
                    *word = 0;
                }
            }
            // The part of a row of the window that lies in the tensor.
            let mut place = v.start * self.pitch + h.start * ci;
            let mut begin = v.skip * self.run + h.skip * ci;
            for _ in 0..v.len {
                let row = part(self.x, place, h.len * ci);
                let values = row.get(from.saturating_sub(begin)..).unwrap_or_default();
                D::widen(signed, values, words, begin.saturating_sub(from));
                begin += self.run;
                place += self.pitch;
            }
        }
    }
}
