//! `trainer export`: the model files and the report of a trained run, written again.

use super::{
    deliver::{self, FineTuning},
    output,
};
use crate::{
    callbacks::progress::Display,
    cli::RunArgs,
    error::Error,
    run::{Lock, Run},
};

/// Runs the command.
///
/// # Errors
/// A folder that is no finished run, data other than the run's, a model that cannot be written or does not verify.
pub fn run(args: &RunArgs) -> Result<(), Error> {
    let display = Display::choose(false, false, args.json);
    let run = Run::open(&args.dir)?;
    let _lock = Lock::take(&args.dir)?;
    let task = display.busy("reading the data");
    let data = run.load_own_data()?;
    drop(task);
    let quantized = deliver::quantize(&run, &data, FineTuning::Read, display)?;
    let verified = deliver::write_models(&run, &quantized, &data, display)?;
    output::result(&verified, args.json)?;
    verified.conclude()
}
