//! Grouped and depthwise convolution on the CPU. With one input channel per group (depthwise) the loops over the channels
//! are innermost; otherwise every group is a convolution of its own ([`super::conv`]).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    add, chunk,
    conv::{Backward, Saved, convolve},
    geometry::Geometry,
    kernel::{Level, conv::Plan},
    storage,
};
use crate::architecture::Activation;

/// `conv(x) + bias` with every group of input channels on its own. Of `x` `[n, ..]` with the geometry's input values per
/// sample, `kernel` `[kh, kw, ci / groups, co]` and `bias` `[co]`; result `[n, oh, ow, co]`. The flags say which gradients are
/// computed besides the kernel's.
pub fn operator(
    level: Level,
    geometry: Geometry,
    groups: usize,
    co: usize,
    input_gradient: bool,
    bias_gradient: bool,
) -> impl CustomOp3 + Send + Sync + 'static {
    Grouped {
        level,
        geometry,
        groups,
        co,
        input_gradient,
        bias_gradient,
    }
}

struct Grouped {
    level: Level,
    geometry: Geometry,
    groups: usize,
    co: usize,
    input_gradient: bool,
    bias_gradient: bool,
}

impl Grouped {
    fn is_depthwise(&self) -> bool {
        self.groups == self.geometry.input.c
    }

    /// One group as a convolution.
    fn plan(&self) -> Plan {
        let mut geometry = self.geometry;
        geometry.input.c /= self.groups;
        Plan {
            geometry,
            co: self.co / self.groups,
            activation: Activation::Linear,
            pool: None,
        }
    }

    fn forward(&self, x: &[f32], kernel: &[f32], bias: &[f32]) -> Vec<f32> {
        if self.is_depthwise() {
            let x = repeat(x, self.co / self.groups);
            return self.depthwise().forward(&x, kernel, bias);
        }
        let plan = self.plan();
        let pixels = x.len() / self.geometry.input.len() * plan.output_len() / plan.co;
        let mut out = vec![0.0; pixels * self.co];
        for group in 0..self.groups {
            let (y, _) = convolve(
                self.level,
                &plan,
                &take(x, self.groups, group, plan.geometry.input.c),
                &take(kernel, self.groups, group, plan.co),
                &bias[group * plan.co..][..plan.co],
            );
            put(&mut out, self.groups, group, plan.co, &y);
        }
        out
    }

    /// Gradients of x (if wanted) and kernel.
    fn backward(&self, x: &[f32], kernel: &[f32], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        if self.is_depthwise() {
            let multiplier = self.co / self.groups;
            let x = repeat(x, multiplier);
            let (dx, dkernel) =
                self.depthwise()
                    .backward(&x, kernel, gradient, self.input_gradient);
            return (sum_repeated(dx, multiplier), dkernel);
        }
        let plan = self.plan();
        let mut dx = vec![0.0; if self.input_gradient { x.len() } else { 0 }];
        let mut dkernel = vec![0.0; kernel.len()];
        for group in 0..self.groups {
            let gradient = take(gradient, self.groups, group, plan.co);
            let saved = Saved {
                x: &take(x, self.groups, group, plan.geometry.input.c),
                y: &gradient, // not read: the activation is linear
                gradient: &gradient,
                taps: &[],
            };
            let kernel = take(kernel, self.groups, group, plan.co);
            let backward = Backward::new(self.level, &plan, self.input_gradient, &kernel, saved);
            let (group_dx, group_dkernel, _) = backward.run();
            if self.input_gradient {
                put(
                    &mut dx,
                    self.groups,
                    group,
                    plan.geometry.input.c,
                    &group_dx,
                );
            }
            put(&mut dkernel, self.groups, group, plan.co, &group_dkernel);
        }
        (dx, dkernel)
    }

    /// As many input as output channels.
    fn depthwise(&self) -> Depthwise {
        let mut geometry = self.geometry;
        geometry.input.c = self.co;
        Depthwise(geometry)
    }
}

/// The columns of one group: rows of `groups * width` values to rows of `width`.
fn take(values: &[f32], groups: usize, group: usize, width: usize) -> Vec<f32> {
    values
        .chunks_exact(groups * width)
        .flat_map(|row| &row[group * width..][..width])
        .copied()
        .collect()
}

/// The inverse of [`take`].
fn put(out: &mut [f32], groups: usize, group: usize, width: usize, values: &[f32]) {
    for (row, values) in out
        .chunks_exact_mut(groups * width)
        .zip(values.chunks_exact(width))
    {
        row[group * width..][..width].copy_from_slice(values);
    }
}

/// Every value `times` times in a row.
fn repeat(values: &[f32], times: usize) -> Vec<f32> {
    values
        .iter()
        .flat_map(|&value| std::iter::repeat_n(value, times))
        .collect()
}

/// The gradient of [`repeat`].
fn sum_repeated(values: Vec<f32>, times: usize) -> Vec<f32> {
    if times == 1 {
        return values;
    }
    values
        .chunks_exact(times)
        .map(|values| values.iter().sum())
        .collect()
}

