//! report.json and report.html: what was trained, how good it is, what it costs on a device, and why the bits are the same.
//!
//! [`build`] is a pure function from the results of the stages to a [`Report`]; [`write`](fn@write) puts both files into the run folder.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};
use verifier::{
    certificate::{Certificate, LayerCertificate},
    tolerance::Difference,
};

use crate::{
    architecture::Shape,
    callbacks::{CallbackError, EpochLog},
    classification::{Classification, ClassificationError},
    export::winograd::Comparison,
    file::write_atomic,
};

mod html;
pub mod source;

/// Version of the layout of report.json; raised when a field changes its meaning or goes away.
pub const FORMAT: u32 = 1;
/// The report for programs, in the run folder.
pub const JSON: &str = "report.json";
/// The report for people.
pub const HTML: &str = "report.html";

/// Everything that report.json holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Where the model comes from.
    pub origin: Origin,
    /// Raw image.
    pub input: Shape,
    /// Trained parameters of all layers, moving statistics included.
    pub parameters: u64,
    /// Multiply-accumulates of one inference, all layers.
    pub macs: u64,
    /// Test result of the float model.
    pub float: Classification,
    /// Test result of model.fxp, from the integer runtime itself.
    pub fixed: Option<Classification>,
    /// Result on the images held out of the training part, if the recipe holds some out. Choices between models belong here.
    #[serde(default)]
    pub validation: Option<Validation>,
    /// One row per layer of the recipe.
    pub layers: Vec<Layer>,
    /// What the model needs on a device.
    pub memory: Option<Memory>,
    /// Both forms of the convolutions that can be transformed for Winograd's algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winograd: Option<Comparison>,
    /// Why both int8 models give the same logits for every image.
    pub certificate: Option<Certificate>,
    /// Comparison of the logits of test images.
    pub verification: Option<Verification>,
    /// Dashed line of the accuracy curves.
    pub reference_accuracy: Option<f32>,
    /// One entry per epoch.
    pub history: Vec<EpochLog>,
    /// Files of the run folder by name.
    pub files: BTreeMap<String, FileHash>,
}

/// Where a model comes from: enough to train it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Recipe name.
    pub name: String,
    /// The resolved recipe, TOML.
    pub recipe: String,
    /// sha256 of the resolved recipe without `data.path`, hexadecimal.
    pub recipe_sha256: String,
    /// sha256 over the images and labels, hexadecimal.
    pub data_sha256: String,
    /// Seed of initial weights, order, augmentation and dropout.
    pub seed: u64,
    /// Name and version of what took part (trainer, runtime, ...).
    pub versions: BTreeMap<String, String>,
}

/// Accuracies of the final models on the validation images, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// How many images.
    pub images: usize,
    /// Of the float model.
    pub float: f64,
    /// Of model.fxp.
    pub fixed: f64,
}

/// A layer of the recipe; `operator` if it is (the main part of) an operator of model.fxp. Others are folded or fused into one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Unique name.
    pub name: String,
    /// `conv`, `max_pool`, `dense`, ...
    pub kind: String,
    /// Shape of the output.
    pub output: Shape,
    /// Parameters, moving statistics included.
    pub parameters: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Bytes of integer weights and biases, without shifts and tables; what model.fxp holds of transformed convolutions is in
    /// [`Report::winograd`].
    pub weight_bytes: Option<u64>,
    /// Bound and scales, from the certificate; filled in by [`build`].
    #[serde(default)]
    pub operator: Option<LayerCertificate>,
}

/// Bytes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Size of model.fxp.
    pub flash_bytes: u64,
    /// Working memory of one inference, input image included.
    pub arena_bytes: u64,
}

/// Logits of two engines, compared bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The ONNX engine.
    pub engine: String,
    /// The fixed-point engine.
    pub backend: String,
    /// Images compared.
    pub images: usize,
    /// Logits compared.
    pub logits: usize,
    /// Logits that differ.
    pub mismatching: usize,
    /// model.onnx in the ONNX engine against the trained network itself, both in f32; not known without the network.
    pub export: Option<Difference>,
    /// model.onnx against model.fxp: what the quantization changes.
    pub quantization: Difference,
}

/// A file of the run folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileHash {
    /// sha256, hexadecimal.
    pub sha256: String,
    /// Size.
    pub bytes: u64,
}

/// Results of the stages. What is `None` has not been made (yet).
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Where the model comes from.
    pub origin: Origin,
    /// Raw image.
    pub input: Shape,
    /// Layers without `operator`.
    pub layers: Vec<Layer>,
    /// Float test result.
    pub float: Classification,
    /// Fixed-point test result.
    pub fixed: Option<Classification>,
    /// Both models on the validation images.
    pub validation: Option<Validation>,
    /// Flash and RAM.
    pub memory: Option<Memory>,
    /// Both forms of convolutions.
    pub winograd: Option<Comparison>,
    /// Proof of exactness.
    pub certificate: Option<Certificate>,
    /// Comparison on test images.
    pub verification: Option<Verification>,
    /// Dashed line of the accuracy curves.
    pub reference_accuracy: Option<f32>,
    /// All epochs.
    pub history: Vec<EpochLog>,
    /// Files to list.
    pub files: BTreeMap<String, FileHash>,
}

/// Joins the results: totals, and for each layer the operator that carries its name.
pub fn build(inputs: Inputs) -> Report {
    let mut layers = inputs.layers;
    if let Some(certificate) = &inputs.certificate {
        for layer in &mut layers {
            layer.operator = certificate
                .layers
                .iter()
                .find(|operator| operator.layer == layer.name)
                .cloned();
        }
    }
    Report {
        format: FORMAT,
        origin: inputs.origin,
        input: inputs.input,
        parameters: layers.iter().map(|layer| layer.parameters).sum(),
        macs: layers.iter().map(|layer| layer.macs).sum(),
        float: inputs.float,
        fixed: inputs.fixed,
        validation: inputs.validation,
        layers,
        memory: inputs.memory,
        winograd: inputs.winograd,
        certificate: inputs.certificate,
        verification: inputs.verification,
        reference_accuracy: inputs.reference_accuracy,
        history: inputs.history,
        files: inputs.files,
    }
}

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Predictions that do not fit the labels.
    #[error("report.json: {0}")]
    Classification(#[from] ClassificationError),
    /// history.csv.
    #[error(transparent)]
    History(#[from] CallbackError),
    /// A file of the run folder.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A number that JSON does not have.
    #[error("report.json: {0}")]
    Json(#[from] serde_json::Error),
    /// The page could not be rendered.
    #[error("report.html: {0}")]
    Html(#[from] minijinja::Error),
}

/// report.json: indented, keys in a fixed order, with a line end.
pub fn json(report: &Report) -> Result<String, ReportError> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

/// Writes report.json and report.html into the run folder, each atomically.
pub fn write(dir: &Path, report: &Report) -> Result<(), ReportError> {
    for (name, text) in [(JSON, json(report)?), (HTML, html::render(report)?)] {
        let path = dir.join(name);
        write_atomic(&path, text.as_bytes()).map_err(|source| ReportError::File {
            path: path.display().to_string(),
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
