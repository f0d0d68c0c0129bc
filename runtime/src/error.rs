//! Errors: `Copy`, with the numbers inside.

use crate::format::layout;
use crate::shape::Shape;
use crate::weight::winograd;

/// Why bytes are not a model that this runtime can run. Nothing was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelError {
    /// The bytes end inside the header.
    Truncated {
        /// Bytes needed.
        needed: u32,
        /// Bytes given.
        got: u32,
    },
    /// The first four bytes are not `IBFX`: no fixed-point file.
    Magic {
        /// The four bytes found.
        got: [u8; 4],
    },
    /// A fixed-point file of another version: unsupported, not malformed.
    Version {
        /// The version this runtime reads.
        supported: u16,
        /// The version of the file.
        got: u16,
    },
    /// The length in the header is not the number of bytes given.
    Length {
        /// Bytes according to the header.
        stated: u32,
        /// Bytes given.
        got: u32,
    },
    /// The CRC-32 does not match: the file is damaged.
    Checksum {
        /// CRC-32 in the header.
        stated: u32,
        /// CRC-32 of the bytes.
        computed: u32,
    },
    /// A header field has a value that no valid file has.
    Header {
        /// Byte offset of the field in the file.
        offset: u16,
        /// The value found.
        got: u32,
    },
    /// An operator is wrong.
    Op {
        /// Its index.
        op: u16,
        /// What is wrong with it.
        problem: OpProblem,
    },
}

/// What is wrong with an operator of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum OpProblem {
    /// An operator kind that this runtime does not know: unsupported.
    Kind {
        /// The code found.
        got: u8,
    },
    /// A weight layout that this runtime does not know or that does not fit the operator: unsupported.
    Layout {
        /// The code found.
        got: u8,
    },
    /// A flag that is unknown, or not allowed for this operator.
    Flags {
        /// The flags found.
        got: u8,
    },
    /// An unknown type code, or a type that this operator cannot read or write (I32: only the last operator's output, and always).
    DType {
        /// The two codes found: input, output.
        got: [u8; 2],
    },
    /// A reserved byte or a field that this operator does not use is not zero.
    Reserved {
        /// Byte offset in the operator's record.
        offset: u8,
    },
    /// Weights, biases, shifts or a table outside the file, or at an offset that is not a multiple of 4.
    Section {
        /// Byte offset in the file.
        offset: u32,
        /// Bytes needed from there.
        len: u32,
    },
    /// A tensor does not fit the arena, or is not at a multiple of 4.
    Arena {
        /// Byte offset in the arena.
        offset: u32,
        /// Bytes of the tensor.
        len: u32,
    },
    /// A tensor is empty or has more than 2^24 values.
    Size {
        /// The shape found.
        got: Shape,
    },
    /// The output shape does not follow from the input shape and the operator's parameters.
    Shape {
        /// What follows; a dimension that may vary is given as found.
        expected: Shape,
        /// What the file says.
        got: Shape,
    },
    /// What the arena holds at an input's offset when the operator runs is not a tensor of that shape and type:
    /// nothing wrote it, or a later operator wrote over it.
    Source {
        /// Byte offset of the input in the arena.
        offset: u32,
    },
    /// The output overlaps an input in a way that would corrupt it.
    Overlap {
        /// Byte offset of the input in the arena.
        input: u32,
        /// Byte offset of the output in the arena.
        output: u32,
    },
    /// A window size, stride or padding is zero or too large.
    Window {
        /// Byte offset of the field in the operator's record.
        offset: u8,
        /// The value found.
        got: u16,
    },
    /// The number of groups is zero or does not divide the channels.
    Groups {
        /// The number found.
        got: u16,
    },
    /// A shift outside its range.
    Shift {
        /// The channel.
        channel: u16,
        /// The shift found.
        got: i8,
    },
    /// A weight of -128; the range is symmetric.
    Weight {
        /// The output channel.
        channel: u16,
    },
    /// What fills up a block of weights is not zero.
    Padding {
        /// The first output channel of the block.
        channel: u16,
    },
    /// What a channel should multiply with is not the transform of a 3x3 kernel of i8 (docs/format.md, layout 3).
    Transform {
        /// The output channel.
        channel: u16,
    },
    /// What the file says about a channel's weights (docs/format.md, facts) is not so.
    Facts {
        /// The output channel.
        channel: u16,
    },
    /// An accumulator could reach 2^24.
    Bound {
        /// The output channel (for an affine operator with a parameter per value: the value's index).
        channel: u32,
        /// Greatest magnitude that an accumulator can have (saturated).
        got: u32,
    },
}

impl ModelError {
    /// What is wrong, without the numbers: the text of the compile-time error.
    pub const fn message(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "the file ends inside its header",
            Self::Magic { .. } => "not a fixed-point model file (magic)",
            Self::Version { .. } => "unsupported version of the fixed-point file",
            Self::Length { .. } => "the file's length differs from the length in its header",
            Self::Checksum { .. } => "the file is damaged (CRC-32)",
            Self::Header { .. } => "malformed header field",
            Self::Op { problem, .. } => problem.message(),
        }
    }
}

