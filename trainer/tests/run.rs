//! The commands on a finished run: a small network trained once on generated image files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use image::GrayImage;
use runtime::{Kind, Layout, Model};
use serde_json::Value;
use trainer::report::Report;

const RECIPE: &str = r#"
name = "sides"
[data]
format = "folder"
path = "images"
preprocess = "global"
[network]
input = [8, 8, 1]
layers = [
    { type = "conv", filters = 4, activation = "relu" },
    { type = "flatten" },
    { type = "dense", units = 2, activation = "softmax" },
]
[train]
epochs = 4
batch = 10
optimizer = { type = "adam", learning_rate = 0.02 }
[quantize]
calibration_images = 100
"#;

/// The brighter half of the image is the class; noise differs by image.
fn picture(right: bool, number: u32, side: u32) -> GrayImage {
    GrayImage::from_fn(side, side, |x, y| {
        let noise = (number * 7919 + x * 104_729 + y * 1_299_709) % 61;
        let bright = (x >= side / 2) == right;
        image::Luma([(noise + if bright { 190 } else { 20 }) as u8])
    })
}

struct Trained {
    root: tempfile::TempDir,
    run: PathBuf,
    output: Output,
}

fn trainer(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(args)
        .arg(dir)
        .output()
        .unwrap()
}

/// A copy of the trained run, with its data beside it.
fn trained() -> Trained {
    static ONCE: OnceLock<Trained> = OnceLock::new();
    let first = ONCE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        for (part, images) in [("train", 40), ("test", 10)] {
            for (right, class) in [(false, "left"), (true, "right")] {
                let folder = root.path().join("images").join(part).join(class);
                fs::create_dir_all(&folder).unwrap();
                for number in 0..images {
                    let picture = picture(right, number + images, 8);
                    picture.save(folder.join(format!("{number}.png"))).unwrap();
                }
            }
        }
        fs::write(root.path().join("recipe.toml"), RECIPE).unwrap();
        let run = root.path().join("run");
        let recipe = root.path().join("recipe.toml");
        let out = format!("--out={}", run.display());
        let output = trainer(&["fit", "--json", &out], &recipe);
        Trained { root, run, output }
    });
    assert!(first.output.status.success(), "{}", stderr(&first.output));
    let root = tempfile::tempdir().unwrap();
    copy(first.root.path(), root.path());
    Trained {
        run: root.path().join("run"),
        root,
        output: first.output.clone(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(run: &Path) -> Report {
    serde_json::from_slice(&fs::read(run.join("report.json")).unwrap()).unwrap()
}

#[test]
fn fit_reports_what_it_wrote() {
    let trained = trained();
    let lines: Vec<Value> = stdout(&trained.output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5, "four epochs and the end");
    assert_eq!(lines[4]["event"], "end");
    assert_eq!(lines[4]["report"]["mismatching"], 0);

    let report = report(&trained.run);
    assert_eq!(report.history.len(), 4);
    assert_eq!(report.float.images, 20);
    assert_eq!(report.float.accuracy, 1.0);
    let names: Vec<&str> = report
        .float
        .classes
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["left", "right"]);
    let fixed = report.fixed.unwrap();
    assert_eq!(fixed.confusion, [[10, 0], [0, 10]]);
    assert_eq!(report.verification.unwrap().mismatching, 0);
    let fxp = fs::read(trained.run.join("model.fxp")).unwrap();
    assert_eq!(report.memory.unwrap().flash_bytes, fxp.len() as u64);
    for (name, file) in &report.files {
        let bytes = fs::read(trained.run.join(name)).unwrap();
        assert_eq!(file.sha256, verifier::compare::sha256(&bytes), "{name}");
    }
    assert_eq!(report.files.len(), 9);
    let certificate = report.certificate.unwrap();
    assert_eq!(certificate.fxp_sha256, report.files["model.fxp"].sha256);
    let html = fs::read_to_string(trained.run.join("report.html")).unwrap();
    assert!(html.contains("mismatching logits of 40") && html.contains("right"));
}

#[test]
fn export_writes_the_same_bytes_again_wherever_the_folder_is() {
    let trained = trained();
    let names = ["model.onnx", "model.int8.onnx", "model.fxp"];
    let before = names.map(|name| fs::read(trained.run.join(name)).unwrap());
    for name in names.into_iter().chain(["report.json", "report.html"]) {
        fs::remove_file(trained.run.join(name)).unwrap();
    }
    let output = trainer(&["export", "--json"], &trained.run);
    assert!(output.status.success(), "{}", stderr(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["report"]["mismatching"], 0);
    assert_eq!(
        names.map(|name| fs::read(trained.run.join(name)).unwrap()),
        before
    );
    assert_eq!(report(&trained.run).history.len(), 4);
    let text = trainer(&["verify"], &trained.run);
    assert!(text.status.success(), "{}", stderr(&text));
    assert_eq!(
        stdout(&text).lines().last(),
        Some("mismatching logits: 0 of 40")
    );
}

#[test]
fn export_transforms_convolutions() {
    let trained = trained();
    let read = |name: &str| fs::read(trained.run.join(name)).unwrap();
    let before = read("model.fxp");
    let output = trainer(&["export", "--winograd", "conv1"], &trained.run);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("conv1           Winograd")
            && text.ends_with("mismatching logits: 0 of 40\n"),
        "{text}"
    );
    let fxp = read("model.fxp");
    let Some(Kind::Conv(conv)) = Model::new(&fxp).unwrap().ops().next().map(|op| op.kind) else {
        panic!("the first operator is a convolution");
    };
    assert_eq!(conv.weights.layout(), Layout::Winograd);
    let comparison = report(&trained.run).winograd.unwrap();
    assert!(comparison.layers[0].transformed);
    assert_eq!(comparison.chosen, comparison.winograd);
    assert_eq!(
        comparison.winograd.weight_bytes,
        conv.weights.bytes().len() as u64
    );
    let recipe = String::from_utf8(read("recipe.toml")).unwrap();
    assert!(recipe.contains("winograd = [\"conv1\"]"), "{recipe}");

    // What does not fit is refused, and nothing is written.
    for (layer, message) in [
        (
            "dense1",
            "export.winograd: layer `dense1`: it is no convolution",
        ),
        (
            "conv2",
            "export.winograd: there is no convolution `conv2`; those that fit: conv1",
        ),
    ] {
        let output = trainer(&["export", "--winograd", layer], &trained.run);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
        assert_eq!(read("recipe.toml"), recipe.as_bytes());
        assert_eq!(read("model.fxp"), fxp);
    }
    let new = format!("--out={}", trained.root.path().join("new").display());
    let set = "--set=export.winograd=dense1";
    let output = trainer(
        &["fit", set, &new],
        &trained.root.path().join("recipe.toml"),
    );
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(!trained.root.path().join("new").exists());

    let output = trainer(&["export", "--winograd", "none"], &trained.run);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(read("model.fxp"), before);
}

#[test]
fn export_needs_a_finished_run_and_its_own_data() {
    let trained = trained();
    let missing = trainer(&["export"], &trained.root.path().join("nowhere"));
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("nowhere: no recipe.toml there"));

    let changed = trained.root.path().join("images/test/left/0.png");
    picture(true, 99, 8).save(changed).unwrap();
    let output = trainer(&["export"], &trained.run);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("the run was trained on"),
        "{}",
        stderr(&output)
    );

    fs::remove_file(trained.run.join("weights.safetensors")).unwrap();
    let output = trainer(&["export"], &trained.run);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the training has not finished"));
}

