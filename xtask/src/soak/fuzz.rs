//! libFuzzer on the targets of tests/fuzz, with overflow checks and a limit on memory.
//!
//! The flags are those that cargo-fuzz gives without an address sanitizer; coverage alone is a stable option of the compiler.
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --features host TARGET` adds the sanitizer.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::{FOLDER, at};
use crate::shell::{self, Failure};

/// Longest input, bytes; memory of the process, MiB; seconds of one input.
const LIMITS: [&str; 3] = ["-max_len=4096", "-rss_limit_mb=2048", "-timeout=20"];

/// Edges, their addresses, and operands of comparisons.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// A platform that is named keeps the flags away from build scripts and macros.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Target {
    name: String,
    #[serde(default)]
    required_features: Vec<String>,
}

/// Builds the targets that are named, or all, and runs them one after the other.
pub fn run(names: &[String], seconds: u32) -> Result<(), Failure> {
    let folder = shell::root().join("tests/fuzz");
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| at(&path, &error))?;
    let known = manifest.bin;
    if let Some(unknown) = names
        .iter()
        .find(|name| known.iter().all(|target| target.name != **name))
    {
        let known: Vec<&str> = known.iter().map(|target| target.name.as_str()).collect();
        return Err(Failure(format!(
            "unknown fuzz target `{unknown}`; known: {}",
            known.join(", ")
        )));
    }
    let chosen: Vec<&Target> = known
        .iter()
        .filter(|target| names.is_empty() || names.contains(&target.name))
        .collect();
    let built = shell::root().join("target/fuzz");
    let mut build = shell::cargo();
    build
        .current_dir(&folder)
        .args(["build", "--release", "--locked", "--target", PLATFORM])
        .arg("--target-dir")
        .arg(&built)
        .env("RUSTFLAGS", COVERAGE);
    for target in &chosen {
        build.args(["--bin", &target.name]);
        for feature in &target.required_features {
            build.args(["--features", feature]);
        }
    }
    shell::run(&mut build)?;
    let mut lines = Vec::new();
    for Target { name, .. } in chosen {
        let program = built.join(PLATFORM).join("release").join(name);
        let line = fuzz(name, &program, &folder.join("corpus").join(name), seconds)?;
        println!("{line}");
        lines.push(line);
    }
    println!("\n{}", lines.join("\n"));
    Ok(())
}

/// One target; what it found goes to target/soak/fuzz, and so does the corpus that grows there.
fn fuzz(name: &str, program: &Path, seeds: &Path, seconds: u32) -> Result<String, Failure> {
    let folder = shell::root().join(FOLDER).join("fuzz").join(name);
    let corpus = folder.join("corpus");
    fs::create_dir_all(&corpus).map_err(|error| at(&corpus, &error))?;
    let log = folder.join("log.txt");
    let file = fs::File::create(&log).map_err(|error| at(&log, &error))?;
    println!("{name}: {seconds} s, log in {}", log.display());
    let status = Command::new(program)
        .arg(&corpus)
        .arg(seeds)
        .args(LIMITS)
        .args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={}/", folder.display()),
            "-print_final_stats=1".into(),
        ])
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|error| at(program, &error))?;
    let text = fs::read(&log).map_err(|error| at(&log, &error))?;
    let text = String::from_utf8_lossy(&text);
    if !status.success() {
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        return Err(Failure(format!(
            "fuzz target {name}: {status}; the input is in {}\n{end}",
            folder.display()
        )));
    }
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or("unknown").trim().to_owned()
    };
    Ok(format!(
        "{name}: {} executions, {} units added, peak {} MiB, nothing found",
        value("stat::number_of_executed_units:"),
        value("stat::new_units_added:"),
        value("stat::peak_rss_mb:")
    ))
}
