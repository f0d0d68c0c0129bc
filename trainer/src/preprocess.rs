//! What happens to the raw pixels 0..=255 before the first layer.

use serde::{Deserialize, Serialize};

/// Preprocessing with its statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preprocess {
    /// The pixels as they are.
    None,
    /// `x / 255`.
    Unit,
    /// `(x - mean) / std`.
    Global { mean: f32, std: f32 },
    /// `(x - mean[i]) / std[i]` for every pixel and channel; `std` is 1 for a pixel that never varies.
    PerPixel { mean: Vec<f32>, std: Vec<f32> },
}
