//! Convolution + bias + activation + max pooling as one operator.
//!
//! Forward, per sample: the windows of some pixels are copied side by side and multiplied with the packed kernel in
//! register tiles; the result is pooled while it is in the cache, and the place of each maximum is kept.
//!
//! Gradients: behind max pooling at most one value in a window has a gradient. If a kernel row fills whole vectors, sums
//! over these few values replace dense products ([`sparse`]); otherwise the gradient is spread out, the kernel's gradient is
//! a sum of outer products over the pixels, and the input's gradient is a matrix product added into the windows.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    activation, add, chunk,
    kernel::{
        Level,
        conv::{Plan, forward, pad},
        gemm::{self, Packed},
        scratch,
        sparse::{self, List, Term},
    },
    storage,
};
/// `pool(activation(conv(x) + bias))` of `x` `[n, ..]` with the plan's input values per sample, `kernel`
/// `[kh, kw, ci, co]` and `bias` `[co]`; result `[n, oh, ow, co]`. The flags say which gradients are computed besides the
/// kernel's.
pub fn operator(
    level: Level,
    plan: Plan,
    input_gradient: bool,
    bias_gradient: bool,
) -> impl CustomOp3 + Send + Sync + 'static {
    Conv {
        plan,
        level,
        input_gradient,
        bias_gradient,
        taps: OnceLock::new(),
    }
}

struct Conv {
    plan: Plan,
    level: Level,
    input_gradient: bool,
    bias_gradient: bool,
    /// Position of every maximum in its pooling window.
    taps: OnceLock<Vec<u8>>,
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = storage::values(x, x_layout)?;
        let kernel = storage::values(kernel, kernel_layout)?;
        let bias = storage::values(bias, bias_layout)?;
        let plan = &self.plan;
        let n = x_layout.dims()[0];
        if x.len() != n * plan.geometry.input.len()
            || kernel.len() != plan.k() * plan.co
            || bias.len() != plan.co
        {
            bail!(
                "conv: {plan:?} does not fit x {:?}, kernel {:?}, bias {:?}",
                x_layout.dims(),
                kernel_layout.dims(),
                bias_layout.dims()
            );
        }
        let (out, taps) = convolve(self.level, plan, x, kernel, bias);
        if self.taps.set(taps).is_err() {
            bail!("conv: an operator computes once");
        }
        let [h, w] = plan.output();
        Ok((CpuStorage::F32(out), Shape::from((n, h, w, plan.co))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        kernel: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let Some(taps) = self.taps.get() else {
            bail!("conv: gradient before the value");
        };
        let (x_storage, x_layout) = x.storage_and_layout();
        let (kernel_storage, kernel_layout) = kernel.storage_and_layout();
        let (y_storage, y_layout) = y.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let backward = Backward::new(
            self.level,
            &self.plan,
            self.input_gradient,
            storage::on_cpu(&kernel_storage, kernel_layout)?,
            Saved {
                x: storage::on_cpu(&x_storage, x_layout)?,
                y: storage::on_cpu(&y_storage, y_layout)?,
                gradient: storage::on_cpu(&gradient_storage, gradient_layout)?,
                taps,
            },
        );
        let (dx, dkernel, dbias) = backward.run();
        let device = x.device();
        let dx = if self.input_gradient {
            Some(Tensor::from_vec(dx, x.shape(), device)?)
        } else {
            None
        };
        let dkernel = Tensor::from_vec(dkernel, kernel.shape(), device)?;
        let dbias = if self.bias_gradient {
            Some(Tensor::from_vec(dbias, self.plan.co, device)?)
        } else {
            None
        };
        Ok((dx, Some(dkernel), dbias))
    }
}

/// All samples: the result, and the position of every maximum in its pooling window.
pub(super) fn convolve(
    level: Level,
    plan: &Plan,
    x: &[f32],
    kernel: &[f32],
    bias: &[f32],
) -> (Vec<f32>, Vec<u8>) {
    let (input, len) = (plan.geometry.input.len(), plan.output_len());
    let mut out = vec![0.0; x.len() / input * len];
    let mut taps = vec![0u8; if plan.pool.is_some() { out.len() } else { 0 }];
    let packed = Packed::new(level, kernel, plan.k(), plan.co, [plan.co, 1]);
    let mut padded_bias = bias.to_vec();
    padded_bias.resize(packed.padded(), 0.0);
    let one = |x: &[f32], out: &mut [f32], taps: &mut [u8]| {
        with_padding(plan, x, |x| {
            forward(level, plan, x, &packed, &padded_bias, out, taps);
        });
    };
    let samples = x.par_chunks_exact(input).zip(out.par_chunks_exact_mut(len));
    if plan.pool.is_some() {
        samples
            .zip(taps.par_chunks_exact_mut(len))
            .for_each(|((x, out), taps)| one(x, out, taps));
    } else {
        samples.for_each(|(x, out)| one(x, out, &mut []));
    }
    (out, taps)
}

/// Calls `work` with the sample in its zero padding, or as it is if it has none.
fn with_padding(plan: &Plan, x: &[f32], work: impl FnOnce(&[f32])) {
    if plan.geometry.is_padded() {
        scratch::with([plan.padded_len()], |[padded]| {
            pad(plan, x, padded);
            work(padded);
        });
    } else {
        work(x);
    }
}

/// What the forward pass left; all samples.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub x: &'a [f32],
    pub y: &'a [f32],
    pub gradient: &'a [f32],
    pub taps: &'a [u8],
}

