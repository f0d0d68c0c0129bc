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

use super::{
    kernel::{self, Level},
    storage,
};
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
        Activation::Sigmoid => kernel::compiled(Level::detect(), || {
            for v in values {
                *v = 1.0 / (1.0 + exp(-*v));
            }
        }),
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

/// `e^v`, for several values at once where the compiler can. Outside -87..=88 the result is that of the nearer end; NaN stays.
///
/// `e^v = 2^n * e^r` with a whole `n` and `|r| <= ln 2 / 2`; `e^r` as its Taylor polynomial of degree 7, whose error is
/// below 2^-27. Rounding: within 2 units in the last place; the same bits at every [`Level`].
#[inline(always)]
fn exp(v: f32) -> f32 {
    // ln 2 in two parts: `n` times the first one is exact
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // a sum with it has no bits behind the point, and `n` in its last bits
    const WHOLE: f32 = 12_582_912.0;
    let v = v.clamp(-87.0, 88.0);
    let n = v * std::f32::consts::LOG2_E + WHOLE;
    let power = f32::from_bits((n.to_bits() << 23).wrapping_add(0x3f80_0000));
    let n = n - WHOLE;
    let r = (v - n * HIGH) - n * LOW;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * r + coefficient;
    }
    sum * power
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Against f64, over the whole range in steps of 1/1024, and at its ends.
    #[test]
    fn exponential() {
        for i in -87 * 1024..=88 * 1024 {
            let v = i as f32 / 1024.0;
            let expected = f64::from(v).exp();
            let error = (f64::from(exp(v)) - expected).abs() / expected;
            assert!(error <= 2.0 * f64::from(f32::EPSILON), "{v}: {error:e}");
        }
        assert_eq!(exp(f32::INFINITY), exp(88.0));
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    /// Not every vector length of values, and what saturates.
    #[test]
    fn sigmoids() {
        for len in [1, 15, 16, 40] {
            let values: Vec<f32> = (0..len).map(|i| (i as f32 - 20.0) * 0.7).collect();
            let mut got = values.clone();
            apply(Activation::Sigmoid, &mut got);
            for (got, v) in got.iter().zip(values) {
                let expected = 1.0 / (1.0 + (-f64::from(v)).exp());
                assert!((f64::from(*got) - expected).abs() <= 2e-7 * expected, "{v}");
            }
        }
        let mut ends = [f32::NEG_INFINITY, -1e4, 1e4, f32::INFINITY, f32::NAN];
        apply(Activation::Sigmoid, &mut ends);
        assert!(ends[0] < 1e-37 && ends[1] < 1e-37 && ends[2..4] == [1.0, 1.0] && ends[4].is_nan());
    }
}
