//! Named tensors on the host: what a checkpoint holds, what the exporter and the quantizer read.

use std::collections::BTreeMap;

/// A dense row-major f32 tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

/// Weights by name: `<layer>.kernel`, `<layer>.bias`, `<layer>.gamma`, `.beta`, `.moving_mean`, `.moving_variance`.
/// Layouts as in [`crate::architecture`]. Iteration is in name order, so every file made from it is reproducible.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Array>);
