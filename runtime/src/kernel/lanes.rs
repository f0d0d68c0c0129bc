//! Convolution for cores without DSP instructions: four map positions at a time, two of them in one word.
//!
//! The windows of four positions (with a 2 x 2 pool: those of one pooled value) are laid side by side in a small buffer, a section
//! of 128 taps at a time; then each output channel of a block multiplies its weights with them. So a weight is
//! loaded once for four products, and the inner loop has neither edges nor strides: padding and the distance between the
//! positions are dealt with once per buffer and not once per channel.
//!
//! A word of the buffer is `a + b * 2^16`, the values of two positions at one tap, each in -128..=127 (U8 less 128). One
//! multiplication by a weight gives both products. Weights are at most 127 in magnitude, so the products of two taps sum to at
//! most `2 * 127 * 128 < 2^15` per position, and of the word's sum `s + t * 2^16` (modulo 2^32) the low half as a signed number is
//! exactly `s`, the rest exactly `t`. They are added to the two accumulators, and the next taps follow. That holds for four taps as well
//! if the magnitudes of their weights sum to at most 255, which is so for nearly all; the file tells ([`Facts`]).
//! That 128 was subtracted is made up for once per channel: its accumulators begin with `128 * sum of its weights`.

#[cfg(not(all(kernels = "lanes", target_arch = "arm")))]
pub(super) mod twin;

use super::{Span, bias_of, input_output, part, portable, requantized};
use crate::fixed::requantize;
use crate::op::{Conv, Kind, Op, Tensor, Window};
use crate::shape::DType;
use crate::weight::{Facts, Layout, SECTION};

/// Output channels whose accumulators are kept at the same time; a multiple of 2.
const BLOCK: usize = 64;

/// Positions side by side.
const WIDTH: usize = 4;

/// One tap of four positions.
type Tap = [u32; WIDTH / 2];

/// What the inner loop works on.
pub(super) struct Work<'a> {
    /// At most [`SECTION`] taps.
    pub(super) taps: &'a [Tap],
    /// The weights of the first two channels, tap by tap, and those of each further two channels `block` bytes further.
    pub(super) weights: &'a [u8],
    /// Bytes between the weights of two channels and the next two.
    pub(super) block: usize,
    /// A channel each.
    pub(super) accs: &'a mut [[i32; WIDTH]],
    /// For each channel 16 bits, little-endian: bit `i` is set if the taps from `8 * i` on must be taken two at a time.
    pub(super) splits: &'a [u8],
}

/// The inner loop, which a core has instructions for.
pub(super) trait Lanes {
    /// `acc[p] += sum_t weight[t] * tap[t][p]` for each channel. Nothing happens if `work` is not what its fields say.
    fn multiply(work: &mut Work<'_>);
}

/// Runs an operator, or leaves it to the portable kernels: all but convolutions whose file has facts about the weights.
pub(super) fn run<M: Lanes>(op: &Op<'_>, arena: &mut [u8]) -> Option<()> {
    let (input, output) = (op.input, op.output);
    match &op.kind {
        Kind::Conv(conv) => match conv.facts {
            Some(facts) => {
                let (x, y) = input_output(arena, input, output)?;
                conv2d::<M>(conv, facts, input, x, output, y);
                Some(())
            }
            None => portable(op, arena),
        },
        _ => portable(op, arena),
    }
}

/// Subtracts 128 from both values of a word.
const CENTRE: u32 = 0x0080_0080;

/// As [`super::conv::conv2d`], for weights in blocks of two channels with facts about them.
fn conv2d<M: Lanes>(
    conv: &Conv<'_>,
    facts: Facts<'_>,
    input: Tensor,
    x: &[u8],
    output: Tensor,
    y: &mut [u8],
) {
    let channels = usize::from(output.shape.c);
    let columns = usize::from(output.shape.w);
    let pixel_len = (channels * output.dtype.size()).max(1);
    let signed = input.dtype != DType::U8;
    let mut accs = [[0; WIDTH]; BLOCK];
    let mut best = [0; BLOCK];
    let mut start = [0; BLOCK];
    let mut taps = [[0; WIDTH / 2]; SECTION];
    let mut block = Block {
        conv,
        facts,
        input,
        output,
        x,
        flip: if signed { CENTRE } else { 0 },
        centre: if signed { 0 } else { 128 },
        first: 0,
        count: 0,
        start: &mut start,
        accs: &mut accs,
        best: &mut best,
        taps: &mut taps,
    };
    for first in (0..channels).step_by(BLOCK) {
        block.begin(first, BLOCK.min(channels - first));
        let mut at = [0; 2];
        match conv.pool {
            Some(pool) => {
                for pixel in y.chunks_exact_mut(pixel_len) {
                    block.pooled::<M>(&pool, at);
                    block.store(pixel);
                    at = next(at, columns);
                }
            }
            None => {
                for pixels in y.chunks_mut(WIDTH * pixel_len) {
                    let mut quad = Positions::new();
                    for _ in pixels.chunks_exact(pixel_len) {
                        quad.push(at);
                        at = next(at, columns);
                    }
                    block.run::<M>(&quad);
                    for (p, pixel) in pixels.chunks_exact_mut(pixel_len).enumerate() {
                        let accs = block.accs.iter().take(block.count);
                        for (best, accs) in block.best.iter_mut().zip(accs) {
                            *best = accs.get(p).copied().unwrap_or(0);
                        }
                        block.store(pixel);
                    }
                }
            }
        }
    }
}

/// The position after `at` in a map with this many columns.
#[inline(always)]
fn next([row, column]: [usize; 2], columns: usize) -> [usize; 2] {
    if column + 1 < columns {
        [row, column + 1]
    } else {
        [row + 1, 0]
    }
}

/// Up to four positions of the map before pooling.
struct Positions {
    at: [[usize; 2]; WIDTH],
    len: usize,
}

impl Positions {
    #[inline(always)]
    fn new() -> Self {
        Self {
            at: [[0; 2]; WIDTH],
            len: 0,
        }
    }

