//! `trainer quantize`: a trained run quantized again, with or without quantization-aware fine-tuning.

use super::{
    deliver::{self, FineTuning},
    output,
};
use crate::{
    callbacks::progress::Display,
    cli::QuantizeArgs,
    error::Error,
    run::{self, Lock, Run},
};

/// Runs the command. What was asked for on the command line is kept in the run's recipe.toml.
///
/// # Errors
/// A folder that is no finished run, data other than the run's, wrong options, a model that cannot be written or does not
/// verify.
pub fn run(args: &QuantizeArgs) -> Result<(), Error> {
    let display = Display::choose(false, false, args.json);
    let epochs = args.qat_epochs.map(|n| format!("quantize.qat_epochs={n}"));
    let rate = args.qat_learning_rate;
    // TOML's `nan` and `inf` are lower case.
    let rate = rate.map(|rate| format!("quantize.qat_learning_rate={rate}").to_lowercase());
    let sets: Vec<String> = epochs.into_iter().chain(rate).collect();
    let mut run = Run::open_with(&args.dir, &sets)?;
    let _lock = Lock::take(&args.dir)?;
    let task = display.busy("reading the data");
    let data = run.load_own_data()?;
    drop(task);
    let quantized = deliver::quantize(&run, &data, FineTuning::Train, display)?;
    run.recipe = run::store_recipe(&args.dir, &run.recipe, &args.dir)?;
    let verified = deliver::write_models(&run, &quantized, &data, display)?.verified;
    output::result(&verified, args.json)?;
    verified.conclude()
}
