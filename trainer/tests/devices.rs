//! `trainer devices`, `trainer flash` and what they say when something is missing; with programs that stand in for cargo
//! and probe-rs.
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const TRAINER: &str = env!("CARGO_BIN_EXE_trainer");

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mnist")
}

/// A folder of programs that are shell scripts.
fn programs(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in scripts {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// Runs the trainer with these programs only.
fn trainer(programs: &Path, args: &[&str]) -> Output {
    Command::new(TRAINER)
        .args(args)
        .env("PATH", programs)
        .output()
        .unwrap()
}

fn flash(programs: &Path, more: &[&str]) -> Output {
    let models = models();
    let args = ["flash", models.to_str().unwrap(), "--board", "microbit-v2"];
    trainer(programs, &[&args, more].concat())
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The message of a run that ended with this exit code.
fn message(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", out(output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn devices_lists_ports_boards_and_machines() {
    let empty = programs(&[]);
    let output = trainer(empty.path(), &["devices"]);
    let text = out(&output);
    assert!(output.status.success());
    for line in ["serial ports", "nrf52840-dk", "esp32-c3", "mps3-an547"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_dry_run_prints_the_commands_and_runs_none() {
    let empty = programs(&[]);
    let output = flash(empty.path(), &["--dry-run", "--probe", "0d28:0204"]);
    let text = out(&output);
    assert!(output.status.success(), "{text}");
    let commands: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    let [build, download, reset] = commands[..] else {
        panic!("{text}")
    };
    assert!(
        build.starts_with("cargo xtask firmware microbit-v2 --model "),
        "{build}"
    );
    assert!(build.ends_with("model.fxp"), "{build}");
    let probe = "--chip nRF52833_xxAA --probe 0d28:0204";
    assert!(
        download.starts_with(&format!("probe-rs download {probe} ")),
        "{download}"
    );
    assert!(
        download.ends_with("thumbv7em-none-eabihf/release/microbit-v2"),
        "{download}"
    );
    assert_eq!(reset, format!("probe-rs reset {probe}"));
}

#[test]
fn flash_builds_downloads_and_resets() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let script = format!("echo \"$(basename $0) $1 $2\" >> {}", log.path().display());
    let script = format!("PATH=/usr/bin:/bin\n{script}");
    let tools = programs(&[("cargo", &script), ("probe-rs", &script)]);
    let output = flash(tools.path(), &[]);
    assert!(output.status.success(), "{}", message(&output, 0));
    assert!(out(&output).contains("trainer verify"));
    assert_eq!(
        fs::read_to_string(log.path()).unwrap(),
        "cargo xtask firmware\nprobe-rs download --chip\nprobe-rs reset --chip\n"
    );
}

#[test]
fn an_unknown_board_lists_the_known_ones() {
    let empty = programs(&[]);
    let models = models();
    let args = ["flash", models.to_str().unwrap(), "--board", "arduino"];
    let text = message(&trainer(empty.path(), &args), 2);
    assert!(
        text.contains("unknown board `arduino`; known: nrf52840-dk"),
        "{text}"
    );
}

#[test]
fn a_missing_program_says_how_to_get_it() {
    let empty = programs(&[]);
    let text = message(&flash(empty.path(), &[]), 1);
    assert!(
        text.contains("`cargo` does not start") && text.contains("Rust"),
        "{text}"
    );
    let tools = programs(&[("cargo", "exit 0")]);
    let text = message(&flash(tools.path(), &[]), 1);
    assert!(text.contains("cargo install probe-rs-tools"), "{text}");
}

#[test]
fn a_build_that_fails_ends_it() {
    // What `cargo xtask` says about a missing target goes to standard error as it is.
    let tools = programs(&[(
        "cargo",
        "echo 'xtask: run `rustup target add ...`' >&2; exit 1",
    )]);
    let text = message(&flash(tools.path(), &[]), 1);
    assert!(
        text.contains("rustup target add") && text.contains("failed"),
        "{text}"
    );
}

#[test]
fn without_a_probe_flash_says_so() {
    let probe_rs = "case $1 in list) echo 'No debug probes were found.';; *) exit 1;; esac";
    let tools = programs(&[("cargo", "exit 0"), ("probe-rs", probe_rs)]);
    let text = message(&flash(tools.path(), &[]), 1);
    assert!(
        text.contains("no probe is connected: plug the board in"),
        "{text}"
    );
    assert!(text.contains("udev"), "{text}");
}

#[test]
fn a_probe_of_another_board_is_doubted() {
    let probe_rs = "case $1 in list) echo '[0]: J-Link -- 1366:1015:1 (J-Link)';; *) exit 1;; esac";
    let tools = programs(&[("cargo", "exit 0"), ("probe-rs", probe_rs)]);
    let text = message(&flash(tools.path(), &[]), 1);
    assert!(text.contains("is it that of the microbit-v2"), "{text}");
}

fn verify(programs: &Path, against: &str) -> Output {
    let models = models();
    let args = [
        "verify",
        models.to_str().unwrap(),
        "--limit",
        "1",
        "--against",
        against,
    ];
    trainer(programs, &args)
}

#[test]
fn verify_without_qemu_or_port_says_what_to_do() {
    let empty = programs(&[]);
    let text = message(&verify(empty.path(), "qemu:mps2-an386"), 1);
    assert!(
        text.contains("qemu-system-arm does not start") && text.contains("install"),
        "{text}"
    );
    let text = message(&verify(empty.path(), "serial:/dev/ttyNOSUCH"), 1);
    assert!(
        text.contains("/dev/ttyNOSUCH") && text.contains("trainer devices"),
        "{text}"
    );
    let tools = programs(&[
        ("qemu-system-arm", "exit 0"),
        (
            "cargo",
            "echo 'xtask: Rust target x is missing: run `rustup target add x`' >&2; exit 1",
        ),
    ]);
    let text = message(&verify(tools.path(), "qemu:mps2-an386"), 1);
    assert!(text.contains("rustup target add x"), "{text}");
}

#[test]
fn timing_needs_a_device() {
    let empty = programs(&[]);
    let models = models();
    let args = [
        "verify",
        models.to_str().unwrap(),
        "--limit",
        "1",
        "--timing",
    ];
    let text = message(&trainer(empty.path(), &args), 2);
    assert!(text.contains("--timing needs a device"), "{text}");
}
