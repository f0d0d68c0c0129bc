//! ONNX files. The input of every model is `image`: raw pixels, uint8 `[N, C, H, W]`; the bytes are reproducible.

mod builder;
mod float;
mod int8;

pub use float::float;
pub use int8::int8;

/// Operator sets that can be written: 13 brought per-axis quantization, 18 is the last one that tract knows.
pub const OPSETS: std::ops::RangeInclusive<u32> = 13..=18;

/// Name of the graph input.
pub const IMAGE: &str = "image";
/// Name of the graph output before softmax.
pub const LOGITS: &str = "logits";
/// Name of the float model's second output.
pub const PROBABILITIES: &str = "probabilities";
