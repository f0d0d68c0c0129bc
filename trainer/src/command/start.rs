//! How `trainer fit` begins: a new run, an old one continued, or one trained again.

use std::path::{Path, PathBuf};

use crate::{
    architecture::Architecture,
    callbacks::{curves, history, tensorboard},
    checkpoint::{self, Checkpoint, Progress},
    cli::FitArgs,
    error::Error,
    fit::BEST_WEIGHTS,
    initializer::initial_weights,
    recipe::{self, Recipe, ScheduleRecipe},
    report,
    run::{self, DataRecord, RunError},
    weights::Weights,
};

/// Recipe, the folder that its paths are relative to, and the run folder.
#[derive(Debug)]
pub struct Choice {
    /// With the command line's changes.
    pub recipe: Recipe,
    /// The recipe file.
    pub path: PathBuf,
    /// Its folder.
    pub base: PathBuf,
    /// Run folder; it may not exist yet.
    pub dir: PathBuf,
}

/// What the command line means. `--resume` and `--reset-weights` without a recipe take the one in the run folder.
///
/// # Errors
/// A wrong recipe or option.
pub fn choose(args: &FitArgs) -> Result<Choice, Error> {
    let mut sets = args.set.clone();
    sets.extend(args.epochs.map(|epochs| format!("train.epochs={epochs}")));
    sets.extend(args.seed.map(|seed| format!("train.seed={seed}")));
    let folder = |recipe: &Recipe| PathBuf::from("runs").join(&recipe.name);
    let path = match &args.recipe {
        Some(path) => path.clone(),
        None => recipe::default_path()?,
    };
    let start = &args.start;
    if args.recipe.is_none() && (start.resume || start.reset_weights) {
        let dir = match &args.out {
            Some(dir) => dir.clone(),
            None => folder(&Recipe::load(&path, &[])?),
        };
        let path = dir.join(run::RECIPE);
        if !path.is_file() {
            let missing = run::RECIPE;
            return Err(RunError::NoRun { dir, missing }.into());
        }
        return Ok(Choice {
            recipe: Recipe::load(&path, &sets)?,
            path,
            base: dir.clone(),
            dir,
        });
    }
    let recipe = Recipe::load(&path, &sets)?;
    let dir = args.out.clone().unwrap_or_else(|| folder(&recipe));
    let base = path.parent().unwrap_or(Path::new("."));
    Ok(Choice {
        recipe,
        base: base.into(),
        dir,
        path,
    })
}

/// Checks what needs no data and no lock, so that a wrong command line is refused at once and leaves no folder behind.
///
/// # Errors
/// A run folder that cannot be one, or that lacks what an option needs.
pub fn check_folders(
    args: &FitArgs,
    choice: &Choice,
    architecture: &Architecture,
) -> Result<(), Error> {
    let Choice { recipe, dir, .. } = choice;
    if let Some(file) = dir.ancestors().find(|path| path.is_file()) {
        let place = if file == dir { "" } else { " below it" };
        return Err(Error::Usage(format!(
            "{}: this is a file, so that no run folder can be there{place}",
            file.display()
        )));
    }
    let path = dir.join(checkpoint::FILE);
    if args.start.resume && !path.is_file() {
        return Err(no_checkpoint(&path));
    }
    if args.start.reset_weights || args.start.warm_start.is_some() {
        first_weights(args, recipe, architecture, dir)?;
    }
    Ok(())
}

fn no_checkpoint(path: &Path) -> Error {
    Error::Usage(format!(
        "{}: there is no checkpoint to continue; start the run without --resume",
        path.display()
    ))
}

/// Recipe as it is stored, and the state that the training begins with. Writes the run folder's first files; the folder is
/// there and locked.
///
/// # Errors
/// A folder that holds another run, no run to continue, weights that do not fit.
pub fn begin(
    args: &FitArgs,
    choice: &Choice,
    architecture: &Architecture,
    data: &DataRecord,
) -> Result<(Recipe, Checkpoint), Error> {
    let Choice {
        recipe, base, dir, ..
    } = choice;
    let path = dir.join(checkpoint::FILE);
    if !args.start.reset_weights {
        if path.is_file() {
            let progress = checkpoint::read_progress(&path).map_err(Error::failed)?;
            continues(args, choice, &progress, data)?;
            let mut checkpoint = Checkpoint::read(&path, architecture).map_err(Error::failed)?;
            let stored = run::store_recipe(dir, recipe, base)?;
            checkpoint.progress.recipe = stored.to_toml();
            let progress = &mut checkpoint.progress;
            if progress.history.len() < recipe.train.epochs {
                progress.finished.take_if(|end| end.stopped.is_none());
            }
            return Ok((stored, checkpoint));
        }
        if args.start.resume {
            return Err(no_checkpoint(&path));
        }
        if dir.join(run::WEIGHTS).exists() {
            return Err(occupied(dir, "holds the weights of another run"));
        }
    }
    let initial = first_weights(args, recipe, architecture, dir)?;
    clear(dir)?;
    let stored = run::store_recipe(dir, recipe, base)?;
    run::store_data_record(dir, data)?;
    run::write_weights(&dir.join(run::INITIAL_WEIGHTS), &initial)?;
    let checkpoint = Checkpoint::start(stored.to_toml(), data.sha256.clone(), initial);
    checkpoint.write(&path).map_err(Error::failed)?;
    Ok((stored, checkpoint))
}

