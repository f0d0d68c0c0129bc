//! Elementwise functions and their derivatives.
//!
//! Every derivative is a function of the output, as in TensorFlow's kernels, so the input need not be kept:
//!
//! | | f(x) | f'(x) from y = f(x) |
//! |---|---|---|
//! | relu | `max(x, 0)` | 1 if `y > 0`, else 0 |
//! | sigmoid | `1 / (1 + exp(-x))` | `y (1 - y)` |
//! | tanh | | `1 - y^2` |
//! | elu | `x`, below 0 `exp(x) - 1` | 1, below 0 `y + 1` |
//! | selu | `s x`, below 0 `s a (exp(x) - 1)` | `s`, below 0 `y + s a` |

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage;
use crate::architecture::Activation;

/// Keras's constants of `selu`.
pub const SELU_SCALE: f32 = 1.050_701;
/// Keras's constants of `selu`.
pub const SELU_ALPHA: f32 = 1.673_263_2;

/// Values that one task computes.
const TASK: usize = 1 << 13;

/// Applies the function in place. `Linear` and `Softmax` (which is not elementwise) do nothing.
pub fn apply(activation: Activation, values: &mut [f32]) {
    let map = |values: &mut [f32], f: fn(f32) -> f32| values.iter_mut().for_each(|v| *v = f(*v));
    match activation {
        Activation::Linear | Activation::Softmax => {}
        // `v < 0`, not `v > 0`: NaN stays NaN
        Activation::Relu => values
            .iter_mut()
            .for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }),
        Activation::Sigmoid => map(values, |v| 1.0 / (1.0 + (-v).exp())),
        Activation::Tanh => map(values, f32::tanh),
        Activation::Elu => map(values, |v| if v < 0.0 { v.exp() - 1.0 } else { v }),
        Activation::Selu => map(values, |v| {
            if v < 0.0 {
                SELU_SCALE * SELU_ALPHA * (v.exp() - 1.0)
            } else {
                SELU_SCALE * v
            }
        }),
    }
}

/// Derivative at the point with this output.
#[inline(always)]
pub fn derivative(activation: Activation, y: f32) -> f32 {
    match activation {
        Activation::Linear | Activation::Softmax => 1.0,
        Activation::Relu => f32::from(y > 0.0),
        Activation::Sigmoid => y * (1.0 - y),
        Activation::Tanh => 1.0 - y * y,
        Activation::Elu => {
            if y < 0.0 {
                y + 1.0
            } else {
                1.0
            }
        }
        Activation::Selu => {
            if y < 0.0 {
                y + SELU_SCALE * SELU_ALPHA
            } else {
                SELU_SCALE
            }
        }
    }
}

/// `gradient * f'`, from the output `y`.
#[inline(always)]
pub fn backward(activation: Activation, y: &[f32], gradient: &[f32], out: &mut [f32]) {
    if activation == Activation::Relu {
        // without a branch in the loop
        for ((out, &y), &gradient) in out.iter_mut().zip(y).zip(gradient) {
            *out = if y > 0.0 { gradient } else { 0.0 };
        }
        return;
    }
    for ((out, &y), &gradient) in out.iter_mut().zip(y).zip(gradient) {
        *out = gradient * derivative(activation, y);
    }
}

/// The function of every value, any shape. Not for `Softmax`.
pub fn operator(activation: Activation) -> impl CustomOp1 + Send + Sync + 'static {
    Elementwise(activation)
}

struct Elementwise(Activation);

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = storage::values(x, layout)?.to_vec();
        y.par_chunks_mut(TASK).for_each(|y| apply(self.0, y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (y_storage, y_layout) = y.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let y = storage::on_cpu(&y_storage, y_layout)?;
        let values = storage::on_cpu(&gradient_storage, gradient_layout)?;
        let mut out = vec![0.0; values.len()];
        out.par_chunks_mut(TASK)
            .zip(y.par_chunks(TASK).zip(values.par_chunks(TASK)))
            .for_each(|(out, (y, gradient))| backward(self.0, y, gradient, out));
        Tensor::from_vec(out, gradient.shape(), gradient.device()).map(Some)
    }
}
