//! Slow checks of what the project promises: crashes, fuzzing, load, undefined behaviour, supply chain.
//! docs/reliability.md states their results. Quick parts of them are ordinary tests.

mod fuzz;
mod kill;
mod load;
mod miri;
mod rounding;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Subcommand;

use crate::{
    shell::{self, Failure},
    supply_chain,
};

/// Below the repository's root: everything that these checks write.
const FOLDER: &str = "target/soak";

/// A slow check.
#[derive(Subcommand)]
pub enum Check {
    /// Kill `trainer fit` at random moments; each time `--resume` must end in the same bits
    Kill {
        /// Kills at least; a training gets one to three of them
        #[arg(long, default_value_t = 200)]
        times: u32,
        /// Other moments
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run every fuzz target for a fixed time
    Fuzz {
        /// Only these targets, see tests/fuzz [default: all]
        targets: Vec<String>,
        /// Seconds for each target
        #[arg(long, default_value_t = 600)]
        seconds: u32,
    },
    /// Train on 70,000 images of 28x28 and 20,000 of 96x96x3, and measure memory and progress
    Load,
    /// The runtime's tests and the trainer's compute routines in Miri (needs a nightly toolchain with miri and rust-src)
    Miri,
    /// The rounding rule for every accumulator and every shift: 3.8 billion results
    Rounding,
    /// cargo-deny on every workspace: licences, duplicates, sources (needs `cargo install --locked cargo-deny`)
    Deny,
}

/// Runs one.
pub fn run(check: Check) -> Result<(), Failure> {
    match check {
        Check::Kill { times, seed } => kill::run(times, seed),
        Check::Fuzz { targets, seconds } => fuzz::run(&targets, seconds),
        Check::Load => load::run(),
        Check::Miri => miri::run(),
        Check::Rounding => rounding::run(),
        Check::Deny => supply_chain::deny(),
    }
}

/// Builds the trainer and says where it is.
fn trainer() -> Result<PathBuf, Failure> {
    shell::build_trainer()?;
    Ok(shell::trainer().get_program().into())
}

/// An empty folder of this name.
fn fresh(name: &str) -> Result<PathBuf, Failure> {
    let folder = shell::root().join(FOLDER).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| at(&folder, &error))?;
    }
    fs::create_dir_all(&folder).map_err(|error| at(&folder, &error))?;
    Ok(folder)
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure(format!("{}: {error}", path.display()))
}