/// Every channel with its own kernel: `y[oy, ox, c] = bias[c] + sum x[oy * sh + ky - top, ox * sw + kx - left, c] * kernel[ky, kx, c]`.
struct Depthwise(Geometry);

impl Depthwise {
    fn output_len(&self) -> usize {
        self.0.output[0] * self.0.output[1] * self.0.input.c
    }

    /// Calls `work(output pixel, input pixel, kernel position)`, all as offsets of their first channel, for every product.
    fn for_each(&self, mut work: impl FnMut(usize, usize, usize)) {
        let g = &self.0;
        let c = g.input.c;
        for oy in 0..g.output[0] {
            for ox in 0..g.output[1] {
                for ky in 0..g.size[0] {
                    let y = (oy * g.stride[0] + ky).wrapping_sub(g.before[0]);
                    if y >= g.input.h {
                        continue;
                    }
                    for kx in 0..g.size[1] {
                        let x = (ox * g.stride[1] + kx).wrapping_sub(g.before[1]);
                        if x < g.input.w {
                            let to = (oy * g.output[1] + ox) * c;
                            let from = (y * g.input.w + x) * c;
                            work(to, from, (ky * g.size[1] + kx) * c);
                        }
                    }
                }
            }
        }
    }

    fn forward(&self, x: &[f32], kernel: &[f32], bias: &[f32]) -> Vec<f32> {
        let (c, input) = (self.0.input.c, self.0.input.len());
        let mut out = vec![0.0; x.len() / input * self.output_len()];
        out.par_chunks_exact_mut(self.output_len())
            .zip(x.par_chunks_exact(input))
            .for_each(|(out, x)| {
                for out in out.chunks_exact_mut(c) {
                    out.copy_from_slice(bias);
                }
                self.for_each(|to, from, k| {
                    multiply_add(&mut out[to..to + c], &x[from..from + c], &kernel[k..k + c]);
                });
            });
        out
    }

    fn backward(
        &self,
        x: &[f32],
        kernel: &[f32],
        gradient: &[f32],
        input_gradient: bool,
    ) -> (Vec<f32>, Vec<f32>) {
        let (c, input, output) = (self.0.input.c, self.0.input.len(), self.output_len());
        let size = chunk(x.len() / input);
        let partials: Vec<Vec<f32>> = x
            .par_chunks(size * input)
            .zip(gradient.par_chunks(size * output))
            .map(|(x, dy)| {
                let mut sum = vec![0.0; kernel.len()];
                for (x, dy) in x.chunks_exact(input).zip(dy.chunks_exact(output)) {
                    self.for_each(|to, from, k| {
                        multiply_add(&mut sum[k..k + c], &x[from..from + c], &dy[to..to + c]);
                    });
                }
                sum
            })
            .collect();
        let mut dkernel = vec![0.0; kernel.len()];
        for partial in &partials {
            add(&mut dkernel, partial);
        }
        let mut dx = vec![0.0; if input_gradient { x.len() } else { 0 }];
        dx.par_chunks_exact_mut(input)
            .zip(gradient.par_chunks_exact(output))
            .for_each(|(dx, dy)| {
                self.for_each(|to, from, k| {
                    multiply_add(&mut dx[from..from + c], &dy[to..to + c], &kernel[k..k + c]);
                });
            });
        (dx, dkernel)
    }
}

/// `out[i] += a[i] * b[i]`.
fn multiply_add(out: &mut [f32], a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out += a * b;
    }
}

impl CustomOp3 for Grouped {
    fn name(&self) -> &'static str {
        "grouped-conv"
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
        let g = &self.geometry;
        let x = storage::values(x, x_layout)?;
        let kernel = storage::values(kernel, kernel_layout)?;
        let bias = storage::values(bias, bias_layout)?;
        let n = x_layout.dims()[0];
        let k = g.size[0] * g.size[1] * g.input.c / self.groups;
        if x.len() != n * g.input.len() || kernel.len() != k * self.co || bias.len() != self.co {
            bail!(
                "grouped-conv: {g:?} does not fit x {:?}, kernel {:?}, bias {:?}",
                x_layout.dims(),
                kernel_layout.dims(),
                bias_layout.dims()
            );
        }
        let out = self.forward(x, kernel, bias);
        let shape = Shape::from((n, g.output[0], g.output[1], self.co));
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        kernel: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (kernel_storage, kernel_layout) = kernel.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let gradient = storage::on_cpu(&gradient_storage, gradient_layout)?;
        let (dx, dkernel) = self.backward(
            storage::on_cpu(&x_storage, x_layout)?,
            storage::on_cpu(&kernel_storage, kernel_layout)?,
            gradient,
        );
        let device = x.device();
        let dx = if self.input_gradient {
            Some(Tensor::from_vec(dx, x.shape(), device)?)
        } else {
            None
        };
        let dkernel = Tensor::from_vec(dkernel, kernel.shape(), device)?;
        let dbias = if self.bias_gradient {
            let mut sum = vec![0.0; self.co];
            for gradient in gradient.chunks_exact(self.co) {
                add(&mut sum, gradient);
            }
            Some(Tensor::from_vec(sum, self.co, device)?)
        } else {
            None
        };
        Ok((dx, Some(dkernel), dbias))
    }
}
