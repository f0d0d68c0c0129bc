//! Builds the firmware for every emulated machine and board, and checks that it fits.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use runtime::{Kind, Layout, Model};
use serde::Deserialize;

use crate::{
    shell::{self, Failure},
    toolchain::Toolchain,
};

/// Where the programs are built; `<target>/release/<name>` below it.
pub const TARGET_DIR: &str = "target/firmware";

/// The workspace of the emulated machines, below firmware/, and its packages.
const QEMU: &str = "qemu";
const MACHINE: &str = "machine";
const NO_PANIC: &str = "no-panic";

/// The programs of [`NO_PANIC`], which do not link if a panic is reachable: from the runtime, and from the command loop.
const NO_PANIC_PROGRAMS: [&str; 2] = [NO_PANIC, "no-panic-app"];

/// One machine or board of firmware/targets.toml.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// Package, program and folder.
    pub name: String,
    /// Rust's name of the target.
    pub target: String,
    /// Bytes of code memory.
    pub flash: u64,
    /// Bytes of data memory.
    pub ram: u64,
    /// Most bytes of stack; tests/tests/qemu.rs measures it on the emulated machines.
    pub stack: u64,
    /// Below firmware/: `qemu` or `boards/<name>`.
    #[serde(skip)]
    pub workspace: PathBuf,
}

impl Target {
    /// A machine of QEMU, not a board.
    pub fn is_emulated(&self) -> bool {
        self.workspace == Path::new(QEMU)
    }
}

/// Everything that the firmware is made for: QEMU's machines, then the boards.
pub fn targets() -> Result<Vec<Target>, Failure> {
    #[derive(Deserialize)]
    struct List {
        machine: Vec<Target>,
        #[serde(default)]
        board: Vec<Target>,
    }
    let path = shell::root().join("firmware/targets.toml");
    let failure = |error: String| Failure(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| failure(error.to_string()))?;
    let mut list: List = toml::from_str(&text).map_err(|error| failure(error.to_string()))?;
    for machine in &mut list.machine {
        machine.workspace = QEMU.into();
    }
    for board in &mut list.board {
        board.workspace = Path::new("boards").join(&board.name);
    }
    list.machine.append(&mut list.board);
    Ok(list.machine)
}

/// Builds all programs with the default model, checks their sizes and prints the table.
pub fn build_all() -> Result<(), Failure> {
    build(&[], None)?;
    let target = "thumbv7em-none-eabihf";
    no_panic(target, &[])?;
    no_panic(target, &["winograd"])?;
    panic_is_found(target)
}

/// Links the programs that do not link if a panic is reachable from the validation of a model, its run, or the command loop, for one
/// target and features of the runtime. The first one holds nothing but the runtime with its kernels: the returned size.
pub fn no_panic(target: &str, features: &[&str]) -> Result<Sizes, Failure> {
    let package = no_panic_package(target);
    let mut command = command(&package, &NO_PANIC_PROGRAMS, None)?;
    for feature in features {
        command.args(["--features", &format!("runtime/{feature}")]);
    }
    shell::run(&mut command)?;
    Sizes::read(&elf(&package))
}

/// Checks that a panic which is put into these programs is found.
fn panic_is_found(target: &str) -> Result<(), Failure> {
    for program in NO_PANIC_PROGRAMS {
        let mut command = command(&no_panic_package(target), &[program], None)?;
        command.args(["--features", "panic"]);
        let text = shell::failure_of(&mut command)?;
        if !text.contains("a_panic_is_reachable") {
            return Err(Failure(format!(
                "{program} with a panic does not link, but for another reason:\n{text}"
            )));
        }
    }
    Ok(())
}

fn no_panic_package(target: &str) -> Target {
    Target {
        name: NO_PANIC.to_owned(),
        target: target.to_owned(),
        flash: 0,
        ram: 0,
        stack: 0,
        workspace: QEMU.into(),
    }
}

