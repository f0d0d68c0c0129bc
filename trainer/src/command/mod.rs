//! One file per subcommand: `pub fn run(args: &XArgs) -> Result<(), Error>`.

mod completions;
pub mod deliver;
mod devices;
mod evaluate;
mod export;
mod flash;
mod inspect;
mod man;
mod output;
mod predict;
mod quantize;
mod timing;

use crate::{
    cli::{Cli, Command},
    error::Error,
};

pub mod fit;
mod start;
pub mod summary;
mod sweep;
pub mod verify;

/// Runs the chosen subcommand.
pub fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Fit(args) => fit::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Flash(args) => flash::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
