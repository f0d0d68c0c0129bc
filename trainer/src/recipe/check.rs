//! Numbers that have the right type but no meaning.

use serde::Serialize;
use toml::Value;

use super::{LossRecipe, Recipe, ScheduleRecipe};

/// More epochs than anyone waits for; keeps numbers of steps and images far from overflow.
const MOST_EPOCHS: usize = 1_000_000;

impl Recipe {
    /// The dotted key of the first number out of range, with what was found and expected.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let name_fits = !self.name.is_empty()
            && !self.name.starts_with('.')
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let (data, train, quantize) = (&self.data, &self.train, &self.quantize);
        let augment = &data.augment;
        let not_negative = |x: f32| x.is_finite() && x >= 0.0;
        let fraction = |x: f32| (0.0..1.0).contains(&x);
        let smoothing = match train.loss {
            LossRecipe::CategoricalCrossentropy { label_smoothing }
            | LossRecipe::BinaryCrossentropy { label_smoothing } => label_smoothing,
            LossRecipe::SparseCategoricalCrossentropy | LossRecipe::MeanSquaredError => 0.0,
        };
        let rate = train.optimizer.learning_rate();
        let clip = &train.clip;
        let clips = [clip.norm, clip.global_norm, clip.value];
        let test = data.split.test;
        let rules: &[(&str, bool, String, &str)] = &[
            (
                "name",
                name_fits,
                format!("`{}`", self.name),
                "letters, digits, `.`, `_` and `-`, not starting with `.`",
            ),
            (
                "data.validation",
                fraction(data.validation),
                data.validation.to_string(),
                "at least 0 and below 1",
            ),
            (
                "data.limit",
                data.limit != Some(0),
                "0".into(),
                "at least 1",
            ),
            (
                "data.split.test",
                test.is_none_or(|t| t > 0.0 && (t < 1.0 || (t.fract() == 0.0 && t < 4e9))),
                format!("{}", test.unwrap_or(0.0)),
                "a fraction between 0 and 1 or a whole number",
            ),
            (
                "data.augment.shift",
                not_negative(augment.shift),
                augment.shift.to_string(),
                "0 or more pixels",
            ),
            (
                "data.augment.rotate",
                not_negative(augment.rotate),
                augment.rotate.to_string(),
                "0 or more degrees",
            ),
            (
                "data.augment.zoom",
                fraction(augment.zoom),
                augment.zoom.to_string(),
                "at least 0 and below 1",
            ),
            (
                "data.augment.elastic_alpha",
                not_negative(augment.elastic_alpha),
                augment.elastic_alpha.to_string(),
                "0 or more pixels",
            ),
            (
                "data.augment.elastic_sigma",
                not_negative(augment.elastic_sigma) && augment.elastic_sigma <= 64.0,
                augment.elastic_sigma.to_string(),
                "0 to 64 pixels",
            ),
            (
                "train.epochs",
                (1..=MOST_EPOCHS).contains(&train.epochs),
                train.epochs.to_string(),
                "1 to 1000000",
            ),
            (
                "train.batch",
                train.batch >= 1,
                train.batch.to_string(),
                "at least 1",
            ),
            (
                "train.loss.label_smoothing",
                fraction(smoothing),
                smoothing.to_string(),
                "at least 0 and below 1",
            ),
            (
                "train.optimizer.learning_rate",
                rate.is_finite() && rate >= 0.0,
                rate.to_string(),
                "0 or more",
            ),
            (
                "train.ema",
                fraction(train.ema),
                train.ema.to_string(),
                "at least 0 and below 1",
            ),
            (
                "train.clip",
                clips.iter().flatten().count() <= 1,
                format!("{} of them", clips.iter().flatten().count()),
                "at most one of norm, global_norm and value",
            ),
            (
                "train.clip",
                clips.iter().flatten().all(|&x| x.is_finite() && x > 0.0),
                format!("{clips:?}"),
                "a positive number",
            ),
            (
                "quantize.calibration_images",
                quantize.calibration_images >= 1,
                "0".into(),
                "at least 1",
            ),
            (
                "quantize.percentile",
                quantize.percentile > 50.0 && quantize.percentile <= 100.0,
                quantize.percentile.to_string(),
                "above 50 and at most 100",
            ),
            (
                "quantize.qat_learning_rate",
                not_negative(quantize.qat_learning_rate),
                quantize.qat_learning_rate.to_string(),
                "0 or more",
            ),
            (
                "quantize.qat_epochs",
                quantize.qat_epochs <= MOST_EPOCHS,
                quantize.qat_epochs.to_string(),
                "0 to 1000000",
            ),
            (
                "data.path",
                !data.path.as_os_str().is_empty(),
                "an empty path".into(),
                "a file or a folder",
            ),
            (
                "export.opset",
                (13..=18).contains(&self.export.opset),
                self.export.opset.to_string(),
                "13 to 18",
            ),
        ];
        for (key, holds, got, expected) in rules {
            if !holds {
                return Err(((*key).into(), format!("got {got}, expected {expected}")));
            }
        }
        if train.callbacks.reduce_on_plateau.is_some() && train.schedule != ScheduleRecipe::Constant
        {
            return Err((
                "train.callbacks.reduce_on_plateau".into(),
                "it changes the learning rate after each epoch, the schedule after each step; expected only one of \
                 reduce_on_plateau and train.schedule"
                    .into(),
            ));
        }
        check_numbers("train.optimizer", &train.optimizer)?;
        check_numbers("train.schedule", &train.schedule)?;
        check_numbers("train.callbacks", &train.callbacks)?;
        check_schedule(&train.schedule).map_err(|message| ("train.schedule".into(), message))
    }
}