/// Builds the programs of the named machines and boards (all if none is named) with a model.
pub fn build(names: &[String], model: Option<&Path>) -> Result<(), Failure> {
    let all = targets()?;
    if let Some(unknown) = names
        .iter()
        .find(|&name| all.iter().all(|target| target.name != *name))
    {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        return Err(Failure(format!(
            "unknown machine or board `{unknown}`; known: {}",
            known.join(", ")
        )));
    }
    let chosen: Vec<&Target> = all
        .iter()
        .filter(|t| names.is_empty() || names.contains(&t.name))
        .collect();
    for target in &chosen {
        let bench = format!("bench-{}", target.name);
        let both = [target.name.as_str(), &bench];
        let programs = if target.is_emulated() {
            &both[..]
        } else {
            &both[..1]
        };
        shell::run(&mut command(target, programs, model)?)?;
    }
    println!(
        "\n{:<18} {:>24} {:>12} {:>8} {:>24}",
        "program", "flash (bytes, share)", "static RAM", "stack", "RAM (bytes, share)"
    );
    for target in chosen {
        let sizes = Sizes::read(&elf(target))?;
        let ram = sizes.ram + target.stack;
        println!(
            "{:<18} {:>17} {:>5.1}% {:>12} {:>8} {:>17} {:>5.1}%",
            target.name,
            sizes.flash,
            percent(sizes.flash, target.flash),
            sizes.ram,
            target.stack,
            ram,
            percent(ram, target.ram)
        );
        if sizes.flash > target.flash || ram > target.ram {
            return Err(Failure(format!(
                "{} does not fit: {} of {} bytes of flash, {ram} of {} bytes of RAM",
                target.name, sizes.flash, target.flash, target.ram
            )));
        }
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// The program of a machine or board.
pub fn elf(target: &Target) -> PathBuf {
    shell::root()
        .join(TARGET_DIR)
        .join(&target.target)
        .join("release")
        .join(&target.name)
}

/// The command that builds programs of one machine or board.
pub fn command(
    target: &Target,
    programs: &[&str],
    model: Option<&Path>,
) -> Result<Command, Failure> {
    let mut command = Toolchain::for_target(&target.target)?.cargo("build", &target.target);
    command
        .current_dir(shell::root().join("firmware").join(&target.workspace))
        .args(["--release", "--locked", "--target-dir"])
        .arg(shell::root().join(TARGET_DIR))
        .arg("--package");
    command.arg(if target.is_emulated() && target.name != NO_PANIC {
        MACHINE
    } else {
        &target.name
    });
    for program in programs {
        command.args(["--bin", program]);
    }
    if let Some(model) = model {
        let failure = |error| Failure(format!("{}: {error}", model.display()));
        if transformed(&fs::read(model).map_err(failure)?) {
            command.args(["--features", "embedded-model/winograd"]);
        }
        command.env("ISOBIT_MODEL", model.canonicalize().map_err(failure)?);
    }
    Ok(command)
}

/// True if a layer of a model is stored transformed for Winograd's algorithm, which a program runs only with a feature.
/// What is no model is refused by the build.
fn transformed(file: &[u8]) -> bool {
    Model::new(file).is_ok_and(|model| {
        model.ops().any(|op| match op.kind {
            Kind::Conv(conv) => conv.weights.layout() == Layout::Winograd,
            _ => false,
        })
    })
}

/// What a program occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Loaded bytes: code, constants and the initial values of static data.
    pub flash: u64,
    /// Static data, without the stack.
    pub ram: u64,
}

impl Sizes {
    /// Adds up the sections of a program that occupy memory: those with contents are flash, those that may be written are RAM.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        read(path, Self::of)
    }

    fn of(file: &[u8]) -> Option<Self> {
        const NO_CONTENTS: u32 = 8;
        const WRITE: u32 = 1;
        const ALLOCATE: u32 = 2;
        let mut sizes = Self { flash: 0, ram: 0 };
        for section in sections(file)? {
            if section.flags & ALLOCATE == 0 {
                continue;
            }
            if section.kind != NO_CONTENTS {
                sizes.flash += u64::from(section.size);
            }
            if section.flags & WRITE != 0 {
                sizes.ram += u64::from(section.size);
            }
        }
        Some(sizes)
    }
}

/// Bytes of a program's functions that come from the crate `runtime`: what inference costs in flash besides the model.
pub fn code(path: &Path) -> Result<u64, Failure> {
    read(path, code_of)
}

fn code_of(file: &[u8]) -> Option<u64> {
    const SYMBOLS: u32 = 2;
    const FUNCTION: u8 = 2;
    /// The crate as Rust mangles it: the length of its name, then its name.
    const CRATE: &[u8] = b"7runtime";
    let all = sections(file)?;
    let symbols = all.iter().find(|section| section.kind == SYMBOLS)?;
    let names = all.get(symbols.link as usize)?.bytes(file)?;
    let mut seen = BTreeMap::new();
    for symbol in symbols.bytes(file)?.chunks_exact(16) {
        let name = names.get(word(symbol, 0)? as usize..)?;
        let name = name.split(|&byte| byte == 0).next()?;
        let of_crate = name.windows(CRATE.len()).any(|part| part == CRATE);
        if of_crate && symbol[12] & 15 == FUNCTION {
            // Equal functions share one address.
            seen.insert(word(symbol, 4)?, u64::from(word(symbol, 8)?));
        }
    }
    Some(seen.values().sum())
}

fn read<T>(path: &Path, of: impl Fn(&[u8]) -> Option<T>) -> Result<T, Failure> {
    let file = fs::read(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    of(&file).ok_or_else(|| Failure(format!("{}: not a 32-bit ELF file", path.display())))
}

/// A section of a 32-bit little-endian ELF file.
struct Section {
    kind: u32,
    flags: u32,
    offset: u32,
    size: u32,
    link: u32,
}

impl Section {
    fn bytes<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        file.get(self.offset as usize..)?.get(..self.size as usize)
    }
}

fn sections(file: &[u8]) -> Option<Vec<Section>> {
    if !file.starts_with(b"\x7fELF\x01\x01") {
        return None;
    }
    let half = |at: usize| {
        file.get(at..)?
            .first_chunk::<2>()
            .map(|bytes| usize::from(u16::from_le_bytes(*bytes)))
    };
    let (table, size, count) = (word(file, 0x20)? as usize, half(0x2e)?, half(0x30)?);
    (0..count)
        .map(|i| {
            let at = table + i * size;
            Some(Section {
                kind: word(file, at + 4)?,
                flags: word(file, at + 8)?,
                offset: word(file, at + 16)?,
                size: word(file, at + 20)?,
                link: word(file, at + 24)?,
            })
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk::<4>()
        .map(|bytes| u32::from_le_bytes(*bytes))
}
