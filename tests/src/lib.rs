//! Proves that the ONNX model and the fixed-point model of a run compute the same bits.
//!
//! [`verify`] compares what the engines compute.
pub mod backend;
pub mod compare;
pub mod graph;
pub mod lower;
pub mod naive;
pub mod table;
pub mod tolerance;
pub mod tract;

pub use compare::{VerifyError, VerifyReport, verify};
