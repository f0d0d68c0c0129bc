//! Gradients by matrix products over all pixels: the gradient is spread out if a pooling has gathered it.

use rayon::prelude::*;

use super::backward::{Backward, Partial};
use crate::ops::{
    add,
    kernel::{
        self, Level, buffer,
        conv::Plan,
        gemm::{self, Packed},
        scratch,
    },
};

pub(super) struct Dense {
    /// For the input's gradient: the transposed kernel `[co, k]`.
    transposed: Option<Packed>,
    /// The window starts of all pixels of the computed area, row-major.
    starts: Vec<usize>,
}

impl Dense {
    pub(super) fn new(level: Level, plan: &Plan, kernel: &[f32], input_gradient: bool) -> Self {
        let area = plan.area();
        let starts = (0..area.h)
            .flat_map(|y| (0..area.w).map(move |x| plan.start(y, x)))
            .collect();
        Self {
            transposed: input_gradient
                .then(|| Packed::new(level, kernel, plan.co, plan.k(), [1, plan.co])),
            starts,
        }
    }

    /// As many samples as keep the spread-out gradient in the cache.
    pub(super) fn samples_together(&self, backward: &Backward<'_>) -> usize {
        if backward.plan.geometry.is_padded() {
            return 1;
        }
        let dense = self.starts.len() * backward.columns;
        ((1 << 15) / dense.max(1)).max(1)
    }

    /// If a chunk has so few pixels that adding the chunks' kernel gradients would cost more than the products: rows of the
    /// kernel that one task of [`Dense::by_rows`] computes.
    pub(super) fn rows_of_a_task(&self, backward: &Backward<'_>, chunk: usize) -> Option<usize> {
        let plan = backward.plan;
        let few = chunk * self.starts.len() * 4 <= plan.k();
        let rows = (12..=24)
            .rev()
            .find(|&rows| plan.run().is_multiple_of(rows));
        rows.filter(|_| few && backward.input_gradient && !plan.geometry.is_padded())
    }

    /// Gradients of x, kernel and bias: first the samples in chunks, then the kernel's rows in blocks, each over all samples.
    pub(super) fn by_rows(
        &self,
        backward: &Backward<'_>,
        n: usize,
        chunk: usize,
        rows: usize,
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (plan, level, columns) = (backward.plan, backward.level, backward.columns);
        let (input, dense) = (plan.geometry.input.len(), self.starts.len() * columns);
        let chunks = (0..n.div_ceil(chunk)).into_par_iter();
        let (dz, biases) = buffer::chunks(n * dense, chunk * dense, chunks, |i, dz| {
            let mut bias = vec![0.0; plan.co];
            for (j, dz) in dz.chunks_exact_mut(dense).enumerate() {
                spread(backward, i * chunk + j, dz, &mut bias);
            }
            bias
        });
        let with = dz.par_chunks(chunk * dense);
        let (dx, _) = buffer::chunks(n * input, chunk * input, with, |dz, dx| {
            dx.fill(0.0);
            if let Some(transposed) = &self.transposed {
                let offsets = self.offsets(dx.len() / input, input);
                add_windows(backward, &offsets, dz, transposed, dx);
            }
        });
        let mut bias = vec![0.0; plan.co];
        for part in &biases {
            add(&mut bias, part);
        }
        let offsets = self.offsets(n, input);
        let mut kernel = vec![0.0; plan.k() * plan.co];
        kernel
            .par_chunks_exact_mut(rows * plan.co)
            .enumerate()
            .for_each(|(i, out)| {
                let (ky, j) = (i * rows / plan.run(), i * rows % plan.run());
                let x = &backward.saved.x[ky * plan.pitch() + j..];
                if columns == plan.co {
                    return gemm::outer(level, rows, x, &offsets, &dz, columns, out);
                }
                scratch::with([rows * columns], |[sum]| {
                    sum.fill(0.0);
                    gemm::outer(level, rows, x, &offsets, &dz, columns, sum);
                    let sums = sum.chunks_exact(columns);
                    for (out, sum) in out.chunks_exact_mut(plan.co).zip(sums) {
                        out.copy_from_slice(&sum[..plan.co]);
                    }
                });
            });
        buffer::give_back(dz);
        (dx, kernel, bias)
    }

