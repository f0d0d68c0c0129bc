//! `trainer flash`: builds the firmware with a run's model and writes it to a board.

use std::{path::Path, process::Command};

use runtime::Model;
use serialport::SerialPortInfo;
use verifier::link::target::{self, Board};

use super::devices;
use crate::{cli::FlashArgs, error::Error, run};

const PROBE_RS: &str = "probe-rs";

/// Builds, downloads and starts; with `--dry-run` prints the commands instead.
///
/// # Errors
/// Exit code 2 for an unknown board or a folder without model; 1 if another board is plugged in, or the build, probe-rs or
/// the probe fails.
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
    if args.probe.is_none() && !args.dry_run {
        // Without the list of ports there is nothing to object to.
        let ports = serialport::available_ports().unwrap_or_default();
        not_another(board, &target::targets().boards, &ports).map_err(Error::Failed)?;
    }
    let build = target::build_command(&board.name, &fxp).map_err(Error::Failed)?;
    let elf = target::elf_path(&board.name).map_err(Error::Failed)?;
    for mut command in [build, download(board, args, &elf), reset(board, args)] {
        let line = line(&command);
        println!("$ {line}");
        if args.dry_run {
            continue;
        }
        let status = command
            .status()
            .map_err(|error| missing(&command, &error))?;
        if !status.success() {
            let advice = if command.get_program() == PROBE_RS {
                format!("; {}", probes(board))
            } else {
                String::new()
            };
            return Err(Error::Failed(format!("`{line}` failed ({status}){advice}")));
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

fn download(board: &Board, args: &FlashArgs, elf: &Path) -> Command {
    let mut command = probe_rs("download", board, args);
    command.arg(elf);
    command
}

fn reset(board: &Board, args: &FlashArgs) -> Command {
    probe_rs("reset", board, args)
}

fn probe_rs(subcommand: &str, board: &Board, args: &FlashArgs) -> Command {
    let mut command = Command::new(PROBE_RS);
    command.args([subcommand, "--chip", &board.chip]);
    if let Some(probe) = &args.probe {
        command.args(["--probe", probe]);
    }
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
    let advice = if program == PROBE_RS {
        "install it with `cargo install probe-rs-tools --locked`"
    } else {
        "is Rust installed?"
    };
    Error::Failed(format!("`{program}` does not start: {error}; {advice}"))
}

/// Refuses if boards are plugged in whose debuggers are known, and none of them is `board`.
fn not_another(board: &Board, boards: &[Board], ports: &[SerialPortInfo]) -> Result<(), String> {
    let mut others = Vec::new();
    for port in ports {
        let names = devices::boards_of(port, boards);
        if names.contains(&board.name.as_str()) {
            return Ok(());
        }
        others.extend(
            names
                .iter()
                .map(|name| format!("{name} at {}", port.port_name)),
        );
    }
    if others.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} is not plugged in, but {}: choose it with --board; if {} has another debugger, name that with --probe \
         (`probe-rs list`)",
        board.name,
        others.join(", "),
        board.name
    ))
}

/// What to do after probe-rs failed, from the probes that it sees.
fn probes(board: &Board) -> String {
    let list = Command::new(PROBE_RS)
        .arg("list")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    explain(&list, board)
}

fn explain(list: &str, board: &Board) -> String {
    // A probe is a line such as `[0]: J-Link -- 1366:1015:000683456789 (J-Link)`.
    let probes = list.lines().filter(|line| line.starts_with('[')).count();
    if list.to_lowercase().contains("permission") {
        return "the probe may not be opened: on Linux, install probe-rs's udev rules, then plug the board in again".into();
    }
    match probes {
        0 => "no probe is connected: plug the board in with a cable that carries data (on Linux, probe-rs's udev rules must \
              be installed), and close other debuggers"
            .into(),
        1 => format!(
            "one probe is connected; is it that of the {}, and does the board have power?",
            board.name
        ),
        _ => format!(
            "{probes} probes are connected: name that of the {} with --probe\n{}",
            board.name,
            list.trim_end()
        ),
    }
}

#[cfg(test)]
mod tests {
    use serialport::{SerialPortType, UsbPortInfo};

    use super::*;

    fn port(name: &str, vid: u16, pid: u16) -> SerialPortInfo {
        SerialPortInfo {
            port_name: name.into(),
            port_type: SerialPortType::UsbPort(UsbPortInfo {
                vid,
                pid,
                serial_number: None,
                manufacturer: None,
                product: None,
            }),
        }
    }

    #[test]
    fn another_board_than_the_one_asked_for_is_named() {
        let boards = &target::targets().boards;
        let board = target::board("nrf52840-dk").unwrap();
        let microbit = port("/dev/ttyACM3", 0x0d28, 0x0204);
        let error = not_another(board, boards, std::slice::from_ref(&microbit)).unwrap_err();
        assert!(error.contains("nrf52840-dk is not plugged in"), "{error}");
        assert!(error.contains("microbit-v2 at /dev/ttyACM3"), "{error}");
        let both = [microbit, port("/dev/ttyACM0", 0x1366, 0x1015)];
        assert_eq!(not_another(board, boards, &both), Ok(()));
        let unknown = [port("/dev/ttyUSB0", 1, 2)];
        assert_eq!(not_another(board, boards, &unknown), Ok(()));
        assert_eq!(not_another(board, boards, &[]), Ok(()));
    }

    #[test]
    fn the_list_of_probes_says_what_to_do() {
        let board = target::board("microbit-v2").unwrap();
        let none = explain("No debug probes were found.\n", board);
        assert!(none.starts_with("no probe is connected"), "{none}");
        let one = "The following debug probes were found:\n[0]: BBC micro:bit CMSIS-DAP -- 0d28:0204:99 (CMSIS-DAP)\n";
        assert!(explain(one, board).contains("is it that of the microbit-v2"));
        let two = format!("{one}[1]: J-Link -- 1366:1015:1 (J-Link)\n");
        let two = explain(&two, board);
        assert!(
            two.starts_with("2 probes") && two.contains("--probe") && two.contains("1366:1015:1")
        );
        let blocked = format!("{one}  insufficient permissions\n");
        assert!(explain(&blocked, board).contains("udev"));
    }
}
