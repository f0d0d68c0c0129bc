//! The report's rows from the values of the earlier stages.

use std::{collections::BTreeMap, path::Path};

use runtime::encode::OpSpec;
use verifier::compare::sha256;

use super::{FileHash, Layer, ReportError};
use crate::{
    architecture::{self, Architecture},
    quantize::Quantized,
};

/// One row per layer, in order. Without `quantized` there are no int8 bytes.
pub fn layers(architecture: &Architecture, quantized: Option<&Quantized>) -> Vec<Layer> {
    let bytes = |name: &str| {
        let operators = quantized?.operators.iter().filter(|op| op.layer == name);
        operators
            .filter_map(|op| weight_bytes(&op.spec))
            .reduce(|a, b| a + b)
    };
    let row = |layer: &architecture::Layer| Layer {
        name: layer.name.clone(),
        kind: layer.kind_name().into(),
        output: layer.output,
        parameters: layer.parameters(),
        macs: layer.macs(),
        weight_bytes: bytes(&layer.name),
        operator: None,
    };
    architecture.layers.iter().map(row).collect()
}

/// i8 weights and i32 biases; of an affine operator the i16 factors and i32 offsets. `None`: the operator has neither.
fn weight_bytes(spec: &OpSpec) -> Option<u64> {
    match spec {
        OpSpec::Conv { weight, bias, .. } | OpSpec::Dense { weight, bias, .. } => {
            Some((weight.len() + 4 * bias.len()) as u64)
        }
        OpSpec::Affine { params, .. } => Some(6 * params.len() as u64),
        _ => None,
    }
}

/// Sizes and sha256 of those files of the run folder that exist.
///
/// # Errors
/// A file that cannot be read.
pub fn files(dir: &Path, names: &[&str]) -> Result<BTreeMap<String, FileHash>, ReportError> {
    let hash = |name: &&str| {
        let path = dir.join(name);
        let bytes = std::fs::read(&path).map_err(|source| ReportError::File {
            path: path.display().to_string(),
            source,
        })?;
        let hash = FileHash {
            sha256: sha256(&bytes),
            bytes: bytes.len() as u64,
        };
        Ok((name.to_string(), hash))
    };
    let existing = names.iter().filter(|name| dir.join(name).exists());
    existing.map(hash).collect()
}

#[cfg(test)]
mod tests {
    use runtime::encode::Post;

    use super::*;
    use crate::{
        architecture::{Activation, Initializer, LayerKind, OutputActivation, Regularizer, Source},
        quantize::Operator,
    };

    fn layer(
        name: &str,
        kind: LayerKind,
        input: [usize; 3],
        output: [usize; 3],
    ) -> architecture::Layer {
        architecture::Layer {
            name: name.into(),
            kind,
            inputs: vec![Source::Input],
            input: input.into(),
            output: output.into(),
        }
    }

    /// A dense layer of 4 inputs and 3 units: 12 weights of one byte and 3 biases of four.
    #[test]
    fn rows_of_a_small_network() {
        let dense = LayerKind::Dense {
            units: 3,
            use_bias: true,
            activation: Activation::Linear,
            regularizer: Regularizer::default(),
            initializer: Initializer::default(),
        };
        let architecture = Architecture {
            input: [2, 2, 1].into(),
            layers: vec![
                layer("flatten1", LayerKind::Flatten, [2, 2, 1], [1, 1, 4]),
                layer("dense1", dense, [1, 1, 4], [1, 1, 3]),
            ],
            output: OutputActivation::Softmax,
        };
        let quantized = Quantized {
            tensors: Vec::new(),
            operators: vec![Operator {
                layer: "dense1".into(),
                spec: OpSpec::Dense {
                    input: 0,
                    output: 1,
                    weight: vec![1; 12],
                    bias: vec![0; 3],
                    post: Post::default(),
                },
                activation: Activation::Linear,
                table_exponent: None,
                weight_exponents: vec![-7; 3],
            }],
            logit_exponents: vec![-7; 3],
            output: OutputActivation::Softmax,
        };
        let rows = layers(&architecture, Some(&quantized));
        let summary: Vec<_> = rows
            .iter()
            .map(|r| (r.kind.as_str(), r.parameters, r.macs, r.weight_bytes))
            .collect();
        assert_eq!(
            summary,
            [("flatten", 0, 0, None), ("dense", 15, 12, Some(24))]
        );
        assert!(
            layers(&architecture, None)
                .iter()
                .all(|r| r.weight_bytes.is_none())
        );
    }

    /// sha256 of "abc": FIPS 180-4, example 1.
    #[test]
    fn files_by_published_digest() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "abc").unwrap();
        let hashes = files(folder.path(), &["a", "b"]).unwrap();
        assert_eq!(hashes.len(), 1);
        assert_eq!(hashes["a"].bytes, 3);
        assert_eq!(
            hashes["a"].sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        std::fs::create_dir(folder.path().join("c")).unwrap();
        let error = files(folder.path(), &["c"]).unwrap_err();
        assert!(error.to_string().contains("c: "), "{error}");
    }
}
