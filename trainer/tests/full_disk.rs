//! A disk without space: a clear error, and the checkpoint that was there before is still there, whole.
//!
//! The disk is a tmpfs of one megabyte in a mount namespace of its own (`unshare`): it needs root, or a system that allows
//! user namespaces, and it vanishes with the process.
#![cfg(target_os = "linux")]

use std::{fs, path::Path, process::Command};

use trainer::checkpoint;

const RECIPE: &str = r#"
name = "full"
[data]
format = "idx"
path = "DATA"
split = { mode = "joined", test = 50 }
limit = 100
[network]
input = [28, 28, 1]
layers = [
    { type = "conv", filters = 4, stride = [2, 2], activation = "relu" },
    { type = "max_pool" },
    { type = "flatten" },
    { type = "dense", units = 10, activation = "softmax" },
]
[train]
epochs = 2
batch = 20
[quantize]
calibration_images = 20
"#;

/// Leaves 8 KiB of `disk`: enough for recipe.toml, not for a checkpoint.
const FILL: &str = "left=$(df --output=avail -k disk | tail -1); \
                    dd if=/dev/zero of=disk/filler bs=1k count=$((left - 8)) status=none";

/// Runs a script in `dir`, with an empty disk of one megabyte in `dir/disk`; none where the system does not allow it.
fn with_disk(dir: &Path, script: &str) -> Option<String> {
    fs::create_dir_all(dir.join("disk")).unwrap();
    let isolated = |script: &str| {
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-e", "-c", script])
            .current_dir(dir)
            .env("TRAINER", env!("CARGO_BIN_EXE_trainer"))
            .output()
    };
    const MOUNT: &str = "mount -t tmpfs -o size=1m none disk";
    let possible = isolated(MOUNT).is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!(
            "skipped: mounting a tmpfs needs root or user namespaces (`unshare --map-root-user --mount`)"
        );
        return None;
    }
    let output = isolated(&format!("{MOUNT}\n{script}")).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{errors}");
    Some(errors.into_owned())
}

#[test]
fn the_last_checkpoint_survives_and_the_training_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mnist/data");
    let recipe = RECIPE.replace("DATA", data.to_str().unwrap());
    fs::write(dir.path().join("recipe.toml"), recipe).unwrap();
    let script = format!(
        r#"
        fit="$TRAINER fit --quiet --out"
        $fit whole recipe.toml --epochs 3 > /dev/null
        $fit disk/run recipe.toml > /dev/null
        cp disk/run/{checkpoint} before
        {FILL}
        code=0
        $fit disk/run --resume --epochs 3 > /dev/null || code=$?
        test $code = 1
        cmp before disk/run/{checkpoint}
        test -z "$(ls disk/run/.writing-* 2> /dev/null)"
        rm disk/filler
        $fit disk/run --resume --epochs 3 > /dev/null
        cmp whole/weights.safetensors disk/run/weights.safetensors
        cmp whole/model.int8.onnx disk/run/model.int8.onnx
        cmp whole/model.fxp disk/run/model.fxp
        "#,
        checkpoint = checkpoint::FILE,
    );
    if let Some(errors) = with_disk(dir.path(), &script) {
        let message = "No space left on device";
        assert!(
            errors.starts_with("error: disk/run/") && errors.contains(message),
            "{errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
