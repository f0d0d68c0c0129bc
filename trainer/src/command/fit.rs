//! `trainer fit`: trains, quantizes, exports, verifies.

use std::{fs, path::Path};

use serde::Serialize;

use super::start::{self, Choice};
use crate::{
    architecture::Architecture,
    callbacks::{self, Plan, progress},
    checkpoint::Checkpoint,
    cli::FitArgs,
    command::{
        deliver::{self, FineTuning},
        output,
        verify::Verified,
    },
    dataset, device,
    error::Error,
    fit::{self, Ending, Job},
    interrupt,
    network::Network,
    preprocess::Preprocess,
    run::{self, DataRecord, Lock, Run, RunError},
};

/// Runs the command.
///
/// # Errors
/// A wrong recipe or option (exit code 2); a training, an export or a verification that fails (exit code 1).
pub fn run(args: &FitArgs) -> Result<(), Error> {
    let choice = start::choose(args)?;
    let Choice {
        recipe,
        path,
        base,
        dir,
    } = &choice;
    let target = device::open(&args.device)?;
    if let Some(threads) = args.threads {
        limit_threads(threads)?;
    }
    let architecture =
        Architecture::resolve(&recipe.network, &recipe.train.loss).map_err(|source| {
            RunError::Architecture {
                path: path.clone(),
                source,
            }
        })?;
    start::check_folders(args, &choice, &architecture)?;
    let shown = progress::Display::choose(args.quiet, args.plain, args.json);
    let task = shown.busy("reading the data");
    let (input, classes) = (architecture.input, architecture.classes());
    let data = dataset::load(&recipe.data, input, classes, base).map_err(Error::failed)?;
    let preprocess = Preprocess::fit(recipe.data.preprocess, recipe.data.statistics, &data);
    deliver::check(recipe, &architecture, &preprocess)?;
    let data_record = DataRecord::new(&data, preprocess);
    drop(task);
    fs::create_dir_all(dir).map_err(|error| Error::in_file(dir, error))?;
    let _lock = Lock::take(dir)?;
    let (recipe, checkpoint) = start::begin(args, &choice, &architecture, &data_record)?;

    let job = Job {
        recipe: &recipe,
        data: &data,
        preprocess: &data_record.preprocess,
        dir,
    };
    let weights = match &checkpoint.progress.finished {
        Some(_) => {
            if shown != progress::Display::Quiet {
                eprintln!("{}", already_finished(dir, &checkpoint));
            }
            checkpoint.final_weights()
        }
        None => {
            let network =
                Network::new(&architecture, &checkpoint.weights, &target).map_err(Error::failed)?;
            train(args, &job, &network, checkpoint, shown)?;
            network.weights().map_err(Error::failed)?
        }
    };
    run::write_weights(&dir.join(run::WEIGHTS), &weights)?;

    let trained = Run {
        dir: dir.clone(),
        recipe,
        architecture,
        data: data_record,
        weights,
    };
    let quantized = deliver::quantize(&trained, &data, FineTuning::Train, shown)?;
    let verified = deliver::write_models(&trained, &quantized, &data, shown)?.verified;
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

/// The last JSON object of `--json`.
#[derive(Serialize)]
struct Finished<'a> {
    event: &'static str,
    #[serde(flatten)]
    verified: &'a Verified,
}

/// Trains to the end, with all outputs.
fn train(
    args: &FitArgs,
    job: &Job<'_>,
    network: &Network,
    checkpoint: Checkpoint,
    shown: progress::Display,
) -> Result<(), Error> {
    let Job {
        recipe, data, dir, ..
    } = *job;
    let callbacks = &recipe.train.callbacks;
    let plan = Plan {
        name: recipe.name.clone(),
        epochs: recipe.train.epochs,
        steps_per_epoch: job.steps_per_epoch(),
        samples_per_epoch: data.train.images.len(),
        reference_accuracy: callbacks.reference_accuracy,
        history: checkpoint.progress.history.clone(),
    };
    let guard = interrupt::guard().map_err(Error::failed)?;
    let mut outputs = callbacks::outputs(&plan, dir, callbacks.tensorboard, shown, args.json)
        .map_err(Error::failed)?;
    let ending = fit::fit(job, network, checkpoint, &mut outputs, &|| guard.asked())
        .map_err(Error::failed)?;
    match ending {
        Ending::Finished => Ok(()),
        Ending::Interrupted { step } => Err(Error::Interrupted(format!(
            "interrupted after step {step}; continue with `trainer fit --resume --out {}`",
            dir.display()
        ))),
    }
}

fn already_finished(dir: &Path, checkpoint: &Checkpoint) -> String {
    format!(
        "{}: the training is finished ({} epochs), its models are written again; --reset-weights trains again",
        dir.display(),
        checkpoint.progress.history.len()
    )
}

/// Sets the size of the pool that all CPU kernels share; once per process, before its first use.
fn limit_threads(threads: u16) -> Result<(), Error> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.into())
        .build_global()
        .map_err(|error| Error::Failed(format!("--threads {threads}: {error}")))
}
