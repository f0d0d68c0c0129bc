//! The firmware in QEMU: test images over the emulated serial port, logs, noise.

use crate::{
    firmware,
    shell::{self, Failure},
};

/// Test images on each machine in CI.
pub const IMAGES: usize = 1000;

/// Builds all emulated machines, runs the tests of their logs and their behaviour, and verifies the
/// MNIST model on each. All 10,000 test images take minutes on each machine.
pub fn test_all(images: usize) -> Result<(), Failure> {
    let machines: Vec<String> = firmware::targets()?
        .into_iter()
        .filter(firmware::Target::is_emulated)
        .map(|target| target.name)
        .collect();
    firmware::build(&machines, None)?;
    shell::run(shell::cargo().args([
        "test",
        "--release",
        "--locked",
        "-p",
        "verifier",
        "--features",
        "qemu",
        "--test",
        "qemu",
        "--",
        "--nocapture",
    ]))?;
    for machine in machines {
        shell::run(
            shell::cargo()
                .args([
                    "run",
                    "--release",
                    "--locked",
                    "-p",
                    "trainer",
                    "--",
                    "verify",
                    "models/mnist",
                ])
                .args([
                    "--against",
                    &format!("qemu:{machine}"),
                    "--limit",
                    &images.to_string(),
                ]),
        )?;
    }
    Ok(())
}
