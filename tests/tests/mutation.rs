//! What must not pass: one changed byte, one changed rounding rule, one changed exponent.

mod case;

use std::path::Path;

use case::Case;
use onnx_protobuf::{Message, ModelProto};
use runtime::{
    Kind, Model,
    encode::{ModelSpec, OpSpec, WeightOrder, encode_in},
};
use trainer::{
    export::{self, Origin},
    recipe::Winograd,
};
use verifier::{
    certificate::{self, CertificateError},
    compare::verify,
    host::Host,
};

fn files() -> (Case, Vec<u8>, Vec<u8>) {
    let case = Case::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/base.toml"));
    let quantized = case.quantize();
    let names: Vec<String> = (0..10).map(|c| c.to_string()).collect();
    let origin = Origin {
        name: "base",
        recipe_sha256: [0; 32],
        class_names: &names,
    };
    let onnx = export::onnx::int8(&quantized, 17, &origin).unwrap();
    let fxp = export::fixed::model(&quantized, &origin, None, &Winograd::default()).unwrap();
    (case, onnx, fxp)
}

/// Puts the right CRC-32 back: the four bytes whose change makes the file valid again.
fn fix_crc(original: &[u8], changed: &mut [u8]) {
    // The field holds what a valid file says; find it by asking which word differs in meaning: `stated`.
    let runtime::ModelError::Checksum { stated, computed } = Model::new(changed).unwrap_err()
    else {
        panic!("the change is not refused by the checksum");
    };
    let at = (0..original.len() - 4)
        .step_by(4)
        .find(|&i| original[i..i + 4] == stated.to_le_bytes())
        .expect("the checksum is a word of the file");
    changed[at..at + 4].copy_from_slice(&computed.to_le_bytes());
}

#[test]
fn the_files_themselves_pass() {
    let (case, onnx, fxp) = files();
    certificate::compute(&onnx, &fxp).unwrap();
    let report = verify(
        &onnx,
        &fxp,
        &case.views(),
        &mut Host::new(&fxp).unwrap(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(
        (report.mismatching, report.logits),
        (0, case.images.len() * 10)
    );
}

/// The logits differ, and the certificate names the weights.
fn changed_weights_are_found(case: &Case, onnx: &[u8], changed: &[u8]) {
    let mut host = Host::new(changed).unwrap();
    let report = verify(onnx, changed, &case.views(), &mut host, &mut |_| {}).unwrap();
    assert!(report.mismatching > 0);
    assert!(report.first.is_some());
    let error = certificate::compute(onnx, changed).unwrap_err();
    assert!(
        matches!(&error, CertificateError::Layer { reason, .. } if reason.contains("weight")),
        "{error}"
    );
}

#[test]
fn one_changed_weight_byte_is_found() {
    let (case, onnx, fxp) = files();
    // The first weight of the last operator: the logits' own layer.
    let model = Model::new(&fxp).unwrap();
    let Some(Kind::Dense(dense)) = model.ops().last().map(|op| op.kind) else {
        panic!("the head is a dense layer")
    };
    let at = dense.weights.bytes().as_ptr() as usize - fxp.as_ptr() as usize;
    let mut changed = fxp.clone();
    changed[at] = if changed[at] as i8 > 0 {
        changed[at] - 1
    } else {
        changed[at] + 1
    };
    fix_crc(&fxp, &mut changed);

    changed_weights_are_found(&case, &onnx, &changed);
}

/// The same of a convolution that is stored transformed.
#[test]
fn one_changed_transformed_kernel_is_found() {
    let (case, onnx, fxp) = files();
    let mut spec = ModelSpec::read(&Model::new(&fxp).unwrap()).unwrap();
    let same = encode_in(&spec, WeightOrder::Winograd).unwrap();
    certificate::compute(&onnx, &same).unwrap();
    let convs = spec.ops.iter_mut().filter_map(|op| match op {
        OpSpec::Conv { weight, .. } => Some(weight),
        _ => None,
    });
    // One weight of each channel: some channels are 0 for all images.
    for weight in convs.last().unwrap().iter_mut().step_by(9 * 12) {
        *weight += if *weight > 0 { -40 } else { 40 };
    }
    let changed = encode_in(&spec, WeightOrder::Winograd).unwrap();
    changed_weights_are_found(&case, &onnx, &changed);
}

#[test]
fn a_changed_exponent_in_onnx_is_found() {
    let (_, onnx, fxp) = files();
    let graph = ModelProto::parse_from_bytes(&onnx).unwrap();
    let scales: Vec<String> = graph
        .graph
        .initializer
        .iter()
        .filter(|t| t.data_type == 1 && t.raw_data.len() >= 4)
        .map(|t| t.name.clone())
        .collect();
    assert!(scales.len() > 5, "{scales:?}");
    for name in scales {
        let mut model = ModelProto::parse_from_bytes(&onnx).unwrap();
        let tensor = model
            .graph
            .mut_or_insert_default()
            .initializer
            .iter_mut()
            .find(|t| t.name == name)
            .unwrap();
        let value = f32::from_le_bytes(tensor.raw_data[..4].try_into().unwrap());
        tensor.raw_data[..4].copy_from_slice(&(value * 2.0).to_le_bytes());
        let changed = model.write_to_bytes().unwrap();
        assert!(
            certificate::compute(&changed, &fxp).is_err(),
            "scale `{name}` doubled and not noticed"
        );

        // Three times the scale is no power of two.
        let tensor = model
            .graph
            .mut_or_insert_default()
            .initializer
            .iter_mut()
            .find(|t| t.name == name)
            .unwrap();
        tensor.raw_data[..4].copy_from_slice(&(value * 3.0).to_le_bytes());
        let error = certificate::compute(&model.write_to_bytes().unwrap(), &fxp).unwrap_err();
        assert!(
            matches!(error, CertificateError::Lower(_)),
            "scale `{name}`: {error}"
        );
    }
}

#[test]
fn truncated_and_foreign_files_are_errors_and_no_panics() {
    let (_, onnx, fxp) = files();
    for len in (0..onnx.len()).step_by(997) {
        assert!(certificate::compute(&onnx[..len], &fxp).is_err());
    }
    assert!(certificate::compute(&fxp, &onnx).is_err());
    assert!(certificate::compute(&onnx, &fxp[..fxp.len() - 1]).is_err());
}
