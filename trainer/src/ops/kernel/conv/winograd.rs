//! Forward pass of a 3x3 convolution behind 2x2 max pooling by Winograd's F(2x2, 3x3): 16 instead of 36 products for the four
//! pixels of a pooling window.
//!
//! For the 4x4 inputs `d` under a window and the 3x3 weights `g` of a channel, the 2x2 outputs are
//! `A' ((G g G') * (B' d B)) A`, summed over the input channels before the last transform, with
//!
//! - `B' = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]`,
//! - `G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1]`,
//! - `A' = [1 1 1 0; 0 1 -1 -1]`.
//!
//! The result is rounded at other places than that of the direct sum: the difference is a few units in the last place of the
//! largest product.
//!
//! Source: A. Lavin, S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1.

use rayon::prelude::*;

use super::Plan;
use crate::ops::kernel::{
    self, Level,
    gemm::{self, Packed},
    scratch,
    vector::Vector,
};

/// Values of a transformed tile.
const POINTS: usize = 16;
/// Channels whose weights are transformed side by side.
const BLOCK: usize = 16;

/// The transformed kernel.
#[derive(Debug)]
pub(super) struct Winograd {
    /// For each of the 16 points `[ci, co]`.
    kernels: Vec<Packed>,
}

impl Winograd {
    /// If the plan pools whole 2x2 windows and its channels fill vectors.
    pub(super) fn new(level: Level, plan: &Plan, weights: &[f32]) -> Option<Self> {
        let g = &plan.geometry;
        let (ci, co) = (g.input.c, plan.co);
        let fits = g.size == [3, 3] && g.stride == [1, 1] && ci.is_multiple_of(level.lanes());
        if !fits || co < level.lanes() {
            return None;
        }
        let len = ci * co;
        let kernels = scratch::with([POINTS * len], |[points]| {
            kernel::compiled(level, || transform_kernel(weights, points));
            points
                .par_chunks_exact(len)
                .with_min_len(POINTS / 2)
                .map(|point| Packed::new(level, point, ci, co, [co, 1]))
                .collect()
        });
        Some(Self { kernels })
    }

    /// Values of the buffers for `tiles` tiles: transformed inputs, and sums of a panel of `2 * lanes` channels.
    pub(super) fn buffers(plan: &Plan, level: Level, tiles: usize) -> [usize; 2] {
        let ci = plan.geometry.input.c;
        [POINTS * tiles * ci, POINTS * tiles * 2 * level.lanes()]
    }
}

/// `G g G'` of the 9 planes of weights `[ci, co]`: 16 planes.
#[inline(always)]
fn transform_kernel(weights: &[f32], points: &mut [f32]) {
    let len = weights.len() / 9;
    for at in (0..len).step_by(BLOCK) {
        let n = BLOCK.min(len - at);
        let mut g = [[[0.0; BLOCK]; 3]; 3];
        for (tap, g) in g.as_flattened_mut().iter_mut().enumerate() {
            g[..n].copy_from_slice(&weights[tap * len + at..][..n]);
        }
        let rows = g.map(|[a, b, c]| transform_weights(a, b, c));
        for x in 0..4 {
            let column = transform_weights(rows[0][x], rows[1][x], rows[2][x]);
            for (y, values) in column.iter().enumerate() {
                points[(y * 4 + x) * len + at..][..n].copy_from_slice(&values[..n]);
            }
        }
    }
}

/// `G g`, for several channels side by side.
#[inline(always)]
fn transform_weights(a: [f32; BLOCK], b: [f32; BLOCK], c: [f32; BLOCK]) -> [[f32; BLOCK]; 4] {
    let mut out = [a, [0.0; BLOCK], [0.0; BLOCK], c];
    for i in 0..BLOCK {
        out[1][i] = 0.5 * (a[i] + b[i] + c[i]);
        out[2][i] = 0.5 * (a[i] - b[i] + c[i]);
    }
    out
}

