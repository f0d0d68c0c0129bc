//! What the trials of a sweep came to, read from the reports in their run folders.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use toml::Value;

use super::{Plan, SEED, Trial, text};
use crate::{
    error::Error,
    recipe::{Difference, Recipe},
    report::{self, Report},
    run,
};

/// A finished trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Name of the trial and of its folder.
    pub trial: String,
    /// The run folder.
    pub dir: PathBuf,
    /// Accuracy of model.fxp on the validation images, 0 to 1. The sweep chooses by it.
    pub validation: f64,
    /// The same of the float network.
    pub validation_float: f64,
    /// Accuracy of model.fxp on the test images, 0 to 1; plays no part in the choice.
    pub test: f64,
    /// Trained parameters.
    pub parameters: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Size of model.fxp.
    pub flash_bytes: u64,
    /// RAM of one inference, image included.
    pub arena_bytes: u64,
    /// Epochs trained.
    pub epochs: usize,
    /// Seconds of all epochs.
    pub seconds: f64,
}

/// Reads the outcome of a trial from the first of these folders in which it is finished.
///
/// # Errors
/// A folder that holds another run than the trial, or a report that cannot be read.
pub fn read(plan: &Plan, trial: &Trial, folders: &[PathBuf]) -> Result<Option<Outcome>, Error> {
    for folder in folders {
        let dir = folder.join(&trial.name);
        if let Some(outcome) = read_one(plan, trial, &dir)? {
            return Ok(Some(outcome));
        }
    }
    Ok(None)
}

fn read_one(plan: &Plan, trial: &Trial, dir: &Path) -> Result<Option<Outcome>, Error> {
    let wanted = Recipe::load(&plan.recipe, &trial.sets)?;
    let path = dir.join(run::RECIPE);
    if !path.is_file() {
        return Ok(None);
    }
    let found = Recipe::load(&path, &[])?;
    if let Some(Difference { key, before, after }) = found.differences(&wanted).first() {
        return Err(Error::Usage(format!(
            "{}: it holds a run with {key} = {before}, the sweep wants {after}; move the folder away or take another --out",
            dir.display()
        )));
    }
    let path = dir.join(report::JSON);
    let file = match fs::read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::in_file(&path, error)),
    };
    let report: Report =
        serde_json::from_slice(&file).map_err(|error| Error::in_file(&path, error))?;
    let missing = |what: &str| Error::in_file(&path, format!("{what} is missing"));
    let validation = report.validation.ok_or_else(|| missing("`validation`"))?;
    let memory = report.memory.ok_or_else(|| missing("`memory`"))?;
    let fixed = report.fixed.ok_or_else(|| missing("`fixed`"))?;
    Ok(Some(Outcome {
        trial: trial.name.clone(),
        dir: dir.into(),
        validation: validation.fixed,
        validation_float: validation.float,
        test: fixed.accuracy,
        parameters: report.parameters,
        macs: report.macs,
        flash_bytes: memory.flash_bytes,
        arena_bytes: memory.arena_bytes,
        epochs: report.history.len(),
        seconds: report.history.iter().map(|log| log.seconds).sum(),
    }))
}

/// Trials that differ only in `train.seed`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Swept keys without the seed, and their values.
    pub values: Vec<(String, Value)>,
    /// Its finished trials.
    pub outcomes: Vec<Outcome>,
    /// Mean validation accuracy of model.fxp, 0 to 1.
    pub mean: f64,
    /// Sample standard deviation of the validation accuracies; none for one trial.
    pub deviation: Option<f64>,
}

impl Setting {
    /// Mean of a property of the trials.
    pub fn average(&self, property: impl Fn(&Outcome) -> f64) -> f64 {
        mean(self.outcomes.iter().map(property))
    }
}

/// The finished trials by setting, the best mean validation accuracy first; of equal ones the smaller model.fxp, then the
/// earlier trial.
pub fn rank(plan: &Plan, outcomes: &[Option<Outcome>]) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for (trial, outcome) in plan.trials.iter().zip(outcomes) {
        let Some(outcome) = outcome else { continue };
        let values = trial.values.iter().filter(|(key, _)| key != SEED);
        let values: Vec<_> = values.cloned().collect();
        match settings.iter_mut().find(|setting| setting.values == values) {
            Some(setting) => setting.outcomes.push(outcome.clone()),
            None => settings.push(Setting {
                values,
                outcomes: vec![outcome.clone()],
                mean: 0.0,
                deviation: None,
            }),
        }
    }
    for setting in &mut settings {
        setting.mean = setting.average(|outcome| outcome.validation);
        let n = setting.outcomes.len();
        if n > 1 {
            let squares = setting.average(|o| (o.validation - setting.mean).powi(2));
            setting.deviation = Some((squares * n as f64 / (n - 1) as f64).sqrt());
        }
    }
    settings.sort_by(|a, b| {
        let flash = |setting: &Setting| setting.outcomes[0].flash_bytes;
        b.mean.total_cmp(&a.mean).then(flash(a).cmp(&flash(b)))
    });
    settings
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

