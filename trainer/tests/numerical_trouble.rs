//! Data and networks at the edge of what makes sense: each works, with every logit verified, or says why not.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;
use trainer::{checkpoint, report::Report};

const CONV: &str =
    "{ type = 'conv', filters = 2, kernel = [1, 1], activation = 'relu' }, { type = 'flatten' }";

struct Trial {
    /// Rows and columns of an image.
    side: u32,
    images: u32,
    classes: usize,
    /// The label of image `i`.
    label: fn(u32) -> u8,
    /// Pixel `p` of image `i`.
    pixel: fn(u32, u32) -> u8,
    layers: &'static str,
    /// `--set` values.
    sets: &'static [&'static str],
}

/// Eight 4x4 images of two classes, the left or the right half bright.
const USUAL: Trial = Trial {
    side: 4,
    images: 8,
    classes: 2,
    label: |i| (i % 2) as u8,
    pixel: |i, p| if p % 4 / 2 == i % 2 { 200 } else { i as u8 },
    layers: CONV,
    sets: &[],
};

fn idx(dims: &[u32], values: Vec<u8>) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
    bytes.extend(values);
    bytes
}

impl Trial {
    fn run(&self) -> (TempDir, Output) {
        let root = tempfile::tempdir().unwrap();
        let values = self.side * self.side;
        let pixels = (0..self.images).flat_map(|i| (0..values).map(move |p| (i, p)));
        let pixels = pixels.map(|(i, p)| (self.pixel)(i, p)).collect();
        let images = idx(&[self.images, self.side, self.side], pixels);
        let labels = idx(&[self.images], (0..self.images).map(self.label).collect());
        for part in ["train", "t10k"] {
            let write = |what: &str, bytes: &[u8]| {
                fs::write(root.path().join(format!("{part}-{what}-ubyte")), bytes).unwrap();
            };
            write("images-idx3", &images);
            write("labels-idx1", &labels);
        }
        let recipe = format!(
            "name = 'trouble'\n[data]\nformat = 'idx'\npath = '.'\n[network]\ninput = [{side}, {side}, 1]\n\
             layers = [{layers}, {{ type = 'dense', units = {classes}, activation = 'softmax' }}]\n[train]\nepochs = 2\nbatch = 4\n",
            side = self.side,
            layers = self.layers,
            classes = self.classes,
        );
        fs::write(root.path().join("recipe.toml"), recipe).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command
            .args(["fit", "recipe.toml", "--out", "run", "--quiet"])
            .current_dir(root.path());
        for set in self.sets {
            command.args(["--set", set]);
        }
        let output = command.output().unwrap();
        (root, output)
    }

    /// It must train, and every logit must be equal; every number in the report must be one.
    fn works(&self, what: &str) -> Report {
        let (root, output) = self.run();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {errors}");
        let said = String::from_utf8_lossy(&output.stdout);
        let logits = self.images as usize * self.classes;
        let last = format!("mismatching logits: 0 of {logits}");
        assert_eq!(said.lines().last(), Some(last.as_str()), "{what}");
        let text = fs::read_to_string(root.path().join("run/report.json")).unwrap();
        let report: Report = serde_json::from_str(&text).unwrap();
        for result in [Some(&report.float), report.fixed.as_ref()] {
            let result = result.unwrap();
            assert!((0.0..=1.0).contains(&result.accuracy), "{what}");
            assert_eq!(result.images, self.images as usize, "{what}");
        }
        for epoch in &report.history {
            assert!(
                epoch.loss.is_finite() && epoch.val_loss.is_finite(),
                "{what}"
            );
        }
        report
    }
}

#[test]
fn constant_images() {
    for mode in ["none", "unit", "global", "per_pixel"] {
        let mode: &'static [&'static str] = match mode {
            "none" => &["data.preprocess=none"],
            "unit" => &["data.preprocess=unit"],
            "global" => &["data.preprocess=global"],
            _ => &["data.preprocess=per_pixel"],
        };
        for pixel in [|_, _| 0, |_, _| 77, |_, _| 255] {
            let trial = Trial {
                pixel,
                sets: mode,
                ..USUAL
            };
            trial.works(&format!("{mode:?}, {}", pixel(0, 0)));
        }
    }
}

#[test]
fn classes_without_images() {
    let report = Trial {
        classes: 3,
        ..USUAL
    }
    .works("the third class has no images");
    assert_eq!(report.fixed.unwrap().classes[2].images, 0);
    Trial {
        label: |_| 0,
        ..USUAL
    }
    .works("one class has all images");
}

#[test]
fn few_images() {
    Trial {
        sets: &["train.batch=1000", "quantize.qat_epochs=1"],
        ..USUAL
    }
    .works("a batch larger than the data");
    Trial { images: 1, ..USUAL }.works("one image");
    Trial {
        images: 1,
        layers: "{ type = 'conv', filters = 2 }, { type = 'batch_norm' }, { type = 'activation', activation = 'relu' }, { type = 'flatten' }",
        ..USUAL
    }
    .works("batch statistics of one image");
    let (_, output) = Trial {
        images: 1,
        sets: &["data.validation=0.5"],
        ..USUAL
    }
    .run();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("data.validation = 0.5 of 1 training images leaves an empty part"),
        "{errors}"
    );
}

#[test]
fn small_images_and_many_classes() {
    for layers in ["{ type = 'flatten' }", CONV, "{ type = 'global_avg_pool' }"] {
        let trial = Trial {
            side: 1,
            pixel: |i, _| 30 * i as u8,
            layers,
            ..USUAL
        };
        trial.works(layers);
    }
    Trial {
        classes: 1000,
        ..USUAL
    }
    .works("1,000 classes");
    let (_, output) = Trial {
        classes: 1,
        label: |_| 0,
        ..USUAL
    }
    .run();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("at least 2 classes"), "{errors}");
}

/// Exit code 1 with the step, what is not finite, where, and what to try; the checkpoint holds finite weights.
#[test]
fn a_loss_that_is_no_number() {
    let (root, output) = Trial {
        sets: &[
            "train.optimizer={ type = 'sgd', learning_rate = 1e38 }",
            "train.callbacks.checkpoint.every_steps=1",
        ],
        ..USUAL
    }
    .run();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    for part in [
        "error: step ",
        " is ",
        "smaller learning rate",
        "train.clip",
    ] {
        assert!(errors.contains(part), "`{part}` is not in: {errors}");
    }
    let run = root.path().join("run");
    let progress = checkpoint::read_progress(&run.join(checkpoint::FILE)).unwrap();
    assert!(progress.finished.is_none());
    for name in ["model.fxp", "model.onnx", "weights.safetensors"] {
        assert!(!Path::new(&run).join(name).exists(), "{name}");
    }
}