/// Checks that the run in the folder is the one that the command line describes, and may go on.
fn continues(
    args: &FitArgs,
    choice: &Choice,
    progress: &Progress,
    data: &DataRecord,
) -> Result<(), Error> {
    let dir = &choice.dir;
    let path = dir.join(checkpoint::FILE);
    let before = Recipe::parse(&progress.recipe, &path, &[])?;
    let differences = before.differences(&choice.recipe);
    let resume = args.start.resume;
    if !resume {
        return match (differences.first(), &progress.finished) {
            _ if args.start.warm_start.is_some() => Err(occupied(dir, "holds a run")),
            (Some(difference), _) => {
                let recipe::Difference { key, before, after } = difference;
                let what = format!("holds a run with {key} = {before}, not {after}");
                Err(occupied(dir, &what))
            }
            (None, None) => Err(occupied(dir, "holds this run, unfinished")),
            _ if progress.data_sha256 != data.sha256 => {
                Err(occupied(dir, "holds a run with other data"))
            }
            (None, Some(_)) => Ok(()),
        };
    }
    for recipe::Difference { key, before, after } in differences {
        let grows = choice.recipe.train.epochs >= progress.history.len();
        let reason = match (key.as_str(), &choice.recipe.train.schedule) {
            (
                "train.epochs",
                ScheduleRecipe::Cosine {
                    decay_steps: None, ..
                }
                | ScheduleRecipe::OneCycle {
                    total_steps: None, ..
                },
            ) => "its learning rate schedule spans the whole run",
            ("train.epochs", _) if grows => continue,
            ("train.epochs", _) => "more epochs are done",
            (key, _) if key.starts_with("quantize.") || key.starts_with("export.") => continue,
            _ => "only train.epochs, quantize and export may change",
        };
        return Err(Error::Usage(format!(
            "{}: --resume: the run has {key} = {before}, the recipe now {after}; {reason} (--warm-start takes over the weights into a new run)",
            dir.display()
        )));
    }
    if progress.data_sha256 != data.sha256 {
        return Err(Error::Failed(format!(
            "{}: --resume: the images and labels have the sha256 {}, the run was trained on {}",
            dir.display(),
            data.sha256,
            progress.data_sha256
        )));
    }
    Ok(())
}

fn occupied(dir: &Path, what: &str) -> Error {
    Error::Usage(format!(
        "{} {what}: --resume continues it, --reset-weights trains again from its initial weights and replaces its files, \
         --out DIR takes another folder",
        dir.display()
    ))
}

fn first_weights(
    args: &FitArgs,
    recipe: &Recipe,
    architecture: &Architecture,
    dir: &Path,
) -> Result<Weights, Error> {
    let missing = |path: &Path, option: &str| {
        Error::Usage(format!(
            "{}: the file is missing; {option} needs a run folder that has it",
            path.display()
        ))
    };
    let (path, option) = match &args.start.warm_start {
        Some(other) => (other.join(run::WEIGHTS), "--warm-start"),
        None if args.start.reset_weights => (dir.join(run::INITIAL_WEIGHTS), "--reset-weights"),
        None => return Ok(initial_weights(architecture, recipe.train.seed)),
    };
    if !path.is_file() {
        return Err(missing(&path, option));
    }
    Ok(run::read_weights(&path, architecture)?)
}

/// Removes what an earlier run has written, the checkpoint first, so that files of two runs never lie side by side.
fn clear(dir: &Path) -> Result<(), RunError> {
    let names = [
        checkpoint::FILE,
        run::WEIGHTS,
        run::QAT_WEIGHTS,
        BEST_WEIGHTS,
        history::FILE,
        curves::FILE,
        run::FLOAT_MODEL,
        run::INT8_MODEL,
        run::FIXED_MODEL,
        report::JSON,
        report::HTML,
    ];
    for name in names {
        run::remove(&dir.join(name))?;
    }
    run::remove_folder(&dir.join(tensorboard::FOLDER))
}
