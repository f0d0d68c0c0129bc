//! Forward pass of a convolution with bias, activation and max pooling, one sample at a time.

use super::{
    Job, Level, dispatch,
    gemm::{Packed, rows},
    scratch,
    vector::Vector,
};
use crate::{
    architecture::Activation,
    ops::{activation, geometry::Geometry},
};

/// What a convolution computes: `pool(activation(conv(x) + bias))`, with kernel `[kh, kw, ci, co]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Windows of the kernel.
    pub geometry: Geometry,
    /// Output channels.
    pub co: usize,
    /// Before the pooling.
    pub activation: Activation,
    /// Windows of the max pooling over the activated values; at most 255 values each.
    pub pool: Option<Geometry>,
}

/// Conv output that is needed: without the rows and columns that no pooling window reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Plan {
    /// Values of a kernel row: `kw * ci` neighbours in the input.
    pub fn run(&self) -> usize {
        self.geometry.size[1] * self.geometry.input.c
    }

    /// Values of a whole window: the products in one output value.
    pub fn k(&self) -> usize {
        self.geometry.size[0] * self.run()
    }

    /// Rows and columns of the padded input.
    pub fn padded(&self) -> Area {
        let g = &self.geometry;
        Area {
            h: g.span(0).max(g.before[0] + g.input.h),
            w: g.span(1).max(g.before[1] + g.input.w),
        }
    }

    /// Values of a row of the padded input.
    pub fn pitch(&self) -> usize {
        self.padded().w * self.geometry.input.c
    }

    /// Values of a padded sample.
    pub fn padded_len(&self) -> usize {
        self.padded().h * self.pitch()
    }

    /// The part of the convolution's output that is computed.
    pub fn area(&self) -> Area {
        let [h, w] = self.geometry.output;
        match &self.pool {
            None => Area { h, w },
            Some(pool) => Area {
                h: h.min(pool.span(0).saturating_sub(pool.before[0])),
                w: w.min(pool.span(1).saturating_sub(pool.before[1])),
            },
        }
    }

    /// Rows and columns of the result.
    pub fn output(&self) -> [usize; 2] {
        self.pool.map_or(self.geometry.output, |pool| pool.output)
    }

    /// Values of a sample of the result.
    pub fn output_len(&self) -> usize {
        self.output()[0] * self.output()[1] * self.co
    }

    /// Where the window of output pixel (y, x) starts in the padded input.
    #[inline(always)]
    pub fn start(&self, y: usize, x: usize) -> usize {
        let [sh, sw] = self.geometry.stride;
        y * sh * self.pitch() + x * sw * self.geometry.input.c
    }

    /// Result rows computed together, so that their unpooled values stay in the cache.
    fn band(&self) -> usize {
        let rows = self.output()[0];
        let pixels = match &self.pool {
            Some(pool) if pool.is_disjoint() && pool.before[0] == 0 => {
                pool.stride[0] * self.area().w
            }
            Some(_) => return rows,
            None => self.area().w,
        };
        let bands = (rows * pixels).div_ceil(112);
        rows.div_ceil(bands)
    }

    /// Rows of the convolution that result rows `first..end` need.
    fn needed(&self, first: usize, end: usize) -> (usize, usize) {
        match &self.pool {
            None => (first, end),
            Some(pool) => {
                let start = (first * pool.stride[0]).saturating_sub(pool.before[0]);
                let end = (end - 1) * pool.stride[0] + pool.size[0] - pool.before[0];
                (start, end.min(self.area().h))
            }
        }
    }
}

/// Copies a sample into its zero padding. `out` holds [`Plan::padded_len`] values.
pub fn pad(plan: &Plan, x: &[f32], out: &mut [f32]) {
    let g = &plan.geometry;
    out.fill(0.0);
    let row = g.input.w * g.input.c;
    for (y, x) in x.chunks_exact(row).enumerate() {
        let start = (g.before[0] + y) * plan.pitch() + g.before[1] * g.input.c;
        out[start..start + row].copy_from_slice(x);
    }
}

/// One sample. `x`: padded input; `kernel`: packed `[k, co]`; `bias`: `kernel.padded()` values; `out`: [`Plan::output_len`]
/// values; `taps`: as many, if the plan pools: the position of the maximum in its window, row-major.
///
/// # Panics
/// If a slice has another length.
pub fn forward(
    level: Level,
    plan: &Plan,
    x: &[f32],
    kernel: &Packed,
    bias: &[f32],
    out: &mut [f32],
    taps: &mut [u8],
) {
    struct Forward<'a> {
        plan: &'a Plan,
        x: &'a [f32],
        kernel: &'a Packed,
        bias: &'a [f32],
        out: &'a mut [f32],
        taps: &'a mut [u8],
        windows: &'a mut [f32],
        z: &'a mut [f32],
    }
    impl Job for Forward<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            let (plan, columns) = (self.plan, self.kernel.padded());
            let (rows, band) = (plan.output()[0], plan.band());
            for first in (0..rows).step_by(band) {
                let end = rows.min(first + band);
                let (start, stop) = plan.needed(first, end);
                let z = &mut self.z[..(stop - start) * plan.area().w * columns];
                // SAFETY: the CPU has V (trait)
                unsafe {
                    convolve::<V>(
                        plan,
                        self.x,
                        self.kernel,
                        self.bias,
                        start,
                        stop,
                        self.windows,
                        z,
                    );
                }
                // relu commutes with the maximum: `finish` applies it to what is left
                if plan.activation != Activation::Relu {
                    activation::apply(plan.activation, z);
                }
                // SAFETY: the CPU has V (trait)
                unsafe {
                    finish::<V>(
                        plan, z, columns, start, stop, first, end, self.out, self.taps,
                    );
                }
            }
        }
    }
    assert_eq!(x.len(), plan.padded_len());
    assert_eq!(kernel.k(), plan.k());
    assert_eq!(out.len(), plan.output_len());
    assert_eq!(taps.len(), if plan.pool.is_some() { out.len() } else { 0 });
    let rows = plan.output()[0];
    let pixels = (0..rows).step_by(plan.band()).map(|first| {
        let (start, stop) = plan.needed(first, rows.min(first + plan.band()));
        (stop - start) * plan.area().w
    });
    let pixels = pixels.max().unwrap_or(0);
    let lens = [level.rows() * plan.k(), pixels * kernel.padded()];
    scratch::with(lens, |[windows, z]| {
        let job = Forward {
            plan,
            x,
            kernel,
            bias,
            out,
            taps,
            windows,
            z,
        };
        dispatch(level, job);
    });
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
                    if n == V::LANES {
                        value.store(out[to + c..to + c + n].as_mut_ptr());
                        if plan.pool.is_some() {
                            tap.store_u8(taps[to + c..to + c + n].as_mut_ptr());
                        }
                    } else {
                        let mut values = [0.0; 16];
                        value.store(values.as_mut_ptr());
                        out[to + c..to + c + n].copy_from_slice(&values[..n]);
                        if plan.pool.is_some() {
                            let mut bytes = [0; 16];
                            tap.store_u8(bytes.as_mut_ptr());
                            taps[to + c..to + c + n].copy_from_slice(&bytes[..n]);
                        }
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
