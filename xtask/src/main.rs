//! The project's jobs. `cargo xtask test` is what CI runs and what a contributor runs before a push.

mod accuracy;
mod bench_mcu;
mod bench_train;
mod book;
mod firmware;
mod host;
mod python;
mod qemu;
mod shell;
mod soak;
mod supply_chain;
mod toolchain;
mod walkthrough;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::shell::Failure;

/// The jobs that make up `cargo xtask test`, in order.
const PARTS: [&str; 8] = [
    "setup",
    "supply-chain",
    "host",
    "book",
    "targets",
    "firmware",
    "qemu",
    "walkthrough",
];

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The project's jobs",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Everything that CI checks: format, clippy, tests, docs, firmware, QEMU, verification suite, commands of the pages
    Test,
    /// Say what is missing for `cargo xtask test`; with --install, install it
    Setup {
        /// Run the printed commands
        #[arg(long)]
        install: bool,
    },
    /// Format, clippy, host tests and rustdoc only
    Host,
    /// Build the runtime for every supported bare-metal target
    Targets,
    /// Build the firmware for QEMU's machines and the boards, and check that it fits
    Firmware {
        /// Machines and boards of firmware/targets.toml [default: all]
        names: Vec<String>,
        /// Model file to build in [default: models/mnist/model.fxp]
        #[arg(long, value_name = "FXP")]
        model: Option<PathBuf>,
    },
    /// Classify test images on every emulated machine and compare each logit; logs and noise too
    Qemu {
        /// Number of test images on each machine
        #[arg(long, default_value_t = qemu::IMAGES)]
        images: usize,
    },
    /// Executed instructions, stack and code size of the runtime on emulated Cortex-M cores
    BenchMcu {
        /// Model files to measure [default: models/mnist/model.fxp and two random networks of tests/cases]
        #[arg(value_name = "FXP")]
        models: Vec<PathBuf>,
    },
    /// Seek an image for which the shipped model and its ONNX form differ; fail if there is one (slow)
    Search {
        /// Number of inferences of each engine
        #[arg(long, default_value_t = 1_000_000)]
        inferences: u64,
    },
    /// Train the shipped recipes again and fail if their accuracy, float or quantized, is below the goals (slow)
    Accuracy,
    /// Images per second of the runtime, tract and onnxruntime on this machine, one thread
    BenchHost {
        /// Folder with model.int8.onnx and model.fxp
        #[arg(default_value = "models/mnist", value_name = "DIR")]
        dir: PathBuf,
    },
    /// Build docs/ as a book into target/book (installs mdBook into target/tools where it is missing)
    Book,
    /// Run the commands of README, docs/ and the models' pages in a scratch folder, one after the other
    Walkthrough,
    /// Licences and sources of all dependencies, and how many there are
    SupplyChain,
    /// Slow checks: crashes, fuzzing, load, Miri, cargo-deny
    Soak {
        #[command(subcommand)]
        check: soak::Check,
    },
    /// Training speed beside PyTorch and Keras, in turns on the same data
    BenchTrain(bench_train::Options),
    /// Type-check the CUDA feature (fetches nvcc from PyPI into target/)
    CheckCuda,
}

fn main() -> ExitCode {
    match run(Cli::parse().job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(job: Job) -> Result<(), Failure> {
    match job {
        Job::Test => PARTS
            .iter()
            .try_for_each(|part| run(Cli::parse_from(["cargo xtask", part]).job)),
        Job::Setup { install } => toolchain::setup(install),
        Job::Host => {
            host::lint()?;
            host::test(&python::environment()?)?;
            host::document()
        }
        Job::Targets => host::targets(),
        Job::Firmware { names, model: None } if names.is_empty() => firmware::build_all(),
        Job::Firmware { names, model } => firmware::build(&names, model.as_deref()),
        Job::Qemu { images } => qemu::test_all(images),
        Job::BenchMcu { models } => bench_mcu::run(&models),
        Job::Search { inferences } => host::search(inferences),
        Job::Accuracy => accuracy::run(),
        Job::BenchHost { dir } => host::throughput(&dir, &python::environment()?),
        Job::Book => book::build(),
        Job::Walkthrough => walkthrough::run(),
        Job::SupplyChain => supply_chain::check(),
        Job::Soak { check } => soak::run(check),
        Job::BenchTrain(options) => bench_train::run(&options),
        Job::CheckCuda => python::check_cuda(),
    }
}
