//! Forward pass: register tiles of some output pixels times two vectors of channels, their inputs read where they lie.
//!
//! Behind a 2x2 max pooling a tile holds whole windows, and only their maxima leave the registers. Everything else is done in
//! bands of rows ([`banded`]).

use super::{
    Plan, banded,
    winograd::{self, Winograd},
};
use crate::{
    architecture::Activation,
    ops::kernel::{Job, Level, dispatch, gemm::Packed, scratch, vector::Vector},
};

/// Values of a window that is pooled in registers.
const TAPS: usize = 4;

/// A convolution that is ready to compute samples.
#[derive(Debug)]
pub struct Forward<'a> {
    plan: &'a Plan,
    level: Level,
    kernel: Kernel,
    /// As many values as output channels, rounded up to whole vectors.
    bias: Vec<f32>,
    /// Of each of the `k` products: its input relative to the window's start.
    products: Vec<u32>,
    /// If pooled in registers: window start of every pixel, pooling window by window; else empty.
    starts: Vec<u32>,
}

#[derive(Debug)]
enum Kernel {
    /// `[k, co]`.
    Packed(Packed),
    /// Pooled in registers.
    Winograd(Winograd),
}

impl<'a> Forward<'a> {
    /// `weights`: `[kh, kw, ci, co]`; `bias`: `[co]`.
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn new(level: Level, plan: &'a Plan, weights: &[f32], bias: &[f32]) -> Self {
        assert_eq!(weights.len(), plan.k() * plan.co);
        assert_eq!(bias.len(), plan.co);
        let mut bias = bias.to_vec();
        bias.resize(plan.co.next_multiple_of(level.lanes()), 0.0);
        let products = (0..plan.geometry.size[0])
            .flat_map(|ky| (0..plan.run()).map(move |j| (ky * plan.pitch() + j) as u32))
            .collect();
        let cheap = matches!(plan.activation, Activation::Relu | Activation::Linear);
        let pooled = plan.pooled_starts().filter(|_| cheap);
        let winograd = Winograd::new(level, plan, weights).filter(|_| pooled.is_some());
        let kernel = match winograd {
            Some(winograd) => Kernel::Winograd(winograd),
            None => Kernel::Packed(Packed::new(level, weights, plan.k(), plan.co, [plan.co, 1])),
        };
        Self {
            plan,
            level,
            kernel,
            bias,
            products,
            starts: pooled.unwrap_or_default(),
        }
    }

    /// One sample. `x`: padded input; `out`: [`Plan::output_len`] values; `taps`: as many, if the plan pools: the position of
    /// the maximum in its window, row-major, the first one of equals.
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn sample(&self, x: &[f32], out: &mut [f32], taps: &mut [u8]) {
        let plan = self.plan;
        assert_eq!(x.len(), plan.padded_len());
        assert_eq!(out.len(), plan.output_len());
        assert_eq!(taps.len(), if plan.pool.is_some() { out.len() } else { 0 });
        let largest = |values: &[u32]| values.iter().max().map_or(0, |&v| v as usize);
        assert!(largest(&self.starts) + largest(&self.products) < x.len());
        let kernel = match &self.kernel {
            Kernel::Winograd(winograd) => {
                let lens = Winograd::buffers(plan, self.level, self.level.rows());
                return scratch::with(lens, |buffers| {
                    let job = Transformed(self, winograd, x, out, taps, buffers);
                    dispatch(self.level, job);
                });
            }
            Kernel::Packed(kernel) => kernel,
        };
        if !self.starts.is_empty() {
            return dispatch(self.level, Pooled(self, kernel, x, out, taps));
        }
        banded::sample(self.level, plan, x, (kernel, &self.bias), out, taps);
    }
}

struct Pooled<'a>(
    &'a Forward<'a>,
    &'a Packed,
    &'a [f32],
    &'a mut [f32],
    &'a mut [u8],
);

impl Job for Pooled<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(forward, kernel, x, out, taps) = self;
        let co = forward.plan.co;
        let windows = forward.starts.len() / TAPS;
        let together = V::ROWS / TAPS;
        for first in (0..windows).step_by(together) {
            let count = together.min(windows - first);
            let starts = &forward.starts[first * TAPS..][..count * TAPS];
            let out = &mut out[first * co..][..count * co];
            let taps = &mut taps[first * co..][..count * co];
            // SAFETY: the CPU has V (trait); `starts` has `W * TAPS` values
            unsafe {
                match count {
                    1 => windows_of::<V, 4, 1>(forward, kernel, x, starts, out, taps),
                    2 => windows_of::<V, 8, 2>(forward, kernel, x, starts, out, taps),
                    _ => windows_of::<V, 12, 3>(forward, kernel, x, starts, out, taps),
                }
            }
        }
    }
}

