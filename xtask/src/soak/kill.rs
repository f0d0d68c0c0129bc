//! SIGKILL at random moments: between steps, while a file is written, before the first checkpoint, during quantization,
//! export and verification.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::{at, fresh};
use crate::shell::{self, Failure};

/// Everything that has a state: batch norm, dropout, augmentation, Nadam, averaging, early stopping, reduce-on-plateau;
/// quantization-aware fine-tuning after it.
const RECIPE: &str = r#"name = "killed"
[data]
format = "idx"
path = "DATA"
split = { mode = "joined", test = 100 }
validation = 0.1
limit = 240
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
epochs = 4
batch = 20
ema = 0.9
optimizer = { type = "nadam", learning_rate = 0.01 }
[train.callbacks]
checkpoint = { every_steps = 2 }
early_stopping = { patience = 5, restore_best = true }
reduce_on_plateau = { monitor = "val_accuracy", patience = 1, min_delta = 0.2 }
[quantize]
calibration_images = 50
qat_epochs = 1
"#;

const CHECKPOINT: &str = "checkpoint.safetensors";

/// Files that must have the same bytes as in the run that was never stopped.
const RESULTS: [&str; 7] = [
    "initial.safetensors",
    "best.safetensors",
    "weights.safetensors",
    "qat.safetensors",
    "model.onnx",
    "model.int8.onnx",
    "model.fxp",
];

/// Most kills of one training.
const MOST_KILLS: u32 = 3;

/// What the kills hit.
#[derive(Debug, Default)]
struct Count {
    kills: u32,
    before_checkpoint: u32,
    training: u32,
    afterwards: u32,
    writing: u32,
}

/// Kills trainings `times` times in all, each at one to three moments.
pub fn run(times: u32, seed: u64) -> Result<(), Failure> {
    let folder = fresh("kill")?;
    // A copy: what is built meanwhile is another program.
    let trainer = folder.join("trainer");
    fs::copy(super::trainer()?, &trainer).map_err(|error| at(&trainer, &error))?;
    let recipe = folder.join("recipe.toml");
    let data = shell::root().join("models/mnist/data");
    let text = RECIPE.replace("DATA", &data.display().to_string());
    fs::write(&recipe, text).map_err(|error| at(&recipe, &error))?;
    let program = Program {
        trainer,
        recipe,
        whole: folder.join("whole"),
    };
    let start = Instant::now();
    let mut child = program.start(&program.whole)?;
    let files = program.watch(&mut child, usize::MAX)?;
    program.end(child)?;
    let duration = start.elapsed();
    println!("the undisturbed run: {duration:.2?}, {files} files seen while they were written");

    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut count = Count::default();
    let dir = folder.join("killed");
    let mut trainings = 0;
    while count.kills < times {
        let kills = 1 + random.random_range(0..MOST_KILLS);
        for _ in 0..kills {
            let mut child = program.start(&dir)?;
            // Every other kill waits for a file that is being written.
            if random.random() {
                program.watch(&mut child, random.random_range(0..files.max(1)))?;
            } else {
                sleep(duration.mul_f64(random.random_range(0.0..1.0)));
            }
            child.kill().map_err(|error| at(&dir, &error))?;
            let status = child.wait().map_err(|error| at(&dir, &error))?;
            if status.code().is_none() {
                count.add(&dir);
            }
            program.check_visible(&dir)?;
        }
        let child = program.start(&dir)?;
        program.end(child)?;
        program.check_visible(&dir)?;
        program.compare(&dir, trainings)?;
        fs::remove_dir_all(&dir).map_err(|error| at(&dir, &error))?;
        trainings += 1;
        if trainings % 20 == 0 {
            println!("{trainings} trainings: {count:?}");
        }
    }
    println!(
        "\n{trainings} trainings, each ended with the bytes of the undisturbed run: {count:?}"
    );
    for name in RESULTS {
        let path = program.whole.join(name);
        let bytes = fs::read(&path).map_err(|error| at(&path, &error))?;
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        println!("{digest}  {name}");
    }
    Ok(())
}

