//! Every logit of every image, bit for bit: the int8 ONNX model in tract against a backend.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    backend::{Backend, BackendError},
    graph::{Exponent, Graph, GraphError, OpRecord},
    tract::{BATCH, Batched, TractError},
};

/// Images between two reports of progress.
const GROUP: usize = 8 * BATCH;

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The ONNX file is not what the exporter writes.
    #[error("model.int8.onnx: {0}")]
    Graph(#[from] GraphError),
    /// tract refuses the model.
    #[error("model.int8.onnx: {0}")]
    Tract(#[from] TractError),
    /// The fixed-point engine failed.
    #[error("{0}")]
    Backend(#[from] BackendError),
    /// The two models do not belong together.
    #[error("model.int8.onnx and model.fxp do not match: {0}")]
    Pair(String),
}

/// One logit that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mismatch {
    /// Position of the image.
    pub image: usize,
    /// Class.
    pub class: usize,
    /// What the ONNX engine computed.
    pub onnx: f32,
    /// What the backend computed, times its power of two.
    pub fixed: f32,
    /// The backend's accumulator.
    pub accumulator: i32,
}

/// Result of a comparison of logits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifyReport {
    /// sha256 of model.int8.onnx, hexadecimal.
    pub onnx_sha256: String,
    /// sha256 of model.fxp, hexadecimal.
    pub fxp_sha256: String,
    /// The ONNX engine.
    pub engine: String,
    /// The fixed-point engine.
    pub backend: String,
    /// Images compared.
    pub images: usize,
    /// Logits compared: images times classes.
    pub logits: usize,
    /// Logits that differ.
    pub mismatching: usize,
    /// The first one that differs.
    pub first: Option<Mismatch>,
    /// The backend's logits as real numbers, `accumulator * 2^exponent` (exact in f32), image by image.
    #[serde(skip)]
    pub values: Vec<f32>,
}

/// Compares every logit of `images` computed by tract (optimized plan, batches of 64) with `backend`'s.
///
/// A logit agrees if the f32 of ONNX equals `accumulator * 2^exponent` exactly (0 and -0 are the same number).
/// `backend` runs `fxp`; the report names both files by their sha256.
/// `progress` is called with the number of images done.
///
/// # Errors
/// A file that is refused, or an engine that fails; a difference is no error but part of the report.
pub fn verify(
    onnx: &[u8],
    fxp: &[u8],
    images: &[&[u8]],
    backend: &mut dyn Backend,
    progress: &mut dyn FnMut(usize),
) -> Result<VerifyReport, VerifyError> {
    let graph = Graph::parse(onnx)?;
    let exponents = logit_exponents(&graph)?;
    let outputs = [graph.outputs.first().cloned().unwrap_or_default()];
    let tract = Batched::load(onnx, graph.image, &outputs, images.len())?;

    let mut report = VerifyReport {
        onnx_sha256: sha256(onnx),
        fxp_sha256: sha256(fxp),
        engine: "tract 0.23 (optimized, batches of 64)".into(),
        backend: backend.describe(),
        images: images.len(),
        logits: 0,
        mismatching: 0,
        first: None,
        values: Vec::new(),
    };
    for (g, group) in images.chunks(GROUP).enumerate() {
        let expected = tract.run(group)?;
        let got = backend.logits(group)?;
        let classes = expected.len() / group.len();
        for (i, accumulators) in got.iter().enumerate() {
            if accumulators.len() != classes {
                return Err(VerifyError::Pair(format!(
                    "{classes} logits in ONNX, {} in the fixed-point model",
                    accumulators.len()
                )));
            }
            for (class, (&accumulator, &onnx)) in accumulators
                .iter()
                .zip(&expected[i * classes..])
                .enumerate()
            {
                let fixed = real(accumulator, exponent(&exponents, class)?);
                report.logits += 1;
                report.values.push(fixed as f32);
                if f64::from(onnx) != fixed {
                    report.mismatching += 1;
                    report.first.get_or_insert(Mismatch {
                        image: g * GROUP + i,
                        class,
                        onnx,
                        fixed: fixed as f32,
                        accumulator,
                    });
                }
            }
        }
        progress(g * GROUP + group.len());
    }
    Ok(report)
}

/// sha256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Two lower-case digits per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `accumulator * 2^exponent`, exact in f64.
pub fn real(accumulator: i32, exponent: i32) -> f64 {
    f64::from(accumulator) * f64::from(exponent).exp2()
}

/// The record of the logits: the last operator.
///
/// # Errors
/// No record at all.
pub fn logits_record(graph: &Graph) -> Result<OpRecord, GraphError> {
    graph
        .ops()?
        .into_iter()
        .max_by_key(|r| r.op)
        .ok_or(GraphError::Metadata {
            key: "isobit.ops",
            reason: "empty".into(),
        })
}

fn logit_exponents(graph: &Graph) -> Result<Exponent, VerifyError> {
    Ok(logits_record(graph)?.exponent)
}

fn exponent(exponents: &Exponent, class: usize) -> Result<i32, VerifyError> {
    exponents
        .at(class)
        .ok_or_else(|| VerifyError::Pair(format!("no exponent for class {class} in isobit.ops")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_values_are_exact() {
        assert_eq!(real(-3, -2), -0.75);
        assert_eq!(real((1 << 24) - 1, -40), 16_777_215.0 / (1u64 << 40) as f64);
    }
}
