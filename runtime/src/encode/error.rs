//! What the encoder refuses.

use super::TensorId;
use crate::error::{ModelError, RunError};

/// Why a description cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// There is no tensor 0, or it is not U8.
    NoInput,
    /// An operator reads a tensor that nothing has written.
    Undefined {
        /// Operator index.
        op: usize,
        /// The tensor.
        tensor: TensorId,
    },
    /// An operator writes a tensor that does not exist, that is the image, or that was written before.
    Redefined {
        /// Operator index.
        op: usize,
        /// The tensor.
        tensor: TensorId,
    },
    /// A list of an operator has the wrong length.
    Count {
        /// Operator index.
        op: usize,
        /// Which list.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// A number is too large for its field of the file.
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        got: usize,
    },
    /// A list that belongs to the whole model has the wrong length.
    Length {
        /// Which list.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// The file would be refused by [`Model::new`](crate::Model::new).
    Refused(ModelError),
    /// The golden image could not be run.
    Golden(RunError),
}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoInput => f.write_str("tensor 0 must be the u8 input image"),
            Self::Undefined { op, tensor } => {
                write!(
                    f,
                    "operator {op}: reads tensor {tensor}, which nothing has written"
                )
            }
            Self::Redefined { op, tensor } => write!(
                f,
                "operator {op}: writes tensor {tensor}, which does not exist or was written before"
            ),
            Self::Count {
                op,
                what,
                expected,
                got,
            } => write!(f, "operator {op}: {what}: expected {expected}, got {got}"),
            Self::TooLarge { what, got } => write!(f, "{what} too large for the file: {got}"),
            Self::Length {
                what,
                expected,
                got,
            } => write!(f, "{what}: expected {expected}, got {got}"),
            Self::Refused(error) => write!(f, "the model is not valid: {error}"),
            Self::Golden(error) => write!(f, "golden image: {error}"),
        }
    }
}

impl core::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Golden(error) => Some(error),
            _ => None,
        }
    }
}
