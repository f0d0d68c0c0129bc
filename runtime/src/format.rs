//! The bytes of a fixed-point file: constants and readers. `docs/format.md` specifies the same in words.

/// First four bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"IBFX";
/// The version of the format that this crate reads and writes.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 96;
/// Bytes of one operator record; the records follow the header.
pub(crate) const RECORD_LEN: usize = 68;
/// Bytes of one affine parameter.
pub(crate) const AFFINE_LEN: usize = 8;
/// Greatest number of values of a tensor.
pub(crate) const TENSOR_MAX: usize = 1 << 24;
/// Greatest length of an arena, so that a few damaged bytes cannot ask a host for gigabytes.
pub(crate) const ARENA_MAX: u32 = 1 << 28;
/// Greatest number of operators: the time of a validation grows with its square.
pub(crate) const OPS_MAX: u16 = 4096;

/// Byte offsets in the header.
pub(crate) mod header {
    pub(crate) const VERSION: usize = 4;
    pub(crate) const HEADER_LEN: usize = 6;
    pub(crate) const FILE_LEN: usize = 8;
    pub(crate) const CRC: usize = 12;
    pub(crate) const INPUT: usize = 16;
    pub(crate) const CLASSES: usize = 22;
    pub(crate) const ARENA_LEN: usize = 24;
    pub(crate) const INPUT_OFFSET: usize = 28;
    pub(crate) const OPS: usize = 32;
    pub(crate) const ACTIVATION: usize = 34;
    pub(crate) const FLAGS: usize = 35;
    pub(crate) const EXPONENTS: usize = 36;
    pub(crate) const NAME: usize = 40;
    pub(crate) const NAME_LEN: usize = 44;
    pub(crate) const RESERVED_A: usize = 46;
    pub(crate) const GOLDEN: usize = 48;
    pub(crate) const GOLDEN_CRC: usize = 52;
    pub(crate) const RECIPE: usize = 56;
    pub(crate) const RESERVED_B: usize = 88;

    /// Flag: a golden image and the CRC of its logits are present.
    pub(crate) const HAS_GOLDEN: u8 = 1;
}

/// Byte offsets in an operator record.
pub(crate) mod record {
    pub(crate) const KIND: usize = 0;
    pub(crate) const LAYOUT: usize = 1;
    pub(crate) const FLAGS: usize = 2;
    pub(crate) const DTYPES: usize = 3;
    pub(crate) const INPUT_OFFSET: usize = 4;
    pub(crate) const OUTPUT_OFFSET: usize = 8;
    pub(crate) const INPUT: usize = 12;
    pub(crate) const OUTPUT: usize = 18;
    pub(crate) const WINDOW: usize = 24;
    pub(crate) const STRIDE: usize = 28;
    pub(crate) const CONV: usize = 32;
    pub(crate) const POOL: usize = 36;
    pub(crate) const PAD: usize = 40;
    pub(crate) const GROUPS: usize = 42;
    pub(crate) const SCALAR: usize = 44;
    pub(crate) const SCALAR_B: usize = 45;
    pub(crate) const SECOND_OFFSET: usize = 48;
    /// Convolution in blocks of two channels: facts about its weights.
    pub(crate) const FACTS: usize = 48;
    pub(crate) const WEIGHT: usize = 52;
    pub(crate) const BIAS: usize = 56;
    pub(crate) const SHIFT: usize = 60;
    pub(crate) const TABLE: usize = 64;

    /// Flag: requantization goes on through a table.
    pub(crate) const HAS_TABLE: u8 = 1;
    /// Flag: a fused max pooling.
    pub(crate) const HAS_POOL: u8 = 2;
    /// Flag: a shift (or an affine parameter) of its own for each channel; for affine without it, for each value.
    pub(crate) const PER_CHANNEL: u8 = 4;
}

/// Operator kinds.
pub(crate) mod kind {
    pub(crate) const AFFINE: u8 = 1;
    pub(crate) const CONV: u8 = 2;
    pub(crate) const DENSE: u8 = 3;
    pub(crate) const MAX_POOL: u8 = 4;
    pub(crate) const AVG_POOL: u8 = 5;
    pub(crate) const ADD: u8 = 6;
    pub(crate) const TABLE: u8 = 7;
}

/// Weight layouts.
pub(crate) mod layout {
    /// `[co][kh][kw][ci / groups]`; dense: `[co][ci]`.
    pub(crate) const OHWI: u8 = 0;
    /// `[kh][kw][co]`; depthwise with one output channel per input channel.
    pub(crate) const HWO: u8 = 1;
    /// `[co / 2][kh][kw][ci][2]`, blocks of whole words; dense: `[co / 2][ci][2]`.
    pub(crate) const OHWI2O: u8 = 2;
    /// `[co / 4][16][ci / 4][2][4 co][2 ci]` of i16: 3x3 kernels, transformed.
    pub(crate) const WINOGRAD: u8 = 3;
}

/// `N` bytes at `at`; zeros if the bytes end before.
pub(crate) const fn bytes<const N: usize>(file: &[u8], at: usize) -> [u8; N] {
    match file.split_at_checked(at) {
        Some((_, rest)) => match rest.first_chunk::<N>() {
            Some(chunk) => *chunk,
            None => [0; N],
        },
        None => [0; N],
    }
}

pub(crate) const fn u8_at(file: &[u8], at: usize) -> u8 {
    let [byte] = bytes::<1>(file, at);
    byte
}

pub(crate) const fn u16_at(file: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(file, at))
}

pub(crate) const fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(file, at))
}

/// `len` bytes at `offset`, if the file has them.
pub(crate) const fn section(file: &[u8], offset: u32, len: usize) -> Option<&[u8]> {
    match file.split_at_checked(offset as usize) {
        Some((_, rest)) => match rest.split_at_checked(len) {
            Some((section, _)) => Some(section),
            None => None,
        },
        None => None,
    }
}
