//! What every command has: help with examples, machine-readable results, completions, manual pages.

use std::process::{Command, Output};

use clap::CommandFactory;
use serde_json::Value;
use trainer::cli::Cli;

fn trainer(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every example line of every help parses.
#[test]
fn examples_of_the_help_are_valid() {
    let mut examples = 0;
    for command in Cli::command().get_subcommands() {
        let Some(help) = command.get_after_help() else {
            continue;
        };
        for line in help.to_string().lines().map(str::trim) {
            if line.starts_with("trainer ") {
                let words = line.split_whitespace().take_while(|word| *word != ">");
                let parsed = Cli::command().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
                examples += 1;
            }
        }
    }
    assert!(examples >= 14, "{examples}");
    Cli::command().debug_assert();
}

#[test]
fn summary_and_devices_as_json() {
    let summary: Value = serde_json::from_slice(&trainer(&["summary", "--json"]).stdout).unwrap();
    assert_eq!(summary["parameters"], 96_844);
    assert_eq!(
        summary["layers"][0]["output"],
        serde_json::json!([26, 26, 32])
    );
    let devices: Value = serde_json::from_slice(&trainer(&["devices", "--json"]).stdout).unwrap();
    let boards = devices["boards"].as_array().unwrap();
    assert!(boards.iter().any(|board| board["name"] == "nrf52840-dk"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = trainer(&["completions", shell]);
        assert!(script.status.success());
        let script = text(&script.stdout);
        assert!(
            script.contains("evaluate") && script.contains("warm-start"),
            "{shell}"
        );
    }
    let unknown = trainer(&["completions", "cmd"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn manual_pages_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let output = trainer(&["man", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for command in Cli::command().get_subcommands() {
        let page = folder.join(format!("trainer-{}.1", command.get_name()));
        let page = std::fs::read_to_string(&page).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(folder.join("trainer.1").is_file());
}
