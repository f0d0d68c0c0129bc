//! `trainer fit`: trains, quantizes, exports, verifies.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    architecture::Architecture,
    callbacks::{self, Plan, progress::Display},
    cli::FitArgs,
    command::{
        deliver::{self, FineTuning},
        output,
        verify::Verified,
    },
    dataset, device,
    error::Error,
    fit,
    initializer::initial_weights,
    network::Network,
    preprocess::Preprocess,
    recipe::{self, Recipe},
    run::{self, DataRecord, Run},
};

/// Runs the command.
///
/// # Errors
/// A wrong recipe or option (exit code 2); a training, an export or a verification that fails (exit code 1).
pub fn run(args: &FitArgs) -> Result<(), Error> {
    let path = match &args.recipe {
        Some(path) => path.clone(),
        None => recipe::default_path()?,
    };
    let mut sets = args.set.clone();
    sets.extend(args.epochs.map(|epochs| format!("train.epochs={epochs}")));
    sets.extend(args.seed.map(|seed| format!("train.seed={seed}")));
    let recipe = Recipe::load(&path, &sets)?;
    refuse(args, &recipe)?;
    let target = device::open(&args.device)?;
    if let Some(threads) = args.threads {
        limit_threads(threads)?;
    }
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let data = dataset::load(
        &recipe.data,
        architecture.input,
        architecture.classes(),
        base,
    )
    .map_err(|error| Error::Failed(error.to_string()))?;
    let preprocess = Preprocess::fit(recipe.data.preprocess, recipe.data.statistics, &data);
    let dir = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    fs::create_dir_all(&dir)
        .map_err(|error| Error::Failed(format!("{}: {error}", dir.display())))?;
    let data_record = DataRecord::new(&data, preprocess);
    let recipe = run::store_recipe(&dir, &recipe, base)?;
    run::store_data_record(&dir, &data_record)?;

    let initial = initial_weights(&architecture, recipe.train.seed);
    run::write_weights(&dir.join(run::INITIAL_WEIGHTS), &initial)?;
    let network = Network::new(&architecture, &initial, &target).map_err(device)?;
    let plan = Plan {
        name: recipe.name.clone(),
        epochs: recipe.train.epochs,
        steps_per_epoch: data.train.images.len().div_ceil(recipe.train.batch) as u64,
        samples_per_epoch: data.train.images.len(),
        reference_accuracy: recipe.train.callbacks.reference_accuracy,
        history: Vec::new(),
    };
    let display = Display::choose(args.quiet, args.plain, args.json);
    let tensorboard = recipe.train.callbacks.tensorboard;
    let mut outputs = callbacks::outputs(&plan, &dir, tensorboard, display, args.json)
        .map_err(|error| Error::Failed(error.to_string()))?;
    fit::fit(
        &recipe,
        &network,
        &data,
        &data_record.preprocess,
        &mut outputs,
    )
    .map_err(|error| Error::Failed(error.to_string()))?;
    drop(outputs);
    let weights = network.weights().map_err(device)?;
    run::write_weights(&dir.join(run::WEIGHTS), &weights)?;

    let trained = Run {
        dir,
        recipe,
        architecture,
        data: data_record,
        weights,
    };
    let quantized = deliver::quantize(&trained, &data, FineTuning::Train, display)?;
    let verified = deliver::write_models(&trained, &quantized, &data, display)?;
    if args.json {
        output::line(&Finished {
            event: "end",
            verified: &verified,
        })?;
    } else {
        output::text(&verified.to_string())?;
    }
    verified.conclude()
}

/// Sets the size of the pool that all CPU kernels share; once per process, before its first use.
fn limit_threads(threads: NonZeroUsize) -> Result<(), Error> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.get())
        .build_global()
        .map_err(|error| Error::Failed(format!("--threads {threads}: {error}")))
}

/// The last JSON object of `--json`.
#[derive(Serialize)]
struct Finished<'a> {
    event: &'static str,
    #[serde(flatten)]
    verified: &'a Verified,
}

/// Options and recipe keys that this version does not carry out are refused, not ignored.
fn refuse(args: &FitArgs, recipe: &Recipe) -> Result<(), Error> {
    let callbacks = &recipe.train.callbacks;
    let asked = [
        (args.start.resume, "--resume"),
        (args.start.warm_start.is_some(), "--warm-start"),
        (args.start.reset_weights, "--reset-weights"),
        (recipe.train.ema != 0.0, "train.ema"),
        (
            callbacks.early_stopping.is_some(),
            "train.callbacks.early_stopping",
        ),
        (
            callbacks.reduce_on_plateau.is_some(),
            "train.callbacks.reduce_on_plateau",
        ),
    ];
    match asked.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Error::Usage(format!(
            "{what} is not supported by this version of `trainer fit`"
        ))),
        None => Ok(()),
    }
}

fn device(error: candle_core::Error) -> Error {
    Error::Failed(error.to_string())
}
