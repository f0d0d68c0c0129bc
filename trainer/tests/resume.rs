//! A training that is stopped, in whatever way, and continued ends with the bits of one that was never stopped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::checkpoint::{self, read_progress};

/// Everything that has a state: batch norm, dropout, augmentation, Nadam, averaging, early stopping, reduce-on-plateau.
const RECIPE: &str = r#"
name = "resumed"
[data]
format = "idx"
path = "DATA"
split = { mode = "joined", test = 300 }
validation = 0.1
limit = 480
augment = { shift = 1.0, rotate = 5.0 }
[network]
input = [28, 28, 1]
layers = [
    { type = "conv", filters = 4, stride = [2, 2] },
    { type = "batch_norm" },
    { type = "activation", activation = "relu" },
    { type = "max_pool" },
    { type = "flatten" },
    { type = "dropout", rate = 0.2 },
    { type = "dense", units = 10, activation = "softmax", l2 = 0.001 },
]
[train]
epochs = 6
batch = 20
ema = 0.9
optimizer = { type = "nadam", learning_rate = 0.01 }
[train.callbacks]
checkpoint = { every_steps = 3 }
early_stopping = { patience = 5, restore_best = true }
reduce_on_plateau = { monitor = "val_accuracy", patience = 1, min_delta = 0.2 }
[quantize]
calibration_images = 100
"#;

fn write_recipe(dir: &Path) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mnist/data");
    let path = dir.join("recipe.toml");
    fs::write(&path, RECIPE.replace("DATA", data.to_str().unwrap())).unwrap();
    path
}

fn trainer(arguments: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command
        .args(["fit", "--plain", "--out"])
        .arg(out)
        .args(arguments);
    command
}

fn run(arguments: &[&str], out: &Path) -> Output {
    trainer(arguments, out).output().unwrap()
}

fn succeed(arguments: &[&str], out: &Path) -> String {
    let output = run(arguments, out);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    errors
}

/// The command must end with this exit code and a message that has all these parts.
fn fail(arguments: &[&str], out: &Path, code: i32, parts: &[&str]) {
    let output = run(arguments, out);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    for part in parts {
        assert!(errors.contains(part), "{arguments:?}: {errors}");
    }
}

/// history.csv without the two columns of times.
fn history(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("history.csv")).unwrap();
    let lines = text.lines().map(|line| {
        let columns: Vec<&str> = line.split(',').collect();
        columns[..7].join(",")
    });
    lines.collect()
}

