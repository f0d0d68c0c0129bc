//! Host side: the description of a fixed-point model and its encoding as `model.fxp`.
//!
//! A tensor is `h x w x c` (NHWC order, one sample). Its real value is `q * 2^exponent`; the exponents
//! live with the exporter, the file only needs the shifts between them.

/// Height, width and channels; a flat vector is `1 x 1 x c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub h: u16,
    pub w: u16,
    pub c: u16,
}

/// Stored type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// Never negative: 0..=255. The raw image and everything after relu or sigmoid. (ONNX: int8, zero point -128, q_onnx = q - 128.)
    U8,
    /// Signed: -128..=127. (ONNX: int8, zero point 0.)
    I8,
    /// The logits: raw i32 accumulators. Only the output of the last operator, and always that.
    I32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub shape: Shape,
    pub dtype: DType,
}

/// Index into [`ModelSpec::tensors`]; tensor 0 is the input image (U8).
pub type TensorId = usize;

/// From i32 accumulators to the output tensor. If the output is I32 the accumulators are stored as they are
/// and `shift` and `table` are empty. Otherwise, per output channel (or one shift for all):
/// `q = saturate(round_half_even(acc * 2^-shift))` to the output dtype, or to I8 and then through `table`.
/// Saturation to U8 is relu. `shift` may be negative (left shift, saturating), range -24..=31.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Post {
    pub shift: Vec<i8>,
    pub table: Option<Box<[u8; 256]>>,
}

/// Fused max pooling over the i32 accumulators of a convolution (before requantization); no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    pub size: [u8; 2],
    pub stride: [u8; 2],
}

/// `y = saturate(round_half_even((x * mul + add) * 2^-shift))`; |x * mul + add| < 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineParam {
    pub mul: i16,
    pub add: i32,
    pub shift: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpSpec {
    /// `params.len()` is `c` (per channel) or `h * w * c` (per value).
    Affine {
        input: TensorId,
        output: TensorId,
        params: Vec<AffineParam>,
    },
    /// Cross-correlation. `pad` is `[top, left]`; `conv` is the size `[h, w]` of the map before pooling (bottom/right
    /// padding follow from it). `weight` OHWI `[co][kh][kw][ci / groups]`, |w| <= 127; `bias` i32 per output channel.
    Conv {
        input: TensorId,
        output: TensorId,
        kernel: [u8; 2],
        stride: [u8; 2],
        pad: [u8; 2],
        conv: [u16; 2],
        groups: u16,
        weight: Vec<i8>,
        bias: Vec<i32>,
        pool: Option<PoolSpec>,
        post: Post,
    },
    /// `acc[o] = sum_i x[i] * weight[o][i] + bias[o]`, x the whole input tensor in its order.
    Dense {
        input: TensorId,
        output: TensorId,
        weight: Vec<i8>,
        bias: Vec<i32>,
        post: Post,
    },
    /// Standalone maximum (same dtype in and out); padding is ignored.
    MaxPool {
        input: TensorId,
        output: TensorId,
        size: [u8; 2],
        stride: [u8; 2],
        pad: [u8; 2],
    },
    /// `acc = multiplier * sum(window)`, no padding; windows up to the whole map (global average pooling).
    AvgPool {
        input: TensorId,
        output: TensorId,
        size: [u16; 2],
        stride: [u16; 2],
        multiplier: i8,
        post: Post,
    },
    /// `acc = (a << shift_a) + (b << shift_b)`.
    Add {
        a: TensorId,
        b: TensorId,
        output: TensorId,
        shift_a: u8,
        shift_b: u8,
        post: Post,
    },
    /// `y = table[x as u8]`, same shape.
    Table {
        input: TensorId,
        output: TensorId,
        table: Box<[u8; 256]>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputActivation {
    Softmax,
    Sigmoid,
    Linear,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Shown by firmware at start.
    pub name: String,
    /// sha256 of the recipe.
    pub recipe_hash: [u8; 32],
    pub tensors: Vec<TensorSpec>,
    pub ops: Vec<OpSpec>,
    /// Logit `i` is `acc * 2^logit_exponents[i]`.
    pub logit_exponents: Vec<i8>,
    pub output: OutputActivation,
    /// One raw image for the device's self-test; the encoder runs the portable kernels on it and stores the CRC-32 of its logits (i32, little-endian).
    pub golden_image: Option<Vec<u8>>,
}

/// Plans the arena and writes the file. Every file it returns is accepted by `Model::new`.
pub fn encode(_spec: &ModelSpec) -> Result<Vec<u8>, EncodeError> {
    unimplemented!()
}

/// Why a description cannot be encoded (an operator index and what is wrong).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError;
