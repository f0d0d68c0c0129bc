//! Convolution without groups, with bias, max pooling over the accumulators, and requantization.

use super::gather::{Gather, Lane};
use super::{Buffer, Dsp, Finish, STEPS};
use crate::op::{Conv, Tensor};

/// Blocks of two output channels whose sums are kept at the same time.
const BLOCKS: usize = 16;
/// Channels of those blocks.
const RUN: usize = 2 * BLOCKS;

/// Row and column of the map before pooling.
type Position = [usize; 2];
/// `[channel][position]` of one block.
type Sums = [[i32; 4]; 2];

/// Bytes of the buffers on the stack.
#[cfg(feature = "encode")]
pub(in crate::kernel) const BUFFERS: usize = size_of::<Buffer>() + size_of::<[Sums; BLOCKS]>();

/// As the portable kernel. An output position takes the maximum over the positions of its pooling window, four at a time;
/// without pooling four output positions share one pass over the weights.
#[inline(never)]
pub(in crate::kernel) fn conv2d<D: Dsp>(
    conv: &Conv<'_>,
    input: Tensor,
    x: &[u8],
    output: Tensor,
    y: &mut [u8],
) {
    let mut buffer: Buffer = [[0; 4]; STEPS];
    let layer = Layer {
        conv,
        gather: Gather::new(x, input, conv.window),
        output,
        quad: quad(conv.pool.map_or([1, 1], |pool| pool.size), 0),
        finish: Finish::new(conv, output.dtype),
        steps: conv.weights.per_channel.div_ceil(2).max(1),
    };
    let pixel_len = (usize::from(output.shape.c) * output.dtype.size()).max(1);
    let columns = usize::from(output.shape.w).max(1);
    if conv.pool.is_some() {
        let mut best = [[0; 2]; BLOCKS];
        for (i, pixel) in y.chunks_mut(pixel_len).enumerate() {
            layer.pooled::<D>([i / columns, i % columns], pixel, &mut buffer, &mut best);
        }
        return;
    }
    // One or two positions that remain are cheaper one by one.
    let remaining = y.len() / pixel_len % 4;
    let single = if remaining < 3 { remaining } else { 0 };
    let (fours, singles) = y
        .split_at_mut_checked(y.len() - single * pixel_len)
        .unwrap_or_default();
    let mut at = 0;
    for pixels in fours.chunks_mut(4 * pixel_len) {
        let positions = core::array::from_fn(|p| [(at + p) / columns, (at + p) % columns]);
        layer.four::<D>(&positions, pixels, &mut buffer);
        at += 4;
    }
    for (i, pixel) in singles.chunks_mut(pixel_len).enumerate() {
        let at = fours.len() / pixel_len + i;
        layer.one::<D>([at / columns, at % columns], pixel, &mut buffer);
    }
}

/// Positions `group..group + 4` of a pooling window; those beyond the last repeat it, which does not change a maximum.
fn quad([rows, columns]: [u16; 2], group: usize) -> [Position; 4] {
    let width = usize::from(columns).max(1);
    let last = (usize::from(rows) * width).saturating_sub(1);
    core::array::from_fn(|p| {
        let i = (group + p).min(last);
        [i / width, i % width]
    })
}

/// A layer and its input.
struct Layer<'a> {
    conv: &'a Conv<'a>,
    gather: Gather<'a>,
    output: Tensor,
    finish: Finish<'a>,
    /// [`quad`] of a small pooling window.
    quad: [Position; 4],
    /// Words of weights of a block: values under the window, in pairs.
    steps: usize,
}

