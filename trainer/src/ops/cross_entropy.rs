//! Softmax, categorical cross-entropy and their gradient in one pass over the logits.
//!
//! Loss of logits `z` and targets `t`, both `[n, classes]`: `-1/n * sum_i sum_c t_ic (z_ic - m_i - ln s_i)` with
//! `m_i = max_c z_ic` and `s_i = sum_c exp(z_ic - m_i)`. Sums run in the order of the rows and classes.
//!
//! Rounding: the operations and their order are those of the composition of candle's operators that other devices use,
//! in both directions.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::storage;

/// The scalar loss of logits and targets; the targets get no gradient.
pub fn operator() -> impl CustomOp2 + Send + Sync + 'static {
    CrossEntropy {
        softmax: OnceLock::new(),
    }
}

struct CrossEntropy {
    softmax: OnceLock<Softmax>,
}

/// What the gradient needs of the forward pass.
struct Softmax {
    /// `exp(z_ic - m_i)`, `[n][classes]`.
    exp: Vec<f32>,
    /// `s_i`.
    sums: Vec<f32>,
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, classes) = logits_layout.shape().dims2()?;
        if targets_layout.dims() != [n, classes] || n * classes == 0 {
            bail!(
                "cross-entropy: targets {:?} do not fit logits {:?}",
                targets_layout.dims(),
                logits_layout.dims()
            );
        }
        let logits = storage::values(logits, logits_layout)?;
        let targets = storage::values(targets, targets_layout)?;
        let mut exp = vec![0.0; n * classes];
        let mut sums = vec![0.0; n];
        let mut loss = 0.0;
        let rows = logits
            .chunks_exact(classes)
            .zip(targets.chunks_exact(classes));
        for ((z, t), (exp, s)) in rows.zip(exp.chunks_exact_mut(classes).zip(&mut sums)) {
            let m = largest(z);
            for (exp, z) in exp.iter_mut().zip(z) {
                *exp = (z - m).exp();
            }
            *s = exp.iter().fold(0.0, |sum, exp| sum + exp);
            let ln = s.ln();
            let terms = z.iter().zip(t).map(|(z, t)| t * ((z - m) - ln));
            loss += terms.fold(0.0, |sum, term| sum + term);
        }
        if self.softmax.set(Softmax { exp, sums }).is_err() {
            bail!("cross-entropy: an operator computes once");
        }
        let loss = -(loss * inverse(n));
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _loss: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(Softmax { exp, sums }) = self.softmax.get() else {
            bail!("cross-entropy: gradient before the value");
        };
        let (n, classes) = logits.dims2()?;
        // of every log-probability, times its target
        let scale = -gradient.to_scalar::<f32>()? * inverse(n);
        let (z_storage, z_layout) = logits.storage_and_layout();
        let (t_storage, t_layout) = targets.storage_and_layout();
        let z = storage::on_cpu(&z_storage, z_layout)?;
        let t = storage::on_cpu(&t_storage, t_layout)?;
        let mut dz = vec![0.0; n * classes];
        let rows = z.chunks_exact(classes).zip(t.chunks_exact(classes));
        let softmax = exp.chunks_exact(classes).zip(sums);
        for (dz, ((z, t), (exp, s))) in dz.chunks_exact_mut(classes).zip(rows.zip(softmax)) {
            // of `s_i`, through its logarithm
            let ds = t.iter().fold(0.0, |sum, t| sum - scale * t) / s;
            for ((dz, t), exp) in dz.iter_mut().zip(t).zip(exp) {
                *dz = scale * t + ds * exp;
            }
            // of `m_i`: 0 but for rounding
            let dm = dz.iter().fold(0.0, |sum, dz| sum - dz);
            let m = largest(z);
            for (dz, &z) in dz.iter_mut().zip(z) {
                if z == m {
                    *dz += dm;
                }
            }
        }
        let dz = Tensor::from_vec(dz, (n, classes), logits.device())?;
        Ok((Some(dz), None))
    }
}

/// `1 / n`.
fn inverse(n: usize) -> f32 {
    (1.0 / n as f64) as f32
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(row[0], |m, &z| if m < z { z } else { m })
}
