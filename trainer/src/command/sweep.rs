//! `trainer sweep`: runs the trials of a sweep, each an ordinary `trainer fit` in a process of its own, and joins their results.

use std::{
    fmt, fs, iter,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use serde::Serialize;

use super::output;
use crate::{
    checkpoint,
    cli::SweepArgs,
    error::Error,
    file::write_atomic,
    interrupt,
    sweep::{
        Plan, Trial, plot,
        results::{self, Outcome, Setting},
        text,
    },
};

/// The table in the sweep's folder.
const TABLE: &str = "results.csv";
/// The plot.
const PLOT: &str = "results.png";

/// Runs the command.
///
/// # Errors
/// A wrong sweep or recipe, a folder that holds another run (nothing is run then), trials that fail, an interruption.
pub fn run(args: &SweepArgs) -> Result<(), Error> {
    let plan = Plan::load(&args.sweep)?;
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => PathBuf::from("runs").join(&plan.name),
    };
    if args.print_commands {
        return print_commands(&plan, &folder);
    }
    let folders: Vec<PathBuf> = iter::once(&folder).chain(&args.also).cloned().collect();
    let read = || -> Result<Vec<Option<Outcome>>, Error> {
        let outcomes = plan.trials.iter();
        outcomes
            .map(|trial| results::read(&plan, trial, &folders))
            .collect()
    };
    let mut outcomes = read()?;
    let mut failures = Vec::new();
    let mut interrupted = false;
    if !args.collect {
        let trials = plan.trials.iter().zip(&outcomes);
        let missing: Vec<&Trial> = trials
            .filter(|(_, outcome)| outcome.is_none())
            .map(|(trial, _)| trial)
            .collect();
        fs::create_dir_all(&folder).map_err(|error| Error::in_file(&folder, error))?;
        (failures, interrupted) = run_all(args, &plan, &missing, &folder)?;
        outcomes = read()?;
    }
    let settings = results::rank(&plan, &outcomes);
    let mut files = Vec::new();
    if !settings.is_empty() {
        fs::create_dir_all(&folder).map_err(|error| Error::in_file(&folder, error))?;
        let table = results::table(&plan, &outcomes).map_err(Error::failed)?;
        let picture = plot::draw(&plan.name, &plan.keys, &settings)
            .map_err(|error| Error::in_file(&folder.join(PLOT), error))?;
        for (name, bytes) in [(TABLE, table), (PLOT, picture)] {
            let path = folder.join(name);
            write_atomic(&path, &bytes).map_err(|error| Error::in_file(&path, error))?;
            files.push(path);
        }
    }
    let summary = Summary {
        trials: plan.trials.len(),
        finished: outcomes.iter().flatten().count(),
        settings,
        failures,
        files,
    };
    output::result(&summary, args.json)?;
    if interrupted {
        return Err(Error::Interrupted(format!(
            "interrupted; the same command continues: {} of {} trials are finished",
            summary.finished, summary.trials
        )));
    }
    if summary.failures.is_empty() {
        return Ok(());
    }
    let count = summary.failures.len();
    Err(Error::Failed(format!(
        "{count} of {} trials failed",
        summary.trials
    )))
}

/// Arguments of the `trainer fit` that makes the trial.
fn fit_arguments(plan: &Plan, trial: &Trial, dir: &Path) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let mut arguments = vec!["fit".into(), path(&plan.recipe), "--out".into(), path(dir)];
    for set in &trial.sets {
        arguments.extend(["--set".into(), set.clone()]);
    }
    arguments.push("--quiet".into());
    if dir.join(checkpoint::FILE).is_file() {
        arguments.push("--resume".into());
    }
    arguments
}

fn print_commands(plan: &Plan, folder: &Path) -> Result<(), Error> {
    let program = std::env::args().next().unwrap_or_else(|| "trainer".into());
    let mut lines = String::new();
    for trial in &plan.trials {
        let arguments = fit_arguments(plan, trial, &folder.join(&trial.name));
        let words = iter::once(program.as_str()).chain(arguments.iter().map(String::as_str));
        let words: Vec<String> = words.map(quoted).collect();
        lines.push_str(&words.join(" "));
        lines.push('\n');
    }
    output::text(&lines)
}