fn assert_same(expected: &Path, got: &Path) {
    assert_eq!(history(expected), history(got));
    for name in [
        "initial.safetensors",
        "weights.safetensors",
        "best.safetensors",
        "model.onnx",
        "model.int8.onnx",
        "model.fxp",
    ] {
        let [a, b] = [expected, got].map(|dir| fs::read(dir.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
}

/// Waits until the checkpoint has been replaced so many times.
fn wait_for_checkpoints(path: &Path, child: &mut Child, times: usize) {
    let modified = || fs::metadata(path).and_then(|file| file.modified()).ok();
    let start = Instant::now();
    for _ in 0..times {
        let before = modified();
        while modified() == before {
            assert!(child.try_wait().unwrap().is_none(), "the run ended early");
            assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint");
            sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(unix)]
#[test]
fn killed_ten_times_and_interrupted_once() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = write_recipe(dir.path());
    let recipe = recipe.to_str().unwrap();
    let whole = dir.path().join("whole");
    succeed(&[recipe], &whole);

    let killed = dir.path().join("killed");
    let path = killed.join(checkpoint::FILE);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut within, mut steps) = (0, Vec::new());
    for kill in 0..11 {
        let arguments: &[&str] = if kill == 0 { &[recipe] } else { &["--resume"] };
        let mut child = trainer(arguments, &killed)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_checkpoints(&path, &mut child, 1 + random.random_range(0..3));
        sleep(Duration::from_micros(random.random_range(0..5000)));
        assert!(child.try_wait().unwrap().is_none(), "the run ended early");
        if kill == 5 {
            fail(&["--resume"], &killed, 1, &["another `trainer` is writing"]);
        }
        if kill == 10 {
            let id = child.id().to_string();
            let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
            assert!(sent.success());
            let output = child.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(130), "{errors}");
            assert!(
                errors.contains("continue with `trainer fit --resume --out"),
                "{errors}"
            );
        } else {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().code(), None, "not killed");
        }
        let progress = read_progress(&path).unwrap();
        within += usize::from(progress.running.steps != 0);
        steps.push(progress.step);
    }
    assert!(
        steps.is_sorted() && within >= 3,
        "stopped at the steps {steps:?}"
    );
    succeed(&["--resume"], &killed);
    assert_same(&whole, &killed);

    let reduced = history(&whole).windows(2).any(|pair| {
        let rate = |line: &str| line.rsplit(',').next().unwrap().to_owned();
        rate(&pair[0]) != "learning_rate" && rate(&pair[0]) != rate(&pair[1])
    });
    assert!(
        reduced,
        "reduce-on-plateau had nothing to do: {:?}",
        history(&whole)
    );
}

#[test]
fn a_folder_with_a_run_is_continued_trained_again_or_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = write_recipe(dir.path());
    let recipe = recipe.to_str().unwrap();
    let [two, one, warm] = ["two", "one", "warm"].map(|name| dir.path().join(name));
    fail(&["--resume"], &one, 2, &["expected a run folder"]);
    fail(
        &["--resume", recipe],
        &one,
        2,
        &["no checkpoint to continue"],
    );
    succeed(&[recipe, "--epochs", "2"], &two);
    succeed(&[recipe, "--epochs", "1"], &one);

    // the same again
    let before = fs::read(one.join("weights.safetensors")).unwrap();
    let said = succeed(&[recipe, "--epochs", "1"], &one);
    assert!(said.contains("is finished (1 epochs)"), "{said}");
    assert!(succeed(&["--resume"], &one).contains("is finished (1 epochs)"));
    let ways = ["--resume", "--reset-weights", "--out"];
    fail(&[recipe, "--epochs", "2"], &one, 2, &ways);
    fail(
        &[recipe, "--epochs", "1", "--seed", "2"],
        &one,
        2,
        &["train.seed = 1, not 2"],
    );
    fail(
        &["--resume", "--seed", "2"],
        &one,
        2,
        &["train.seed = 1, the recipe now 2"],
    );
    let layer = "network.layers.0.filters=5";
    fail(
        &["--resume", "--set", layer],
        &one,
        2,
        &["network.layers.0.filters = 4"],
    );
    assert_eq!(fs::read(one.join("weights.safetensors")).unwrap(), before);

    // more epochs, and back to the first weights
    succeed(&["--resume", "--epochs", "2"], &one);
    assert_same(&two, &one);
    fail(
        &["--resume", "--epochs", "1"],
        &one,
        2,
        &["train.epochs = 2", "more epochs are done"],
    );
    succeed(&["--reset-weights", "--epochs", "1"], &one);
    assert_eq!(fs::read(one.join("weights.safetensors")).unwrap(), before);

    // only the weights
    let from = one.to_str().unwrap();
    let other = ["--warm-start", from, recipe, "--set", layer];
    fail(&other, &warm, 1, &["tensor `conv1.kernel` has the shape"]);
    succeed(&["--warm-start", from, recipe, "--epochs", "1"], &warm);
    assert_eq!(fs::read(warm.join("initial.safetensors")).unwrap(), before);
    assert_eq!(
        read_progress(&warm.join(checkpoint::FILE)).unwrap().step,
        24
    );
    fail(&["--warm-start", from, recipe], &warm, 2, &["holds a run"]);
}
