//! `trainer predict`: classes of image files, computed by model.fxp as on the device.

use std::{fmt, fs, path::Path};

use runtime::{Model, OutputActivation};
use serde::Serialize;
use verifier::graph::Graph;

use super::output;
use crate::{architecture::Shape, cli::PredictArgs, dataset, error::Error, run};

/// Runs the command. All images are read before the first result is printed.
///
/// # Errors
/// Exit code 2 for a folder without model.fxp, else 1: a damaged model, an image that cannot be read.
pub fn run(args: &PredictArgs) -> Result<(), Error> {
    let file = run::read_model(&args.dir, run::FIXED_MODEL)?;
    let path = args.dir.join(run::FIXED_MODEL);
    let model = Model::new(&file).map_err(|error| Error::in_file(&path, error))?;
    let names = class_names(&args.dir, model.classes())?;
    let input = model.input();
    let shape = Shape {
        h: input.h.into(),
        w: input.w.into(),
        c: input.c.into(),
    };
    let mut arena = vec![0; model.arena_len()];
    let mut predictions = Vec::with_capacity(args.images.len());
    for image in &args.images {
        let pixels = dataset::read_image(image, shape)?;
        let logits = model
            .run(&pixels, &mut arena)
            .map_err(|error| Error::in_file(&path, error))?;
        let mut probabilities = vec![0.0; logits.len()];
        let probabilities = match model.activation() {
            OutputActivation::Softmax => {
                logits.softmax(&mut probabilities);
                Some(probabilities)
            }
            OutputActivation::Sigmoid => {
                logits.sigmoid(&mut probabilities);
                Some(probabilities)
            }
            _ => None,
        };
        let values: Vec<f32> = logits.values().collect();
        let best = logits.argmax();
        let mut order: Vec<usize> = (0..values.len()).collect();
        // A stable sort: of equal logits the lowest class comes first.
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let answer = |class: usize| Answer {
            class,
            name: names[class].clone(),
            probability: probabilities.as_ref().map(|p| p[class]),
            logit: values[class],
        };
        predictions.push(Prediction {
            image: image.display().to_string(),
            prediction: answer(best),
            top: order
                .iter()
                .take(args.top.into())
                .map(|&i| answer(i))
                .collect(),
            accumulators: logits.accumulators().collect(),
            logits: values,
        });
    }
    output::result(&Predictions(predictions), args.json)
}

/// From the metadata of model.int8.onnx; model.fxp holds none, and a device needs none.
fn class_names(dir: &Path, classes: usize) -> Result<Vec<String>, Error> {
    let path = dir.join(run::INT8_MODEL);
    let failed = |error: &dyn fmt::Display| Error::in_file(&path, error);
    let file = fs::read(&path).map_err(|error| failed(&error))?;
    let graph = Graph::parse(&file).map_err(|error| failed(&error))?;
    let text = graph.metadata.get("isobit.class_names");
    let text = text.ok_or_else(|| failed(&"the metadata `isobit.class_names` is missing"))?;
    let names: Vec<String> = serde_json::from_str(text)
        .map_err(|error| failed(&format!("metadata `isobit.class_names`: {error}")))?;
    if names.len() == classes {
        return Ok(names);
    }
    let got = names.len();
    Err(failed(&format!(
        "{got} class names, model.fxp has {classes} classes"
    )))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Predictions(Vec<Prediction>);

#[derive(Debug, Serialize)]
struct Prediction {
    /// As on the command line.
    image: String,
    /// The class with the greatest logit.
    prediction: Answer,
    /// The classes with the greatest logits, in descending order.
    top: Vec<Answer>,
    /// In class order.
    logits: Vec<f32>,
    /// The integers that every target computes, in class order.
    accumulators: Vec<i32>,
}

#[derive(Debug, Serialize)]
struct Answer {
    class: usize,
    name: String,
    /// 0 to 1; none if the network's output is linear.
    probability: Option<f32>,
    logit: f32,
}

impl fmt::Display for Predictions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for prediction in &self.0 {
            let top = prediction.top.iter().map(Answer::to_string);
            let top = top.collect::<Vec<_>>().join(", ");
            writeln!(f, "{}: {top}", prediction.image)?;
        }
        Ok(())
    }
}

/// `7 (99.98 %)`, or with the logit where there are no probabilities.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.probability {
            Some(p) => write!(f, "{} ({:.2} %)", self.name, 100.0 * p),
            None => write!(f, "{} (logit {})", self.name, self.logit),
        }
    }
}
