//! The gradients of a batch's convolution.

use rayon::prelude::*;

use super::{dense::Dense, forward::with_padding, patch::Patches, sparse::Sparse};
use crate::ops::{
    activation, add, chunk,
    kernel::{self, Level, buffer, conv::Plan, scratch},
};

/// What the forward pass left; all samples.
#[derive(Clone, Copy)]
pub(crate) struct Saved<'a> {
    pub x: &'a [f32],
    pub y: &'a [f32],
    pub gradient: &'a [f32],
    pub taps: &'a [u8],
}

/// The gradients of [`super::convolve`].
pub(crate) struct Backward<'a> {
    pub(super) plan: &'a Plan,
    pub(super) level: Level,
    pub(super) input_gradient: bool,
    pub(super) saved: Saved<'a>,
    /// Output channels rounded up to whole vectors.
    pub(super) columns: usize,
    method: Method,
}

/// How one sample is computed.
enum Method {
    /// Few input channels behind 2x2 pooling, and no gradient of the input: lookups.
    Patches(Patches),
    /// A kernel row fills whole vectors, behind pooling: sums over few values.
    Sparse(Sparse),
    /// Matrix products over all pixels.
    Dense(Dense),
}

/// Gradients of kernel and bias summed over the samples of a chunk. Kernel: sparse `[co][k]`, else `[k][columns]`.
pub(super) struct Partial {
    pub(super) kernel: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl<'a> Backward<'a> {
    pub(crate) fn new(
        level: Level,
        plan: &'a Plan,
        input_gradient: bool,
        kernel: &[f32],
        saved: Saved<'a>,
    ) -> Self {
        let patches = Patches::new(plan).filter(|_| !input_gradient);
        let method = if let Some(patches) = patches {
            Method::Patches(patches)
        } else if plan.pool.is_some() && plan.run().is_multiple_of(level.lanes()) {
            Method::Sparse(Sparse::new(plan, kernel, input_gradient))
        } else {
            Method::Dense(Dense::new(level, plan, kernel, input_gradient))
        };
        Self {
            plan,
            level,
            input_gradient,
            saved,
            columns: plan.co.next_multiple_of(level.lanes()),
            method,
        }
    }

    /// Gradients of x (empty if not wanted), kernel and bias.
    pub(crate) fn run(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let plan = self.plan;
        let input = plan.geometry.input.len();
        let n = self.saved.x.len() / input;
        let size = chunk(n);
        if let Method::Dense(dense) = &self.method
            && let Some(rows) = dense.rows_of_a_task(self, size)
        {
            return dense.by_rows(self, n, size, rows);
        }
        let chunks = (0..n.div_ceil(size)).into_par_iter();
        let range = |i: usize| (i * size, n.min((i + 1) * size));
        let (dx, partials) = if self.input_gradient {
            buffer::chunks(n * input, size * input, chunks, |i, dx| {
                self.samples(range(i), dx)
            })
        } else {
            let partials = chunks.map(|i| self.samples(range(i), &mut []));
            (Vec::new(), partials.collect())
        };
        let mut bias = vec![0.0; plan.co];
        for partial in &partials {
            add(&mut bias, &partial.bias);
        }
        (dx, self.kernel_gradient(partials), bias)
    }

    /// Adds the chunks' gradients in order: `[k][co]`.
    fn kernel_gradient(&self, partials: Vec<Partial>) -> Vec<f32> {
        let (k, co) = (self.plan.k(), self.plan.co);
        let mut partials = partials.into_iter();
        let Some(Partial {
            kernel: mut sum, ..
        }) = partials.next()
        else {
            return vec![0.0; k * co];
        };
        let rest: Vec<Partial> = partials.collect();
        const TASK: usize = 1 << 12;
        sum.par_chunks_mut(TASK).enumerate().for_each(|(i, sum)| {
            kernel::compiled(self.level, || {
                for partial in &rest {
                    let part = &partial.kernel[i * TASK..];
                    add(sum, &part[..sum.len()]);
                }
            });
        });
        for partial in rest {
            buffer::give_back(partial.kernel);
        }
        let transposed = matches!(self.method, Method::Sparse(_));
        if !transposed && self.columns == co {
            return sum;
        }
        let mut kernel = vec![0.0; k * co];
        kernel
            .par_chunks_exact_mut(co)
            .with_min_len(TASK.div_ceil(co))
            .enumerate()
            .for_each(|(row, out)| {
                if transposed {
                    for (c, out) in out.iter_mut().enumerate() {
                        *out = sum[c * k + row];
                    }
                } else {
                    out.copy_from_slice(&sum[row * self.columns..][..co]);
                }
            });
        buffer::give_back(sum);
        kernel
    }

    /// Gradients of the samples `first..end`; `dx` is their part of the input's gradient.
    fn samples(&self, (first, end): (usize, usize), dx: &mut [f32]) -> Partial {
        let plan = self.plan;
        let columns = match self.method {
            Method::Sparse(_) => plan.co,
            _ => self.columns,
        };
        let mut partial = Partial {
            kernel: buffer::take(plan.k() * columns),
            bias: vec![0.0; plan.co],
        };
        partial.kernel.fill(0.0);
        let input = plan.geometry.input.len();
        let group = match &self.method {
            Method::Dense(dense) => dense.samples_together(self).min(end - first),
            _ => 1,
        };
        let mut sample = first;
        while sample < end {
            let stop = end.min(sample + group);
            let x = &self.saved.x[sample * input..stop * input];
            let dx = match dx.len() {
                0 => &mut [][..],
                _ => &mut dx[(sample - first) * input..(stop - first) * input],
            };
            with_padding(plan, x, |x| {
                with_padding_gradient(plan, dx, |dx| match &self.method {
                    Method::Patches(patches) => patches.sample(self, sample, x, &mut partial),
                    Method::Sparse(sparse) => sparse.sample(self, sample, x, dx, &mut partial),
                    Method::Dense(dense) => {
                        dense.samples(self, sample, stop, x, dx, &mut partial);
                    }
                });
            });
            sample = stop;
        }
        partial
    }

    /// One sample's gradient before the activation: as many values as the sample's output in `out`, in rows of `columns`
    /// values (at least the channels), and added to the bias's gradient.
    pub(super) fn before_activation(
        &self,
        sample: usize,
        columns: usize,
        out: &mut [f32],
        bias: &mut [f32],
    ) {
        let (plan, co) = (self.plan, self.plan.co);
        let len = plan.output_len();
        let y = &self.saved.y[sample * len..][..len];
        let gradient = &self.saved.gradient[sample * len..][..len];
        kernel::compiled(self.level, || {
            if columns == co {
                activation::backward(plan.activation, y, gradient, out);
            } else {
                let rows = y.chunks_exact(co).zip(gradient.chunks_exact(co));
                for (out, (y, gradient)) in out.chunks_exact_mut(columns).zip(rows) {
                    activation::backward(plan.activation, y, gradient, &mut out[..co]);
                    out[co..].fill(0.0);
                }
            }
            for out in out.chunks_exact(columns) {
                add(bias, &out[..co]);
            }
        });
    }

    /// Where one sample's maxima were.
    pub(super) fn taps(&self, sample: usize) -> &[u8] {
        let len = self.plan.output_len();
        &self.saved.taps[sample * len..][..len]
    }
}

/// Calls `work` with a zero gradient of the padded sample, then takes the padding off. Without padding: with `dx` itself, made zero.
fn with_padding_gradient(plan: &Plan, dx: &mut [f32], work: impl FnOnce(&mut [f32])) {
    if dx.is_empty() || !plan.geometry.is_padded() {
        dx.fill(0.0);
        return work(dx);
    }
    let g = &plan.geometry;
    scratch::with([plan.padded_len()], |[padded]| {
        padded.fill(0.0);
        work(padded);
        let row = g.input.w * g.input.c;
        for (y, out) in dx.chunks_exact_mut(row).enumerate() {
            let start = (g.before[0] + y) * plan.pitch() + g.before[1] * g.input.c;
            out.copy_from_slice(&padded[start..start + row]);
        }
    });
}
