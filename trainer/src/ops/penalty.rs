//! The penalty of a weight and its gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{
    kernel::{self, Level},
    storage,
};
use crate::architecture::Regularizer;

/// Sums that are made side by side.
const LANES: usize = 16;

/// Scalar `l1 * sum |w| + l2 * sum w^2`, summed in f64; gradient `l1 * sign(w) + 2 * l2 * w`, 0 at 0.
pub fn operator(regularizer: Regularizer) -> impl CustomOp1 + Send + Sync + 'static {
    Penalty(regularizer)
}

struct Penalty(Regularizer);

impl CustomOp1 for Penalty {
    fn name(&self) -> &'static str {
        "penalty"
    }

    fn cpu_fwd(&self, w: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = storage::values(w, layout)?;
        let (l1, l2) = (f64::from(self.0.l1), f64::from(self.0.l2));
        let sum = kernel::compiled(Level::detect(), || {
            let mut sums = [0.0f64; LANES];
            for w in w.chunks(LANES) {
                for (sum, &w) in sums.iter_mut().zip(w) {
                    let w = f64::from(w);
                    *sum += l1 * w.abs() + l2 * (w * w);
                }
            }
            sums.iter().sum::<f64>()
        });
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(())))
    }

    fn bwd(&self, w: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let scale = gradient.to_scalar::<f32>()?;
        let (l1, l2) = (scale * self.0.l1, scale * 2.0 * self.0.l2);
        let (storage, layout) = w.storage_and_layout();
        let values = storage::on_cpu(&storage, layout)?;
        let sign = |w: f32| if w == 0.0 { 0.0 } else { w.signum() };
        let out = kernel::compiled(Level::detect(), || {
            values.iter().map(|&w| l1 * sign(w) + l2 * w).collect()
        });
        Tensor::from_vec::<_, f32>(out, w.shape(), w.device()).map(Some)
    }
}
