//! Convolution + bias + activation + max pooling as one operator.
//!
//! Forward, per sample: the windows of some pixels are copied side by side and multiplied with the packed kernel in
//! register tiles; the result is pooled while it is in the cache, and the place of each maximum is kept.
//!
//! Gradients: behind max pooling at most one value in a window has a gradient. If a kernel row fills whole vectors, sums
//! over these few values replace dense products ([`super::kernel::sparse`]); otherwise the gradient is spread out, the kernel's gradient is
//! a sum of outer products over the pixels, and the input's gradient is a matrix product added into the windows.

mod backward;
mod dense;
mod forward;
mod patch;
mod sparse;

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

pub(super) use backward::{Backward, Saved};
pub(super) use forward::convolve;

use super::{
    kernel::{Level, conv::Plan},
    storage,
};

/// `pool(activation(conv(x) + bias))` of `x` `[n, ..]` with the plan's input values per sample, `kernel`
/// `[kh, kw, ci, co]` and `bias` `[co]`; result `[n, oh, ow, co]`. The flags say which gradients are computed besides the
/// kernel's.
pub fn operator(
    level: Level,
    plan: Plan,
    input_gradient: bool,
    bias_gradient: bool,
) -> impl CustomOp3 + Send + Sync + 'static {
    Conv {
        plan,
        level,
        input_gradient,
        bias_gradient,
        taps: OnceLock::new(),
    }
}

struct Conv {
    plan: Plan,
    level: Level,
    input_gradient: bool,
    bias_gradient: bool,
    /// Position of every maximum in its pooling window.
    taps: OnceLock<Vec<u8>>,
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv"
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
        let x = storage::values(x, x_layout)?;
        let kernel = storage::values(kernel, kernel_layout)?;
        let bias = storage::values(bias, bias_layout)?;
        let plan = &self.plan;
        let n = x_layout.dims()[0];
        if x.len() != n * plan.geometry.input.len()
            || kernel.len() != plan.k() * plan.co
            || bias.len() != plan.co
        {
            bail!(
                "conv: {plan:?} does not fit x {:?}, kernel {:?}, bias {:?}",
                x_layout.dims(),
                kernel_layout.dims(),
                bias_layout.dims()
            );
        }
        let (out, taps) = convolve(self.level, plan, x, kernel, bias);
        if self.taps.set(taps).is_err() {
            bail!("conv: an operator computes once");
        }
        let [h, w] = plan.output();
        Ok((CpuStorage::F32(out), Shape::from((n, h, w, plan.co))))
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
        let Some(taps) = self.taps.get() else {
            bail!("conv: gradient before the value");
        };
        let (x_storage, x_layout) = x.storage_and_layout();
        let (kernel_storage, kernel_layout) = kernel.storage_and_layout();
        let (y_storage, y_layout) = y.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let backward = Backward::new(
            self.level,
            &self.plan,
            self.input_gradient,
            storage::on_cpu(&kernel_storage, kernel_layout)?,
            Saved {
                x: storage::on_cpu(&x_storage, x_layout)?,
                y: storage::on_cpu(&y_storage, y_layout)?,
                gradient: storage::on_cpu(&gradient_storage, gradient_layout)?,
                taps,
            },
        );
        let (dx, dkernel, dbias) = backward.run();
        let device = x.device();
        let dx = if self.input_gradient {
            Some(Tensor::from_vec(dx, x.shape(), device)?)
        } else {
            None
        };
        let dkernel = Tensor::from_vec(dkernel, kernel.shape(), device)?;
        let dbias = if self.bias_gradient {
            Some(Tensor::from_vec(dbias, self.plan.co, device)?)
        } else {
            None
        };
        Ok((dx, Some(dkernel), dbias))
    }
}
