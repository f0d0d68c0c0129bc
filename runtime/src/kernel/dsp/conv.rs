//! Convolution without groups, with bias, max pooling over the accumulators, and requantization.

use super::gather::Gather;
use super::offsets::Offsets;
use super::{Buffer, Dsp, STEPS, Sums};
use crate::kernel::finish::{Finish, Lane};
use crate::kernel::walk::{Corner, Walk};
use crate::op::{Conv, Op, Tensor, Window};

/// Blocks of two output channels whose sums are kept at the same time.
const BLOCKS: usize = 16;
/// Channels of those blocks.
const RUN: usize = 2 * BLOCKS;
/// Positions that share one pass over the weights.
const WIDTH: usize = 4;

/// Bytes of the buffers on the stack.
#[cfg(feature = "encode")]
pub(in crate::kernel) const BUFFERS: usize =
    size_of::<Buffer>() + size_of::<[Sums; BLOCKS]>() + size_of::<[i32; RUN]>();

/// As the portable kernel. An output position takes the maximum over the positions of its pooling window, four at a time;
/// without pooling four output positions share one pass over the weights.
#[inline(never)]
pub(in crate::kernel) fn conv2d<D: Dsp>(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    let pool = conv.pool.unwrap_or(Window::ALONE);
    let inner = Walk::over(&conv.window, pool.size[1]);
    let walk = inner.scaled(pool.stride, output.shape.w);
    let area = usize::from(pool.size[0]) * usize::from(pool.size[1]);
    let mut quad = [[0; 2]; WIDTH];
    let inner = inner.from([0; 2]);
    { inner }.take(&mut quad, area);
    let mut offsets = Offsets::NONE;
    let mut layer = Layer {
        conv,
        output,
        gather: &Gather::new(x, input, &conv.window, &mut offsets),
        steps: conv.weights.per_channel.div_ceil(2).max(1),
        area,
        walk,
        inner,
        quad,
        finish: &Finish::new(conv, output.dtype),
        buffer: &mut [[0; WIDTH]; STEPS],
        sums: &mut [[[0; WIDTH]; 2]; BLOCKS],
        best: &mut [0; RUN],
    };
    let pixel_len = usize::from(output.shape.c) * output.dtype.size();
    let mut left = usize::from(output.shape.h) * usize::from(output.shape.w);
    let mut at = 0;
    while left > 0 {
        // One or two pixels that remain are cheaper one by one.
        let pixels = if area > 1 || left < 3 {
            1
        } else {
            left.min(WIDTH)
        };
        layer.pass::<D>(pixels, y.get_mut(at..).unwrap_or_default());
        left -= pixels;
        at += pixels * pixel_len;
    }
}

/// A layer, its input, and what is under way.
struct Layer<'a> {
    conv: &'a Conv<'a>,
    output: &'a Tensor,
    gather: &'a Gather<'a>,
    /// Words of weights of a block: values under the window, in pairs.
    steps: usize,
    /// Positions of an output pixel.
    area: usize,
    /// Over the output, and from the corner of a pooling window over it.
    walk: Walk,
    inner: Walk,
    /// From the corner of a pooling window to its first positions.
    quad: [Corner; WIDTH],
    finish: &'a Finish<'a>,
    buffer: &'a mut Buffer,
    sums: &'a mut [Sums; BLOCKS],
    best: &'a mut [i32; RUN],
}

impl Layer<'_> {
    /// The next output pixels: one, or without pooling up to four.
    #[inline(never)]
    fn pass<D: Dsp>(&mut self, pixels: usize, out: &mut [u8]) {
        let single = self.area == 1 && pixels == 1;
        let mut positions = self.quad;
        let mut corner = [0; 2];
        if self.area == 1 {
            self.walk.take(&mut positions, pixels);
        } else {
            corner = self.walk.next();
        }
        let size = self.output.dtype.size();
        let channels = usize::from(self.output.shape.c);
        let mut weights = self.conv.weights.bytes.as_chunks::<4>().0;
        let mut first = 0;
        while first < channels {
            let mut group = 0;
            let mut inner = self.inner;
            while group < self.area {
                let fresh = first == 0 || self.area > WIDTH;
                if self.area > WIDTH {
                    inner.take(&mut positions, self.area - group);
                }
                self.sums::<D>(weights, &positions, corner, single, fresh);
                if self.area > WIDTH {
                    for (best, sums) in self.best.iter_mut().zip(self.sums.as_flattened_mut()) {
                        let least = if group == 0 { i32::MIN } else { *best };
                        *best = sums.iter().fold(least, |best, &sum| best.max(sum));
                        *sums = [*best; WIDTH];
                    }
                }
                group += WIDTH;
            }
            let mut from = first * size;
            let count = (channels - first).min(RUN) * size;
            let bias = self.conv.bias.get(first..).unwrap_or_default();
            for p in 0..pixels {
                let lane = if self.area == 1 {
                    Lane::At(p)
                } else {
                    Lane::Greatest
                };
                let out = out.get_mut(from..from + count).unwrap_or_default();
                self.finish
                    .store(first, self.sums.as_flattened(), lane, bias, out);
                from += channels * size;
            }
            first += RUN;
            weights = weights.get(BLOCKS * self.steps..).unwrap_or_default();
        }
    }

    /// The sums of a run of channels at four positions, or at the first, all of them counted from `corner`.
    /// `fresh`: the buffer does not hold these positions' windows yet.
    #[inline(always)]
    fn sums<D: Dsp>(
        &mut self,
        weights: &[[u8; 4]],
        positions: &[Corner; WIDTH],
        corner: Corner,
        single: bool,
        fresh: bool,
    ) {
        let positions = if single { &positions[..1] } else { positions };
        let mut step = 0;
        while step < self.steps {
            let count = (self.steps - step).min(STEPS);
            let whole = count == self.steps;
            if fresh || !whole {
                self.gather
                    .fill::<D>(positions, corner, 2 * step, 2 * count, self.buffer);
            }
            let acts = self.buffer.get(..count).unwrap_or_default();
            if whole && !single {
                D::blocks4(acts, weights, self.sums);
                return;
            }
            for (sums, block) in self.sums.iter_mut().zip(weights.chunks_exact(self.steps)) {
                let block = block.get(step..).unwrap_or_default();
                if single {
                    if step == 0 {
                        (sums[0][0], sums[1][0]) = (0, 0);
                    }
                    D::add1(acts, block, sums);
                } else {
                    if step == 0 {
                        *sums = [[0; WIDTH]; 2];
                    }
                    D::add4(acts, block, sums);
                }
            }
            step += count;
        }
    }
}
