//! `trainer inspect`: pictures of a trained network, and a comparison of two.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use runtime::Model;
use serde::Serialize;
use verifier::{certificate, tolerance::argmax};

use super::{output, verify::Models};
use crate::{
    architecture::LayerKind,
    callbacks::progress::Display,
    cli::InspectArgs,
    dataset::{self, Dataset},
    error::Error,
    evaluate,
    file::write_atomic,
    fold,
    inspect::{
        activations::{self, Maps},
        confusion::{self, Pair},
        filters::{self, Filters},
        matching::{self, LayerMatch, Trained},
        scales::{self, OutputScale, Scales, WeightScales},
    },
    network::Network,
    ptq,
    quantize::graph::{self, NodeKind, Tap},
    run::{self, Run},
};

/// Folder of the pictures in the run folder.
const FOLDER: &str = "inspect";
/// Training images that the activations' distribution comes from, at most; the recipe may want fewer.
const CALIBRATION_IMAGES: usize = 500;

/// Runs the command. Nothing is written before everything is computed.
///
/// # Errors
/// A folder that is no finished run, an image that cannot be read or does not exist, runs that cannot be compared, files that
/// cannot be written.
pub fn run(args: &InspectArgs) -> Result<(), Error> {
    let display = Display::choose(false, false, args.json);
    let folder = args.out.clone().unwrap_or_else(|| args.dir.join(FOLDER));
    match &args.compare {
        Some(other) => compare(args, other, &folder),
        None => inspect(args, &folder, display),
    }
}

/// A picture with its file name.
type Picture = (String, Vec<u8>);

fn inspect(args: &InspectArgs, folder: &Path, display: Display) -> Result<(), Error> {
    let run = Run::open(&args.dir)?;
    let models = Models::read(&args.dir)?;
    let task = display.busy("reading the data");
    let data = run.load_own_data()?;
    drop(task);
    let task = display.busy("drawing");
    let mut pictures = Vec::new();
    for layer in &run.architecture.layers {
        if let Some(found) = Filters::of(&run.architecture, layer, &run.weights) {
            let png = filters::draw(&layer.name, &found).map_err(Error::failed)?;
            pictures.push((format!("filters-{}.png", layer.name), png));
        }
    }
    let (subject, png) = show_activations(args, &run, &data)?;
    pictures.push(("activations.png".into(), png));

    let path = args.dir.join(run::FIXED_MODEL);
    let model = Model::new(&models.fixed).map_err(|error| Error::in_file(&path, error))?;
    let predictions =
        evaluate::fixed(&model, &data.test).map_err(|error| Error::in_file(&path, error))?;
    let mut confusions = confusion::pairs(&data.test.labels, &predictions);
    let errors = confusions.iter().map(|pair| pair.images.len()).sum();
    confusions.truncate(args.pairs);
    let names = &run.data.class_names;
    let png = confusion::draw(&confusions, names, &data.test).map_err(Error::failed)?;
    pictures.push(("confusions.png".into(), png));

    let scales = measure_scales(&run, &data, &models, &model)?;
    let png = scales::draw(&scales).map_err(Error::failed)?;
    pictures.push(("scales.png".into(), png));
    drop(task);
    let inspection = Inspection {
        subject,
        images: data.test.len(),
        errors,
        class_names: names.clone(),
        confusions,
        scales,
        files: write(folder, &pictures)?,
    };
    output::result(&inspection, args.json)
}

/// Writes the pictures and returns their paths.
fn write(folder: &Path, pictures: &[Picture]) -> Result<Vec<PathBuf>, Error> {
    fs::create_dir_all(folder).map_err(|error| Error::in_file(folder, error))?;
    let write = |(name, png): &Picture| {
        let path = folder.join(name);
        write_atomic(&path, png).map_err(|error| Error::in_file(&path, error))?;
        Ok(path)
    };
    pictures.iter().map(write).collect()
}