struct Transformed<'a>(
    &'a Forward<'a>,
    &'a Winograd,
    &'a [f32],
    &'a mut [f32],
    &'a mut [u8],
    [&'a mut [f32]; 2],
);

impl Job for Transformed<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(forward, winograd, x, out, taps, [inputs, sums]) = self;
        let (plan, co) = (forward.plan, forward.plan.co);
        let windows = forward.starts.len() / TAPS;
        let blocks = windows.div_ceil(V::ROWS);
        let mut starts = [0; 12];
        for block in 0..blocks {
            let (first, end) = (block * windows / blocks, (block + 1) * windows / blocks);
            let corners = forward.starts.iter().step_by(TAPS).skip(first);
            let count = end - first;
            for (start, corner) in starts[..count].iter_mut().zip(corners) {
                *start = *corner;
            }
            let starts = &starts[..count];
            let out = &mut out[first * co..end * co];
            let taps = &mut taps[first * co..end * co];
            macro_rules! block {
                ($($p:literal)*) => {
                    match count {
                        // SAFETY: the CPU has V (trait); a tile ends where the window's last product is, which is within x
                        // (asserted in `sample`); the buffers hold ROWS tiles
                        $($p if $p <= V::ROWS => unsafe {
                            winograd::inputs::<V>(plan, x, starts, inputs);
                            tiles::<V, $p>(forward, winograd, inputs, sums, out, taps);
                        },)*
                        _ => unreachable!("a block has 1 to ROWS windows"),
                    }
                };
            }
            block!(1 2 3 4 5 6 7 8 9 10 11 12);
        }
    }
}

/// `P` pooling windows, all channels, from their transformed inputs.
///
/// # Safety
/// The CPU has `V`; the buffers hold `P` tiles.
#[inline(always)]
unsafe fn tiles<V: Vector, const P: usize>(
    forward: &Forward<'_>,
    winograd: &Winograd,
    inputs: &[f32],
    sums: &mut [f32],
    out: &mut [f32],
    taps: &mut [u8],
) {
    let ci = forward.plan.geometry.input.c;
    // SAFETY: this function's own condition
    unsafe {
        let mut column = 0;
        while column < forward.bias.len() {
            if forward.bias.len() - column >= 2 * V::LANES {
                winograd::products::<V, P, 2>(winograd, ci, column, inputs, sums);
                for tile in 0..P {
                    for n in 0..2 {
                        let pixels = winograd::pixels::<V, 2>(sums, P, tile, n);
                        maximum_of(forward, pixels, tile, column + n * V::LANES, out, taps);
                    }
                }
                column += 2 * V::LANES;
            } else {
                winograd::products::<V, P, 1>(winograd, ci, column, inputs, sums);
                for tile in 0..P {
                    let pixels = winograd::pixels::<V, 1>(sums, P, tile, 0);
                    maximum_of(forward, pixels, tile, column, out, taps);
                }
                column += V::LANES;
            }
        }
    }
}

/// Adds the bias and stores the activated maximum of four pixels, and its position.
///
/// # Safety
/// The CPU has `V`; `c + LANES` is at most the padded number of channels.
#[inline(always)]
unsafe fn maximum_of<V: Vector>(
    forward: &Forward<'_>,
    pixels: [V; TAPS],
    window: usize,
    c: usize,
    out: &mut [f32],
    taps: &mut [u8],
) {
    let co = forward.plan.co;
    if c >= co {
        return;
    }
    // SAFETY: this function's own condition; the bias has the padded number of channels
    unsafe {
        let bias = V::load(forward.bias.as_ptr().add(c));
        let mut best = pixels[0].add(bias);
        let mut tap = V::splat(0.0);
        for (t, pixel) in pixels.into_iter().enumerate().skip(1) {
            let value = pixel.add(bias);
            tap = value.select_gt(best, V::splat(t as f32), tap);
            best = value.select_gt(best, value, best);
        }
        if forward.plan.activation == Activation::Relu {
            best = V::splat(0.0).max(best);
        }
        let to = window * co + c..window * co + co.min(c + V::LANES);
        store(best, &mut out[to.clone()]);
        store_u8(tap, &mut taps[to]);
    }
}

