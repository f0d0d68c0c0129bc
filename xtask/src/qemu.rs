//! The firmware in QEMU: test images over the emulated serial port, logs, noise.

use crate::{
    firmware,
    shell::{self, Failure},
};

/// Test images on each machine in CI.
pub const IMAGES: usize = 1000;

/// Builds all emulated machines and runs the verifier's tests on them. The 10,000 images of the whole
/// test set take minutes on each machine.
pub fn test_all(images: usize) -> Result<(), Failure> {
    let machines: Vec<String> = firmware::targets()?
        .into_iter()
        .filter(firmware::Target::is_emulated)
        .map(|target| target.name)
        .collect();
    firmware::build(&machines, None)?;
    shell::run(
        shell::cargo()
            .args([
                "test",
                "--release",
                "--locked",
                "-p",
                "verifier",
                "--features",
                "qemu",
            ])
            .args(["--test", "qemu", "--", "--nocapture"])
            .env("ISOBIT_IMAGES", images.to_string()),
    )
}
