//! Sections `quantize` and `export`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantize {
    /// Training images used to calibrate activation ranges.
    pub calibration_images: usize,
    pub method: CalibrationMethod,
    /// For `percentile`: the part of the values that must not saturate, in percent.
    pub percentile: f32,
    /// Epochs of quantization-aware fine-tuning after the calibration; 0: none.
    pub qat_epochs: usize,
    /// Learning rate of the fine-tuning (Adam, cosine to 0).
    pub qat_learning_rate: f32,
}
impl Default for Quantize {
    fn default() -> Self {
        Self {
            calibration_images: 2000,
            method: CalibrationMethod::Divergence,
            percentile: 99.99,
            qat_epochs: 0,
            qat_learning_rate: 1e-4,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationMethod {
    /// No value seen in calibration saturates.
    MinMax,
    /// [`Quantize::percentile`] percent of them do not.
    Percentile,
    /// Smallest squared error of every tensor for itself.
    Mse,
    /// From `mse` on, exponents move as long as the class probabilities of the integer network come nearer to the float
    /// network's.
    #[default]
    Divergence,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// ONNX operator set, 13 to 18.
    pub opset: u32,
    /// Embed a golden image in model.fxp for the device's self-test.
    pub golden_image: bool,
}
impl Default for Export {
    fn default() -> Self {
        Self {
            opset: 17,
            golden_image: true,
        }
    }
}
