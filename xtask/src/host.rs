//! What runs on the host: format, clippy, tests, documentation, and the runtime's cross builds.

use std::path::Path;

use crate::{
    firmware,
    shell::{self, Failure},
    toolchain::{TARGETS, Toolchain},
};

/// Format and clippy, warnings denied.
pub fn lint() -> Result<(), Failure> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    let alone = ["--manifest-path", "tests/defmt-log/Cargo.toml"];
    shell::run(shell::cargo().arg("fmt").args(alone).arg("--check"))?;
    shell::run(
        shell::cargo()
            .args(["clippy", "--release", "--locked"])
            .args(alone)
            .args(["--target-dir", "target/defmt-log", "--", "-D", "warnings"]),
    )?;
    shell::run(shell::cargo().args([
        "clippy",
        "--release",
        "--locked",
        "--workspace",
        "--all-targets",
        "--test",
        "qemu", // which `--all-targets` leaves out
        "--",
        "-D",
        "warnings",
    ]))
}

/// All host tests. Crates without heavy dependencies run a second time with debug assertions and overflow checks.
pub fn test(python: &Path) -> Result<(), Failure> {
    shell::run(
        shell::cargo()
            .args([
                "test",
                "--release",
                "--locked",
                "--workspace",
                "--no-fail-fast",
            ])
            .env("ISOBIT_PYTHON", python)
            .env("ISOBIT_REQUIRE_PYTHON", "1"),
    )?;
    shell::run(shell::cargo().args([
        "test",
        "--locked",
        "-p",
        "runtime",
        "-p",
        "protocol",
        "-p",
        "app",
        "--features",
        "runtime/encode",
    ]))
}

/// The verifier's search for a disagreement, on the shipped model.
pub fn search(inferences: u64) -> Result<(), Failure> {
    shell::run(
        shell::cargo()
            .args(["run", "--release", "--locked", "--package", "verifier"])
            .args(["--example", "search", "--", "models/mnist"])
            .args(["--inferences", &inferences.to_string()]),
    )
}

/// Images per second of the runtime, tract and onnxruntime, one after the other in one run.
pub fn throughput(dir: &Path, python: &Path) -> Result<(), Failure> {
    shell::run(
        shell::cargo()
            .args(["run", "--release", "--locked", "--package", "verifier"])
            .args(["--example", "throughput", "--"])
            .arg(dir)
            .env("ISOBIT_PYTHON", python),
    )
}

/// Rustdoc of every package, warnings denied.
pub fn document() -> Result<(), Failure> {
    shell::run(
        shell::cargo()
            .args(["doc", "--release", "--locked", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// The firmware's profile, so that core is built once for each target.
const FIRMWARE_PROFILE: [&str; 3] = [
    "profile.release.codegen-units=1",
    "profile.release.lto=\"fat\"",
    "profile.release.opt-level=\"s\"",
];

/// The runtime on every bare-metal target, with and without defmt.
pub fn targets() -> Result<(), Failure> {
    for target in TARGETS {
        let toolchain = Toolchain::for_target(target)?;
        for features in ["", "defmt"] {
            let mut command = toolchain.cargo("build", target);
            for setting in FIRMWARE_PROFILE {
                command.args(["--config", setting]);
            }
            shell::run(command.args([
                "--release",
                "--locked",
                "--package",
                "runtime",
                "--features",
                features,
                "--target-dir",
                firmware::TARGET_DIR,
            ]))?;
        }
    }
    Ok(())
}