/// The gradients of [`convolve`].
pub(super) struct Backward<'a> {
    plan: &'a Plan,
    level: Level,
    input_gradient: bool,
    saved: Saved<'a>,
    /// Sums over few values instead of dense products.
    sparse: bool,
    /// For the input's gradient: dense: the transposed kernel `[co, k]`.
    transposed: Option<Packed>,
    /// Sparse: `[kh][co][kw * ci]`.
    rows: Vec<f32>,
    /// Output channels rounded up to whole vectors.
    columns: usize,
    /// The window starts of all pixels of the computed area, row-major.
    starts: Vec<usize>,
}

/// Gradients of kernel and bias summed over the samples of a chunk. Kernel: dense `[k][columns]`, sparse `[co][k]`.
struct Partial {
    kernel: Vec<f32>,
    bias: Vec<f32>,
}

impl<'a> Backward<'a> {
    pub(super) fn new(
        level: Level,
        plan: &'a Plan,
        input_gradient: bool,
        kernel: &[f32],
        saved: Saved<'a>,
    ) -> Self {
        let (run, co) = (plan.run(), plan.co);
        let sparse = plan.pool.is_some() && run.is_multiple_of(level.lanes());
        let mut rows = Vec::new();
        let mut transposed = None;
        if input_gradient && sparse {
            rows = vec![0.0; kernel.len()];
            rows.par_chunks_exact_mut(run)
                .enumerate()
                .for_each(|(i, out)| {
                    let (ky, c) = (i / co, i % co);
                    for (j, out) in out.iter_mut().enumerate() {
                        *out = kernel[(ky * run + j) * co + c];
                    }
                });
        } else if input_gradient {
            transposed = Some(Packed::new(level, kernel, co, plan.k(), [1, co]));
        }
        let area = plan.area();
        let starts = (0..area.h)
            .flat_map(|y| (0..area.w).map(move |x| plan.start(y, x)))
            .collect();
        Self {
            plan,
            level,
            input_gradient,
            saved,
            sparse,
            transposed,
            rows,
            columns: co.next_multiple_of(level.lanes()),
            starts,
        }
    }