impl OpProblem {
    const fn message(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "unsupported operator kind",
            Self::Layout {
                got: layout::WINOGRAD,
            } if !winograd::ENABLED => {
                "unsupported weight layout: Winograd's, which needs the feature `winograd`"
            }
            Self::Layout { .. } => "unsupported weight layout",
            Self::Flags { .. } => "malformed operator: flags",
            Self::DType { .. } => "malformed operator: types",
            Self::Reserved { .. } => "malformed operator: reserved bytes",
            Self::Section { .. } => "malformed operator: a section lies outside the file",
            Self::Arena { .. } => "malformed operator: a tensor lies outside the arena",
            Self::Size { .. } => "malformed operator: a tensor is empty or too large",
            Self::Shape { .. } => "malformed operator: shapes do not fit",
            Self::Source { .. } => "malformed operator: its input holds no such tensor",
            Self::Overlap { .. } => "malformed operator: output overlaps input",
            Self::Window { .. } => "malformed operator: window, stride or padding",
            Self::Groups { .. } => "malformed operator: groups",
            Self::Shift { .. } => "malformed operator: shift out of range",
            Self::Weight { .. } => "malformed operator: weight -128",
            Self::Padding { .. } => "malformed operator: padding of weights is not zero",
            Self::Transform { .. } => "malformed operator: not the transform of 3x3 weights",
            Self::Facts { .. } => "malformed operator: facts about the weights",
            Self::Bound { .. } => "malformed operator: an accumulator could reach 2^24",
        }
    }
}

impl core::fmt::Display for OpProblem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.message())?;
        match *self {
            Self::Kind { got } | Self::Layout { got } | Self::Flags { got } => {
                write!(f, ", got {got}")
            }
            Self::DType { got } => write!(f, ", got {} to {}", got[0], got[1]),
            Self::Reserved { offset } => write!(f, ", at byte {offset} of its record"),
            Self::Section { offset, len } | Self::Arena { offset, len } => {
                write!(f, ", {len} bytes at {offset}")
            }
            Self::Size { got } => write!(f, ", got {got}"),
            Self::Shape { expected, got } => write!(f, ", expected {expected}, got {got}"),
            Self::Source { offset } => write!(f, ", at {offset} of the arena"),
            Self::Overlap { input, output } => write!(f, ", input at {input}, output at {output}"),
            Self::Window { offset, got } => {
                write!(f, ", got {got} at byte {offset} of its record")
            }
            Self::Groups { got } => write!(f, ", got {got}"),
            Self::Shift { channel, got } => write!(f, ", channel {channel}, got {got}"),
            Self::Weight { channel }
            | Self::Padding { channel }
            | Self::Transform { channel }
            | Self::Facts { channel } => write!(f, ", channel {channel}"),
            Self::Bound { channel, got } => write!(f, ", channel {channel}, bound {got}"),
        }
    }
}

impl core::fmt::Display for ModelError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Op { op, problem } => return write!(f, "operator {op}: {problem}"),
            _ => f.write_str(self.message())?,
        }
        match *self {
            Self::Truncated { needed, got } => write!(f, ", needed {needed} bytes, got {got}"),
            Self::Magic { got } => write!(f, ", expected {:?}, got {got:?}", crate::format::MAGIC),
            Self::Version { supported, got } => write!(f, ", supported {supported}, got {got}"),
            Self::Length { stated, got } => write!(f, ", stated {stated} bytes, got {got}"),
            Self::Checksum { stated, computed } => {
                write!(f, ", stated {stated:08x}, computed {computed:08x}")
            }
            Self::Header { offset, got } => write!(f, ", got {got} at byte {offset}"),
            Self::Op { .. } => Ok(()),
        }
    }
}

impl core::error::Error for ModelError {}

/// Why a validated model did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RunError {
    /// The image does not have one byte per value of the input.
    ImageLength {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
    /// The arena is smaller than [`Model::arena_len`](crate::Model::arena_len).
    ArenaTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
    /// The bytes of the model are no longer those that were validated (flash was rewritten under a running program).
    ModelChanged {
        /// The operator that could no longer be read.
        op: u16,
    },
}

impl core::fmt::Display for RunError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::ImageLength { needed, got } => write!(
                f,
                "image of the wrong length, needed {needed} bytes, got {got}"
            ),
            Self::ArenaTooSmall { needed, got } => {
                write!(f, "arena too small, needed {needed} bytes, got {got}")
            }
            Self::ModelChanged { op } => write!(
                f,
                "the model changed after it was validated, seen at operator {op}"
            ),
        }
    }
}

impl core::error::Error for RunError {}
