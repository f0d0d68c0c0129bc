//! Every operator as a composition of candle's own ones: right on every device, gradients by candle. The path for CUDA.
//!
//! Shapes: maps `[n, h, w, c]`, flat values `[n, c]`. candle's `max_pool2d` and `relu` are not used: the gradient of the
//! first is wrong, that of the second is 1 at 0.

use candle_core::{D, DType, Result, Tensor};

use super::geometry::Geometry;
use crate::architecture::Activation;

/// Keras's constants of `selu`.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

/// Cross-correlation plus bias. `x` `[n, h, w, ci]`, `kernel` `[kh, kw, ci / groups, co]`, `bias` `[co]`; result `[n, oh, ow, co]`.
pub fn conv(
    x: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Geometry,
    groups: usize,
) -> Result<Tensor> {
    // candle's gradient of conv2d needs windows that reach exactly to the last row and column
    let x = pad(x, geometry)?
        .narrow(1, 0, geometry.span(0))?
        .narrow(2, 0, geometry.span(1))?
        .permute((0, 3, 1, 2))?
        .contiguous()?;
    let kernel = kernel.permute((3, 2, 0, 1))?.contiguous()?;
    let [sh, sw] = geometry.stride;
    let y = if sh == sw {
        x.conv2d(&kernel, 0, sh, 1, groups)?
    } else {
        // candle has one stride for both axes
        let y = x.conv2d(&kernel, 0, 1, 1, groups)?;
        let y = every(&y, 2, 0, sh, geometry.output[0])?;
        every(&y, 3, 0, sw, geometry.output[1])?
    };
    let y = y.permute((0, 2, 3, 1))?.contiguous()?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// `x * kernel + bias`. `x` `[n, in]`, `kernel` `[in, units]`, `bias` `[units]`.
pub fn dense(x: &Tensor, kernel: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(kernel)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// Maximum over each window, padding ignored. A tie's gradient goes to the first maximum in row-major order.
pub fn max_pool(x: &Tensor, geometry: &Geometry) -> Result<Tensor> {
    // padding is below every finite value and is never selected, because every window covers a value of the input
    let padded = pad_with(x, geometry, f32::NEG_INFINITY)?;
    let mut largest: Option<Tensor> = None;
    for tap in taps(&padded, geometry)? {
        largest = Some(match largest {
            None => tap,
            Some(before) => tap.gt(&before)?.where_cond(&tap, &before)?,
        });
    }
    largest.ok_or_else(|| candle_core::Error::Msg("max pool: the window has no values".into()))
}

/// Mean over each window; padding is not counted.
pub fn avg_pool(x: &Tensor, geometry: &Geometry) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for tap in taps(&pad(x, geometry)?, geometry)? {
        sum = Some(match sum {
            None => tap,
            Some(sum) => (sum + tap)?,
        });
    }
    let sum =
        sum.ok_or_else(|| candle_core::Error::Msg("avg pool: the window has no values".into()))?;
    let inverse: Vec<f32> = (0..geometry.output[0])
        .flat_map(|y| (0..geometry.output[1]).map(move |x| (y, x)))
        .map(|(y, x)| 1.0 / (covered(geometry, 0, y) * covered(geometry, 1, x)) as f32)
        .collect();
    let [h, w] = geometry.output;
    sum.broadcast_mul(&Tensor::from_vec(inverse, (1, h, w, 1), x.device())?)
}

/// Number of values of the input that window `index` covers along `axis`.
fn covered(geometry: &Geometry, axis: usize, index: usize) -> usize {
    let n = [geometry.input.h, geometry.input.w][axis];
    let start = index * geometry.stride[axis];
    let before = geometry.before[axis];
    (start + geometry.size[axis]).min(before + n) - start.max(before)
}

/// Mean over all rows and columns: `[n, h, w, c]` to `[n, c]`.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.mean((1, 2))
}