    /// Gradients of x (empty if not wanted), kernel and bias.
    pub(super) fn run(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let plan = self.plan;
        let input = plan.geometry.input.len();
        let n = self.saved.x.len() / input;
        let size = chunk(n);
        let mut dx = vec![0.0; if self.input_gradient { n * input } else { 0 }];
        let partials: Vec<Partial> = if self.input_gradient {
            dx.par_chunks_mut(size * input)
                .enumerate()
                .map(|(i, dx)| self.samples(i * size, n.min((i + 1) * size), dx))
                .collect()
        } else {
            (0..n.div_ceil(size))
                .into_par_iter()
                .map(|i| self.samples(i * size, n.min((i + 1) * size), &mut []))
                .collect()
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
            for partial in &rest {
                let part = &partial.kernel[i * TASK..];
                add(sum, &part[..sum.len()]);
            }
        });
        if !self.sparse && self.columns == co {
            return sum;
        }
        let mut kernel = vec![0.0; k * co];
        kernel
            .par_chunks_exact_mut(co)
            .enumerate()
            .for_each(|(row, out)| {
                if self.sparse {
                    for (c, out) in out.iter_mut().enumerate() {
                        *out = sum[c * k + row];
                    }
                } else {
                    out.copy_from_slice(&sum[row * self.columns..][..co]);
                }
            });
        kernel
    }

    /// Gradients of the samples `first..end`; `dx` is their part of the input's gradient.
    fn samples(&self, first: usize, end: usize, dx: &mut [f32]) -> Partial {
        let plan = self.plan;
        let mut partial = Partial {
            kernel: vec![0.0; plan.k() * if self.sparse { plan.co } else { self.columns }],
            bias: vec![0.0; plan.co],
        };
        let input = plan.geometry.input.len();
        let terms = plan.output_len();
        let mut work = if self.sparse {
            Work::new(plan, terms)
        } else {
            Work::default()
        };
        // as many samples together as keep the spread-out gradient in the cache
        let dense = self.starts.len() * self.columns;
        let group = if self.sparse || plan.geometry.is_padded() {
            1
        } else {
            ((1 << 15) / dense.max(1)).clamp(1, end - first)
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
                with_padding_gradient(plan, dx, |dx| {
                    if self.sparse {
                        self.sparse_sample(sample, x, dx, &mut partial, &mut work);
                    } else {
                        self.dense_samples(sample, stop, x, dx, &mut partial);
                    }
                });
            });
            sample = stop;
        }
        partial
    }

    /// One sample behind max pooling.
    fn sparse_sample(
        &self,
        sample: usize,
        x: &[f32],
        dx: &mut [f32],
        partial: &mut Partial,
        work: &mut Work,
    ) {
        let Some(pool) = &self.plan.pool else { return };
        let (plan, co, run, pitch) = (self.plan, self.plan.co, self.plan.run(), self.plan.pitch());
        let len = plan.output_len();
        let y = &self.saved.y[sample * len..][..len];
        let taps = &self.saved.taps[sample * len..][..len];
        let gradient = &self.saved.gradient[sample * len..][..len];
        let size = pool.size[0] * pool.size[1];
        let windows = len / co;

        // terms by output channel (for the kernel) and by pixel (for the input)
        work.channels.fill(0);
        work.pixels.fill(0);
        for window in 0..windows {
            let (wy, wx) = (window / pool.output[1], window % pool.output[1]);
            let first = window * size;
            for tap in 0..size {
                let py = (wy * pool.stride[0] + tap / pool.size[1]).wrapping_sub(pool.before[0]);
                let px = (wx * pool.stride[1] + tap % pool.size[1]).wrapping_sub(pool.before[1]);
                // a tap in the padding is never the maximum
                work.starts[tap] =
                    plan.start(py.min(plan.area().h - 1), px.min(plan.area().w - 1)) as u32;
            }
            let at = window * co;
            for c in 0..co {
                let scale = gradient[at + c] * activation::derivative(plan.activation, y[at + c]);
                let tap = taps[at + c] as usize;
                partial.bias[c] += scale;
                let keep = usize::from(scale != 0.0);
                let channel = &mut work.channels[c];
                work.by_channel[c * windows + *channel] = Term {
                    offset: work.starts[tap],
                    scale,
                };
                *channel += keep;
                let pixel = &mut work.pixels[first + tap];
                work.by_pixel[(first + tap) * co + *pixel] = Term {
                    offset: (c * run) as u32,
                    scale,
                };
                *pixel += keep;
            }
            for tap in 0..size {
                work.targets[first + tap] = work.starts[tap] as usize;
            }
        }

        for ky in 0..plan.geometry.size[0] {
            work.lists.clear();
            work.lists
                .extend(work.channels.iter().enumerate().map(|(c, &len)| List {
                    start: c * windows,
                    len,
                    target: c * plan.k() + ky * run,
                }));
            sparse::accumulate(
                self.level,
                run,
                &x[ky * pitch..],
                &work.by_channel,
                &work.lists,
                &mut partial.kernel,
            );
            if dx.is_empty() {
                continue;
            }
            work.lists.clear();
            work.lists
                .extend(work.pixels.iter().enumerate().map(|(i, &len)| List {
                    start: i * co,
                    len,
                    target: work.targets[i] + ky * pitch,
                }));
            sparse::accumulate(
                self.level,
                run,
                &self.rows[ky * co * run..],
                &work.by_pixel,
                &work.lists,
                dx,
            );
        }
    }

    /// Samples `first..end`, their gradient spread out to all pixels.
    fn dense_samples(
        &self,
        first: usize,
        end: usize,
        x: &[f32],
        dx: &mut [f32],
        partial: &mut Partial,
    ) {
        let (plan, columns) = (self.plan, self.columns);
        let pixels = self.starts.len();
        let count = end - first;
        let sample_len = x.len() / count;
        scratch::with([count * pixels * columns], |[dz]| {
            for (i, dz) in dz.chunks_exact_mut(pixels * columns).enumerate() {
                self.spread(first + i, dz, &mut partial.bias);
            }
            let offsets: Vec<usize> = (0..count)
                .flat_map(|i| self.starts.iter().map(move |start| i * sample_len + start))
                .collect();
            let (run, pitch) = (plan.run(), plan.pitch());
            for (ky, kernel) in partial.kernel.chunks_exact_mut(run * columns).enumerate() {
                gemm::outer(
                    self.level,
                    run,
                    &x[ky * pitch..],
                    &offsets,
                    dz,
                    columns,
                    kernel,
                );
            }
            if let Some(transposed) = &self.transposed {
                self.add_windows(&offsets, dz, transposed, dx);
            }
        });
    }

    /// `dx += dz * transposed kernel`, into the windows that start at `offsets`.
    fn add_windows(&self, offsets: &[usize], dz: &[f32], transposed: &Packed, dx: &mut [f32]) {
        const BLOCK: usize = 12;
        let (run, pitch) = (self.plan.run(), self.plan.pitch());
        let k = transposed.padded();
        scratch::with([BLOCK * k, k], |[windows, zero]| {
            zero.fill(0.0);
            for (offsets, dz) in offsets.chunks(BLOCK).zip(dz.chunks(BLOCK * self.columns)) {
                gemm::gemm(
                    self.level,
                    offsets.len(),
                    dz,
                    self.columns,
                    transposed,
                    zero,
                    windows,
                );
                for (&offset, window) in offsets.iter().zip(windows.chunks_exact(k)) {
                    for ky in 0..self.plan.geometry.size[0] {
                        let to = offset + ky * pitch;
                        add(&mut dx[to..to + run], &window[ky * run..]);
                    }
                }
            }
        });
    }

    /// One sample's gradient before pooling and activation, `[pixels][columns]`; also adds to the bias's gradient.
    fn spread(&self, sample: usize, dz: &mut [f32], bias: &mut [f32]) {
        let (plan, co, columns) = (self.plan, self.plan.co, self.columns);
        let len = plan.output_len();
        let y = &self.saved.y[sample * len..][..len];
        let gradient = &self.saved.gradient[sample * len..][..len];
        match &plan.pool {
            None => {
                for ((dz, y), gradient) in dz
                    .chunks_exact_mut(columns)
                    .zip(y.chunks_exact(co))
                    .zip(gradient.chunks_exact(co))
                {
                    activation::backward(plan.activation, y, gradient, &mut dz[..co]);
                    dz[co..].fill(0.0);
                    add(bias, &dz[..co]);
                }
            }
            Some(pool) => {
                dz.fill(0.0);
                let taps = &self.saved.taps[sample * len..][..len];
                let w = plan.area().w;
                for (window, at) in (0..len).step_by(co).enumerate() {
                    let top = window / pool.output[1] * pool.stride[0];
                    let left = window % pool.output[1] * pool.stride[1];
                    for c in 0..co {
                        let value =
                            gradient[at + c] * activation::derivative(plan.activation, y[at + c]);
                        let tap = taps[at + c] as usize;
                        let py = top + tap / pool.size[1] - pool.before[0];
                        let px = left + tap % pool.size[1] - pool.before[1];
                        dz[(py * w + px) * columns + c] += value;
                        bias[c] += value;
                    }
                }
            }
        }
    }
}

