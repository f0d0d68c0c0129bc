//! Forward pass of any convolution: the windows of some pixels are copied side by side and multiplied with the packed kernel;
//! a band of the result's rows is activated and pooled while it is in the cache.

use super::{
    Plan,
    forward::{store, store_u8},
};
use crate::{
    architecture::Activation,
    ops::{
        activation,
        geometry::Geometry,
        kernel::{
            Job, Level, dispatch,
            gemm::{Packed, rows},
            scratch,
            vector::Vector,
        },
    },
};

/// One sample, as [`super::Forward::sample`]; `bias` has as many values as the packed kernel has columns.
pub(super) fn sample(
    level: Level,
    plan: &Plan,
    x: &[f32],
    (kernel, bias): (&Packed, &[f32]),
    out: &mut [f32],
    taps: &mut [u8],
) {
    let rows = plan.output()[0];
    let pixels = (0..rows).step_by(plan.band()).map(|first| {
        let (start, stop) = plan.needed(first, rows.min(first + plan.band()));
        (stop - start) * plan.area().w
    });
    let pixels = pixels.max().unwrap_or(0);
    let lens = [level.rows() * plan.k(), pixels * kernel.padded()];
    scratch::with(lens, |buffers| {
        dispatch(level, Banded(plan, x, kernel, bias, out, taps, buffers));
    });
}

struct Banded<'a>(
    &'a Plan,
    &'a [f32],
    &'a Packed,
    &'a [f32],
    &'a mut [f32],
    &'a mut [u8],
    [&'a mut [f32]; 2],
);

impl Job for Banded<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(plan, x, kernel, bias, out, taps, [windows, z]) = self;
        let (rows, band, columns) = (plan.output()[0], plan.band(), kernel.padded());
        for first in (0..rows).step_by(band) {
            let end = rows.min(first + band);
            let (start, stop) = plan.needed(first, end);
            let z = &mut z[..(stop - start) * plan.area().w * columns];
            // SAFETY: the CPU has V (trait)
            unsafe { convolve::<V>(plan, x, kernel, bias, start, stop, windows, z) };
            // relu commutes with the maximum: `finish` applies it to what is left
            if plan.activation != Activation::Relu {
                activation::apply(plan.activation, z);
            }
            // SAFETY: the CPU has V (trait)
            unsafe { finish::<V>(plan, z, columns, start, stop, first, end, out, taps) };
        }
    }
}

/// `conv(x) + bias` for rows `start..stop` of the area: `[pixels][columns]` in `z`.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn convolve<V: Vector>(
    plan: &Plan,
    x: &[f32],
    kernel: &Packed,
    bias: &[f32],
    start: usize,
    stop: usize,
    windows: &mut [f32],
    z: &mut [f32],
) {
    let (w, k, run, pitch) = (plan.area().w, plan.k(), plan.run(), plan.pitch());
    let pixels = (stop - start) * w;
    let blocks = pixels.div_ceil(V::ROWS);
    let (mut py, mut px) = (start, 0);
    for block in 0..blocks {
        let (first, end) = (block * pixels / blocks, (block + 1) * pixels / blocks);
        for window in windows.chunks_exact_mut(k).take(end - first) {
            let from = plan.start(py, px);
            for (ky, out) in window.chunks_exact_mut(run).enumerate() {
                let from = from + ky * pitch;
                // SAFETY: the CPU has V
                unsafe { copy::<V>(&x[from..from + run], out) };
            }
            px += 1;
            if px == w {
                (py, px) = (py + 1, 0);
            }
        }
        let out = &mut z[first * kernel.padded()..end * kernel.padded()];
        // SAFETY: the CPU has V
        unsafe { rows::<V>(end - first, windows, k, kernel, bias, out) };
    }
}

/// `copy_from_slice` without a call.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
unsafe fn copy<V: Vector>(from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    let mut i = 0;
    while i + V::LANES <= from.len() {
        // SAFETY: i + LANES is within both
        unsafe { V::load(from.as_ptr().add(i)).store(to.as_mut_ptr().add(i)) };
        i += V::LANES;
    }
    while i < from.len() {
        to[i] = from[i];
        i += 1;
    }
}

/// Pools the rows `start..stop` of the convolution (in `z`) into result rows `first..end`.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn finish<V: Vector>(
    plan: &Plan,
    z: &[f32],
    columns: usize,
    start: usize,
    stop: usize,
    first: usize,
    end: usize,
    out: &mut [f32],
    taps: &mut [u8],
) {
    let (w, co) = (plan.area().w, plan.co);
    let relu = plan.activation == Activation::Relu;
    assert!(z.len() >= (stop - start) * w * columns && columns >= co);
    let width = plan.output()[1];
    for y in first..end {
        for x in 0..width {
            let to = (y * width + x) * co;
            for c in (0..co).step_by(V::LANES) {
                let n = V::LANES.min(co - c);
                // SAFETY: every z index is within the rows start..stop and columns 0..w (asserted above); the CPU has V
                unsafe {
                    let (mut value, tap) = match &plan.pool {
                        None => {
                            let from = ((y - start) * w + x) * columns + c;
                            (V::load(z.as_ptr().add(from)), V::splat(0.0))
                        }
                        Some(pool) => maximum::<V>(z, columns, c, pool, start, stop, w, y, x),
                    };
                    if relu {
                        value = V::splat(0.0).max(value);
                    }
                    store(value, &mut out[to + c..to + c + n]);
                    if plan.pool.is_some() {
                        store_u8(tap, &mut taps[to + c..to + c + n]);
                    }
                }
            }
        }
    }
}

/// The maximum of the pooling window at (y, x) and its position in the window, the first one of equals.
///
/// # Safety
/// The CPU has `V`; `z` holds the rows `start..stop`, `w` pixels each, of `columns` values, and `c + LANES <= columns`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn maximum<V: Vector>(
    z: &[f32],
    columns: usize,
    c: usize,
    pool: &Geometry,
    start: usize,
    stop: usize,
    w: usize,
    y: usize,
    x: usize,
) -> (V, V) {
    let (top, left) = (y * pool.stride[0], x * pool.stride[1]);
    // SAFETY: this function's own condition
    unsafe {
        let mut best = V::splat(f32::NEG_INFINITY);
        let mut best_tap = V::splat(0.0);
        let mut found = false;
        for ky in 0..pool.size[0] {
            let Some(row) = (top + ky).checked_sub(pool.before[0]) else {
                continue;
            };
            if row < start || row >= stop {
                continue;
            }
            for kx in 0..pool.size[1] {
                let Some(column) = (left + kx).checked_sub(pool.before[1]) else {
                    continue;
                };
                if column >= w {
                    continue;
                }
                let from = ((row - start) * w + column) * columns + c;
                let value = V::load(z.as_ptr().add(from));
                let tap = V::splat((ky * pool.size[1] + kx) as f32);
                if found {
                    best_tap = value.select_gt(best, tap, best_tap);
                    best = value.select_gt(best, value, best);
                } else {
                    (best, best_tap, found) = (value, tap, true);
                }
            }
        }
        (best, best_tap)
    }
}
