//! `trainer fit` on real images, from the recipe to verified models.

use std::{path::Path, process::Command};

#[test]
fn fit_ends_with_verified_models() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["fit", "--plain", "--epochs", "1", "--set", "data.limit=640"])
        .args(["--set", "quantize.calibration_images=100", "--out"])
        .arg(dir.path())
        .arg(root.join("models/mnist/recipe.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(text.lines().last(), Some("mismatching logits: 0 of 100000"));
    for name in [
        "recipe.toml",
        "initial.safetensors",
        "weights.safetensors",
        "history.csv",
        "curves.png",
        "model.onnx",
        "model.int8.onnx",
        "model.fxp",
    ] {
        assert!(dir.path().join(name).is_file(), "{name} is missing");
    }
}

/// Weights after one short epoch with `threads` threads.
fn weights(threads: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["fit", "--quiet", "--epochs", "1", "--threads", threads])
        .args(["--set", "data.limit=300"])
        .args(["--set", "quantize.calibration_images=100", "--out"])
        .arg(dir.path())
        .arg(root.join("models/mnist/recipe.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::read(dir.path().join("weights.safetensors")).unwrap()
}

#[test]
fn the_number_of_threads_does_not_change_the_weights() {
    let one = weights("1");
    for threads in ["2", "3"] {
        assert!(weights(threads) == one, "{threads} threads");
    }
}

#[test]
fn no_threads_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["fit", "--threads", "0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--threads"));
}
