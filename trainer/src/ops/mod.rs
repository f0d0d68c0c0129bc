//! The differentiable operators of a network, on NHWC tensors.
//!
//! [`composed`] builds every operator from candle's own ones: any device, any gradient. On the CPU a network uses the
//! fused operators of the other modules (candle `CustomOp`s, whose inner loops are in [`kernel`]), applied by a [`tape`].
//! Both are compared with Keras's numbers (`trainer/tests/layers.rs`) and with each other (`trainer/tests/network.rs`).
//!
//! Results are the same bits for any number of threads: work is split into chunks that depend only on the batch, and
//! sums over chunks are made in order.

pub mod activation;
pub mod batch_norm;
pub mod composed;
pub mod conv;
pub mod cross_entropy;
pub mod dense;
pub mod dropout;
pub mod fake_quantize;
pub mod geometry;
pub mod grouped;
pub mod kernel;
pub mod penalty;
pub mod pool;
pub(crate) mod storage;
pub mod tape;

use candle_core::{Result, Tensor};

/// Samples of a chunk: at most 16 chunks, at least 4 samples each.
fn chunk(samples: usize) -> usize {
    samples.div_ceil(16).max(4)
}

/// `bias`, or zeros that get no gradient.
pub fn bias_or_zeros(bias: Option<&Tensor>, len: usize, like: &Tensor) -> Result<Tensor> {
    match bias {
        Some(bias) => Ok(bias.clone()),
        None => Tensor::zeros(len, like.dtype(), like.device()),
    }
}

/// `sum[i] += part[i]`.
#[inline(always)]
fn add(sum: &mut [f32], part: &[f32]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}
