//! A sweep of two runs on generated image files, and what `trainer inspect` shows of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use clap::Parser;
use image::GrayImage;
use serde_json::Value;
use trainer::cli::Cli;

const RECIPE: &str = r#"
name = "sides"
[data]
format = "folder"
path = "images"
validation = 0.25
[network]
input = [8, 8, 1]
layers = [
    { type = "conv", filters = 4, activation = "relu" },
    { type = "max_pool" },
    { type = "flatten" },
    { type = "dense", units = 2, activation = "softmax" },
]
[train]
epochs = 3
batch = 10
optimizer = { type = "adam", learning_rate = 0.02 }
[quantize]
calibration_images = 60
"#;

const SWEEP: &str = r#"
recipe = "recipe.toml"
[grid]
"train.seed" = [1, 2]
"train.ema" = [0.5]
"#;

/// The brighter half of the image is the class.
fn picture(right: bool, number: u32) -> GrayImage {
    GrayImage::from_fn(8, 8, |x, y| {
        let noise = (number * 7919 + x * 104_729 + y * 1_299_709) % 61;
        let bright = (x >= 4) == right;
        image::Luma([(noise + if bright { 190 } else { 20 }) as u8])
    })
}

fn trainer(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Folder with data, recipe, sweep and its finished runs in `runs/two`.
fn swept() -> &'static Path {
    static ONCE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, root) = ONCE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        for (part, images) in [("train", 40), ("test", 10)] {
            for (right, class) in [(false, "left"), (true, "right")] {
                let folder = root.join("images").join(part).join(class);
                fs::create_dir_all(&folder).unwrap();
                for number in 0..images {
                    let file = folder.join(format!("{number:02}.png"));
                    // One test image lies in the wrong folder.
                    let wrong = part == "test" && class == "left" && number == 3;
                    picture(right != wrong, number + images).save(file).unwrap();
                }
            }
        }
        fs::write(root.join("recipe.toml"), RECIPE).unwrap();
        fs::write(root.join("two.toml"), SWEEP).unwrap();
        let output = trainer(&["sweep", "two.toml", "--jobs", "2"], &root);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let table = text(&output.stdout);
        assert!(
            table.contains("best by validation accuracy: train.ema = 0.5"),
            "{table}"
        );
        assert!(
            table.contains("its test accuracy, which played no part"),
            "{table}"
        );
        (folder, root)
    });
    root
}

