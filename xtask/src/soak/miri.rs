//! Miri: tests interpreted, with every access, every alignment and every overflow checked. Two parts: the runtime (all kernels:
//! portable, and the loops of the Cortex-M cores on software twins of their instructions), and the trainer's compute routines
//! at the portable level: Miri does not know all instructions of the others.

use std::process::Command;

use crate::shell::{self, Failure};

/// The runtime's tests but `base_model`, whose networks are too large, and `compile_fail`, which starts a compiler.
const RUNTIME: [&str; 5] = ["arithmetic", "file", "limits", "logits", "winograd"];

/// Runs the tests that Miri can run.
pub fn run() -> Result<(), Failure> {
    let mut runtime = miri();
    runtime.args(["-p", "runtime", "--features", "encode"]);
    for test in RUNTIME {
        runtime.args(["--test", test]);
    }
    shell::run(&mut runtime)?;
    shell::run(miri().args(["-p", "trainer", "--test", "kernel"]))
}

fn miri() -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(shell::root())
        .args([
            "+nightly",
            "miri",
            "test",
            "--locked",
            "--target-dir",
            "target/miri",
        ])
        // Files, clocks and the environment; rayon's threads run until the process ends, it counts references to them
        // in the pointers' low bits, and its lists (crossbeam-epoch) keep tree borrows' rules, not those of stacked borrows.
        .env(
            "MIRIFLAGS",
            "-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-permissive-provenance -Zmiri-tree-borrows",
        );
    // The toolchain that runs this program must not choose for the other one.
    for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC"] {
        command.env_remove(variable);
    }
    command
}
