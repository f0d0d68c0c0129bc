//! The description of a model that the encoder takes.

use std::{boxed::Box, string::String, vec::Vec};

use crate::op::AffineParam;
use crate::shape::{DType, OutputActivation, Shape};

/// A tensor: shape and stored type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Shape of one sample.
    pub shape: Shape,
    /// Stored type.
    pub dtype: DType,
}

/// Index into [`ModelSpec::tensors`]; tensor 0 is the input image (U8).
pub type TensorId = usize;

/// From i32 accumulators to the output tensor. If the output is I32 the accumulators are stored as they are
/// and `shift` and `table` are empty. Otherwise, per output channel (or one shift for all):
/// `q = saturate(round_half_even(acc * 2^-shift))` to the output dtype, or to I8 and then through `table`.
/// Saturation to U8 is relu. A shift may be negative (left shift, saturating), range -24..=31.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Post {
    /// One shift, or one per output channel; none for I32.
    pub shift: Vec<i8>,
    /// Indexed by the byte of the I8 result.
    pub table: Option<Box<[u8; 256]>>,
}

/// Fused max pooling over the i32 accumulators of a convolution (before requantization); no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Rows and columns of the window.
    pub size: [u8; 2],
    /// Step in rows and columns.
    pub stride: [u8; 2],
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpSpec {
    /// `y = saturate(round_half_even((x * mul + add) * 2^-shift))`; |x * mul + add| < 2^24.
    Affine {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// `c` parameters (per channel) or `h * w * c` (per value).
        params: Vec<AffineParam>,
    },
    /// Cross-correlation.
    Conv {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Rows and columns.
        kernel: [u8; 2],
        /// Step in rows and columns.
        stride: [u8; 2],
        /// Zero padding `[top, left]`.
        pad: [u8; 2],
        /// Rows and columns of the map before pooling (bottom and right padding follow from it).
        conv: [u16; 2],
        /// Divides the input and the output channels.
        groups: u16,
        /// OHWI `[co][kh][kw][ci / groups]`, |w| <= 127.
        weight: Vec<i8>,
        /// Per output channel.
        bias: Vec<i32>,
        /// Fused max pooling.
        pool: Option<PoolSpec>,
        /// Requantization.
        post: Post,
    },
    /// `acc[o] = sum_i x[i] * weight[o][i] + bias[o]`, x the whole input tensor in its order.
    Dense {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// `[co][inputs]`, |w| <= 127.
        weight: Vec<i8>,
        /// Per output.
        bias: Vec<i32>,
        /// Requantization.
        post: Post,
    },
    /// Standalone maximum (same dtype in and out); padding is ignored.
    MaxPool {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Rows and columns of the window.
        size: [u8; 2],
        /// Step in rows and columns.
        stride: [u8; 2],
        /// Padding `[top, left]`, less than `size`.
        pad: [u8; 2],
    },
    /// `acc = multiplier * sum(window)`, no padding; windows up to the whole map (global average pooling).
    AvgPool {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Rows and columns of the window.
        size: [u16; 2],
        /// Step in rows and columns.
        stride: [u16; 2],
        /// Constant factor.
        multiplier: i8,
        /// Requantization.
        post: Post,
    },
    /// `acc = (a << shift_a) + (b << shift_b)`.
    Add {
        /// First summand.
        a: TensorId,
        /// Second summand, of the same shape.
        b: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Left shift of `a`.
        shift_a: u8,
        /// Left shift of `b`.
        shift_b: u8,
        /// Requantization.
        post: Post,
    },
    /// `y = table[x as u8]`, same shape.
    Table {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Indexed by the stored byte.
        table: Box<[u8; 256]>,
    },
}

/// A whole model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Shown by firmware at start.
    pub name: String,
    /// sha256 of the recipe.
    pub recipe_hash: [u8; 32],
    /// Tensor 0 is the image.
    pub tensors: Vec<TensorSpec>,
    /// In order; the last one writes the logits (I32, `1 x 1 x classes`).
    pub ops: Vec<OpSpec>,
    /// Logit `i` is `acc * 2^logit_exponents[i]`.
    pub logit_exponents: Vec<i8>,
    /// From logits to probabilities.
    pub output: OutputActivation,
    /// One raw image for the device's self-test; the encoder runs the portable kernels on it and stores the CRC-32 of its
    /// logits (i32, little-endian).
    pub golden_image: Option<Vec<u8>>,
}
