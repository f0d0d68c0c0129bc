//! The project's jobs. `cargo xtask test` is what CI runs and what a contributor runs before a push.

mod host;
mod python;
mod shell;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::shell::Failure;

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
    /// Everything that CI checks: format, clippy, tests, docs, firmware, QEMU, verification suite
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
        Job::Test => {
            toolchain::require_all()?;
            host::lint()?;
            host::test(&python::environment()?)?;
            host::document()?;
            host::targets()
        }
        Job::Setup { install } => toolchain::setup(install),
        Job::Host => {
            host::lint()?;
            host::test(&python::environment()?)?;
            host::document()
        }
        Job::Targets => host::targets(),
        Job::CheckCuda => python::check_cuda(),
    }
}
