//! The penalty of a weight and its gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

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
        let mut out = vec![0.0; w.elem_count()];
        let (storage, layout) = w.storage_and_layout();
        let w_values = storage::on_cpu(&storage, layout)?;
        add(self.0, gradient.to_scalar()?, w_values, &mut out);
        Tensor::from_vec(out, w.shape(), w.device()).map(Some)
    }
}

/// Adds the penalty's gradient to a weight's gradient, in place on the CPU.
///
/// # Errors
/// Those of the tensors' device, and a gradient of another shape.
pub fn add_gradient(regularizer: Regularizer, w: &Tensor, gradient: Tensor) -> Result<Tensor> {
    let Regularizer { l1, l2 } = regularizer;
    if (l1, l2) == (0.0, 0.0) {
        return Ok(gradient);
    }
    if w.shape() != gradient.shape() {
        bail!(
            "penalty: the weight is {:?}, its gradient {:?}",
            w.dims(),
            gradient.dims()
        );
    }
    let w = w.detach();
    if !w.device().is_cpu() {
        let penalty =
            (w.sign()?.affine(f64::from(l1), 0.0)? + w.affine(2.0 * f64::from(l2), 0.0)?)?;
        return gradient + penalty;
    }
    let (storage, layout) = w.storage_and_layout();
    let w = storage::on_cpu(&storage, layout)?;
    storage::change(&[&gradient], &mut |mut values| {
        if let [values] = &mut values[..] {
            add(regularizer, 1.0, w, values);
        }
    })?;
    Ok(gradient)
}

/// `sum[i] += scale * (l1 * sign(w[i]) + 2 * l2 * w[i])`.
fn add(regularizer: Regularizer, scale: f32, w: &[f32], sum: &mut [f32]) {
    let (l1, l2) = (scale * regularizer.l1, scale * 2.0 * regularizer.l2);
    kernel::compiled(Level::detect(), || {
        for (sum, &w) in sum.iter_mut().zip(w) {
            let sign = if w == 0.0 { 0.0 } else { w.signum() };
            *sum += l1 * sign + l2 * w;
        }
    });
}
