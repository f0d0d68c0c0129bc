//! Winograd's F(2x2, 3x3) in integers: the kernel for weights in [`crate::Layout::Winograd`].
//!
//! A tile is 4x4 positions of the input, `d`, from which follow 2x2 positions of the map: one pooling window, or four neighbours.
//! With `V = B^T d B` and the file's `U`, both of 16 frequencies, `M = sum over input channels of U * V` and `A^T M A` is four times the
//! sums of the four positions, where
//!
//! ```text
//! B^T = | 1  0 -1  0 |    A^T = | 1  1  1  0 |
//!       | 0  1  1  0 |          | 0  1 -1 -1 |
//!       | 0 -1  1  0 |
//!       | 0  1  0 -1 |
//! ```
//!
//! `V` lies in -510..=1020 and `U` in -1143..=1143, so both fit 16 bits. `M` and what follows is computed modulo 2^32; the result is
//! exact because four times a sum is below 2^26.
//!
//! Two tiles at a time (one, if there are more than 32 input channels) are transformed into a buffer on the stack, where all output
//! channels read them: four channels by two tiles, frequency by frequency.

#[cfg(not(all(kernels = "dsp", target_arch = "arm")))]
mod twin;

use super::Dsp;
use crate::kernel::finish::{Finish, Lane};
use crate::op::{Conv, Op, Tensor};
use crate::shape::DType;
use crate::weight::winograd::{FREQUENCIES, INPUTS_MAX, QUAD, block};

/// Tiles that share one pass over the weights.
const TILES: usize = 2;
/// Positions of the map that follow from a tile.
const POSITIONS: usize = 4;
/// Channels that are finished together.
const RUN: usize = 16;
/// Pairs of input channels, at most.
const PAIRS: usize = INPUTS_MAX as usize / 2;

/// `V`: `[f][pair][tile]` of two tiles, or `[f][pair]` of one; each a pair of i16, of input channels as a word of weights has them.
pub(in crate::kernel) type Values = [[u32; PAIRS]; FREQUENCIES];
/// `M` of a block of output channels: `[f][channel][tile]`.
pub(in crate::kernel) type Products = [[[i32; TILES]; QUAD]; FREQUENCIES];
/// What follows from them: `[tile][channel][position]`.
pub(in crate::kernel) type Sums = [[[i32; POSITIONS]; RUN]; TILES];

/// Bytes of the buffers on the stack.
#[cfg(feature = "encode")]
pub(in crate::kernel) const BUFFERS: usize =
    size_of::<Values>() + size_of::<Products>() + size_of::<Sums>();

/// The place of a pixel that is 0.
const OUTSIDE: usize = usize::MAX;

/// The pixels of a tile.
pub(in crate::kernel) struct Pixels<'a> {
    /// Tensor of i8 if `signed`, else u8.
    pub(in crate::kernel) x: &'a [u8],
    pub(in crate::kernel) signed: bool,
    /// Values of a pixel; with two tiles at most half of [`INPUTS_MAX`].
    pub(in crate::kernel) channels: usize,
    /// Index of each pixel's first value, column by column. A pixel that does not lie in the tensor as a whole is 0.
    pub(in crate::kernel) places: [usize; FREQUENCIES],
}