/// A word as a POSIX shell reads it.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./=:,+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs the trials, `--jobs` at a time; what failed, and whether Ctrl-C ended it. After Ctrl-C no trial begins; the running
/// ones get the signal too, write their checkpoints and end.
fn run_all(
    args: &SweepArgs,
    plan: &Plan,
    trials: &[&Trial],
    folder: &Path,
) -> Result<(Vec<String>, bool), Error> {
    let program = std::env::current_exe().map_err(Error::failed)?;
    let guard = interrupt::guard().map_err(Error::failed)?;
    let jobs = args.jobs.get().min(trials.len().max(1));
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = (cores / jobs).max(1);
    let queue = Mutex::new(trials.iter().enumerate());
    let failures = Mutex::new(Vec::new());
    let work = || {
        while !guard.asked() {
            let next = match queue.lock() {
                Ok(mut queue) => queue.next(),
                Err(_) => None,
            };
            let Some((number, trial)) = next else { return };
            let place = format!("[{}/{}] {}", number + 1, trials.len(), trial.name);
            if !args.json {
                eprintln!("{place}: started");
            }
            let dir = folder.join(&trial.name);
            let child = Command::new(&program)
                .args(fit_arguments(plan, trial, &dir))
                .arg(format!("--threads={threads}"))
                .stdin(Stdio::null())
                .output();
            let message = match child {
                Ok(child) if child.status.success() => {
                    if !args.json {
                        eprintln!("{place}: finished");
                    }
                    continue;
                }
                Ok(_) if guard.asked() => continue,
                Ok(child) => String::from_utf8_lossy(&child.stderr).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            if !args.json {
                eprintln!("{place}: failed");
            }
            if let Ok(mut failures) = failures.lock() {
                failures.push(format!("{}: {message}", trial.name));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    Ok((failures, guard.asked()))
}

/// Result of the command.
#[derive(Debug, Serialize)]
struct Summary {
    trials: usize,
    finished: usize,
    /// The best one first.
    settings: Vec<Setting>,
    /// Trials that failed, with the reason.
    failures: Vec<String>,
    /// Files written.
    files: Vec<PathBuf>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(best) = self.settings.first() {
            settings(&self.settings, f)?;
            let values = best
                .values
                .iter()
                .map(|(k, v)| format!("{k} = {}", text(v)));
            let values: Vec<String> = values.collect();
            let dirs = best.outcomes.iter().map(|o| o.dir.display().to_string());
            writeln!(
                f,
                "\nbest by validation accuracy: {}",
                if values.is_empty() {
                    "the only setting".into()
                } else {
                    values.join(", ")
                }
            )?;
            writeln!(f, "its runs: {}", dirs.collect::<Vec<_>>().join(", "))?;
            let test = 100.0 * best.average(|outcome| outcome.test);
            writeln!(
                f,
                "its test accuracy, which played no part in the choice: {test:.2} % (fixed point)"
            )?;
        }
        let left = self.trials - self.finished;
        if left > 0 {
            writeln!(f, "\n{left} of {} trials are not finished", self.trials)?;
        }
        for failure in &self.failures {
            writeln!(f, "failed: {failure}")?;
        }
        self.files
            .iter()
            .try_for_each(|path| writeln!(f, "wrote {}", path.display()))
    }
}

/// The table for people.
fn settings(settings: &[Setting], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let keys = settings[0].values.iter().map(|(key, _)| key.clone());
    let head = [
        "val int8",
        "deviation",
        "val float",
        "seeds",
        "flash",
        "RAM",
        "MACs",
    ];
    let mut rows: Vec<Vec<String>> = vec![keys.chain(head.map(String::from)).collect()];
    for setting in settings {
        let one = &setting.outcomes[0];
        let values = setting.values.iter().map(|(_, value)| text(value));
        rows.push(
            values
                .chain([
                    format!("{:.3} %", 100.0 * setting.mean),
                    setting
                        .deviation
                        .map_or(String::new(), |d| format!("{:.3}", 100.0 * d)),
                    format!("{:.3} %", 100.0 * setting.average(|o| o.validation_float)),
                    setting.outcomes.len().to_string(),
                    one.flash_bytes.to_string(),
                    one.arena_bytes.to_string(),
                    one.macs.to_string(),
                ])
                .collect(),
        );
    }
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:>width$}"));
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("train.batch=64"), "train.batch=64");
        assert_eq!(quoted("a={ type = \"adam\" }"), "'a={ type = \"adam\" }'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