/// Every fraction in a table and in the tables inside it: what its key allows, else any finite number from 0 on.
fn check_numbers(table: &str, values: &impl Serialize) -> Result<(), (String, String)> {
    let values = Value::try_from(values).map_err(|error| (table.into(), error.to_string()))?;
    let mut rest = vec![(table.to_owned(), values)];
    while let Some((path, value)) = rest.pop() {
        let x = match value {
            Value::Table(inner) => {
                let inner = inner.into_iter().rev();
                rest.extend(inner.map(|(key, value)| (format!("{path}.{key}"), value)));
                continue;
            }
            Value::Array(items) => {
                let items = items.into_iter().rev();
                rest.extend(items.map(|value| (path.clone(), value)));
                continue;
            }
            Value::Float(x) => x as f32,
            _ => continue,
        };
        let (holds, expected) = match path.rsplit('.').next().unwrap_or_default() {
            "momentum" | "reference_accuracy" | "pct_start" => ((0.0..=1.0).contains(&x), "0 to 1"),
            "rho" | "beta_1" | "beta_2" => ((0.0..1.0).contains(&x), "at least 0 and below 1"),
            "factor" => (0.0 < x && x < 1.0, "above 0 and below 1"),
            _ => (x.is_finite() && x >= 0.0, "0 or more"),
        };
        if !holds {
            return Err((path, format!("got {x}, expected {expected}")));
        }
    }
    Ok(())
}

fn check_schedule(schedule: &ScheduleRecipe) -> Result<(), String> {
    let positive = |name: &str, x: f64| {
        if x.is_finite() && x > 0.0 {
            Ok(())
        } else {
            Err(format!("{name}: got {x}, expected a positive number"))
        }
    };
    match schedule {
        ScheduleRecipe::Constant => Ok(()),
        ScheduleRecipe::InverseTime { decay_steps, .. }
        | ScheduleRecipe::Exponential { decay_steps, .. }
        | ScheduleRecipe::Polynomial { decay_steps, .. } => {
            positive("decay_steps", (*decay_steps).into())
        }
        ScheduleRecipe::Piecewise { boundaries, values } => {
            if values.len() != boundaries.len() + 1 {
                return Err(format!(
                    "got {} boundaries and {} values, expected one value more than boundaries",
                    boundaries.len(),
                    values.len()
                ));
            }
            if boundaries.is_sorted_by(|a, b| a < b) {
                Ok(())
            } else {
                Err(format!("boundaries {boundaries:?} must increase"))
            }
        }
        ScheduleRecipe::Cosine { decay_steps, .. } => {
            positive("decay_steps", decay_steps.unwrap_or(1) as f64)
        }
        ScheduleRecipe::CosineRestarts {
            first_decay_steps,
            t_mul,
            ..
        } => {
            positive("first_decay_steps", *first_decay_steps as f64)?;
            positive("t_mul", (*t_mul).into())
        }
        ScheduleRecipe::OneCycle {
            div_factor,
            final_div_factor,
            total_steps,
            ..
        } => {
            positive("div_factor", (*div_factor).into())?;
            positive("final_div_factor", (*final_div_factor).into())?;
            positive("total_steps", total_steps.unwrap_or(1) as f64)
        }
    }
}
