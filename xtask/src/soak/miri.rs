//! Miri: the runtime's tests interpreted, with every access and every overflow checked.

use crate::shell::{self, Failure};

/// Integer arithmetic and the file's reader; tests that read from the compiler (`trybuild`) or from files stay outside.
const TESTS: [&str; 2] = ["arithmetic", "file"];

/// Runs the tests that Miri can run.
pub fn run() -> Result<(), Failure> {
    let mut command = std::process::Command::new("cargo");
    command
        .current_dir(shell::root())
        .args(["+nightly", "miri", "test", "--locked", "-p", "runtime"])
        .args(["--features", "encode", "--lib"])
        .args(["--target-dir", "target/miri"])
        .env("MIRIFLAGS", "-Zmiri-disable-isolation");
    for test in TESTS {
        command.args(["--test", test]);
    }
    // The toolchain that runs this program must not choose for the other one.
    for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC"] {
        command.env_remove(variable);
    }
    shell::run(&mut command)
}
