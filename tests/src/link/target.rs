//! Machines and boards that the firmware is made for, and how it is built.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde::Deserialize;

/// An emulated machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// As QEMU calls it.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Rust's name of the target.
    pub target: String,
    /// Bytes of code memory.
    pub flash: u64,
    /// Bytes of data memory.
    pub ram: u64,
    /// Most bytes of stack.
    pub stack: u64,
}

/// A real board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Name for `trainer flash --board`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Rust's name of the target.
    pub target: String,
    /// probe-rs's name of the chip.
    pub chip: String,
    /// Bytes of flash that the program may use.
    pub flash: u64,
    /// Bytes of RAM that the program may use.
    pub ram: u64,
    /// Most bytes of stack.
    pub stack: u64,
    /// `VID:PID` of the debugger or USB port.
    pub usb: Vec<String>,
}

/// Everything that the firmware is made for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Emulated machines.
    #[serde(rename = "machine")]
    pub machines: Vec<Machine>,
    /// Real boards.
    #[serde(rename = "board", default)]
    pub boards: Vec<Board>,
}

/// The list in firmware/targets.toml.
pub fn targets() -> &'static Targets {
    static TARGETS: LazyLock<Targets> = LazyLock::new(|| {
        toml::from_str(include_str!("../../../firmware/targets.toml")).expect("tested below")
    });
    &TARGETS
}

/// The machine of that name.
///
/// # Errors
/// The names that there are.
pub fn machine(name: &str) -> Result<&'static Machine, String> {
    targets()
        .machines
        .iter()
        .find(|machine| machine.name == name)
        .ok_or_else(|| {
            unknown(
                "machine",
                name,
                targets()
                    .machines
                    .iter()
                    .map(|machine| machine.name.as_str()),
            )
        })
}

/// The board of that name.
///
/// # Errors
/// The names that there are.
pub fn board(name: &str) -> Result<&'static Board, String> {
    targets()
        .boards
        .iter()
        .find(|board| board.name == name)
        .ok_or_else(|| {
            unknown(
                "board",
                name,
                targets().boards.iter().map(|board| board.name.as_str()),
            )
        })
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!(
        "unknown {kind} `{name}`; known: {}",
        known.collect::<Vec<_>>().join(", ")
    )
}

/// The command that builds the firmware of a machine or board with a model; it runs in the
/// repository's root. What to install is said by the command itself.
pub fn build_command(name: &str, fxp: &Path) -> Result<Command, String> {
    let root = root()?;
    let fxp = fxp
        .canonicalize()
        .map_err(|error| format!("{}: {error}", fxp.display()))?;
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(["xtask", "firmware", name, "--model"])
        .arg(fxp);
    Ok(command)
}

/// Builds the firmware of a machine or board with a model.
///
/// # Errors
/// What failed, with the command to repeat by hand and the end of its output.
pub fn build(name: &str, fxp: &Path) -> Result<PathBuf, String> {
    let mut command = build_command(name, fxp)?;
    let line = format!("cargo xtask firmware {name} --model {}", fxp.display());
    let output = command
        .output()
        .map_err(|error| format!("`{line}` did not start: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let end = lines[lines.len().saturating_sub(15)..].join("\n");
        return Err(format!("`{line}` failed:\n{end}"));
    }
    elf(name)
}

/// Where `cargo xtask firmware` leaves the program of a machine or board.
///
/// # Errors
/// An unknown name.
pub fn elf_path(name: &str) -> Result<PathBuf, String> {
    let target = match machine(name) {
        Ok(machine) => &machine.target,
        Err(_) => &board(name)?.target,
    };
    Ok(root()?
        .join("target/firmware")
        .join(target)
        .join("release")
        .join(name))
}

/// The program of a machine or board.
///
/// # Errors
/// A program that is not built, with the command that builds it.
pub fn elf(name: &str) -> Result<PathBuf, String> {
    let elf = elf_path(name)?;
    if elf.is_file() {
        return Ok(elf);
    }
    Err(format!(
        "{} is not built: run `cargo xtask firmware {name}`",
        elf.display()
    ))
}

/// The repository that this program was built from.
fn root() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().map_err(|error| {
        format!(
            "the sources of the firmware are needed and not at {}: {error}",
            root.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_described_once() {
        let targets = targets();
        let mut names: Vec<&str> = targets.machines.iter().map(|m| m.name.as_str()).collect();
        names.extend(targets.boards.iter().map(|b| b.name.as_str()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(machine("mps2-an386").is_ok());
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        assert!(machine("mps2").unwrap_err().contains("known: mps2-an385, "));
    }
}
