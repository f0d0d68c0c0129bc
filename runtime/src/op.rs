//! Operators as views over the bytes of a file.

mod decode;

use core::num::NonZeroU16;

use crate::format::AFFINE_LEN;
use crate::shape::{DType, Shape};
use crate::weight::{Facts, Weights};

/// `?` for const functions.
macro_rules! tri {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}
pub(crate) use tri;

/// A tensor in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tensor {
    /// Byte offset in the arena, a multiple of 4.
    pub offset: usize,
    /// Shape of one sample.
    pub shape: Shape,
    /// Stored type.
    pub dtype: DType,
}

impl Tensor {
    /// Bytes in the arena.
    pub const fn bytes(self) -> usize {
        self.shape.len().saturating_mul(self.dtype.size())
    }

    /// The bytes that it takes in the arena.
    #[inline(never)] // It is called from many places.
    pub const fn range(self) -> core::ops::Range<usize> {
        self.offset..self.offset.saturating_add(self.bytes())
    }
}

/// A window that moves over rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window {
    /// Rows and columns of the window; never 0.
    pub size: [u16; 2],
    /// Step in rows and columns; never 0.
    pub stride: [u16; 2],
    /// Rows above and columns left of the map that the first window begins with; less than `size`.
    pub pad: [u8; 2],
}

impl Window {
    /// One value.
    pub(crate) const ALONE: Self = Self {
        size: [1; 2],
        stride: [1; 2],
        pad: [0; 2],
    };
}

/// From accumulators to the output tensor: shift with round half to even, saturation, and optionally a table.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// One shift for all channels, or one per channel (each an `i8`); empty if the output is I32.
    pub shifts: &'a [u8],
    /// Applied to the I8 result of the requantization, indexed by its byte.
    pub table: Option<&'a [u8; 256]>,
}

impl Post<'_> {
    /// The shift of an output channel.
    #[inline(always)]
    pub fn shift(&self, channel: usize) -> i8 {
        let shift = match self.shifts {
            [one] => Some(one),
            all => all.get(channel),
        };
        shift.map_or(0, |&s| s as i8)
    }
}

/// An affine operator, `y = saturate(round_half_even((x * mul + add) * 2^-shift))`.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Parameters of 8 bytes, as in the file.
    pub(crate) params: &'a [[u8; AFFINE_LEN]],
    /// True: a parameter per channel; false: per value.
    pub per_channel: bool,
}

/// One parameter of an affine operator; `|x * mul + add| < 2^24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineParam {
    /// Factor.
    pub mul: i16,
    /// Summand.
    pub add: i32,
    /// Right shift, 0..=31.
    pub shift: u8,
}

impl AffineParam {
    pub(crate) const fn from_bytes(bytes: &[u8; AFFINE_LEN]) -> Self {
        let [m0, m1, shift, _, a0, a1, a2, a3] = *bytes;
        Self {
            mul: i16::from_le_bytes([m0, m1]),
            add: i32::from_le_bytes([a0, a1, a2, a3]),
            shift,
        }
    }
}

impl Affine<'_> {
    /// The parameters in order: `c` of them (per channel) or `h * w * c` (per value).
    pub fn params(&self) -> impl ExactSizeIterator<Item = AffineParam> {
        self.params.iter().map(AffineParam::from_bytes)
    }
}

/// A convolution (cross-correlation), optionally with a max pooling over its accumulators.
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    /// Kernel size, stride and zero padding (top and left; bottom and right follow from `map`).
    pub window: Window,
    /// Rows and columns of the map before pooling.
    pub map: [u16; 2],
    /// Max pooling over the accumulators, without padding.
    pub pool: Option<Window>,
    /// Groups; divides the input and the output channels.
    pub groups: NonZeroU16,
    /// The weights, in any layout; `per_channel` is `kh * kw * ci / groups`.
    pub weights: Weights<'a>,
    /// What follows from the weights, if the file says it.
    pub facts: Option<Facts<'a>>,
    /// i32, little-endian, per output channel.
    pub(crate) bias: &'a [[u8; 4]],
    /// Requantization.
    pub post: Post<'a>,
}

impl Conv<'_> {
    /// The biases, one per output channel, in accumulator units.
    pub fn biases(&self) -> impl ExactSizeIterator<Item = i32> {
        self.bias.iter().map(|b| i32::from_le_bytes(*b))
    }

    /// Weight `index` of output channel `channel`, where `index` counts `[kh][kw][ci / groups]`: [`Weights::get`].
    pub fn weight(&self, channel: usize, index: usize) -> Option<i8> {
        self.weights.get(channel, index)
    }
}

/// `acc = multiplier * sum(window)`, without padding.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool<'a> {
    /// Size and stride.
    pub window: Window,
    /// The constant factor.
    pub multiplier: i8,
    /// Requantization.
    pub post: Post<'a>,
}

/// `acc = (a << shift_a) + (b << shift_b)`; `a` is [`Op::input`].
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    /// The second summand.
    pub b: Tensor,
    /// Left shift of `a`.
    pub shift_a: u8,
    /// Left shift of `b`.
    pub shift_b: u8,
    /// Requantization.
    pub post: Post<'a>,
}

/// What an operator computes.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// Integer affine map per channel or per value.
    Affine(Affine<'a>),
    /// Convolution with bias, optional max pooling, requantization.
    Conv(Conv<'a>),
    /// Fully connected, `acc[o] = sum_i x[i] * weight[o][i] + bias[o]`: the convolution whose window is the whole input.
    Dense(Conv<'a>),
    /// Maximum over a window; padding is ignored.
    MaxPool(Window),
    /// Sum over a window times a constant.
    AvgPool(AvgPool<'a>),
    /// Sum of two tensors.
    Add(Add<'a>),
    /// `y = table[x as u8]`.
    Table(&'a [u8; 256]),
}

impl Kind<'_> {
    /// A short name for logs: `conv`, `dense`, ...
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Affine(_) => "affine",
            Self::Conv(_) => "conv",
            Self::Dense(_) => "dense",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::Add(_) => "add",
            Self::Table(_) => "table",
        }
    }
}

/// One operator of a model.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// Its (first) input.
    pub input: Tensor,
    /// Its output.
    pub output: Tensor,
    /// What it computes.
    pub kind: Kind<'a>,
}

impl Op<'_> {
    /// Multiply-accumulates of one run, as they are usually counted: every kernel position of every map value
    /// before pooling, padding included. 0 for operators without weights.
    pub fn macs(&self) -> u64 {
        match &self.kind {
            Kind::Conv(conv) | Kind::Dense(conv) => {
                let [h, w] = conv.map;
                u64::from(h) * u64::from(w) * conv.weights.count() as u64
            }
            _ => 0,
        }
    }
}
