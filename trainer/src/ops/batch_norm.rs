//! Batch normalization with the statistics of the batch.
//!
//! `y = gamma * (x - mean) / sqrt(variance + epsilon) + beta` for every channel, mean and biased variance over all other
//! axes. With `h = (x - mean) / sqrt(variance + epsilon)` and `m` values per channel:
//! `dbeta = sum dy`, `dgamma = sum dy h`, `dx = gamma / sqrt(variance + epsilon) * (dy - dbeta / m - h dgamma / m)`.
//! Sums are made in f64 over chunks of samples, the chunks added in order.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{chunk, storage};

/// Mean and biased variance of every channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// `[c]`.
    pub mean: Vec<f32>,
    /// `[c]`.
    pub variance: Vec<f32>,
}

/// Normalizes `x` `[n, ..., c]` with `gamma` and `beta` `[c]`. The second value holds the batch's moments after the forward pass.
pub fn operator(
    epsilon: f32,
) -> (
    impl CustomOp3 + Send + Sync + 'static,
    Arc<OnceLock<Moments>>,
) {
    let moments = Arc::new(OnceLock::new());
    let operator = BatchNorm {
        epsilon,
        moments: moments.clone(),
    };
    (operator, moments)
}

struct BatchNorm {
    epsilon: f32,
    moments: Arc<OnceLock<Moments>>,
}

/// Sums of `terms(sample values)` over all samples; `terms` adds to `2 * c` sums.
fn sums(
    samples: usize,
    c: usize,
    terms: impl Fn(std::ops::Range<usize>, &mut [f64]) + Sync,
) -> Vec<f64> {
    let size = chunk(samples);
    let partials: Vec<Vec<f64>> = (0..samples.div_ceil(size))
        .into_par_iter()
        .map(|i| {
            let mut sums = vec![0.0; 2 * c];
            terms(i * size..samples.min((i + 1) * size), &mut sums);
            sums
        })
        .collect();
    let mut total = vec![0.0; 2 * c];
    for partial in partials {
        for (total, partial) in total.iter_mut().zip(partial) {
            *total += partial;
        }
    }
    total
}

impl BatchNorm {
    fn inverse_deviation(&self, moments: &Moments) -> Vec<f32> {
        let inverse = |v: &f32| 1.0 / (v + self.epsilon).sqrt();
        moments.variance.iter().map(inverse).collect()
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
        beta: &CpuStorage,
        beta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = storage::values(x, x_layout)?;
        let gamma = storage::values(gamma, gamma_layout)?;
        let beta = storage::values(beta, beta_layout)?;
        let (n, c) = (x_layout.dims()[0], gamma.len());
        let len = x.len() / n.max(1);
        if beta.len() != c || c == 0 || !len.is_multiple_of(c) || len == 0 {
            bail!("batch-norm: {c} channels do not fit {:?}", x_layout.dims());
        }
        let count = (x.len() / c) as f64;
        let first = sums(n, c, |samples, sums| {
            for x in x[samples.start * len..samples.end * len].chunks_exact(c) {
                for (sum, &x) in sums.iter_mut().zip(x) {
                    *sum += f64::from(x);
                }
            }
        });
        let mean: Vec<f64> = first[..c].iter().map(|sum| sum / count).collect();
        let second = sums(n, c, |samples, sums| {
            for x in x[samples.start * len..samples.end * len].chunks_exact(c) {
                for ((sum, &x), mean) in sums.iter_mut().zip(x).zip(&mean) {
                    *sum += (f64::from(x) - mean).powi(2);
                }
            }
        });
        let moments = Moments {
            mean: mean.iter().map(|&v| v as f32).collect(),
            variance: second[..c].iter().map(|sum| (sum / count) as f32).collect(),
        };
        let inverse = self.inverse_deviation(&moments);
        let mut y = vec![0.0; x.len()];
        y.par_chunks_exact_mut(len)
            .zip(x.par_chunks_exact(len))
            .for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    for i in 0..c {
                        y[i] = (x[i] - moments.mean[i]) * (inverse[i] * gamma[i]) + beta[i];
                    }
                }
            });
        if self.moments.set(moments).is_err() {
            bail!("batch-norm: an operator computes once");
        }
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        _beta: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let Some(moments) = self.moments.get() else {
            bail!("batch-norm: gradient before the value");
        };
        let (x_storage, x_layout) = x.storage_and_layout();
        let (gamma_storage, gamma_layout) = gamma.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let values = storage::on_cpu(&x_storage, x_layout)?;
        let scale = storage::on_cpu(&gamma_storage, gamma_layout)?;
        let dy = storage::on_cpu(&gradient_storage, gradient_layout)?;
        let (n, c) = (x.dim(0)?, scale.len());
        let len = values.len() / n.max(1);
        let inverse = self.inverse_deviation(moments);
        let totals = sums(n, c, |samples, sums| {
            let range = samples.start * len..samples.end * len;
            let (dbeta, dgamma) = sums.split_at_mut(c);
            for (x, dy) in values[range.clone()]
                .chunks_exact(c)
                .zip(dy[range].chunks_exact(c))
            {
                for i in 0..c {
                    dbeta[i] += f64::from(dy[i]);
                    dgamma[i] += f64::from(dy[i] * (x[i] - moments.mean[i]) * inverse[i]);
                }
            }
        });
        let dbeta: Vec<f32> = totals[..c].iter().map(|&v| v as f32).collect();
        let dgamma: Vec<f32> = totals[c..].iter().map(|&v| v as f32).collect();
        let count = (values.len() / c) as f32;
        let mut dx = vec![0.0; values.len()];
        dx.par_chunks_exact_mut(len)
            .zip(values.par_chunks_exact(len))
            .zip(dy.par_chunks_exact(len))
            .for_each(|((dx, x), dy)| {
                for ((dx, x), dy) in dx
                    .chunks_exact_mut(c)
                    .zip(x.chunks_exact(c))
                    .zip(dy.chunks_exact(c))
                {
                    for i in 0..c {
                        let h = (x[i] - moments.mean[i]) * inverse[i];
                        dx[i] =
                            scale[i] * inverse[i] * (dy[i] - (dbeta[i] + h * dgamma[i]) / count);
                    }
                }
            });
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_vec(dgamma, c, device)?),
            Some(Tensor::from_vec(dbeta, c, device)?),
        ))
    }
}