#[test]
fn one_writer_at_a_time() {
    let trained = trained();
    let lock = trainer::run::Lock::take(&trained.run).unwrap();
    let before = fs::read(trained.run.join("report.json")).unwrap();
    let recipe = trained.run.join("recipe.toml").display().to_string();
    let fit: &[&str] = &["fit", &recipe, "--resume", "--out"];
    for command in [&["export"], &["quantize"], fit] {
        let output = trainer(command, &trained.run);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let message = "another `trainer` is writing in this folder";
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
    assert_eq!(fs::read(trained.run.join("report.json")).unwrap(), before);
    drop(lock);
    assert!(trainer(&["export"], &trained.run).status.success());
}

#[test]
fn evaluate_counts_both_models() {
    let trained = trained();
    let output = trainer(&["evaluate", "--json"], &trained.run);
    assert!(output.status.success(), "{}", stderr(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["images"], 20);
    for model in ["float", "fixed"] {
        assert_eq!(result[model]["accuracy"], 1.0);
        assert_eq!(
            result[model]["confusion"],
            serde_json::json!([[10, 0], [0, 10]])
        );
    }

    // Other data: three images, one of them in the wrong folder; no train and test parts, so all of them count.
    let other = trained.root.path().join("other");
    for (class, right, number) in [("left", false, 1), ("left", true, 2), ("right", true, 3)] {
        fs::create_dir_all(other.join(class)).unwrap();
        let file = other.join(class).join(format!("{number}.png"));
        picture(right, number, 8).save(file).unwrap();
    }
    let data = format!("--data={}", other.display());
    let output = trainer(&["evaluate", "--json", &data], &trained.run);
    assert!(output.status.success(), "{}", stderr(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        result["fixed"]["confusion"],
        serde_json::json!([[1, 1], [0, 1]])
    );
    assert_eq!(result["float"]["classes"][0]["recall"], 0.5);

    let text = stdout(&trainer(&["evaluate", &data], &trained.run));
    assert!(
        text.contains("fixed point: accuracy 66.67 %, 2 of 3 images"),
        "{text}"
    );
    assert!(
        text.contains("left         2     100.00    50.00    66.67     1   1"),
        "{text}"
    );

    fs::rename(other.join("left"), other.join("middle")).unwrap();
    let output = trainer(&["evaluate", &data], &trained.run);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output)
            .contains("the classes are middle, right, the network was trained for left, right"),
        "{}",
        stderr(&output)
    );
    let missing = trainer(&["evaluate", "--data=/no/such/folder"], &trained.run);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/no/such/folder"));
}

#[test]
fn predict_reads_images_of_any_size_and_kind() {
    let trained = trained();
    let path = |name: &str| trained.root.path().join(name).display().to_string();
    picture(true, 5, 8).save(path("small.png")).unwrap();
    let large = image::DynamicImage::from(picture(false, 6, 64));
    large.to_rgb8().save(path("large.bmp")).unwrap();
    large.save(path("large.jpg")).unwrap();
    let images = [path("small.png"), path("large.bmp"), path("large.jpg")];
    let predict = |more: &[&str], images: &[String]| {
        let args: Vec<&str> = more
            .iter()
            .copied()
            .chain(images.iter().map(String::as_str))
            .collect();
        Command::new(env!("CARGO_BIN_EXE_trainer"))
            .arg("predict")
            .arg(&trained.run)
            .args(args)
            .output()
            .unwrap()
    };
    let output = predict(&["--json"], &images);
    assert!(output.status.success(), "{}", stderr(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (i, expected) in ["right", "left", "left"].into_iter().enumerate() {
        let one = &result[i];
        assert_eq!(one["image"], images[i]);
        assert_eq!(one["prediction"]["name"], expected);
        let top = one["top"].as_array().unwrap();
        let sum: f64 = top.iter().map(|t| t["probability"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "two classes: {sum}");
        assert_eq!(one["logits"].as_array().unwrap().len(), 2);
    }
    // The same numbers as the runtime on the same pixels.
    let file = fs::read(trained.run.join("model.fxp")).unwrap();
    let model = Model::new(&file).unwrap();
    let mut arena = vec![0; model.arena_len()];
    let logits = model.run(picture(true, 5, 8).as_raw(), &mut arena).unwrap();
    let expected: Vec<i32> = logits.accumulators().collect();
    assert_eq!(result[0]["accumulators"], serde_json::json!(expected));

    let text = stdout(&predict(&["--top", "1"], &images[..1]));
    assert!(
        text.starts_with(&format!("{}: right (", images[0])) && !text.contains("left"),
        "{text}"
    );

    fs::write(path("broken.png"), "not an image").unwrap();
    for (bad, message) in [
        ("broken.png", "not a readable"),
        ("missing.png", "No such file"),
    ] {
        let output = predict(&[], &[images[0].clone(), path(bad)]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        assert!(
            stderr(&output).contains(bad) && stderr(&output).contains(message),
            "{}",
            stderr(&output)
        );
    }
    assert_eq!(predict(&["--top", "0"], &images).status.code(), Some(2));
    fs::remove_file(trained.run.join("model.fxp")).unwrap();
    let output = predict(&[], &images);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("expected a run folder"));
}

#[test]
fn quantize_fine_tunes_and_goes_back() {
    let trained = trained();
    let names = ["model.onnx", "model.int8.onnx", "model.fxp"];
    let files = || names.map(|name| fs::read(trained.run.join(name)).unwrap());
    let before = files();
    let quantize = |epochs: &str| {
        let output = trainer(
            &["quantize", "--json", "--qat-epochs", epochs],
            &trained.run,
        );
        assert!(output.status.success(), "{}", stderr(&output));
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["report"]["mismatching"], 0);
    };
    quantize("2");
    let tuned = files();
    assert_ne!(tuned[2], before[2]);
    assert!(report(&trained.run).files.contains_key("qat.safetensors"));
    assert!(
        report(&trained.run)
            .origin
            .recipe
            .contains("qat_epochs = 2")
    );
    let output = trainer(&["export"], &trained.run);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(files(), tuned);

    quantize("0");
    assert_eq!(files(), before);
    assert!(!trained.run.join("qat.safetensors").exists());

    let output = trainer(&["quantize", "--qat-learning-rate=-1"], &trained.run);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("qat_learning_rate"));
    assert_eq!(files(), before);
}
