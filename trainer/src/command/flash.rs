//! `trainer flash`: builds the firmware with a run's model and writes it to a board.

use std::{path::Path, process::Command};

use runtime::Model;
use verifier::link::target::{self, Board};

use crate::{cli::FlashArgs, error::Error, run};

/// Builds, downloads and starts; with `--dry-run` prints the commands instead.
///
/// # Errors
/// Exit code 2 for an unknown board or a folder without model; 1 if the build, probe-rs or the probe fails.
pub fn run(args: &FlashArgs) -> Result<(), Error> {
    let board = target::board(&args.board).map_err(Error::Usage)?;
    let file = run::read_model(&args.dir, run::FIXED_MODEL)?;
    let fxp = args.dir.join(run::FIXED_MODEL);
    let model = Model::new(&file).map_err(|error| Error::in_file(&fxp, error))?;
    println!(
        "model {}: {} bytes of flash, {} bytes of arena; board {}: {} bytes of flash, {} bytes of RAM",
        model.name(),
        file.len(),
        model.arena_len(),
        board.description,
        board.flash,
        board.ram
    );
    let build = target::build_command(&board.name, &fxp).map_err(Error::Failed)?;
    let elf = target::elf_path(&board.name).map_err(Error::Failed)?;
    for mut command in [build, download(board, &elf), reset(board)] {
        let line = line(&command);
        println!("$ {line}");
        if args.dry_run {
            continue;
        }
        let status = command
            .status()
            .map_err(|error| missing(&command, &error))?;
        if !status.success() {
            return Err(Error::Failed(format!(
                "`{line}` failed ({status}){}",
                advice(&command)
            )));
        }
    }
    if !args.dry_run {
        println!(
            "flashed; `trainer devices` shows its serial port, then: trainer verify {} --against serial:PORT",
            args.dir.display()
        );
    }
    Ok(())
}

fn download(board: &Board, elf: &Path) -> Command {
    let mut command = Command::new("probe-rs");
    command.args(["download", "--chip", &board.chip]).arg(elf);
    command
}

fn reset(board: &Board) -> Command {
    let mut command = Command::new("probe-rs");
    command.args(["reset", "--chip", &board.chip]);
    command
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn missing(command: &Command, error: &std::io::Error) -> Error {
    let program = command.get_program().to_string_lossy();
    let advice = match program.as_ref() {
        "probe-rs" => "install it with `cargo install probe-rs-tools --locked`",
        _ => "is Rust installed?",
    };
    Error::Failed(format!("`{program}` does not start: {error}; {advice}"))
}

fn advice(command: &Command) -> &'static str {
    if command.get_program() == "probe-rs" {
        "; `probe-rs list` shows the probes: is the board plugged in, is it this board, and (Linux) are probe-rs's udev rules installed?"
    } else {
        ""
    }
}
