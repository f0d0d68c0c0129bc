//! libFuzzer on the targets of tests/fuzz, with overflow checks and a limit on memory.
//!
//! Coverage is a stable option of the compiler; only that it is given to some packages and not to others needs
//! `RUSTC_BOOTSTRAP=1`. `cargo +nightly fuzz run TARGET --fuzz-dir tests/fuzz` works as well, with the address sanitizer.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{FOLDER, at};
use crate::shell::{self, Failure};

/// Longest input, bytes; memory of the process, MiB; seconds of one input.
const LIMITS: [&str; 3] = ["-max_len=4096", "-rss_limit_mb=2048", "-timeout=20"];

/// Builds all targets and runs those that are named, or all.
pub fn run(names: &[String], seconds: u32) -> Result<(), Failure> {
    let folder = shell::root().join("tests/fuzz");
    let known = targets(&folder)?;
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(Failure(format!(
            "unknown fuzz target `{unknown}`; known: {}",
            known.join(", ")
        )));
    }
    // `RUSTC_BOOTSTRAP` makes build scripts run again, so the folder is another one than that of the stable builds.
    let built = shell::root().join("target/fuzz");
    shell::run(
        shell::cargo()
            .current_dir(&folder)
            .args(["build", "--release", "--locked", "--target-dir"])
            .arg(&built)
            .env("RUSTC_BOOTSTRAP", "1"),
    )?;
    let chosen = known
        .iter()
        .filter(|name| names.is_empty() || names.contains(name));
    let mut lines = Vec::new();
    for name in chosen {
        let program = built.join("release").join(name);
        let line = fuzz(name, &program, &folder.join("corpus").join(name), seconds)?;
        println!("{line}");
        lines.push(line);
    }
    println!("\n{}", lines.join("\n"));
    Ok(())
}

/// Names of the programs.
fn targets(folder: &Path) -> Result<Vec<String>, Failure> {
    let folder = folder.join("fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(|error| at(&folder, &error))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort_unstable();
    Ok(names)
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
