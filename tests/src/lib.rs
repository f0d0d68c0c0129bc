//! Proves that the ONNX model and the fixed-point model of a run compute the same bits.
//!
//! [`certificate`] proves it from the two files; [`verify`] and [`layers`] compare what the engines compute.
pub mod backend;
pub mod certificate;
pub mod compare;
pub mod graph;
pub mod host;
pub mod layers;
pub mod lower;
pub mod naive;
pub mod pair;
pub mod table;
pub mod tolerance;
pub mod tract;

pub use compare::{VerifyError, VerifyReport, verify};
pub mod link;