/// The elementwise function; `Softmax` over the last axis.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Linear => Ok(x.clone()),
        Activation::Relu => {
            let zero = x.zeros_like()?;
            x.gt(&zero)?.where_cond(x, &zero)
        }
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Elu => {
            let zero = x.zeros_like()?;
            let below = (x.minimum(&zero)?.exp()? - 1.0)?;
            x.ge(&zero)?.where_cond(x, &below)
        }
        Activation::Selu => {
            let zero = x.zeros_like()?;
            let below = x
                .minimum(&zero)?
                .exp()?
                .affine(SELU_SCALE * SELU_ALPHA, -SELU_SCALE * SELU_ALPHA)?;
            x.ge(&zero)?.where_cond(&x.affine(SELU_SCALE, 0.0)?, &below)
        }
        Activation::Softmax => candle_nn::ops::softmax(x, D::Minus1),
    }
}

/// Mean and biased variance of every channel over all other axes; both `[c]`.
pub fn moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let flat = x.reshape(((), x.dim(D::Minus1)?))?;
    let mean = flat.mean(0)?;
    let variance = flat.broadcast_sub(&mean)?.sqr()?.mean(0)?;
    Ok((mean, variance))
}

/// `gamma * (x - mean) / sqrt(variance + epsilon) + beta` for every channel; all four `[c]`.
pub fn normalize(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f32,
) -> Result<Tensor> {
    let scale = gamma.div(&(variance + f64::from(epsilon))?.sqrt()?)?;
    x.broadcast_sub(mean)?
        .broadcast_mul(&scale)?
        .broadcast_add(beta)
}

/// `x * mask`; the mask holds 0 and `1 / (1 - rate)`.
pub fn dropout(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    x.mul(mask)
}

fn pad(x: &Tensor, geometry: &Geometry) -> Result<Tensor> {
    pad_with(x, geometry, 0.0)
}

/// Adds the padding's rows and columns; what the windows do not reach stays.
fn pad_with(x: &Tensor, geometry: &Geometry, value: f32) -> Result<Tensor> {
    let sizes = [geometry.input.h, geometry.input.w];
    let mut x = x.clone();
    for (axis, size) in sizes.into_iter().enumerate() {
        let before = geometry.before[axis];
        let after = geometry.span(axis).saturating_sub(before + size);
        let strip = |n: usize| -> Result<Tensor> {
            let mut dims = x.dims().to_vec();
            dims[axis + 1] = n;
            Tensor::full(value, dims, x.device())?.to_dtype(x.dtype())
        };
        let mut parts = Vec::new();
        if before > 0 {
            parts.push(strip(before)?);
        }
        parts.push(x.clone());
        if after > 0 {
            parts.push(strip(after)?);
        }
        if parts.len() > 1 {
            x = Tensor::cat(&parts, axis + 1)?;
        }
    }
    Ok(x)
}

/// For every position in the window, in row-major order, the values that all windows have there: `[n, oh, ow, c]` each.
fn taps(padded: &Tensor, geometry: &Geometry) -> Result<Vec<Tensor>> {
    let mut taps = Vec::new();
    for ky in 0..geometry.size[0] {
        let rows = every(padded, 1, ky, geometry.stride[0], geometry.output[0])?;
        for kx in 0..geometry.size[1] {
            taps.push(every(&rows, 2, kx, geometry.stride[1], geometry.output[1])?);
        }
    }
    Ok(taps)
}

/// `count` indices of an axis: `start, start + step, ...`.
fn every(x: &Tensor, axis: usize, start: usize, step: usize, count: usize) -> Result<Tensor> {
    if step == 1 {
        return x.narrow(axis, start, count)?.contiguous();
    }
    let indices: Vec<u32> = (0..count).map(|i| (start + i * step) as u32).collect();
    let indices = Tensor::from_vec(indices, count, x.device())?;
    debug_assert_eq!(indices.dtype(), DType::U32);
    x.index_select(&indices, axis)
}
