//! Proves that the ONNX model and the fixed-point model of a run compute the same bits.
pub mod backend;
pub mod link;
