//! The firmware in QEMU: test images over the emulated serial port, logs, noise.

use std::process::Stdio;

use crate::{
    bench_mcu, firmware,
    shell::{self, Failure},
};

/// Test images on each machine in CI.
pub const IMAGES: usize = 1000;

/// Runs the transformed layers, builds all emulated machines, runs the tests of their logs and their behaviour, and verifies the
/// MNIST model on each. All 10,000 test images take minutes on each machine.
pub fn test_all(images: usize) -> Result<(), Failure> {
    let machines: Vec<String> = firmware::targets()?
        .into_iter()
        .filter(firmware::Target::is_emulated)
        .map(|target| target.name)
        .collect();
    bench_mcu::transformed_layers()?;
    firmware::build(&machines, None)?;
    shell::run(shell::cargo().args([
        "test",
        "--release",
        "--locked",
        "--package",
        "verifier",
        "--test",
        "qemu",
        "--",
        "--nocapture",
    ]))?;
    verify(&machines, images)
}

/// `trainer verify` on all machines at once: each spends most of its time waiting for the emulated serial port.
fn verify(machines: &[String], images: usize) -> Result<(), Failure> {
    shell::build_trainer()?;
    let mut running = Vec::new();
    for machine in machines {
        let mut command = shell::trainer();
        command
            .args(["verify", "models/mnist", "--limit", &images.to_string()])
            .args(["--against", &format!("qemu:{machine}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|error| Failure(format!("trainer does not start: {error}")))?;
        running.push((machine, child));
    }
    let mut failed = Vec::new();
    for (machine, child) in running {
        let output = child
            .wait_with_output()
            .map_err(|error| Failure(error.to_string()))?;
        println!(
            "\n{machine}\n{}",
            String::from_utf8_lossy(&output.stdout).trim_end()
        );
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
            failed.push(machine.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "models/mnist does not verify on {}",
        failed.join(", ")
    )))
}
