//! Depthwise convolution on the CPU: every channel with its own kernel, parallel over the samples, loops over the channels innermost.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{add, chunk, geometry::Geometry, storage};

/// `y[oy, ox, c] = sum x[oy * sh + ky - top, ox * sw + kx - left, c] * kernel[ky, kx, c]`. `x` `[n, ..]` with the geometry's
/// input values per sample, `kernel` `[kh, kw, 1, c]`; result `[n, oh, ow, c]`.
pub fn depthwise(x: &Tensor, kernel: &Tensor, geometry: &Geometry) -> Result<Tensor> {
    let operator = Depthwise {
        geometry: *geometry,
        input_gradient: x.track_op(),
    };
    x.contiguous()?.apply_op2(&kernel.contiguous()?, operator)
}

struct Depthwise {
    geometry: Geometry,
    input_gradient: bool,
}

impl Depthwise {
    /// Calls `work(output pixel, input pixel, kernel position)`, all as offsets of their first channel, for every product.
    fn for_each(&self, mut work: impl FnMut(usize, usize, usize)) {
        let g = &self.geometry;
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
                            let c = g.input.c;
                            work(
                                (oy * g.output[1] + ox) * c,
                                (y * g.input.w + x) * c,
                                (ky * g.size[1] + kx) * c,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// `out[i] += a[i] * b[i]`.
fn multiply_add(out: &mut [f32], a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out += a * b;
    }
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let x = storage::values(x, x_layout)?;
        let kernel = storage::values(kernel, kernel_layout)?;
        let (n, c) = (x_layout.dims()[0], g.input.c);
        if x.len() != n * g.input.len() || kernel.len() != g.size[0] * g.size[1] * c {
            bail!(
                "depthwise: {g:?} does not fit x {:?}, kernel {:?}",
                x_layout.dims(),
                kernel_layout.dims()
            );
        }
        let shape = Shape::from((n, g.output[0], g.output[1], c));
        let mut out = vec![0.0; shape.elem_count()];
        out.par_chunks_exact_mut(g.output[0] * g.output[1] * c)
            .zip(x.par_chunks_exact(g.input.len()))
            .for_each(|(out, x)| {
                self.for_each(|to, from, k| {
                    multiply_add(&mut out[to..to + c], &x[from..from + c], &kernel[k..k + c]);
                });
            });
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        kernel: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (kernel_storage, kernel_layout) = kernel.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let values = storage::on_cpu(&x_storage, x_layout)?;
        let weights = storage::on_cpu(&kernel_storage, kernel_layout)?;
        let dy = storage::on_cpu(&gradient_storage, gradient_layout)?;
        let g = &self.geometry;
        let (c, input) = (g.input.c, g.input.len());
        let output = g.output[0] * g.output[1] * c;
        let n = values.len() / input;
        let size = chunk(n);
        let partials: Vec<Vec<f32>> = values
            .par_chunks(size * input)
            .zip(dy.par_chunks(size * output))
            .map(|(x, dy)| {
                let mut sum = vec![0.0; weights.len()];
                for (x, dy) in x.chunks_exact(input).zip(dy.chunks_exact(output)) {
                    self.for_each(|to, from, k| {
                        multiply_add(&mut sum[k..k + c], &x[from..from + c], &dy[to..to + c]);
                    });
                }
                sum
            })
            .collect();
        let mut dkernel = vec![0.0; weights.len()];
        for partial in &partials {
            add(&mut dkernel, partial);
        }
        let dx = if self.input_gradient {
            let mut dx = vec![0.0; values.len()];
            dx.par_chunks_exact_mut(input)
                .zip(dy.par_chunks_exact(output))
                .for_each(|(dx, dy)| {
                    self.for_each(|to, from, k| {
                        multiply_add(&mut dx[from..from + c], &dy[to..to + c], &weights[k..k + c]);
                    });
                });
            Some(Tensor::from_vec(dx, x.shape(), x.device())?)
        } else {
            None
        };
        let dkernel = Tensor::from_vec(dkernel, kernel.shape(), x.device())?;
        Ok((dx, Some(dkernel)))
    }
}