/// `W` pooling windows (`P = W * TAPS` pixels), all channels.
///
/// # Safety
/// The CPU has `V`; `starts` has `P` values, and `x`, `out` and `taps` are those of [`Pooled`], checked in [`Forward::sample`].
#[inline(always)]
unsafe fn windows_of<V: Vector, const P: usize, const W: usize>(
    forward: &Forward<'_>,
    kernel: &Packed,
    x: &[f32],
    starts: &[u32],
    out: &mut [f32],
    taps: &mut [u8],
) {
    // SAFETY: this function's own condition
    unsafe {
        let mut column = 0;
        while column < forward.bias.len() {
            if forward.bias.len() - column >= 2 * V::LANES {
                let sum = products::<V, P, W, 2>(forward, kernel, x, starts, column);
                maxima::<V, P, 2>(forward, &sum, column, out, taps);
                column += 2 * V::LANES;
            } else {
                let sum = products::<V, P, W, 1>(forward, kernel, x, starts, column);
                maxima::<V, P, 1>(forward, &sum, column, out, taps);
                column += V::LANES;
            }
        }
    }
}

/// The sums of products of the `P = W * TAPS` pixels of `W` pooling windows and `N` vectors of channels from `column` on.
///
/// # Safety
/// The CPU has `V`; `starts` has `P` values of `forward.starts`; `x` is checked against these; `column` begins a panel of `N`
/// vectors.
#[inline(always)]
unsafe fn products<V: Vector, const P: usize, const W: usize, const N: usize>(
    forward: &Forward<'_>,
    kernel: &Packed,
    x: &[f32],
    starts: &[u32],
    column: usize,
) -> [[V; N]; P] {
    debug_assert_eq!(starts.len(), P);
    let right = forward.plan.start(0, 1);
    let below = forward.plan.start(1, 0);
    let across = right + below;
    // SAFETY: start + product is within x (asserted in `sample`); the panel has `k * N` vectors
    unsafe {
        let from: [*const f32; W] =
            std::array::from_fn(|w| x.as_ptr().add(*starts.get_unchecked(w * TAPS) as usize));
        let mut sum = [[V::splat(0.0); N]; P];
        let mut weights = kernel.panel(column);
        for &product in &forward.products {
            let product = product as usize;
            let mut weight = [V::splat(0.0); N];
            for (n, weight) in weight.iter_mut().enumerate() {
                *weight = V::load(weights.add(n * V::LANES));
            }
            for w in 0..W {
                let from = from[w].add(product);
                let taps = [from, from.add(right), from.add(below), from.add(across)];
                for t in 0..TAPS {
                    let value = V::splat(*taps[t]);
                    let row = &mut sum[w * TAPS + t];
                    for n in 0..N {
                        row[n] = row[n].fma(value, weight[n]);
                    }
                }
            }
            weights = weights.add(N * V::LANES);
        }
        sum
    }
}

/// Finishes every window of a panel of `N` vectors from `column` on.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn maxima<V: Vector, const P: usize, const N: usize>(
    forward: &Forward<'_>,
    sum: &[[V; N]; P],
    column: usize,
    out: &mut [f32],
    taps: &mut [u8],
) {
    for (window, pixels) in sum.chunks_exact(TAPS).enumerate() {
        for n in 0..N {
            let pixels = [pixels[0][n], pixels[1][n], pixels[2][n], pixels[3][n]];
            // SAFETY: the CPU has V; a panel is within the padded channels
            unsafe {
                maximum_of(forward, pixels, window, column + n * V::LANES, out, taps);
            }
        }
    }
}

/// As many values as fit into `to`, at most a vector.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
pub(super) unsafe fn store<V: Vector>(value: V, to: &mut [f32]) {
    // SAFETY: `to` has a vector's length, or the array has
    unsafe {
        if to.len() == V::LANES {
            value.store(to.as_mut_ptr());
        } else {
            let mut values = [0.0; 16];
            value.store(values.as_mut_ptr());
            to.copy_from_slice(&values[..to.len()]);
        }
    }
}

/// [`store`] of whole numbers as bytes.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
pub(super) unsafe fn store_u8<V: Vector>(value: V, to: &mut [u8]) {
    // SAFETY: `to` has a vector's length, or the array has
    unsafe {
        if to.len() == V::LANES {
            value.store_u8(to.as_mut_ptr());
        } else {
            let mut values = [0; 16];
            value.store_u8(values.as_mut_ptr());
            to.copy_from_slice(&values[..to.len()]);
        }
    }
}
