//! The proof that belongs to a pair of files: recomputed from model.int8.onnx and model.fxp alone.
//!
//! Per operator: both files hold the same integers and the same geometry, the scales are the powers of two that
//! the shifts say, no accumulator can reach 2^24, and a table holds what tract computes for all 256 inputs.
//! With this the two models give the same logits for every image; see docs/exactness.md.

use runtime::{Model, Op};
use serde::{Deserialize, Serialize};

use crate::{
    compare::sha256,
    graph::{Exponent, Graph, GraphError},
    lower::{LowerError, Main, lower},
    pair,
    table::{self, TableError},
};

/// Integers below this magnitude are exact in f32.
pub const LIMIT: i64 = 1 << 24;

/// What was proved about two files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// sha256 of model.int8.onnx, hexadecimal.
    pub onnx_sha256: String,
    /// sha256 of model.fxp, hexadecimal.
    pub fxp_sha256: String,
    /// 2^24: every accumulator stays below.
    pub limit: i64,
    /// Smallest margin of all operators.
    pub margin: i64,
    /// One entry per operator.
    pub layers: Vec<LayerCertificate>,
}

/// What was proved about one operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerCertificate {
    /// Position in model.fxp.
    pub op: usize,
    /// Layer of the recipe.
    pub layer: String,
    /// `conv`, `dense`, ...
    pub kind: String,
    /// Greatest magnitude of an accumulator, over all images and output channels: `sum(|w|) * max|x| + |bias|`.
    pub bound: i64,
    /// The channel (or value, for an affine operator per value) that has it.
    pub channel: usize,
    /// `limit - bound`, positive.
    pub margin: i64,
    /// Power of two of one step of each input.
    pub input_exponents: Vec<i32>,
    /// Power of two of one step of the weights, per output channel; empty without weights.
    pub weight_exponents: Vec<i32>,
    /// Power of two of one step of the output; one per class for the logits.
    pub output_exponents: Vec<i32>,
    /// 256 entries proved, if the operator has a table.
    pub table: bool,
}

/// Why two files are not proved to be equal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// model.fxp is refused.
    #[error("model.fxp: {0}")]
    Fixed(String),
    /// model.int8.onnx is malformed.
    #[error("model.int8.onnx: {0}")]
    Graph(#[from] GraphError),
    /// model.int8.onnx computes something else than exact integer operators.
    #[error("model.int8.onnx: {0}")]
    Lower(#[from] LowerError),
    /// The number of operators differs.
    #[error("model.fxp has {fixed} operators, isobit.ops of model.int8.onnx {onnx}")]
    Count {
        /// In model.fxp.
        fixed: usize,
        /// In the metadata.
        onnx: usize,
    },
    /// The files disagree about an operator, or it breaks the bound.
    #[error("operator {op} (layer `{layer}`): {reason}")]
    Layer {
        /// Position in model.fxp.
        op: usize,
        /// Layer of the recipe.
        layer: String,
        /// What differs, found and expected.
        reason: String,
    },
    /// tract could not be asked about a table.
    #[error("{0}")]
    Table(#[from] TableError),
}

/// Proves that `fxp` computes what `onnx` computes, for every image.
///
/// # Errors
/// The first operator for which that does not follow from the two files.
pub fn compute(onnx: &[u8], fxp: &[u8]) -> Result<Certificate, CertificateError> {
    let graph = Graph::parse(onnx)?;
    let model = Model::new(fxp).map_err(|e| CertificateError::Fixed(e.to_string()))?;
    let all = lower(&graph, &graph.ops()?)?;
    let ops: Vec<Op<'_>> = model.ops().collect();
    if ops.len() != all.len() || all.iter().enumerate().any(|(i, l)| l.record.op != i) {
        return Err(CertificateError::Count {
            fixed: ops.len(),
            onnx: all.len(),
        });
    }
    let [c, h, w] = graph.image;
    let image = ops.first().map(|o| o.input.shape).unwrap_or(model.input());
    if [image.h, image.w, image.c].map(usize::from) != [h, w, c] {
        return Err(CertificateError::Fixed(format!(
            "input {image:?}, model.int8.onnx has {h} x {w} x {c}"
        )));
    }
    let mut layers = Vec::with_capacity(ops.len());
    for (op, lowered) in ops.iter().zip(&all) {
        let fail = |reason: String| CertificateError::Layer {
            op: lowered.record.op,
            layer: lowered.record.layer.clone(),
            reason,
        };
        let inputs = pair::inputs(&ops, &all, lowered).map_err(fail)?;
        let bound = pair::check(op, lowered, &inputs).map_err(fail)?;
        if bound.value >= LIMIT {
            return Err(fail(format!(
                "channel {}: an accumulator can reach {}, the limit is {LIMIT}",
                bound.channel, bound.value
            )));
        }
        let table = pair::table(op, lowered, &inputs).map_err(fail)?;
        if let Some(question) = &table {
            table::prove(question)?.map_or(Ok(()), |entry| Err(fail(entry)))?;
        }
        layers.push(LayerCertificate {
            op: lowered.record.op,
            layer: lowered.record.layer.clone(),
            kind: op.kind.name().into(),
            bound: bound.value,
            channel: bound.channel,
            margin: LIMIT - bound.value,
            input_exponents: inputs.iter().map(|i| i.exponent).collect(),
            weight_exponents: match &lowered.main {
                Main::Linear(linear) => linear.weight_exponents.clone(),
                _ => Vec::new(),
            },
            output_exponents: match &lowered.record.exponent {
                Exponent::One(e) => vec![*e],
                Exponent::PerClass(list) => list.clone(),
            },
            table: table.is_some(),
        });
    }
    Ok(Certificate {
        onnx_sha256: sha256(onnx),
        fxp_sha256: sha256(fxp),
        limit: LIMIT,
        margin: layers.iter().map(|l| l.margin).min().unwrap_or(LIMIT),
        layers,
    })
}
