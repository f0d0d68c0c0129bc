//! Dense layer: matrix product + bias + activation as one operator.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    activation, add,
    kernel::{
        Level, buffer,
        gemm::{self, Packed},
        scratch,
    },
    storage,
};
use crate::architecture::Activation;

/// Samples of a task: the rows of one or two register tiles.
const ROWS: usize = 12;

/// `activation(x * kernel + bias)` of `x` `[n, ..]` with `in` values per sample, `kernel` `[in, units]` and `bias` `[units]`;
/// result `[n, units]`. The flags say which gradients are computed besides the kernel's.
pub fn operator(
    level: Level,
    activation: Activation,
    input_gradient: bool,
    bias_gradient: bool,
) -> impl CustomOp3 + Send + Sync + 'static {
    Dense {
        activation,
        level,
        input_gradient,
        bias_gradient,
    }
}

struct Dense {
    activation: Activation,
    level: Level,
    input_gradient: bool,
    bias_gradient: bool,
}

impl CustomOp3 for Dense {
    fn name(&self) -> &'static str {
        "dense"
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
        let (k, units) = kernel_layout.shape().dims2()?;
        let x = storage::values(x, x_layout)?;
        let kernel = storage::values(kernel, kernel_layout)?;
        let bias = storage::values(bias, bias_layout)?;
        let n = x_layout.dims()[0];
        if x.len() != n * k || bias.len() != units {
            bail!(
                "dense: kernel [{k}, {units}] does not fit x {:?}, bias {:?}",
                x_layout.dims(),
                bias_layout.dims()
            );
        }
        let packed = Packed::new(self.level, kernel, k, units, [units, 1]);
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(packed.padded(), 0.0);
        let x = x.par_chunks(ROWS * k);
        let (out, _) = buffer::chunks(n * units, ROWS * units, x, |x, out| {
            let rows = x.len() / k;
            multiply(self.level, rows, x, k, &packed, &padded_bias, units, out);
            activation::apply(self.activation, out);
        });
        Ok((CpuStorage::F32(out), Shape::from((n, units))))
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
        let (k, units) = kernel.dims2()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (kernel_storage, kernel_layout) = kernel.storage_and_layout();
        let (y_storage, y_layout) = y.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let values = storage::on_cpu(&x_storage, x_layout)?;
        let kernel_values = storage::on_cpu(&kernel_storage, kernel_layout)?;
        let y = storage::on_cpu(&y_storage, y_layout)?;
        let gradient = storage::on_cpu(&gradient_storage, gradient_layout)?;
        let n = y.len() / units;
        let columns = units.next_multiple_of(self.level.lanes());

        // before the activation: [n][columns]
        let mut dz = buffer::take(n * columns);
        dz.par_chunks_exact_mut(columns)
            .zip(y.par_chunks_exact(units))
            .zip(gradient.par_chunks_exact(units))
            .with_min_len(64)
            .for_each(|((dz, y), gradient)| {
                activation::backward(self.activation, y, gradient, &mut dz[..units]);
                dz[units..].fill(0.0);
            });
        let mut dbias = vec![0.0; units];
        for dz in dz.chunks_exact(columns) {
            add(&mut dbias, dz);
        }

        let offsets: Vec<usize> = (0..n).map(|i| i * k).collect();
        let mut dkernel = vec![0.0; k * units];
        // rows of the kernel per task: whole register tiles
        const TASK: usize = 48;
        dkernel
            .par_chunks_mut(TASK * units)
            .enumerate()
            .for_each(|(i, out)| {
                let rows = out.len() / units;
                scratch::with([rows * columns], |[sum]| {
                    sum.fill(0.0);
                    let x = &values[i * TASK..];
                    gemm::outer(self.level, rows, x, &offsets, &dz, columns, sum);
                    for (out, sum) in out.chunks_exact_mut(units).zip(sum.chunks_exact(columns)) {
                        out.copy_from_slice(&sum[..units]);
                    }
                });
            });

        let device = x.device();
        let dx = if self.input_gradient {
            let transposed = Packed::new(self.level, kernel_values, units, k, [1, units]);
            let zero = vec![0.0; transposed.padded()];
            let with = dz.par_chunks(ROWS * columns);
            let (dx, _) = buffer::chunks(n * k, ROWS * k, with, |dz, dx| {
                let rows = dx.len() / k;
                multiply(self.level, rows, dz, columns, &transposed, &zero, k, dx);
            });
            Some(Tensor::from_vec(dx, x.shape(), device)?)
        } else {
            None
        };
        buffer::give_back(dz);
        let dkernel = Tensor::from_vec(dkernel, kernel.shape(), device)?;
        let dbias = if self.bias_gradient {
            Some(Tensor::from_vec(dbias, units, device)?)
        } else {
            None
        };
        Ok((dx, Some(dkernel), dbias))
    }
}

/// `out[i] = a[i] * b + bias` without the padding columns.
#[allow(clippy::too_many_arguments)]
fn multiply(
    level: Level,
    rows: usize,
    a: &[f32],
    lda: usize,
    b: &Packed,
    bias: &[f32],
    columns: usize,
    out: &mut [f32],
) {
    if b.padded() == columns {
        return gemm::gemm(level, rows, a, lda, b, bias, out);
    }
    scratch::with([rows * b.padded()], |[padded]| {
        gemm::gemm(level, rows, a, lda, b, bias, padded);
        for (out, padded) in out
            .chunks_exact_mut(columns)
            .zip(padded.chunks_exact(b.padded()))
        {
            out.copy_from_slice(&padded[..columns]);
        }
    });
}
