//! `trainer completions`: the completion script of a shell.

use clap::CommandFactory;

use super::output;
use crate::{
    cli::{Cli, CompletionsArgs},
    error::Error,
};

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "trainer", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