impl Layer<'_> {
    /// Gathers the pairs from `step` on, as many as the buffer holds, of the windows of positions; their number.
    fn gather<D: Dsp>(&self, step: usize, positions: &[Position; 4], buffer: &mut Buffer) -> usize {
        let count = (self.steps - step).min(STEPS);
        if count == self.steps && self.gather.listed::<D>(positions, buffer) {
            return count;
        }
        for (p, &at) in positions.iter().enumerate() {
            let range = 2 * step..2 * (step + count);
            self.gather.window::<D>(at, range, Lane::of_four(buffer, p));
        }
        count
    }

    /// The words of weights of the run of channels that begins with `first`.
    fn weights(&self, first: usize) -> &[[u8; 4]] {
        let from = first / 2 * self.steps;
        let words = self.conv.weights.bytes.as_chunks::<4>().0;
        let rest = words.get(from..).unwrap_or_default();
        rest.get(..BLOCKS * self.steps).unwrap_or(rest)
    }

    /// One output position: the maximum over its pooling window, for all channels.
    #[inline(never)]
    fn pooled<D: Dsp>(
        &self,
        [oy, ox]: Position,
        pixel: &mut [u8],
        buffer: &mut Buffer,
        best: &mut [[i32; 2]; BLOCKS],
    ) {
        let Some(pool) = self.conv.pool else { return };
        let count = (usize::from(pool.size[0]) * usize::from(pool.size[1])).max(1);
        let [top, left] = [
            oy * usize::from(pool.stride[0]),
            ox * usize::from(pool.stride[1]),
        ];
        // All channels find the values of a small window in the buffer.
        let resident = count <= 4 && self.steps <= STEPS;
        if resident {
            let positions = self.quad.map(|[row, column]| [top + row, left + column]);
            self.gather::<D>(0, &positions, buffer);
        }
        let mut first = 0;
        for out in pixel.chunks_mut(RUN * self.output.dtype.size()) {
            let weights = self.weights(first);
            if resident {
                let blocks = weights.len() / self.steps.max(1);
                let maxima = best.get_mut(..blocks).unwrap_or_default();
                D::max4(
                    buffer.get(..self.steps).unwrap_or_default(),
                    weights,
                    maxima,
                );
            } else {
                *best = [[i32::MIN; 2]; BLOCKS];
                for group in (0..count).step_by(4) {
                    let mut sums = [[[0; 4]; 2]; BLOCKS];
                    let positions =
                        quad(pool.size, group).map(|[row, column]| [top + row, left + column]);
                    self.sums::<D>(weights, &positions, false, buffer, &mut sums);
                    for (best, sums) in best.iter_mut().zip(&sums) {
                        for (best, sums) in best.iter_mut().zip(sums) {
                            *best = sums.iter().fold(*best, |best, &sum| best.max(sum));
                        }
                    }
                }
            }
            self.finish.run::<D>(first, best.as_flattened(), 1, out);
            first += RUN;
        }
    }

    /// Up to four output positions without pooling.
    #[inline(never)]
    fn four<D: Dsp>(&self, positions: &[Position; 4], pixels: &mut [u8], buffer: &mut Buffer) {
        let channels = usize::from(self.output.shape.c);
        let size = self.output.dtype.size();
        let resident = self.steps <= STEPS;
        if resident {
            self.gather::<D>(0, positions, buffer);
        }
        for first in (0..channels).step_by(RUN) {
            let mut sums = [[[0; 4]; 2]; BLOCKS];
            self.sums::<D>(self.weights(first), positions, resident, buffer, &mut sums);
            for (p, pixel) in pixels.chunks_mut((channels * size).max(1)).enumerate() {
                let sums = sums.as_flattened().as_flattened();
                let sums = sums.get(p..).unwrap_or_default();
                let out = pixel.get_mut(first * size..).unwrap_or_default();
                self.finish.run::<D>(first, sums, 4, out);
            }
        }
    }

    /// Adds the sums of a run of blocks over four positions. `resident`: the buffer holds the whole windows already.
    fn sums<D: Dsp>(
        &self,
        weights: &[[u8; 4]],
        positions: &[Position; 4],
        resident: bool,
        buffer: &mut Buffer,
        sums: &mut [Sums; BLOCKS],
    ) {
        let mut step = 0;
        while step < self.steps {
            let count = if resident {
                self.steps
            } else {
                self.gather::<D>(step, positions, buffer)
            };
            let acts = buffer.get(..count).unwrap_or_default();
            for (sums, block) in sums.iter_mut().zip(weights.chunks_exact(self.steps.max(1))) {
                D::add4(acts, block.get(step..).unwrap_or_default(), sums);
            }
            step += count.max(1);
        }
    }

    /// One output position without pooling.
    #[inline(never)]
    fn one<D: Dsp>(&self, at: Position, pixel: &mut [u8], buffer: &mut Buffer) {
        let size = self.output.dtype.size();
        let buffer = buffer.as_flattened_mut();
        let resident = self.steps <= buffer.len();
        let mut first = 0;
        for out in pixel.chunks_mut(RUN * size) {
            let weights = self.weights(first);
            let mut sums = [[0; 2]; BLOCKS];
            let mut step = 0;
            while step < self.steps {
                let mut count = self.steps;
                if first == 0 || !resident {
                    count = (self.steps - step).min(buffer.len());
                    let range = 2 * step..2 * (step + count);
                    self.gather.window::<D>(at, range, Lane::alone(buffer));
                }
                let acts = buffer.get(..count).unwrap_or_default();
                for (sums, block) in sums.iter_mut().zip(weights.chunks_exact(self.steps.max(1))) {
                    D::add1(acts, block.get(step..).unwrap_or_default(), sums);
                }
                step += count.max(1);
            }
            self.finish.run::<D>(first, sums.as_flattened(), 1, out);
            first += RUN;
        }
    }
}