/// The transforms and the products: the routines that a core has instructions for.
pub(in crate::kernel) trait Winograd: Dsp {
    /// Writes tile `tile` of `tiles`, 1 or 2, to `values`; what fills up four channels is 0.
    fn transform(pixels: &Pixels<'_>, tile: usize, tiles: usize, values: &mut Values);
    /// `products[f][i][t] = sum_p values[f][p][t] * weights[f][p][i]`, modulo 2^32, over as many pairs as a block of weights has;
    /// of one tile the second's products are left alone. Nothing happens if `values` has no room for the pairs, or if the
    /// weights do not lie at a multiple of 4.
    fn multiply(values: &Values, tiles: usize, weights: &[u8], products: &mut Products);
    /// For both tiles the sums of four channels, from `sums[tile][at]` on. Nothing happens if there is no room.
    fn sums(products: &Products, sums: &mut Sums, at: usize);
}

/// True if the weights lie where [`Winograd::multiply`] can read them: a file need not be aligned.
pub(in crate::kernel) fn runs(conv: &Conv<'_>) -> bool {
    conv.weights.transformed() && conv.weights.bytes.as_ptr().cast::<u32>().is_aligned()
}

/// As the portable kernel, for the layers that [`runs`] says.
#[inline(never)]
pub(in crate::kernel) fn conv2d<W: Winograd>(conv: &Conv<'_>, op: &Op<'_>, x: &[u8], y: &mut [u8]) {
    let (input, output) = (&op.input, &op.output);
    let mut values: Values = [[0; PAIRS]; FREQUENCIES];
    let mut products: Products = [[[0; TILES]; QUAD]; FREQUENCIES];
    let mut sums: Sums = [[[0; POSITIONS]; RUN]; TILES];
    let mut layer = Layer {
        conv,
        input,
        output,
        finish: Finish::new(conv, output.dtype),
        pool: conv.pool.is_some(),
        pixels: Pixels {
            x,
            signed: input.dtype != DType::U8,
            channels: usize::from(input.shape.c),
            places: [OUTSIDE; FREQUENCIES],
        },
    };
    let side = |n: u16| usize::from(if layer.pool { n } else { n.div_ceil(2) });
    let (rows, columns) = (side(output.shape.h), side(output.shape.w).max(1));
    let most = if 2 * input.shape.c <= INPUTS_MAX {
        TILES
    } else {
        1
    };
    let mut tiles = [[0; 2]; TILES];
    let (mut count, mut left) = (0, rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let together = most.min(left);
            layer.place([row, column]);
            W::transform(&layer.pixels, count, together, &mut values);
            if let Some(tile) = tiles.get_mut(count) {
                *tile = [row, column];
            }
            count += 1;
            if count == together {
                let tiles = tiles.get(..count).unwrap_or_default();
                layer.multiply::<W>(&values, tiles, &mut products, &mut sums, y);
                left -= count;
                count = 0;
            }
        }
    }
}

/// A layer and its input.
struct Layer<'a> {
    conv: &'a Conv<'a>,
    input: &'a Tensor,
    output: &'a Tensor,
    finish: Finish<'a>,
    pool: bool,
    /// Of the tile that is at hand.
    pixels: Pixels<'a>,
}

impl Layer<'_> {
    /// Finds the pixels of a tile.
    fn place(&mut self, [row, column]: [usize; 2]) {
        let shape = self.input.shape;
        let [h, w] = [usize::from(shape.h), usize::from(shape.w)];
        let [top, left] = self.conv.window.pad;
        let channels = self.pixels.channels;
        let pitch = w * channels;
        // Before the map these wrap around and are far beyond it.
        let first = (2 * row).wrapping_sub(usize::from(top));
        let mut x = (2 * column).wrapping_sub(usize::from(left));
        for places in self.pixels.places.as_chunks_mut::<4>().0 {
            let mut y = first;
            let mut at = y.wrapping_mul(pitch).wrapping_add(x.wrapping_mul(channels));
            for place in places {
                *place = if y < h && x < w { at } else { OUTSIDE };
                y = y.wrapping_add(1);
                at = at.wrapping_add(pitch);
            }
            x = x.wrapping_add(1);
        }
    }

    /// All output channels of one or two tiles.
    #[inline(never)]
    fn multiply<W: Winograd>(
        &self,
        values: &Values,
        tiles: &[[usize; 2]],
        products: &mut Products,
        sums: &mut Sums,
        y: &mut [u8],
    ) {
        let block = block(self.conv.weights.per_channel).max(1);
        let run = (RUN / QUAD * block).max(1);
        let runs = self.conv.weights.bytes.chunks(run);
        for (run, first) in runs.zip((0..).step_by(RUN)) {
            for (block, at) in run.chunks_exact(block).zip((0..).step_by(QUAD)) {
                W::multiply(values, tiles.len(), block, products);
                W::sums(products, sums, at);
            }
            for (&tile, sums) in tiles.iter().zip(&*sums) {
                self.finish(first, tile, sums, y);
            }
        }
    }

    /// Adds the bias, requantizes and stores the channels from `first` on of a tile.
    fn finish(
        &self,
        first: usize,
        [row, column]: [usize; 2],
        sums: &[[i32; POSITIONS]; RUN],
        y: &mut [u8],
    ) {
        let shape = self.output.shape;
        let [h, w, c] = [shape.h, shape.w, shape.c].map(usize::from);
        let size = self.output.dtype.size();
        let count = RUN.min(c.saturating_sub(first));
        let bias = self.conv.bias.get(first..).unwrap_or_default();
        let (pixels, side) = if self.pool { (1, 1) } else { (POSITIONS, 2) };
        for p in 0..pixels {
            let [oy, ox] = [row * side + p / 2, column * side + p % 2];
            if oy >= h || ox >= w {
                continue;
            }
            let at = ((oy * w + ox) * c + first) * size;
            let out = y.get_mut(at..at + count * size).unwrap_or_default();
            let lane = if self.pool {
                Lane::Greatest
            } else {
                Lane::At(p)
            };
            self.finish.store(first, sums, lane, bias, out);
        }
    }
}
