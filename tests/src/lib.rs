//! Proves that the ONNX model and the fixed-point model of a run compute the same bits.
pub mod backend;
pub mod compare;
pub mod graph;
pub mod naive;
pub mod tolerance;
pub mod tract;

pub use compare::{VerifyError, VerifyReport, verify};