/// Calls `work` with a zero gradient of the padded sample, then takes the padding off. Without padding: with `dx` itself.
fn with_padding_gradient(plan: &Plan, dx: &mut [f32], work: impl FnOnce(&mut [f32])) {
    if dx.is_empty() || !plan.geometry.is_padded() {
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

/// Buffers of [`Backward::sparse_sample`].
#[derive(Default)]
struct Work {
    /// Number of terms of every output channel, and of every position in every pooling window.
    channels: Vec<usize>,
    pixels: Vec<usize>,
    by_channel: Vec<Term>,
    by_pixel: Vec<Term>,
    /// Window start of every position of the present pooling window, and of all.
    starts: Vec<u32>,
    targets: Vec<usize>,
    lists: Vec<List>,
}

impl Work {
    fn new(plan: &Plan, values: usize) -> Self {
        let taps = plan.pool.map_or(0, |pool| pool.size[0] * pool.size[1]);
        let pixels = values / plan.co * taps;
        Self {
            channels: vec![0; plan.co],
            pixels: vec![0; pixels],
            // one more, because a term that is not kept is written too
            by_channel: vec![Term::default(); values + 1],
            by_pixel: vec![Term::default(); pixels * plan.co + 1],
            starts: vec![0; taps],
            targets: vec![0; pixels],
            lists: Vec::with_capacity(plan.co.max(pixels)),
        }
    }
}
