//! Runs commands: prints what it runs, stops at the first failure.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// Why a job stopped: one sentence for the user.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Builds the trainer as its users have it, for [`trainer`].
pub fn build_trainer() -> Result<(), Failure> {
    run(cargo().args(["build", "--release", "--locked", "--package", "trainer"]))
}

/// The built trainer; run from the repository's root.
pub fn trainer() -> Command {
    let mut command = Command::new(root().join("target/release/trainer"));
    command.current_dir(root());
    command
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs the command with its output shown; an exit code other than 0 is a failure.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let line = line(command);
    println!("\n$ {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure(format!("`{line}` failed ({status})"))),
        Err(error) => Err(Failure(format!("`{line}` did not start: {error}"))),
    }
}

/// Runs the command, which has to fail; returns what it printed.
pub fn failure_of(command: &mut Command) -> Result<String, Failure> {
    let line = line(command);
    println!("\n$ {line}    (has to fail)");
    match command.output() {
        Ok(output) if output.status.success() => Err(Failure(format!("`{line}` did not fail"))),
        Ok(output) => Ok(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(Failure(format!("`{line}` did not start: {error}"))),
    }
}

/// Standard output of a command that succeeds, else `None`.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
