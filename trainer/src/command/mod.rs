//! One file per subcommand: `pub fn run(args: &XArgs) -> Result<(), Error>`.

mod completions;
pub mod deliver;
mod devices;
mod evaluate;
mod export;
mod flash;
mod man;
mod output;
mod predict;

use crate::{
    cli::{Cli, Command},
    error::Error,
};

pub mod fit;
pub mod summary;
pub mod verify;

/// Runs the chosen subcommand.
pub fn run(cli: Cli) -> Result<(), Error> {
    let name = match cli.command {
        Command::Fit(args) => return fit::run(&args),
        Command::Summary(args) => return summary::run(&args),
        Command::Evaluate(args) => return evaluate::run(&args),
        Command::Quantize(_) => "quantize",
        Command::Export(args) => return export::run(&args),
        Command::Verify(args) => return verify::run(&args),
        Command::Predict(args) => return predict::run(&args),
        Command::Flash(args) => return flash::run(&args),
        Command::Devices(args) => return devices::run(&args),
        Command::Completions(args) => return completions::run(&args),
        Command::Man(args) => return man::run(&args),
    };
    Err(Error::Failed(format!(
        "`{name}` is not available in this build"
    )))
}
