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

use super::finish::{Finish, Lane, RUN};
use super::walk::{Corner, Span, Walk, clip};
use super::{bias_of, part};
use crate::op::{Conv, Op, Tensor, Window};
use crate::shape::DType;
use crate::weight::{Layout, SECTION};

/// Output channels whose accumulators are kept at the same time; a multiple of 2.
const BLOCK: usize = RUN;

/// Positions side by side.
const WIDTH: usize = 4;

/// One tap of four positions.
type Tap = [u32; WIDTH / 2];

/// What a channel's accumulators hold after [`Lanes::multiply`].
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Result {
    /// `[s + 2^16 * t, t, u + 2^16 * v, v]` of the sums `[s, t, u, v]`, modulo 2^32: to go on with.
    Words = 0,
    /// The sums of the four positions.
    Sums = 1,
    /// In the first place the maximum of the sums.
    Maximum = 2,
}

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
    /// True: the sums begin with 0; false: with those that [`Result::Words`] left.
    pub(super) fresh: bool,
    pub(super) result: Result,
    /// For each channel 16 bits, little-endian: bit `i` is set if the taps from `8 * i` on must be taken two at a time.
    pub(super) splits: &'a [u8],
}

/// The inner loops, which a core has instructions for.
pub(super) trait Lanes {
    /// Adds `sum_t weight[t] * tap[t][p]` to the sum of each channel and position. Nothing happens if `work` is not what its
    /// fields say.
    fn multiply(work: &mut Work<'_>);
    /// `sums[j] += sum_i x[i] * weights[i][j]`, over the shorter of both; x is i8 if `signed`, else u8.
    fn add1(signed: bool, x: &[u8], weights: &[[u8; 2]], sums: &mut [i32; 2]);
}

/// True for the layers that these kernels run: those in blocks of two channels with facts about the weights, or with so few
/// positions that they are taken one by one.
pub(super) fn runs(conv: &Conv<'_>) -> bool {
    let [rows, columns] = conv.map.map(usize::from);
    conv.weights.layout == Layout::Ohwi2o
        && (conv.facts.is_some() || (conv.pool.is_none() && rows * columns <= 2))
}

/// Subtracts 128 from both values of a word.
const CENTRE: u32 = 0x0080_0080;

/// As [`super::conv::conv2d`], for the layers that [`runs`] says.
#[inline(never)]
pub(super) fn conv2d<M: Lanes>(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    let channels = usize::from(output.shape.c);
    let pixel_len = (channels * output.dtype.size()).max(1);
    let signed = input.dtype != DType::U8;
    let mut accs = [[0; WIDTH]; BLOCK];
    let mut start = [[0; 4]; BLOCK];
    let mut taps = [[0; WIDTH / 2]; SECTION];
    let mut block = Block {
        conv,
        input,
        output,
        x,
        finish: Finish::new(conv, output.dtype),
        signed,
        first: 0,
        count: 0,
        start: &mut start,
        accs: &mut accs,
        taps: &mut taps,
        best: [0; BLOCK],
    };
    let pool = conv.pool.unwrap_or(Window::ALONE);
    // Positions of an output pixel.
    let area = usize::from(pool.size[0]) * usize::from(pool.size[1]);
    let mut inner = Walk::over(&conv.window, pool.size[1]);
    let outer = inner.scaled(pool.stride, output.shape.w);
    for first in (0..channels).step_by(BLOCK) {
        block.begin(first, BLOCK.min(channels - first));
        let mut walk = outer;
        let mut rest = &mut *y;
        while !rest.is_empty() {
            // One or two pixels that remain are cheaper one by one.
            let pixels = match rest.len() / pixel_len {
                _ if area > 1 => 1,
                0..=2 => 1,
                more => more.min(WIDTH),
            };
            let (now, later) = rest
                .split_at_mut_checked(pixels * pixel_len)
                .unwrap_or_default();
            rest = later;
            let mut positions = [[0; 2]; WIDTH];
            if area > 1 {
                inner.restart(walk.next());
                for group in (0..area).step_by(WIDTH) {
                    inner.take(&mut positions, area - group);
                    block.run::<M>(&positions, Result::Maximum);
                    if area > WIDTH {
                        block.maximum(group == 0);
                    }
                }
            } else if pixels == 1 {
                block.one::<M>(walk.next());
            } else {
                walk.take(&mut positions, pixels);
                block.run::<M>(&positions, Result::Sums);
            }
            for (p, pixel) in now.chunks_mut(pixel_len).enumerate() {
                block.store(p, pixel);
            }
        }
    }
}

/// A block of output channels, at four positions.
struct Block<'a> {
    conv: &'a Conv<'a>,
    input: &'a Tensor,
    output: &'a Tensor,
    x: &'a [u8],
    finish: Finish<'a>,
    /// The input is i8.
    signed: bool,
    first: usize,
    count: usize,
    /// What is added to a sum: the bias, and what the subtraction of 128 has changed.
    start: &'a mut [[u8; 4]; BLOCK],
    accs: &'a mut [[i32; WIDTH]; BLOCK],
    taps: &'a mut [Tap; SECTION],
    /// Of the positions so far.
    best: [i32; BLOCK],
}