    /// Adds a position; true if there is no room for another one. Unused places repeat the last position.
    #[inline(always)]
    fn push(&mut self, at: [usize; 2]) -> bool {
        for place in self.at.iter_mut().skip(self.len) {
            *place = at;
        }
        self.len += 1;
        self.len >= WIDTH
    }
}

/// A block of output channels, at four positions.
struct Block<'a> {
    conv: &'a Conv<'a>,
    facts: Facts<'a>,
    input: Tensor,
    output: Tensor,
    x: &'a [u8],
    /// Turns two signed values into what they are plus 128.
    flip: u32,
    /// Added to an accumulator for each unit of weight.
    centre: i32,
    first: usize,
    count: usize,
    /// What the accumulators begin with.
    start: &'a mut [i32; BLOCK],
    accs: &'a mut [[i32; WIDTH]; BLOCK],
    /// What is stored next: one accumulator per channel.
    best: &'a mut [i32; BLOCK],
    taps: &'a mut [Tap; SECTION],
}

impl Block<'_> {
    /// Goes to the channels from `first` on.
    #[inline(always)]
    fn begin(&mut self, first: usize, count: usize) {
        (self.first, self.count) = (first, count);
        for (j, start) in self.start.iter_mut().take(count).enumerate() {
            let channel = first + j;
            *start = bias_of(self.conv.bias, channel) + self.facts.sum(channel) * self.centre;
        }
    }

    /// The maximum over the positions of one pooling window.
    #[inline(always)]
    fn pooled<M: Lanes>(&mut self, pool: &Window, [row, column]: [usize; 2]) {
        let [rows, columns] = pool.size.map(usize::from);
        let [down, right] = pool.stride.map(usize::from);
        let mut left = rows * columns;
        for best in self.best.iter_mut().take(self.count) {
            *best = i32::MIN;
        }
        let mut quad = Positions::new();
        for y in 0..rows {
            for x in 0..columns {
                left -= 1;
                if quad.push([row * down + y, column * right + x]) || left == 0 {
                    self.run::<M>(&quad);
                    let accs = self.accs.iter().take(self.count);
                    for (best, &[a, b, c, d]) in self.best.iter_mut().zip(accs) {
                        // Unused places repeat a position of the window.
                        *best = (*best).max(a).max(b).max(c).max(d);
                    }
                    quad = Positions::new();
                }
            }
        }
    }

    /// The accumulators of the block at these positions.
    #[inline(never)]
    fn run<M: Lanes>(&mut self, positions: &Positions) {
        let conv = self.conv;
        let ci = usize::from(self.input.shape.c);
        let [kh, kw] = conv.window.size;
        let [down, right] = conv.window.stride;
        let [above, before] = conv.window.pad;
        let source = Source {
            x: self.x,
            flip: self.flip,
            columns: usize::from(self.input.shape.w),
            ci,
            row_len: usize::from(kw) * ci,
            places: positions.at.map(|[row, column]| {
                [
                    Span::new(row, kh, down, above, self.input.shape.h),
                    Span::new(column, kw, right, before, self.input.shape.w),
                ]
            }),
        };
        for (accs, &start) in self.accs.iter_mut().zip(&*self.start).take(self.count) {
            *accs = [start; WIDTH];
        }
        let block = Layout::block(conv.weights.per_channel);
        let from = self.first / 2 * block;
        let mut cursor = [0; 2];
        for (section, done) in (0..conv.weights.per_channel).step_by(SECTION).enumerate() {
            let count = SECTION.min(conv.weights.per_channel - done);
            let (Some(taps), Some(weights), Some(accs)) = (
                self.taps.get_mut(..count),
                conv.weights.bytes.get(from + 2 * done..),
                self.accs.get_mut(..self.count),
            ) else {
                return;
            };
            source.fill(taps, &mut cursor);
            M::multiply(&mut Work {
                taps,
                weights,
                block,
                accs,
                splits: self.facts.splits(section, self.first),
            });
        }
    }

    /// Stores `best` to the block's channels of a pixel.
    #[inline(never)]
    fn store(&self, pixel: &mut [u8]) {
        let dtype = self.output.dtype;
        let post = &self.conv.post;
        let from = self.first * dtype.size();
        let Some(out) = pixel.get_mut(from..from + self.count * dtype.size()) else {
            return;
        };
        match (dtype, post.table) {
            (DType::U8, None) => {
                let shifts = match post.shifts {
                    [_] => post.shifts,
                    all => all.get(self.first..).unwrap_or_default(),
                };
                // One shift for all, or one for each.
                let mut shifts = shifts.iter().copied();
                let mut shift = 0;
                for (y, &acc) in out.iter_mut().zip(&*self.best) {
                    shift = shifts.next().unwrap_or(shift);
                    *y = requantize(acc, shift as i8, DType::U8);
                }
            }
            (DType::I32, _) => {
                for (y, acc) in out.as_chunks_mut::<4>().0.iter_mut().zip(&*self.best) {
                    *y = acc.to_le_bytes();
                }
            }
            _ => {
                for (j, (y, &acc)) in out.iter_mut().zip(&*self.best).enumerate() {
                    *y = requantized(post, post.shift(self.first + j), dtype, acc);
                }
            }
        }
    }
}

