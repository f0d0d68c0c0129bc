//! The accuracy that the project promises, trained again from nothing: tens of minutes.

use std::{fs, path::PathBuf};

use serde::Deserialize;

use crate::shell::{self, Failure};

/// Seeds of the base network.
const SEEDS: [u64; 3] = [1, 2, 3];
/// Test accuracy of the float base network after 5 epochs: each seed, and the mean.
const BASE: (f64, f64) = (0.989, 0.990);
/// What quantization after the training may cost, mean over the seeds.
const LOSS: f64 = 0.0005;
/// Epochs of quantization-aware fine-tuning, after which nothing may be lost.
const FINE_TUNING: u64 = 2;
/// Recipe, epochs, test accuracy of the float network.
const OTHERS: [(&str, u64, f64); 2] = [("wide-c", 15, 0.993), ("mlp", 35, 0.975)];

/// The part of report.json that is judged.
#[derive(Deserialize)]
struct Report {
    float: Classification,
    fixed: Classification,
    verification: Verification,
}

#[derive(Clone, Copy, Deserialize)]
struct Classification {
    images: u32,
    correct: u32,
}

#[derive(Clone, Copy, Deserialize)]
struct Verification {
    logits: u64,
    mismatching: u64,
}

impl Classification {
    fn accuracy(self) -> f64 {
        f64::from(self.correct) / f64::from(self.images)
    }
}

/// Trains, quantizes and verifies all of them; fails below the goals.
pub fn run() -> Result<(), Failure> {
    shell::build_trainer()?;
    let mut table = Vec::new();
    let mut misses = Vec::new();
    let mut goal = |what: String, got: f64, least: f64| {
        // Sums of accuracies are rounded.
        if got < least - 1e-9 {
            misses.push(format!(
                "{what}: {:.3} %, expected at least {:.3} %",
                100.0 * got,
                100.0 * least
            ));
        }
    };
    let mut means = [0.0; 4];
    for seed in SEEDS {
        let name = format!("base-{seed}");
        let trained = fit("recipe", &name, &["--seed", &seed.to_string()])?;
        table.push((format!("base, seed {seed}"), trained));
        goal(
            format!("base, seed {seed}"),
            table.last().map_or(0.0, |(_, r)| r.float.accuracy()),
            BASE.0,
        );
        let epochs = FINE_TUNING.to_string();
        let dir = folder(&name);
        shell::run(
            shell::trainer()
                .args(["quantize", "--qat-epochs", &epochs])
                .arg(&dir),
        )?;
        let tuned = report(&name)?;
        let trained = &table[table.len() - 1].1;
        let part = [
            trained.float.accuracy(),
            trained.fixed.accuracy(),
            tuned.float.accuracy(),
            tuned.fixed.accuracy(),
        ];
        for (mean, part) in means.iter_mut().zip(part) {
            *mean += part / SEEDS.len() as f64;
        }
        table.push((format!("base, seed {seed}, fine-tuned"), tuned));
    }
    let [float, fixed, float_again, tuned] = means;
    goal("base, mean".into(), float, BASE.1);
    goal("base quantized, mean".into(), fixed, float - LOSS);
    goal("base fine-tuned, mean".into(), tuned, float_again);
    for (name, epochs, least) in OTHERS {
        let trained = fit(name, name, &["--epochs", &epochs.to_string()])?;
        let what = format!("{name}, {epochs} epochs");
        goal(what.clone(), trained.float.accuracy(), least);
        table.push((what, trained));
    }
    println!("\n| run | float, % | fixed point, % | mismatching logits |\n|---|---|---|---|");
    for (name, report) in &table {
        println!(
            "| {name} | {:.2} | {:.2} | {} of {} |",
            100.0 * report.float.accuracy(),
            100.0 * report.fixed.accuracy(),
            report.verification.mismatching,
            report.verification.logits
        );
    }
    println!(
        "| base, mean | {:.3} | {:.3} | |\n| base, mean, fine-tuned | {:.3} | {:.3} | |",
        100.0 * float,
        100.0 * fixed,
        100.0 * float_again,
        100.0 * tuned
    );
    if misses.is_empty() {
        Ok(())
    } else {
        Err(Failure(misses.join("\n")))
    }
}

/// `trainer fit` in a fresh folder. It fails if a logit of the test images differs.
fn fit(recipe: &str, name: &str, arguments: &[&str]) -> Result<Report, Failure> {
    let dir = folder(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(|error| Failure(format!("{}: {error}", dir.display())))?;
    }
    shell::run(
        shell::trainer()
            .args(["fit", "--plain"])
            .arg(format!("models/mnist/{recipe}.toml"))
            .arg("--out")
            .arg(&dir)
            .args(arguments),
    )?;
    report(name)
}

fn report(name: &str) -> Result<Report, Failure> {
    let path = folder(name).join("report.json");
    let failure = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| failure(&error))?;
    serde_json::from_str(&text).map_err(|error| failure(&error))
}

fn folder(name: &str) -> PathBuf {
    shell::root().join("target/accuracy").join(name)
}