/// The CSV table: a line for every trial, in the plan's order; empty fields where it is not finished.
///
/// # Errors
/// Never for these values; the CSV writer's type says so.
pub fn table(plan: &Plan, outcomes: &[Option<Outcome>]) -> Result<Vec<u8>, csv::Error> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let keys = plan.keys.iter().map(String::as_str);
    csv.write_record(["trial"].into_iter().chain(keys).chain([
        "val_accuracy_int8",
        "val_accuracy_float",
        "parameters",
        "macs",
        "flash_bytes",
        "arena_bytes",
        "epochs",
        "seconds",
    ]))?;
    for (trial, outcome) in plan.trials.iter().zip(outcomes) {
        let mut line = vec![trial.name.clone()];
        line.extend(trial.values.iter().map(|(_, value)| text(value)));
        match outcome {
            Some(outcome) => line.extend([
                outcome.validation.to_string(),
                outcome.validation_float.to_string(),
                outcome.parameters.to_string(),
                outcome.macs.to_string(),
                outcome.flash_bytes.to_string(),
                outcome.arena_bytes.to_string(),
                outcome.epochs.to_string(),
                format!("{:.1}", outcome.seconds),
            ]),
            None => line.extend(std::iter::repeat_n(String::new(), 8)),
        }
        csv.write_record(&line)?;
    }
    csv.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let text = "recipe = \"r.toml\"\n[grid]\ntrain.batch = [32, 64]\ntrain.seed = [1, 2]";
        Plan::parse(text, Path::new("s.toml")).unwrap()
    }

    fn outcome(trial: &str, validation: f64, flash_bytes: u64) -> Option<Outcome> {
        Some(Outcome {
            trial: trial.into(),
            dir: PathBuf::from("runs/s").join(trial),
            validation,
            validation_float: validation,
            test: 0.5,
            parameters: 10,
            macs: 20,
            flash_bytes,
            arena_bytes: 40,
            epochs: 2,
            seconds: 1.25,
        })
    }

    /// Means 0.91 and 0.92 by hand; the deviation of 0.90 and 0.92 is sqrt(2 * 0.01^2).
    #[test]
    fn settings_are_ranked_by_their_mean_over_the_seeds() {
        let outcomes = [
            outcome("a", 0.90, 100),
            outcome("b", 0.92, 100),
            outcome("c", 0.93, 100),
            outcome("d", 0.91, 100),
        ];
        let settings = rank(&plan(), &outcomes);
        assert_eq!(settings.len(), 2);
        assert_eq!(
            settings[0].values,
            [("train.batch".to_string(), Value::Integer(64))]
        );
        assert!((settings[0].mean - 0.92).abs() < 1e-12);
        assert!((settings[1].mean - 0.91).abs() < 1e-12);
        let deviation = settings[1].deviation.unwrap();
        assert!((deviation - 2f64.sqrt() * 0.01).abs() < 1e-12);
        // The test accuracy plays no part.
        let mut other = outcomes.clone();
        for outcome in other.iter_mut().flatten() {
            outcome.test = if outcome.trial == "a" { 1.0 } else { 0.0 };
        }
        let order = |settings: &[Setting]| -> Vec<Value> {
            settings.iter().map(|s| s.values[0].1.clone()).collect()
        };
        assert_eq!(order(&rank(&plan(), &other)), order(&settings));
    }

    #[test]
    fn of_equally_good_ones_the_smaller_model_wins() {
        let outcomes = [outcome("a", 0.9, 200), None, outcome("c", 0.9, 100), None];
        let settings = rank(&plan(), &outcomes);
        assert_eq!(settings[0].outcomes[0].trial, "c");
        assert_eq!(settings[0].deviation, None);
    }

    #[test]
    fn unfinished_trials_have_empty_fields() {
        let outcomes = [outcome("batch-32_seed-1", 0.9, 100), None, None, None];
        let csv = String::from_utf8(table(&plan(), &outcomes).unwrap()).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("trial,train.batch,train.seed,val_accuracy_int8"));
        assert_eq!(lines[1], "batch-32_seed-1,32,1,0.9,0.9,10,20,100,40,2,1.2");
        assert_eq!(lines[2], "batch-32_seed-2,32,2,,,,,,,,");
    }
}