/// The windows of four positions.
struct Source<'a> {
    x: &'a [u8],
    /// See [`Block::flip`].
    flip: u32,
    columns: usize,
    ci: usize,
    /// Taps of one kernel row.
    row_len: usize,
    /// Rows and columns of each window inside the map.
    places: [[Span; 2]; WIDTH],
}

impl Source<'_> {
    /// Fills `taps` from the tap on that `cursor` names (kernel row, tap in it), and moves it on.
    #[inline(always)]
    fn fill(&self, mut taps: &mut [Tap], cursor: &mut [usize; 2]) {
        while !taps.is_empty() {
            let [ky, skip] = *cursor;
            let count = taps.len().min(self.row_len - skip);
            let Some((now, later)) = taps.split_at_mut_checked(count) else {
                return;
            };
            if self
                .places
                .iter()
                .all(|[v, h]| ky.wrapping_sub(v.skip) < v.len && h.len * self.ci == self.row_len)
            {
                let values = self
                    .places
                    .map(|place| part(self.x, self.begin(&place, ky) + skip, count));
                let [a, b, c, d] = values;
                let words = now.as_flattened_mut();
                self.words(words, a, b);
                self.words(words.get_mut(1..).unwrap_or_default(), c, d);
            } else {
                self.edge(now, ky, skip);
            }
            *cursor = if skip + count < self.row_len {
                [ky, skip + count]
            } else {
                [ky + 1, 0]
            };
            taps = later;
        }
    }

    /// The first value inside of the map that a window reads in one of its rows.
    #[inline(always)]
    fn begin(&self, [v, h]: &[Span; 2], ky: usize) -> usize {
        ((v.start + ky.wrapping_sub(v.skip)) * self.columns + h.start) * self.ci
    }

    /// Two positions at consecutive taps, to every second word.
    #[inline(never)]
    fn words(&self, words: &mut [u32], a: &[u8], b: &[u8]) {
        let flip = self.flip;
        let word = |a: u8, b: u8| ((u32::from(a) | u32::from(b) << 16) ^ flip).wrapping_sub(CENTRE);
        let (groups, rest) = words.as_chunks_mut::<8>();
        let done = 4 * groups.len();
        let fours = a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0);
        for ([w0, _, w1, _, w2, _, w3, _], (&[a0, a1, a2, a3], &[b0, b1, b2, b3])) in
            groups.iter_mut().zip(fours)
        {
            *w0 = word(a0, b0);
            *w1 = word(a1, b1);
            *w2 = word(a2, b2);
            *w3 = word(a3, b3);
        }
        let (a, b) = (
            a.get(done..).unwrap_or_default(),
            b.get(done..).unwrap_or_default(),
        );
        for ((to, &a), &b) in rest.iter_mut().step_by(2).zip(a).zip(b) {
            *to = word(a, b);
        }
    }

    /// The taps of one kernel row from `skip` on, where some lie outside of the map.
    #[inline(never)]
    fn edge(&self, taps: &mut [Tap], ky: usize, skip: usize) {
        for tap in taps.iter_mut() {
            *tap = [self.flip.wrapping_sub(CENTRE); 2];
        }
        let flip = self.flip as u8;
        let end = skip + taps.len();
        for (p, place) in self.places.iter().enumerate() {
            let [v, h] = place;
            let from = (h.skip * self.ci).max(skip);
            let to = ((h.skip + h.len) * self.ci).min(end);
            if ky.wrapping_sub(v.skip) >= v.len || from >= to {
                continue;
            }
            let at = self.begin(place, ky) + from - h.skip * self.ci;
            let values = part(self.x, at, to - from);
            let lane = if p.is_multiple_of(2) { 0 } else { 16 };
            for (tap, &value) in taps.iter_mut().skip(from - skip).zip(values) {
                if let Some(word) = tap.get_mut(p / 2) {
                    let more = u32::from(value ^ flip).wrapping_sub(u32::from(flip));
                    *word = word.wrapping_add(more << lane);
                }
            }
        }
    }
}
