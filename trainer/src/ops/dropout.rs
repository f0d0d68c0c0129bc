//! Dropout with a mask that depends only on (seed, step, layer).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Tensor};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::storage;

/// 0 with probability `rate`, else `1 / (1 - rate)`.
pub fn mask(len: usize, rate: f32, random: &mut ChaCha8Rng) -> Vec<f32> {
    let keep = 1.0 / (1.0 - rate);
    std::iter::repeat_with(|| {
        if random.random::<f32>() < rate {
            0.0
        } else {
            keep
        }
    })
    .take(len)
    .collect()
}

/// `x * mask`, value by value.
pub fn operator(mask: Vec<f32>) -> impl CustomOp1 + Send + Sync + 'static {
    Dropout(mask)
}

struct Dropout(Vec<f32>);

impl Dropout {
    fn multiply(&self, values: &[f32]) -> Vec<f32> {
        values.iter().zip(&self.0).map(|(v, m)| v * m).collect()
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, candle_core::Shape)> {
        let y = self.multiply(storage::values(x, layout)?);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (gradient_storage, layout) = gradient.storage_and_layout();
        let dx = self.multiply(storage::on_cpu(&gradient_storage, layout)?);
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}