/// What the picture of the activations is about, and the picture.
fn show_activations(
    args: &InspectArgs,
    run: &Run,
    data: &Dataset,
) -> Result<(String, Vec<u8>), Error> {
    let input = run.architecture.input;
    let names = &run.data.class_names;
    let (subject, pixels) = match &args.image {
        Some(path) => (
            path.display().to_string(),
            dataset::read_image(path, input)?,
        ),
        None => {
            let index = args.index.unwrap_or(0);
            if index >= data.test.len() {
                return Err(Error::Usage(format!(
                    "--index {index}: there are {} test images, expected 0 to {}",
                    data.test.len(),
                    data.test.len() - 1
                )));
            }
            let label = &names[data.test.labels[index] as usize];
            let subject = format!("test image {index}, label {label}");
            (subject, data.test.images.get(index).to_vec())
        }
    };
    let mut x = vec![0.0; input.len()];
    run.data.preprocess.apply(&pixels, &mut x);
    let trace = || {
        let network = Network::new(&run.architecture, &run.weights, &Device::Cpu)?;
        let x = Tensor::from_vec(x, (1, input.h, input.w, input.c), &Device::Cpu)?;
        let traces = network.trace(&x)?;
        let maps = run.architecture.layers.iter().zip(traces);
        let maps = maps.map(|(layer, trace)| {
            Ok(Maps {
                layer: layer.name.clone(),
                shape: layer.output,
                values: trace.output.flatten_all()?.to_vec1()?,
            })
        });
        maps.collect::<Result<Vec<Maps>, candle_core::Error>>()
    };
    let mut maps = trace().map_err(Error::failed)?;
    let logits = maps.last().map_or(&[][..], |last| &last.values);
    let predicted = names.get(argmax(logits)).map_or("?", String::as_str);
    let subject = format!("{subject}, classified as {predicted}");
    let mut layers = run.architecture.layers.iter();
    maps.retain(|_| {
        let kind = layers.next().map(|layer| &layer.kind);
        !matches!(kind, Some(LayerKind::Flatten | LayerKind::Dropout { .. }))
    });
    let png = activations::draw(&subject, &pixels, input, &maps).map_err(Error::failed)?;
    Ok((subject, png))
}

/// Weights and outputs of every operator of model.fxp, on its scales.
fn measure_scales(
    run: &Run,
    data: &Dataset,
    models: &Models,
    model: &Model<'_>,
) -> Result<Vec<Scales>, Error> {
    let recipe = &run.recipe;
    let preprocess = &run.data.preprocess;
    let (architecture, mut weights) = fold::batch_norm(&run.architecture, &run.weights);
    if recipe.quantize.qat_epochs > 0 {
        weights = run::read_weights(&run.dir.join(run::QAT_WEIGHTS), &architecture)?;
    }
    let graph = graph::build(&architecture, preprocess, &weights).map_err(Error::failed)?;
    let path = run.dir.join(run::FIXED_MODEL);
    let certificate = certificate::compute(&models.int8, &models.fixed)
        .map_err(|error| Error::Failed(format!("{}: {error}", run.dir.display())))?;
    let other = || Error::in_file(&path, "it has other operators than the run's network");
    let operators = &certificate.layers;
    if operators.len() != graph.nodes.len() {
        return Err(other());
    }
    let images = recipe.quantize.calibration_images.min(CALIBRATION_IMAGES);
    let images = ptq::calibration_images(&data.train, images, recipe.train.seed);
    let network = Network::new(&architecture, &weights, &Device::Cpu).map_err(Error::failed)?;
    let seen = ptq::calibrate(&network, preprocess, &images).map_err(Error::failed)?;
    let mut scales = Vec::new();
    for (i, ((node, operator), op)) in graph
        .nodes
        .iter()
        .zip(operators)
        .zip(model.ops())
        .enumerate()
    {
        if node.layer != operator.layer {
            return Err(other());
        }
        let weights = match &node.kind {
            NodeKind::Conv { weight, bias, .. } | NodeKind::Dense { weight, bias } => {
                let exponents = &operator.weight_exponents;
                if exponents.len() != bias.len() || bias.is_empty() {
                    return Err(other());
                }
                let channels = weight.chunks(weight.len() / bias.len());
                Some(WeightScales::new(channels, exponents))
            }
            _ => None,
        };
        let histogram = match node.result {
            Tap::Input => &seen.calibration.input,
            Tap::PreActivation(layer) => &seen.calibration.layers[layer].pre_activation,
            Tap::Output(layer) => &seen.calibration.layers[layer].output,
        };
        let is_logits = i + 1 == graph.nodes.len();
        let exponent = operator.output_exponents.first().filter(|_| !is_logits);
        scales.push(Scales {
            layer: node.layer.clone(),
            weights,
            output: exponent.map(|&e| OutputScale::new(histogram, op.output.dtype, e)),
        });
    }
    Ok(scales)
}

