//! `trainer evaluate`: accuracy, per-class metrics and confusion matrix of the float network and of model.fxp.

use std::fmt;

use runtime::Model;
use serde::Serialize;
use verifier::tolerance::argmax;

use super::output;
use crate::{
    callbacks::progress::Display,
    classification::Classification,
    cli::EvaluateArgs,
    error::Error,
    evaluate,
    run::{self, Run},
};

/// Runs the command.
///
/// # Errors
/// A folder that is no finished run, data that cannot be read or has other classes, a model.fxp of another network.
pub fn run(args: &EvaluateArgs) -> Result<(), Error> {
    let display = Display::choose(false, false, args.json);
    let run = Run::open(&args.dir)?;
    let file = run::read_model(&args.dir, run::FIXED_MODEL)?;
    let path = args.dir.join(run::FIXED_MODEL);
    let in_file = |error: &dyn fmt::Display| Error::in_file(&path, error);
    let model = Model::new(&file).map_err(|error| in_file(&error))?;
    if model.classes() != run.architecture.classes() {
        let (got, expected) = (model.classes(), run.architecture.classes());
        return Err(in_file(&format!("{got} classes, expected {expected}")));
    }
    let task = display.busy("reading the data");
    let data = run.load_test(args.data.as_deref())?;
    drop(task);

    let task = display.task("evaluating", data.len() as u64);
    let logits = evaluate::float(&run, &data, |images| task.advance(images as u64))
        .map_err(Error::failed)?;
    let rows = logits.chunks(run.architecture.classes());
    let float: Vec<u32> = rows.map(|row| argmax(row) as u32).collect();
    drop(task);
    let fixed = evaluate::fixed(&model, &data).map_err(|error| in_file(&error))?;
    let same = float.iter().zip(&fixed).filter(|(a, b)| a == b).count();
    let classify = |classes: &[u32]| {
        Classification::new(&run.data.class_names, &data.labels, classes).map_err(Error::failed)
    };
    let evaluation = Evaluation {
        images: data.len(),
        float: classify(&float)?,
        fixed: classify(&fixed)?,
        agreement: same as f64 / data.len() as f64,
    };
    output::result(&evaluation, args.json)
}

/// Result of both models on the same images.
#[derive(Debug, Serialize)]
struct Evaluation {
    images: usize,
    /// The float network.
    float: Classification,
    /// model.fxp.
    fixed: Classification,
    /// Part of the images with the same prediction, 0 to 1.
    agreement: f64,
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, result) in [("float", &self.float), ("fixed point", &self.fixed)] {
            writeln!(
                f,
                "{name}: accuracy {:.2} %, {} of {} images",
                100.0 * result.accuracy,
                result.correct,
                result.images
            )?;
        }
        let agreement = 100.0 * self.agreement;
        writeln!(f, "same prediction for {agreement:.2} % of the images")?;
        for (name, result) in [("float", &self.float), ("fixed point", &self.fixed)] {
            writeln!(f)?;
            table(name, result, f)?;
        }
        Ok(())
    }
}

/// One row per class: metrics in percent, then the row of the confusion matrix.
fn table(name: &str, result: &Classification, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let names = result
        .classes
        .iter()
        .map(|class| class.name.chars().count());
    let wide = names.max().unwrap_or(0).max(5);
    let counts = result.confusion.iter().flatten().max().unwrap_or(&0);
    let cell = counts.to_string().len().max(3) + 1;
    writeln!(
        f,
        "{name}; rows: label, columns on the right: prediction in the order of the rows"
    )?;
    writeln!(
        f,
        "{:<wide$}  {:>7}  {:>9}  {:>7}  {:>7}   confusion",
        "class", "images", "precision", "recall", "F1"
    )?;
    for (class, row) in result.classes.iter().zip(&result.confusion) {
        write!(
            f,
            "{:<wide$}  {:>7}  {:>9.2}  {:>7.2}  {:>7.2}  ",
            class.name,
            class.images,
            100.0 * class.precision,
            100.0 * class.recall,
            100.0 * class.f1
        )?;
        for count in row {
            write!(f, "{count:>cell$}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}