/// `B' d` of four vectors.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
unsafe fn transform_inputs<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: the CPU has V
    unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
}

/// `A' m` of four vectors.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
unsafe fn transform_sums<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: the CPU has V
    unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
}

/// Transforms the inputs of the tiles that begin at `starts` (`P` of them): `[point][tile][ci]`.
///
/// # Safety
/// The CPU has `V`; every 4x4 tile is within `x`; `to` has the length of [`Winograd::buffers`]; `ci` is a multiple of the lanes.
#[inline(always)]
pub(super) unsafe fn inputs<V: Vector>(plan: &Plan, x: &[f32], starts: &[u32], to: &mut [f32]) {
    let (ci, pitch) = (plan.geometry.input.c, plan.pitch());
    let tiles = starts.len();
    for (tile, &start) in starts.iter().enumerate() {
        for channel in (0..ci).step_by(V::LANES) {
            // SAFETY: this function's own condition
            unsafe {
                let from = x.as_ptr().add(start as usize + channel);
                let mut columns = [[V::splat(0.0); 4]; 4];
                for (x, column) in columns.iter_mut().enumerate() {
                    let from = from.add(x * ci);
                    *column = transform_inputs([
                        V::load(from),
                        V::load(from.add(pitch)),
                        V::load(from.add(2 * pitch)),
                        V::load(from.add(3 * pitch)),
                    ]);
                }
                let [a, b, c, d] = columns;
                for (y, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
                    let row = transform_inputs([a, b, c, d]);
                    for (x, value) in row.into_iter().enumerate() {
                        let at = ((y * 4 + x) * tiles + tile) * ci + channel;
                        value.store(to.as_mut_ptr().add(at));
                    }
                }
            }
        }
    }
}

/// Products of `P` transformed tiles with the panel of `N` vectors of channels from `column` on: `[point][tile][N vectors]`.
///
/// # Safety
/// The CPU has `V`; the buffers have the lengths of [`Winograd::buffers`]; `column` begins a panel of `N` vectors.
#[inline(always)]
pub(super) unsafe fn products<V: Vector, const P: usize, const N: usize>(
    winograd: &Winograd,
    ci: usize,
    column: usize,
    inputs: &[f32],
    sums: &mut [f32],
) {
    let zero = [0.0; 32];
    let width = N * V::LANES;
    for (point, kernel) in winograd.kernels.iter().enumerate() {
        // SAFETY: this function's own condition
        unsafe {
            let a = inputs.as_ptr().add(point * P * ci);
            let c = sums.as_mut_ptr().add(point * P * width);
            gemm::tile::<V, P, N>(a, ci, kernel.panel(column), ci, zero.as_ptr(), c, width);
        }
    }
}

/// The four pixels of tile `tile` of `tiles`, vector `n` of `N`, without bias.
///
/// # Safety
/// The CPU has `V`; `sums` is what [`products`] has written.
#[inline(always)]
pub(super) unsafe fn pixels<V: Vector, const N: usize>(
    sums: &[f32],
    tiles: usize,
    tile: usize,
    n: usize,
) -> [V; 4] {
    // SAFETY: this function's own condition
    unsafe {
        let from = sums.as_ptr().add((tile * N + n) * V::LANES);
        let point = tiles * N * V::LANES;
        let mut columns = [[V::splat(0.0); 2]; 4];
        for (x, column) in columns.iter_mut().enumerate() {
            let from = from.add(x * point);
            *column = transform_sums([
                V::load(from),
                V::load(from.add(4 * point)),
                V::load(from.add(8 * point)),
                V::load(from.add(12 * point)),
            ]);
        }
        let [left_top, right_top] =
            transform_sums([columns[0][0], columns[1][0], columns[2][0], columns[3][0]]);
        let [left, right] =
            transform_sums([columns[0][1], columns[1][1], columns[2][1], columns[3][1]]);
        [left_top, right_top, left, right]
    }
}
