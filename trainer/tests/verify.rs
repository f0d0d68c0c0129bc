//! `trainer verify` as a process: last line and exit code, for a good run and for damaged ones.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use runtime::{Kind, Model, ModelError};
use trainer::{
    architecture::Architecture,
    calibrate::{Calibration, Histogram, LayerStatistics},
    export::{self, Origin},
    preprocess::Preprocess,
    quantize::{Method, quantize},
    recipe::{Recipe, Winograd},
    weights::{Array, Weights},
};

const IMAGES: usize = 70;

/// A run folder of an untrained network on the MNIST images.
fn run_folder(dir: &Path) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mnist/data");
    let text = format!(
        r#"name = "untrained"
[data]
format = "idx"
path = '{}'
[network]
input = [28, 28, 1]
layers = [
    {{ type = "conv", filters = 4, kernel = [5, 5], stride = [2, 2], activation = "tanh" }},
    {{ type = "max_pool" }},
    {{ type = "flatten" }},
    {{ type = "dense", units = 10, activation = "softmax" }},
]
"#,
        data.display()
    );
    fs::write(dir.join("recipe.toml"), &text).unwrap();
    let recipe = Recipe::parse(&text, Path::new("recipe.toml"), &[]).unwrap();
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss).unwrap();
    let mut weights = Weights::default();
    for layer in &architecture.layers {
        for (name, shape) in layer.weight_shapes() {
            let data = (0..shape.iter().product::<usize>())
                .map(|i| ((i * 7919) % 101) as f32 / 400.0 - 0.12)
                .collect();
            weights
                .0
                .insert(format!("{}.{name}", layer.name), Array { shape, data });
        }
    }
    let range = Histogram::uniform(-4.0, 4.0);
    let statistics = LayerStatistics {
        pre_activation: range.clone(),
        output: range,
    };
    let calibration = Calibration {
        input: Histogram::uniform(0.0, 1.0),
        layers: vec![statistics; architecture.layers.len()],
    };
    let preprocess = Preprocess::Unit;
    let quantized = quantize(
        &architecture,
        &preprocess,
        &weights,
        &calibration,
        Method::MinMax,
    )
    .unwrap();
    let class_names: Vec<String> = (0..10).map(|c| c.to_string()).collect();
    let origin = Origin {
        name: &recipe.name,
        recipe_sha256: [0; 32],
        class_names: &class_names,
    };
    fs::write(
        dir.join("model.int8.onnx"),
        export::onnx::int8(&quantized, 17, &origin).unwrap(),
    )
    .unwrap();
    fs::write(
        dir.join("model.fxp"),
        export::fixed::model(&quantized, &origin, None, &Winograd::default()).unwrap(),
    )
    .unwrap();
    let float = export::onnx::float(&architecture, &preprocess, &weights, 17, &origin).unwrap();
    fs::write(dir.join("model.onnx"), float).unwrap();
}

fn verify(dir: &Path, more: &[&str]) -> Output {
    let limit = IMAGES.to_string();
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .arg("verify")
        .arg(dir)
        .args(["--limit", &limit])
        .args(more)
        .output()
        .unwrap()
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .last()
        .unwrap_or_default()
        .to_string()
}

/// Decrements or increments the first weight of the last operator and puts the right CRC-32 back.
fn change_a_weight(path: PathBuf) {
    let original = fs::read(&path).unwrap();
    let model = Model::new(&original).unwrap();
    let Some(Kind::Dense(dense)) = model.ops().last().map(|op| op.kind) else {
        panic!("the head is a dense layer")
    };
    let at = dense.weights.bytes().as_ptr() as usize - original.as_ptr() as usize;
    let mut changed = original.clone();
    changed[at] = if changed[at] as i8 > 0 {
        changed[at] - 1
    } else {
        changed[at] + 1
    };
    let Err(ModelError::Checksum { stated, computed }) = Model::new(&changed) else {
        panic!("a checksum error")
    };
    let field = original
        .windows(4)
        .position(|w| w == stated.to_le_bytes())
        .unwrap();
    changed[field..field + 4].copy_from_slice(&computed.to_le_bytes());
    fs::write(path, changed).unwrap();
}

#[test]
fn a_good_run_verifies_and_a_changed_weight_does_not() {
    let dir = tempfile::tempdir().unwrap();
    run_folder(dir.path());
    let good = verify(dir.path(), &["--layers"]);
    assert!(
        good.status.success(),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    assert_eq!(
        last_line(&good),
        format!("mismatching logits: 0 of {}", IMAGES * 10)
    );

    change_a_weight(dir.path().join("model.fxp"));
    let bad = verify(dir.path(), &[]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(last_line(&bad).starts_with("mismatching logits: "));
    assert!(
        !last_line(&bad).starts_with("mismatching logits: 0 "),
        "{}",
        last_line(&bad)
    );
    let message = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(
        message.contains("weight") && message.contains("image 0"),
        "{message}"
    );
}

#[test]
fn wrong_hashes_damaged_and_missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    run_folder(dir.path());
    let report = r#"{"certificate": {"onnx_sha256": "00", "fxp_sha256": "11"}}"#;
    fs::write(dir.path().join("report.json"), report).unwrap();
    let output = verify(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("report.json: model.fxp has the sha256 11 there")
    );

    let fxp = fs::read(dir.path().join("model.fxp")).unwrap();
    fs::write(dir.path().join("model.fxp"), &fxp[..fxp.len() - 1]).unwrap();
    let output = verify(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("model.fxp"));

    fs::remove_file(dir.path().join("model.fxp")).unwrap();
    let output = verify(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("model.fxp"));
    assert_eq!(
        verify(dir.path(), &["--against", "nowhere"]).status.code(),
        Some(2)
    );
}