fn json(args: &[&str], dir: &Path) -> Value {
    let output = trainer(args, dir);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn opens(path: &Path) -> bool {
    image::open(path).is_ok()
}

#[test]
fn every_trial_is_a_run_and_is_not_repeated() {
    let root = swept();
    let names = ["ema-0.5_seed-1", "ema-0.5_seed-2"];
    let weights = names.map(|name| {
        let run = root.join("runs/two").join(name);
        assert!(run.join("model.fxp").is_file() && run.join("history.csv").is_file());
        fs::metadata(run.join("weights.safetensors"))
            .unwrap()
            .modified()
            .unwrap()
    });
    let output = trainer(&["sweep", "two.toml"], root);
    assert!(
        !text(&output.stderr).contains("started"),
        "{}",
        text(&output.stderr)
    );
    for (name, before) in names.into_iter().zip(weights) {
        let file = root.join("runs/two").join(name).join("weights.safetensors");
        assert_eq!(fs::metadata(file).unwrap().modified().unwrap(), before);
    }
    let csv = fs::read_to_string(root.join("runs/two/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(opens(&root.join("runs/two/results.png")));

    let result = json(&["sweep", "two.toml", "--collect", "--json"], root);
    assert_eq!(
        (&result["trials"], &result["finished"]),
        (&Value::from(2), &Value::from(2))
    );
    let setting = &result["settings"][0];
    let outcomes = setting["outcomes"].as_array().unwrap();
    let mean = outcomes
        .iter()
        .map(|o| o["validation"].as_f64().unwrap())
        .sum::<f64>()
        / 2.0;
    assert_eq!(setting["mean"].as_f64().unwrap(), mean);
    // From report.json: 20 of 80 training images are held out.
    let report = fs::read(root.join("runs/two").join(names[0]).join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["validation"]["images"], 20);
    assert_eq!(report["validation"]["fixed"], outcomes[0]["validation"]);
}

#[test]
fn results_come_from_several_folders() {
    let root = swept();
    let other = root.join("other");
    fs::create_dir_all(&other).unwrap();
    let trial = "ema-0.5_seed-2";
    fs::create_dir_all(other.join(trial)).unwrap();
    for name in ["recipe.toml", "report.json"] {
        fs::copy(
            root.join("runs/two").join(trial).join(name),
            other.join(trial).join(name),
        )
        .unwrap();
    }
    let collect = |more: &[&str]| {
        let args = [
            "sweep",
            "two.toml",
            "--collect",
            "--json",
            "--out",
            "elsewhere",
        ];
        json(&[&args, more].concat(), root)["finished"].clone()
    };
    assert_eq!(collect(&[]), 0);
    assert_eq!(collect(&["--also", "other"]), 1);
    assert_eq!(collect(&["--also", "other", "--also", "runs/two"]), 2);
}

#[test]
fn printed_commands_are_those_of_the_trials() {
    let root = swept();
    let output = trainer(
        &["sweep", "two.toml", "--print-commands", "--out", "fresh"],
        root,
    );
    let lines = text(&output.stdout);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        assert!(
            line.contains("--set train.ema=0.5") && !line.contains("--resume"),
            "{line}"
        );
    }
    assert!(
        lines[1].contains("--out fresh/ema-0.5_seed-2"),
        "{}",
        lines[1]
    );
    let resumed = trainer(&["sweep", "two.toml", "--print-commands"], root);
    assert!(text(&resumed.stdout).contains("--resume"));
    assert!(!root.join("fresh").exists());
}

#[test]
fn a_folder_with_another_run_stops_the_sweep_before_it_begins() {
    let root = swept();
    fs::write(
        root.join("changed.toml"),
        RECIPE.replace("epochs = 3", "epochs = 4"),
    )
    .unwrap();
    let sweep = SWEEP
        .replace("recipe.toml", "changed.toml")
        .replace("[1, 2]", "[1, 2, 3]");
    fs::write(root.join("more.toml"), sweep).unwrap();
    let output = trainer(&["sweep", "more.toml", "--out", "runs/two"], root);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(
        error.contains("holds a run with train.epochs = 3, the sweep wants 4"),
        "{error}"
    );
    assert!(!root.join("runs/two/ema-0.5_seed-3").exists());
}

#[test]
fn a_trial_that_fails_is_named_and_the_others_go_on() {
    let root = swept();
    let sweep = "recipe = \"recipe.toml\"\n[grid]\n\"data.path\" = [\"images\", \"missing\"]";
    fs::write(root.join("data.toml"), sweep).unwrap();
    let output = trainer(&["sweep", "data.toml"], root);
    assert_eq!(output.status.code(), Some(1));
    let (table, error) = (text(&output.stdout), text(&output.stderr));
    assert!(table.contains("failed: path-missing: error: "), "{table}");
    assert!(error.contains("1 of 2 trials failed"), "{error}");
    assert!(root.join("runs/data/path-images/model.fxp").is_file());
}

#[test]
fn inspect_draws_every_sheet() {
    let root = swept();
    let run = "runs/two/ema-0.5_seed-1";
    let result = json(&["inspect", run, "--json", "--out", "pictures"], root);
    for name in ["filters-conv1", "activations", "confusions", "scales"] {
        assert!(
            opens(&root.join("pictures").join(format!("{name}.png"))),
            "{name}"
        );
    }
    assert_eq!(result["files"].as_array().unwrap().len(), 4);
    assert_eq!(result["images"], 20);
    // The image in the wrong folder, whatever else the small network mistakes.
    let pairs = result["confusions"].as_array().unwrap();
    let mistaken = pairs.iter().find(|pair| pair["label"] == 0).unwrap();
    assert!(
        mistaken["images"]
            .as_array()
            .unwrap()
            .contains(&Value::from(3))
    );
    let scales = result["scales"].as_array().unwrap();
    assert_eq!(scales.len(), 2);
    assert_eq!(scales[0]["output"]["range"][0], 0.0);
    assert!(scales[1]["output"].is_null(), "logits have no scale");

    let shown = text(&trainer(&["inspect", run, "--index", "3"], root).stdout);
    assert!(
        shown.contains("test image 3, label left, classified as right"),
        "{shown}"
    );
    assert!(root.join(run).join("inspect/scales.png").is_file());
    let beyond = trainer(&["inspect", run, "--index", "20"], root);
    assert_eq!(beyond.status.code(), Some(2));
    assert!(text(&beyond.stderr).contains("there are 20 test images, expected 0 to 19"));
}

#[test]
fn inspect_compares_two_runs() {
    let root = swept();
    let (first, second) = ("runs/two/ema-0.5_seed-1", "runs/two/ema-0.5_seed-2");
    let result = json(
        &[
            "inspect",
            first,
            "--compare",
            first,
            "--json",
            "--out",
            "same",
        ],
        root,
    );
    let layer = &result["layers"][0];
    assert_eq!(
        (&layer["layer"], &layer["alike"]),
        (&Value::from("conv1"), &Value::from(1.0))
    );
    let other = json(
        &[
            "inspect",
            first,
            "--compare",
            second,
            "--json",
            "--out",
            "same",
        ],
        root,
    );
    assert!(other["layers"][0]["mean"].as_f64() < layer["mean"].as_f64());
    assert!(opens(&root.join("same/compare.png")));
    let missing = trainer(&["inspect", first, "--compare", "nowhere"], root);
    assert_eq!(missing.status.code(), Some(2));
}
