//! `trainer fit`: trains, quantizes, exports, verifies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::tensor::{Dtype, TensorView};

use crate::{
    architecture::Architecture,
    callbacks::{self, Plan, progress::Display},
    cli::{FitArgs, VerifyArgs},
    dataset, device,
    error::Error,
    export::{self, Origin},
    file, fit,
    initializer::initial_weights,
    network::Network,
    preprocess::Preprocess,
    ptq, quantize,
    recipe::{self, Recipe},
    weights::Weights,
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
    let mut recipe = Recipe::load(&path, &sets)?;
    refuse(args, &recipe)?;
    let target = device::open(&args.device)?;
    let recipe_sha256 = recipe.digest();
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
    recipe.data.path = base
        .join(&recipe.data.path)
        .canonicalize()
        .map_err(|error| {
            Error::Failed(format!(
                "{}: {error}",
                base.join(&recipe.data.path).display()
            ))
        })?;
    write(&dir.join("recipe.toml"), recipe.to_toml().as_bytes())?;

    let initial = initial_weights(&architecture, recipe.train.seed);
    write(&dir.join("initial.safetensors"), &safetensors(&initial)?)?;
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
    fit::fit(&recipe, &network, &data, &preprocess, &mut outputs)
        .map_err(|error| Error::Failed(error.to_string()))?;
    drop(outputs);
    let weights = network.weights().map_err(device)?;
    write(&dir.join("weights.safetensors"), &safetensors(&weights)?)?;

    let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
    let graph = quantize::graph::build(&architecture, &preprocess, &weights)
        .map_err(|error| failed(&error))?;
    let images = recipe.quantize.calibration_images;
    let scales = ptq::calibrate(images, &network, &preprocess, &data.train)
        .and_then(|reference| {
            ptq::scales(
                &recipe.quantize,
                &graph,
                &architecture,
                &reference,
                &data.train,
            )
        })
        .map_err(|error| failed(&error))?;
    let quantized =
        quantize::assemble(&graph, &architecture, &scales).map_err(|error| failed(&error))?;
    let origin = Origin {
        name: &recipe.name,
        recipe_sha256,
        class_names: &data.class_names,
    };
    let golden = recipe
        .export
        .golden_image
        .then(|| data.test.images.get(0).to_vec());
    let opset = recipe.export.opset;
    let float = export::onnx::float(&architecture, &preprocess, &weights, opset, &origin);
    let int8 = export::onnx::int8(&quantized, opset, &origin);
    let fixed = export::fixed::model(&quantized, &origin, golden);
    for (name, bytes) in [
        ("model.onnx", float),
        ("model.int8.onnx", int8),
        ("model.fxp", fixed),
    ] {
        write(&dir.join(name), &bytes.map_err(|error| failed(&error))?)?;
    }
    super::verify::run(&VerifyArgs {
        dir,
        data: None,
        limit: None,
        against: "host".into(),
        layers: false,
    })
}

/// Options and recipe keys that this version does not carry out are refused, not ignored.
fn refuse(args: &FitArgs, recipe: &Recipe) -> Result<(), Error> {
    let callbacks = &recipe.train.callbacks;
    let asked = [
        (args.threads.is_some(), "--threads"),
        (args.start.resume, "--resume"),
        (args.start.warm_start.is_some(), "--warm-start"),
        (args.start.reset_weights, "--reset-weights"),
        (recipe.train.ema != 0.0, "train.ema"),
        (recipe.quantize.qat_epochs != 0, "quantize.qat_epochs"),
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

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    file::write_atomic(path, bytes)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))
}

fn safetensors(weights: &Weights) -> Result<Vec<u8>, Error> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = weights
        .0
        .iter()
        .map(|(name, array)| {
            (
                name,
                &array.shape,
                array.data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((
                name.as_str(),
                TensorView::new(Dtype::F32, shape.to_vec(), bytes)?,
            ))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    views
        .and_then(|views| safetensors::serialize(views, None))
        .map_err(|error| Error::Failed(format!("weights: {error}")))
}