    /// Window starts of all pixels of `count` samples of `len` values.
    fn offsets(&self, count: usize, len: usize) -> Vec<usize> {
        (0..count)
            .flat_map(|i| self.starts.iter().map(move |start| i * len + start))
            .collect()
    }

    /// Samples `first..end`, their gradient spread out to all pixels.
    pub(super) fn samples(
        &self,
        backward: &Backward<'_>,
        first: usize,
        end: usize,
        x: &[f32],
        dx: &mut [f32],
        partial: &mut Partial,
    ) {
        let (plan, columns) = (backward.plan, backward.columns);
        let pixels = self.starts.len();
        let count = end - first;
        let sample_len = x.len() / count;
        scratch::with([count * pixels * columns], |[dz]| {
            for (i, dz) in dz.chunks_exact_mut(pixels * columns).enumerate() {
                spread(backward, first + i, dz, &mut partial.bias);
            }
            let offsets = self.offsets(count, sample_len);
            let (run, pitch) = (plan.run(), plan.pitch());
            for (ky, kernel) in partial.kernel.chunks_exact_mut(run * columns).enumerate() {
                gemm::outer(
                    backward.level,
                    run,
                    &x[ky * pitch..],
                    &offsets,
                    dz,
                    columns,
                    kernel,
                );
            }
            if let Some(transposed) = &self.transposed {
                add_windows(backward, &offsets, dz, transposed, dx);
            }
        });
    }
}

/// `dx += dz * transposed kernel`, into the windows that start at `offsets`.
fn add_windows(
    backward: &Backward<'_>,
    offsets: &[usize],
    dz: &[f32],
    transposed: &Packed,
    dx: &mut [f32],
) {
    const BLOCK: usize = 12;
    let (run, pitch) = (backward.plan.run(), backward.plan.pitch());
    let k = transposed.padded();
    scratch::with([BLOCK * k, k], |[windows, zero]| {
        zero.fill(0.0);
        for (offsets, dz) in offsets
            .chunks(BLOCK)
            .zip(dz.chunks(BLOCK * backward.columns))
        {
            gemm::gemm(
                backward.level,
                offsets.len(),
                dz,
                backward.columns,
                transposed,
                zero,
                windows,
            );
            kernel::compiled(backward.level, || {
                for (&offset, window) in offsets.iter().zip(windows.chunks_exact(k)) {
                    for ky in 0..backward.plan.geometry.size[0] {
                        let to = offset + ky * pitch;
                        add(&mut dx[to..to + run], &window[ky * run..][..run]);
                    }
                }
            });
        }
    });
}

/// One sample's gradient before pooling and activation, `[pixels][columns]`; also adds to the bias's gradient.
fn spread(backward: &Backward<'_>, sample: usize, dz: &mut [f32], bias: &mut [f32]) {
    let (plan, co, columns) = (backward.plan, backward.plan.co, backward.columns);
    let Some(pool) = &plan.pool else {
        return backward.before_activation(sample, columns, dz, bias);
    };
    let (len, w) = (plan.output_len(), plan.area().w);
    let places: Vec<usize> = (0..pool.size[0] * pool.size[1])
        .map(|tap| (tap / pool.size[1] * w + tap % pool.size[1]) * columns)
        .collect();
    // of the window at the origin, which may begin in the padding
    let origin = (pool.before[0] * w + pool.before[1]) * columns;
    let taps = backward.taps(sample);
    dz.fill(0.0);
    scratch::with([len], |[values]| {
        backward.before_activation(sample, co, values, bias);
        for (window, at) in (0..len).step_by(co).enumerate() {
            let top = window / pool.output[1] * pool.stride[0];
            let left = window % pool.output[1] * pool.stride[1];
            let corner = (top * w + left) * columns;
            let taps = &taps[at..at + co];
            for (c, (&value, &tap)) in values[at..at + co].iter().zip(taps).enumerate() {
                dz[corner + places[tap as usize] - origin + c] += value;
            }
        }
    });
}
