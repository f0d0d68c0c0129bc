//! Convolution without groups, with bias, max pooling over the accumulators, and requantization.

use super::gather::Gather;
use super::offsets::Offsets;
use super::{Dsp, STEPS, Sums};
use crate::kernel::finish::{Finish, Lane};
use crate::kernel::walk::Walk;
use crate::op::{Conv, Op, Window};

/// Blocks of two output channels whose sums are kept at the same time.
const BLOCKS: usize = 16;
/// Channels of those blocks.
const RUN: usize = 2 * BLOCKS;
/// Positions that share one pass over the weights.
const WIDTH: usize = 4;

/// Bytes of the buffers on the stack.
#[cfg(feature = "encode")]
pub(in crate::kernel) const BUFFERS: usize =
    size_of::<[[u32; WIDTH]; STEPS]>() + size_of::<[Sums; BLOCKS]>() + size_of::<[i32; RUN]>();

/// As the portable kernel. An output position takes the maximum over the positions of its pooling window, four at a time;
/// without pooling four output positions share one pass over the weights.
#[inline(never)]
pub(in crate::kernel) fn conv2d<D: Dsp>(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    let (channels, size) = (usize::from(output.shape.c), output.dtype.size());
    let pool = conv.pool.unwrap_or(Window::ALONE);
    let area = usize::from(pool.size[0]) * usize::from(pool.size[1]);
    // Over the output, and over a pooling window, counted from its corner.
    let mut inner = Walk::over(&conv.window, pool.size[1]);
    let mut walk = inner.scaled(pool.stride, output.shape.w);
    inner.restart([0; 2]);
    let mut positions = [[0; 2]; WIDTH];
    inner.take(&mut positions, area);
    let mut offsets = Offsets::NONE;
    let gather = Gather::new(x, input, &conv.window, &mut offsets);
    let finish = Finish::new(conv, output.dtype);
    let weights = conv.weights.bytes.as_chunks::<4>().0;
    // Words of weights of a block: values under the window, in pairs.
    let steps = conv.weights.per_channel.div_ceil(2).max(1);
    let mut buffer = [[0; WIDTH]; STEPS];
    let mut sums: [Sums; BLOCKS] = [[[0; WIDTH]; 2]; BLOCKS];
    let mut best = [0; RUN];
    let mut left = usize::from(output.shape.h) * usize::from(output.shape.w);
    let mut out = y;
    while left > 0 {
        // One or two pixels that remain are cheaper one by one.
        let pixels = if area > 1 || left < 3 {
            1
        } else {
            left.min(WIDTH)
        };
        let mut corner = [0; 2];
        if area == 1 {
            walk.take(&mut positions, pixels);
        } else {
            corner = walk.next();
        }
        let single = area == 1 && pixels == 1;
        let lanes = if single { 1 } else { WIDTH };
        let mut first = 0;
        while first < channels {
            let mut group = 0;
            while group < area {
                if area > WIDTH {
                    if group == 0 {
                        inner.restart([0; 2]);
                    }
                    inner.take(&mut positions, area - group);
                }
                let mut step = 0;
                while step < steps {
                    let count = (steps - step).min(STEPS);
                    let acts = buffer.get_mut(..count).unwrap_or_default();
                    if first == 0 || area > WIDTH || count < steps {
                        let positions = positions.get(..lanes).unwrap_or_default();
                        gather.fill::<D>(positions, corner, 2 * step, acts);
                    }
                    D::blocks(
                        single,
                        acts,
                        weights.get(first / 2 * steps + step..).unwrap_or_default(),
                        steps,
                        &mut sums,
                        step > 0,
                    );
                    step += count;
                }
                if area > WIDTH {
                    for (best, sums) in best.iter_mut().zip(sums.as_flattened_mut()) {
                        let least = if group == 0 { i32::MIN } else { *best };
                        *best = sums.iter().fold(least, |best, &sum| best.max(sum));
                        *sums = [*best; WIDTH];
                    }
                }
                group += WIDTH;
            }
            for p in 0..pixels {
                let lane = if area == 1 {
                    Lane::At(p)
                } else {
                    Lane::Greatest
                };
                let at = (p * channels + first) * size;
                let out = out.get_mut(at..).unwrap_or_default();
                let bias = conv.bias.get(first..).unwrap_or_default();
                finish.store(first, sums.as_flattened(), lane, bias, out);
            }
            first += RUN;
        }
        out = out.get_mut(pixels * channels * size..).unwrap_or_default();
        left -= pixels;
    }
}