impl Block<'_> {
    /// Goes to the channels from `first` on.
    fn begin(&mut self, first: usize, count: usize) {
        (self.first, self.count) = (first, count);
        for (j, start) in self.start.iter_mut().take(count).enumerate() {
            let channel = first + j;
            let from = bias_of(self.conv.bias, channel) + centre(self.conv, self.signed, channel);
            *start = from.to_le_bytes();
        }
    }

    /// Goes on with the maximum over the first accumulators of each channel, or begins.
    fn maximum(&mut self, begin: bool) {
        for (best, accs) in self.best.iter_mut().zip(&mut *self.accs) {
            if begin {
                *best = accs[0];
            }
            *best = accs[0].max(*best);
            accs[0] = *best;
        }
    }

    /// The sums of the block at these positions.
    #[inline(never)]
    fn run<M: Lanes>(&mut self, positions: &[Corner; WIDTH], result: Result) {
        let conv = self.conv;
        let ci = usize::from(self.input.shape.c);
        let source = Source {
            x: self.x,
            flip: if self.signed { CENTRE } else { 0 },
            columns: usize::from(self.input.shape.w),
            ci,
            row_len: usize::from(conv.window.size[1]) * ci,
            places: positions.map(|at| clip(at, conv.window.size, self.input.shape)),
        };
        let len = conv.weights.per_channel;
        let block = Layout::block(len);
        let from = self.first / 2 * block;
        let mut cursor = [0; 2];
        for (section, done) in (0..len).step_by(SECTION).enumerate() {
            let count = SECTION.min(len - done);
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
                fresh: done == 0,
                result: if done + count < len {
                    Result::Words
                } else {
                    result
                },
                splits: conv
                    .facts
                    .map_or(&[], |facts| facts.splits(section, self.first)),
            });
        }
    }

    /// The sums of the block at one position, as the first accumulator of each channel.
    #[inline(never)]
    fn one<M: Lanes>(&mut self, at: Corner) {
        let conv = self.conv;
        let ci = usize::from(self.input.shape.c);
        let row_len = usize::from(conv.window.size[1]) * ci;
        let columns = usize::from(self.input.shape.w);
        let [v, h] = clip(at, conv.window.size, self.input.shape);
        let signed = self.signed;
        let blocks = conv.weights.blocks().skip(self.first / 2);
        let accs = self.accs.chunks_mut(2).take(self.count.div_ceil(2));
        for ((j, accs), block) in accs.enumerate().zip(blocks) {
            let channel = self.first + 2 * j;
            // `start` makes up for 128 that is not subtracted here.
            let mut sums = [channel, channel + 1].map(|c| -centre(conv, signed, c));
            let weights = block.as_chunks::<2>().0;
            for row in 0..v.len {
                let x_at = ((v.start + row) * columns + h.start) * ci;
                let w_at = (v.skip + row) * row_len + h.skip * ci;
                M::add1(
                    signed,
                    part(self.x, x_at, h.len * ci),
                    weights.get(w_at..).unwrap_or_default(),
                    &mut sums,
                );
            }
            for (acc, sum) in accs.iter_mut().zip(sums) {
                acc[0] = sum;
            }
        }
    }

    /// Stores the sums of position `p` as the block's channels of a pixel.
    #[inline(never)]
    fn store(&self, p: usize, pixel: &mut [u8]) {
        let size = self.output.dtype.size();
        let from = self.first * size;
        let out = pixel
            .get_mut(from..from + self.count * size)
            .unwrap_or_default();
        self.finish
            .store(self.first, &*self.accs, Lane::At(p), &*self.start, out);
    }
}

/// What the subtraction of 128 takes from a channel's sums. Layers without facts have no positions that are taken together.
fn centre(conv: &Conv<'_>, signed: bool, channel: usize) -> i32 {
    match conv.facts {
        Some(facts) if !signed => 128 * facts.sum(channel),
        _ => 0,
    }
}

/// The windows of four positions.
struct Source<'a> {
    x: &'a [u8],
    /// Turns two signed values into what they are plus 128.
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
