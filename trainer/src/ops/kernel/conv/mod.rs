//! Convolution with bias, activation and max pooling, one sample at a time.

mod banded;
mod forward;
mod winograd;

pub use forward::Forward;

use crate::{architecture::Activation, ops::geometry::Geometry};

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

    /// The window start of every pixel in every 2x2 pooling window, window by window, if no window overlaps another one or
    /// reaches beyond the convolution's output.
    pub fn pooled_starts(&self) -> Option<Vec<u32>> {
        let pool = self.pool.as_ref()?;
        let fits = pool.size == [2, 2]
            && pool.stride == [2, 2]
            && pool.before == [0, 0]
            && (0..2).all(|axis| pool.span(axis) <= self.geometry.output[axis]);
        let width = pool.output[1];
        let starts = (0..pool.output[0] * width).flat_map(|window| {
            (0..4).map(move |tap| {
                let y = window / width * 2 + tap / 2;
                self.start(y, window % width * 2 + tap % 2) as u32
            })
        });
        fits.then(|| starts.collect())
    }

    /// Result rows computed together, so that their unpooled values stay in the cache.
    pub(super) fn band(&self) -> usize {
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
    pub(super) fn needed(&self, first: usize, end: usize) -> (usize, usize) {
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