impl Count {
    /// One more kill, by what the folder looks like after it.
    fn add(&mut self, dir: &Path) {
        self.kills += 1;
        self.writing += u32::from(!unfinished(dir).is_empty());
        if !dir.join(CHECKPOINT).exists() {
            self.before_checkpoint += 1;
        } else if dir.join("weights.safetensors").exists() {
            self.afterwards += 1;
        } else {
            self.training += 1;
        }
    }
}

struct Program {
    trainer: PathBuf,
    recipe: PathBuf,
    whole: PathBuf,
}

impl Program {
    /// Begins or continues the training.
    fn start(&self, dir: &Path) -> Result<Child, Failure> {
        let mut command = Command::new(&self.trainer);
        command.args(["fit", "--quiet", "--out"]).arg(dir);
        if dir.join(CHECKPOINT).exists() {
            command.arg("--resume");
        } else {
            command.arg(&self.recipe);
        }
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| at(&self.trainer, &error))
    }

    fn end(&self, child: Child) -> Result<(), Failure> {
        let output = child.wait_with_output();
        let output = output.map_err(|error| at(&self.trainer, &error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure(format!(
            "the training ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )))
    }

    /// Waits until so many files have been seen while they were written, or until the end; how many it were.
    fn watch(&self, child: &mut Child, wanted: usize) -> Result<usize, Failure> {
        let folder = self.whole.parent().unwrap_or(Path::new("."));
        let mut seen = BTreeSet::new();
        while child
            .try_wait()
            .map_err(|error| at(folder, &error))?
            .is_none()
        {
            for dir in [&self.whole, &folder.join("killed")] {
                seen.extend(unfinished(dir));
            }
            if seen.len() > wanted {
                break;
            }
            sleep(Duration::from_micros(20));
        }
        Ok(seen.len())
    }

    /// Every file under its final name is whole.
    fn check_visible(&self, dir: &Path) -> Result<(), Failure> {
        if !dir.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(dir).map_err(|error| at(dir, &error))? {
            let path = entry.map_err(|error| at(dir, &error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let bytes = fs::read(&path).map_err(|error| at(&path, &error))?;
            let whole = match path.extension().and_then(|ending| ending.to_str()) {
                Some("safetensors") => safetensors_is_whole(&bytes),
                Some("json") => serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
                Some("toml") => std::str::from_utf8(&bytes)
                    .is_ok_and(|text| text.parse::<toml::Table>().is_ok()),
                Some("csv") => bytes.ends_with(b"\n"),
                Some("png") => bytes.ends_with(b"IEND\xaeB`\x82"),
                Some("html") => bytes.trim_ascii_end().ends_with(b"</html>"),
                // Written once, at the end.
                Some("onnx" | "fxp") => {
                    fs::read(self.whole.join(&*name)).is_ok_and(|expected| expected == bytes)
                }
                _ => false,
            };
            if !whole {
                return Err(Failure(format!("{} is not whole", path.display())));
            }
        }
        Ok(())
    }

    fn compare(&self, dir: &Path, trial: u32) -> Result<(), Failure> {
        for name in RESULTS {
            let read = |dir: &Path| {
                let path = dir.join(name);
                fs::read(&path).map_err(|error| at(&path, &error))
            };
            if read(dir)? != read(&self.whole)? {
                return Err(Failure(format!(
                    "training {trial}: {name} differs from the undisturbed run; both folders are in {}",
                    dir.parent().unwrap_or(dir).display()
                )));
            }
        }
        match unfinished(dir).first() {
            None => Ok(()),
            Some(name) => Err(Failure(format!("training {trial}: {name} was left behind"))),
        }
    }
}

/// Temporary files in the folder.
fn unfinished(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".writing-"))
        .collect()
}

/// The header is JSON, and the values end where it says.
fn safetensors_is_whole(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    let len = u64::from_le_bytes(*len);
    let Some((header, values)) = usize::try_from(len)
        .ok()
        .and_then(|len| rest.split_at_checked(len))
    else {
        return false;
    };
    let Ok(serde_json::Value::Object(header)) = serde_json::from_slice(header) else {
        return false;
    };
    let ends = header
        .values()
        .filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    ends.max() == Some(values.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_file_of_weights_is_seen() {
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend_from_slice(&[0; 8]);
        assert!(safetensors_is_whole(&file));
        for len in [0, 7, 20, file.len() - 1] {
            assert!(!safetensors_is_whole(&file[..len]), "{len}");
        }
    }
}
