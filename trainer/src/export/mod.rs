//! The model files of a run: pure functions from weights or integer operators to bytes.

pub mod fixed;
pub mod onnx;
pub mod winograd;

use runtime::encode::WinogradMisfit;

/// What every model file says about its origin.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Name of the recipe.
    pub name: &'a str,
    /// sha256 of the resolved recipe.
    pub recipe_sha256: [u8; 32],
    /// In the order of the logits.
    pub class_names: &'a [String],
}

/// Why a model file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    #[error("export.opset: expected {} to {}, got {got}", onnx::OPSETS.start(), onnx::OPSETS.end())]
    Opset { got: u32 },
    #[error("weights: `{name}` is missing or has the wrong size (expected {expected} values)")]
    Weight { name: String, expected: usize },
    #[error("layer `{layer}`: the exponent {got} does not fit the fixed-point format")]
    Exponent { layer: String, got: i32 },
    #[error("export.winograd: layer `{layer}`: {reason}")]
    Winograd {
        layer: String,
        reason: WinogradMisfit,
    },
    #[error("export.winograd: there is no convolution `{layer}`; those that fit: {fitting}")]
    NoWinogradLayer { layer: String, fitting: String },
    #[error("model.fxp: {0}")]
    Encode(String),
    #[error("onnx: {0}")]
    Protobuf(#[from] protobuf::Error),
}
