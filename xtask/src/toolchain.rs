//! Which Rust builds for a bare-metal target: the user's, where the target is installed, else Debian's
//! packages with their sources for core. Every bare-metal build of the project asks here.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::shell::{self, Failure};

/// Bare-metal targets that the runtime supports and the project builds for.
pub const TARGETS: [&str; 7] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv8m.main-none-eabi",
    "riscv32imc-unknown-none-elf",
    "wasm32-unknown-unknown",
];

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core";

/// How bare-metal code is built for one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The toolchain that runs this program has the target.
    Rustup,
    /// Debian's rustc builds core itself.
    Debian,
}

impl Toolchain {
    /// The toolchain for the target, or what to install.
    pub fn for_target(target: &str) -> Result<Self, Failure> {
        let installed = shell::output(Command::new("rustc").args([
            "--print",
            "target-libdir",
            "--target",
            target,
        ]))
        .is_some_and(|folder| Path::new(&folder).join("").is_dir());
        let debian = [DEBIAN_CARGO, DEBIAN_RUSTC, DEBIAN_SOURCES]
            .iter()
            .all(|path| Path::new(path).exists());
        Self::choose(target, installed, debian)
    }

    fn choose(target: &str, installed: bool, debian: bool) -> Result<Self, Failure> {
        if installed {
            Ok(Self::Rustup)
        } else if debian {
            Ok(Self::Debian)
        } else {
            Err(Failure(format!(
                "Rust target {target} is missing: run `rustup target add {target}` \
                 (or, on Debian without rustup's servers, `apt-get install {DEBIAN_RUST}`)"
            )))
        }
    }

    /// `cargo SUBCOMMAND --target T`, in the repository's root. Arguments of the project follow.
    pub fn cargo(self, subcommand: &str, target: &str) -> Command {
        match self {
            Self::Rustup => {
                let mut command = shell::cargo();
                command.args([subcommand, "--target", target]);
                command
            }
            Self::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                command
                    .current_dir(shell::root())
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env_remove("RUSTC_WRAPPER")
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env_remove("CARGO")
                    .args([subcommand, "-Zbuild-std=core", "--target", target]);
                // Debian's rustc comes without the linker of the bare-metal targets.
                let variable = target.to_uppercase().replace(['-', '.'], "_");
                command.env(format!("CARGO_TARGET_{variable}_LINKER"), lld());
                command
            }
        }
    }
}

/// LLVM's linker: the one inside the user's toolchain, else Debian's.
fn lld() -> PathBuf {
    let inside = |sysroot: String| {
        let folder = Path::new(&sysroot).join("lib/rustlib");
        std::fs::read_dir(folder)
            .ok()?
            .filter_map(Result::ok)
            .map(|entry| entry.path().join("bin/rust-lld"))
            .find(|path| path.is_file())
    };
    shell::output(Command::new("rustc").args(["--print", "sysroot"]))
        .and_then(inside)
        .unwrap_or_else(|| "ld.lld".into())
}

const DEBIAN_RUST: &str = "rustc-web cargo-web rust-web-src lld";

/// One thing that `cargo xtask test` needs besides Rust.
struct Need {
    what: &'static str,
    debian: &'static str,
    present: fn() -> bool,
}

const NEEDS: [Need; 3] = [
    Need {
        what: "QEMU for Arm (qemu-system-arm)",
        debian: "qemu-system-arm",
        present: || shell::output(Command::new("qemu-system-arm").arg("--version")).is_some(),
    },
    Need {
        what: "Python 3 with venv (onnx and onnxruntime are installed into target/venv)",
        debian: "python3 python3-venv",
        present: || {
            shell::output(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_some()
        },
    },
    Need {
        what: "a C compiler (cc), which also links Rust programs",
        debian: "gcc libc6-dev",
        present: || shell::output(Command::new("cc").arg("--version")).is_some(),
    },
];

/// Fails with the list of everything that is missing and how to get it.
pub fn require_all() -> Result<(), Failure> {
    let mut missing: Vec<String> = NEEDS
        .iter()
        .filter(|need| !(need.present)())
        .map(|need| {
            format!(
                "{}: `apt-get install {}` or your system's package",
                need.what, need.debian
            )
        })
        .collect();
    missing.extend(
        TARGETS
            .iter()
            .filter_map(|target| Toolchain::for_target(target).err())
            .map(|failure| failure.0),
    );
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "missing, or run `cargo xtask setup --install`:\n  - {}",
        missing.join("\n  - ")
    )))
}

/// Prints what is missing; with `install` gets it through rustup and apt-get.
pub fn setup(install: bool) -> Result<(), Failure> {
    if !install {
        require_all()?;
        println!("everything that `cargo xtask test` needs is here");
        return Ok(());
    }
    let missing: Vec<&str> = TARGETS
        .into_iter()
        .filter(|target| Toolchain::for_target(target).is_err())
        .collect();
    let mut packages: Vec<&str> = NEEDS
        .iter()
        .filter(|need| !(need.present)())
        .flat_map(|need| need.debian.split(' '))
        .collect();
    if !missing.is_empty()
        && shell::run(
            Command::new("rustup")
                .args(["target", "add"])
                .args(&missing),
        )
        .is_err()
    {
        packages.extend(DEBIAN_RUST.split(' '));
    }
    if !packages.is_empty() {
        shell::run(Command::new("apt-get").arg("update"))?;
        shell::run(
            Command::new("apt-get")
                .args(["install", "--yes", "--no-install-recommends"])
                .args(packages),
        )?;
    }
    require_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_target_says_how_to_get_it() {
        let target = "thumbv6m-none-eabi";
        let failure = Toolchain::choose(target, false, false).unwrap_err().0;
        assert!(
            failure.contains("rustup target add thumbv6m-none-eabi"),
            "{failure}"
        );
        assert!(failure.contains("apt-get install rustc-web"), "{failure}");
        assert_eq!(
            Toolchain::choose(target, true, true).ok(),
            Some(Toolchain::Rustup)
        );
        assert_eq!(
            Toolchain::choose(target, false, true).ok(),
            Some(Toolchain::Debian)
        );
    }
}