fn compare(args: &InspectArgs, other: &Path, folder: &Path) -> Result<(), Error> {
    let runs = [Run::open(&args.dir)?, Run::open(other)?];
    let [first, second] = runs.each_ref().map(|run| Trained {
        architecture: &run.architecture,
        weights: &run.weights,
    });
    let layers = matching::compare(first, second).map_err(|error| {
        Error::Usage(format!(
            "{} and {}: {error}",
            args.dir.display(),
            other.display()
        ))
    })?;
    let names = [&args.dir, other].map(|dir| dir.display().to_string());
    let png =
        matching::draw([&names[0], &names[1]], first, second, &layers).map_err(Error::failed)?;
    let comparison = Comparison {
        files: write(folder, &[("compare.png".into(), png)])?,
        first: names[0].clone(),
        second: names[1].clone(),
        layers,
    };
    output::result(&comparison, args.json)
}

/// Result of an inspection.
#[derive(Debug, Serialize)]
struct Inspection {
    /// What the picture of the activations shows.
    subject: String,
    /// Test images.
    images: usize,
    /// Test images with another prediction than their label, fixed point.
    errors: usize,
    class_names: Vec<String>,
    /// The most frequent ones.
    confusions: Vec<Pair>,
    scales: Vec<Scales>,
    /// Pictures written.
    files: Vec<PathBuf>,
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "activations of {}", self.subject)?;
        writeln!(
            f,
            "\n{} of {} test images are not classified as their label (fixed point)",
            self.errors, self.images
        )?;
        let name = |class: u32| &self.class_names[class as usize];
        for pair in &self.confusions {
            let shown = pair.images.iter().take(10).map(usize::to_string);
            let shown: Vec<String> = shown.collect();
            let more = if pair.images.len() > 10 { ", ..." } else { "" };
            writeln!(
                f,
                "  {:>4}  {} taken for {}: images {}{more}",
                pair.images.len(),
                name(pair.label),
                name(pair.prediction),
                shown.join(", ")
            )?;
        }
        let wide = self.scales.iter().map(|scale| scale.layer.len());
        let wide = wide.max().unwrap_or(0).max(5);
        writeln!(
            f,
            "\n{:<wide$}  {:>14}  {:>9}  {:>6}  {:>7}  {:>18}  {:>9}",
            "layer", "weight step", "saturated", "zero", "output", "range", "saturated"
        )?;
        for scale in &self.scales {
            write!(f, "{:<wide$}", scale.layer)?;
            match &scale.weights {
                Some(weights) => {
                    let step = weights.step();
                    let (saturated, zero) = (100.0 * weights.saturated, 100.0 * weights.zero);
                    write!(f, "  {step:>14}  {saturated:>7.2} %  {zero:>4.1} %")?;
                }
                None => write!(f, "  {:>14}  {:>9}  {:>6}", "", "", "")?,
            }
            match &scale.output {
                Some(output) => {
                    let [low, high] = output.range;
                    let step = format!("2^{}", output.exponent);
                    let range = format!("{low:.3} to {high:.3}");
                    let saturated = 100.0 * output.saturated;
                    writeln!(f, "  {step:>7}  {range:>18}  {saturated:>7.3} %")?;
                }
                None => writeln!(f, "  logits")?,
            }
        }
        list(&self.files, f)
    }
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    first: String,
    second: String,
    layers: Vec<LayerMatch>,
    /// Pictures written.
    files: Vec<PathBuf>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.layers.iter().map(|layer| layer.layer.len());
        let wide = wide.max().unwrap_or(0).max(5);
        writeln!(
            f,
            "filters of {} and {}, matched by the correlation of their weights\n\n{:<wide$}  {:>9}  {:>16}  {:>9}  {:>10}",
            self.first,
            self.second,
            "layer",
            "filters",
            "mean correlation",
            "by chance",
            "0.9 or more"
        )?;
        for layer in &self.layers {
            let [a, b] = layer.filters;
            let filters = if a == b {
                a.to_string()
            } else {
                format!("{a} and {b}")
            };
            writeln!(
                f,
                "{:<wide$}  {filters:>9}  {:>16.3}  {:>9.3}  {:>9.1} %",
                layer.layer,
                layer.mean,
                layer.chance,
                100.0 * layer.alike
            )?;
        }
        list(&self.files, f)
    }
}

fn list(files: &[PathBuf], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    files
        .iter()
        .try_for_each(|path| writeln!(f, "wrote {}", path.display()))
}
