//! Shapes and stored types of tensors.

/// Height, width and channels of one sample, stored row-major with the channels innermost (`h`, `w`, `c`).
/// A flat vector is `1 x 1 x c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape {
    /// Rows.
    pub h: u16,
    /// Columns.
    pub w: u16,
    /// Channels.
    pub c: u16,
}

impl Shape {
    /// Number of values, `h * w * c` (saturating; a tensor of a valid model has at most 2^24 values).
    ///
    /// ```
    /// assert_eq!(runtime::Shape { h: 28, w: 28, c: 1 }.len(), 784);
    /// ```
    #[inline(never)] // It is called from many places.
    pub const fn len(self) -> usize {
        (self.h as usize)
            .saturating_mul(self.w as usize)
            .saturating_mul(self.c as usize)
    }

    /// True if a dimension is 0. No tensor of a valid model is empty.
    pub const fn is_empty(self) -> bool {
        self.h == 0 || self.w == 0 || self.c == 0
    }

    pub(crate) const fn same(self, other: Self) -> bool {
        self.h == other.h && self.w == other.w && self.c == other.c
    }
}

impl core::fmt::Display for Shape {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}x{}x{}", self.h, self.w, self.c)
    }
}

/// Stored type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DType {
    /// Never negative: 0..=255. The raw image and everything after relu or sigmoid.
    /// (ONNX: int8 with zero point -128, `q_onnx = q - 128`.)
    U8,
    /// Signed: -128..=127. (ONNX: int8 with zero point 0.)
    I8,
    /// The logits: raw i32 accumulators, little-endian. Only the output of the last operator, and always that.
    I32,
}

impl DType {
    /// Bytes per value.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I32 => 4,
        }
    }

    /// Greatest magnitude of a stored value as the bound of the accumulators counts it: 255 or 128.
    pub(crate) const fn magnitude(self) -> u64 {
        match self {
            Self::U8 => 255,
            Self::I8 => 128,
            Self::I32 => 1 << 31,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::U8 => 0,
            Self::I8 => 1,
            Self::I32 => 2,
        }
    }
}

/// From logits to probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OutputActivation {
    /// One class of many.
    Softmax,
    /// Independent classes.
    Sigmoid,
    /// None: the logits are the outputs.
    Linear,
}
