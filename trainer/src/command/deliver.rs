//! From trained weights to verified model files: the end of `trainer fit`, and all of `trainer quantize` and `trainer export`.
//!
//! Everything is computed on the CPU from the values in the run folder and the run's data, so each of these commands
//! writes the same bytes.

use candle_core::Device;
use runtime::Model;
use verifier::tolerance;

use super::verify::{self, Models, Target, Verified};
use crate::{
    architecture::Architecture,
    callbacks::{curves, history, progress::Display},
    classification::Classification,
    dataset::Dataset,
    error::Error,
    evaluate,
    export::{
        self, Origin,
        winograd::{self, Comparison},
    },
    file, fold,
    initializer::initial_weights,
    network::Network,
    preprocess::Preprocess,
    ptq::{self, PtqError},
    qat,
    quantize::{self, Quantized, graph},
    recipe::Recipe,
    report::{self, Inputs, Memory, Report, ReportError, Validation, source},
    run::{self, Run},
    weights::Weights,
};

/// Files of the run folder that the report lists, where they are there.
const FILES: [&str; 10] = [
    run::RECIPE,
    run::DATA,
    run::INITIAL_WEIGHTS,
    run::WEIGHTS,
    run::QAT_WEIGHTS,
    history::FILE,
    curves::FILE,
    run::FLOAT_MODEL,
    run::INT8_MODEL,
    run::FIXED_MODEL,
];

/// Where the weights of quantization-aware fine-tuning come from, if the recipe asks for it.
#[derive(Clone, Copy, Debug)]
pub enum FineTuning {
    /// They are trained, and written to qat.safetensors.
    Train,
    /// They are read from there.
    Read,
}

/// Folds batch norms, chooses scales on training images, fine-tunes if the recipe asks for it, and quantizes.
///
/// # Errors
/// A network that the fixed-point format cannot hold, a fine-tuning that fails, or its weights cannot be read or written.
pub fn quantize(
    run: &Run,
    data: &Dataset,
    fine_tuning: FineTuning,
    display: Display,
) -> Result<Quantized, Error> {
    let (recipe, preprocess) = (&run.recipe, &run.data.preprocess);
    let (architecture, weights) = fold::batch_norm(&run.architecture, &run.weights);
    let task = display.busy("quantizing");
    let build =
        |weights: &Weights| graph::build(&architecture, preprocess, weights).map_err(Error::failed);
    let mut graph = build(&weights)?;
    let wanted = recipe.quantize.calibration_images;
    let images = ptq::calibration_images(&data.train, wanted, recipe.train.seed);
    let scales = Network::new(&architecture, &weights, &Device::Cpu)
        .map_err(PtqError::from)
        .and_then(|network| ptq::calibrate(&network, preprocess, &images))
        .and_then(|float| ptq::scales(&recipe.quantize, &graph, &architecture, &float, &images))
        .map_err(Error::failed)?;
    drop(task);
    let path = run.dir.join(run::QAT_WEIGHTS);
    if recipe.quantize.qat_epochs == 0 {
        run::remove(&path)?;
    } else {
        let tuned = match fine_tuning {
            FineTuning::Read => run::read_weights(&path, &architecture)?,
            FineTuning::Train => {
                let images = data.train.len() * recipe.quantize.qat_epochs;
                let task = display.task("fine-tuning", images as u64);
                let tuned = qat::tune(
                    recipe,
                    &architecture,
                    &weights,
                    preprocess,
                    &scales,
                    &data.train,
                    &mut |done| task.reach(done),
                )
                .map_err(Error::failed)?;
                run::write_weights(&path, &tuned)?;
                tuned
            }
        };
        graph = build(&tuned)?;
    }
    quantize::assemble(&graph, &architecture, &scales).map_err(Error::failed)
}

/// Refuses what the recipe wants of the export and its network cannot have, before anything is trained: the weights are initial ones.
///
/// # Errors
/// A layer that cannot be transformed for Winograd's algorithm.
pub fn check(
    recipe: &Recipe,
    architecture: &Architecture,
    preprocess: &Preprocess,
) -> Result<(), Error> {
    if recipe.export.winograd.is_none() {
        return Ok(());
    }
    let weights = initial_weights(architecture, recipe.train.seed);
    let (architecture, weights) = fold::batch_norm(architecture, &weights);
    // What cannot be quantized at all says so itself.
    let Ok(graph) = graph::build(&architecture, preprocess, &weights) else {
        return Ok(());
    };
    winograd::check(&graph, &recipe.export.winograd)
        .map_err(|error| Error::Usage(error.to_string()))
}

/// What [`write_models`] found.
#[derive(Debug)]
pub struct Delivered {
    /// The models, verified on the test images.
    pub verified: Verified,
    /// Direct and transformed convolutions; none if no convolution can be transformed.
    pub winograd: Option<Comparison>,
}

/// Writes model.onnx, model.int8.onnx and model.fxp, verifies them on the test images, and writes report.json and report.html.
///
/// # Errors
/// A model that cannot be exported, a file that cannot be written or that the verifier refuses. Differences that the
/// verifier finds are in its result and in the report.
pub fn write_models(
    run: &Run,
    quantized: &Quantized,
    data: &Dataset,
    display: Display,
) -> Result<Delivered, Error> {
    let models = export(run, quantized, data).map_err(Error::failed)?;
    let contents = [&models.float, &models.int8, &models.fixed];
    for (name, bytes) in Models::NAMES.into_iter().zip(contents) {
        let path = run.dir.join(name);
        file::write_atomic(&path, bytes).map_err(|error| Error::in_file(&path, error))?;
    }
    let test = &data.test;
    let images: Vec<&[u8]> = (0..test.len()).map(|i| test.images.get(i)).collect();
    let target = Target {
        dir: &run.dir,
        against: "host",
        layers: false,
        timing: false,
    };
    let mut verified = verify::verify(&models, &images, &test.labels, &target, display)?;
    let task = display.task("evaluating the network", test.len() as u64);
    let network = evaluate::float(run, test, |images| task.advance(images as u64));
    verified
        .compare_network(&network.map_err(Error::failed)?)
        .map_err(Error::failed)?;
    drop(task);
    let task = display.busy("evaluating on the validation images and writing the report");
    let validation = validation(run, data, &models)?;
    let report = report(run, quantized, &models, &verified, &test.labels, validation)
        .map_err(Error::failed)?;
    report::write(&run.dir, &report).map_err(Error::failed)?;
    drop(task);
    Ok(Delivered {
        verified,
        winograd: report.winograd,
    })
}

/// Both models on the validation images, if there are some.
fn validation(run: &Run, data: &Dataset, models: &Models) -> Result<Option<Validation>, Error> {
    let Some(images) = &data.validation else {
        return Ok(None);
    };
    let path = run.dir.join(run::FIXED_MODEL);
    let model = Model::new(&models.fixed).map_err(|error| Error::in_file(&path, error))?;
    let float = evaluate::float(run, images, |_| {}).map_err(Error::failed)?;
    let fixed = evaluate::fixed(&model, images).map_err(|error| Error::in_file(&path, error))?;
    let right = fixed.iter().zip(&images.labels).filter(|(a, b)| a == b);
    Ok(Some(Validation {
        images: images.len(),
        float: tolerance::accuracy(&float, model.classes(), &images.labels),
        fixed: right.count() as f64 / images.len().max(1) as f64,
    }))
}

fn report(
    run: &Run,
    quantized: &Quantized,
    models: &Models,
    verified: &Verified,
    labels: &[u32],
    validation: Option<Validation>,
) -> Result<Report, ReportError> {
    let names = &run.data.class_names;
    let classify = |logits: &[f32]| {
        let rows = logits.chunks(names.len().max(1));
        let predictions: Vec<u32> = rows.map(|row| tolerance::argmax(row) as u32).collect();
        Classification::new(names, labels, &predictions)
    };
    let history = run.dir.join(history::FILE);
    let history = if history.is_file() {
        history::read(&history)?
    } else {
        Vec::new()
    };
    let arena_bytes = Model::new(&models.fixed).map(|model| model.arena_len() as u64);
    let recipe = &run.recipe;
    Ok(report::build(Inputs {
        origin: report::Origin {
            name: recipe.name.clone(),
            recipe: recipe.to_toml(),
            recipe_sha256: recipe.hash(),
            data_sha256: run.data.sha256.clone(),
            seed: recipe.train.seed,
            versions: [("trainer".into(), env!("CARGO_PKG_VERSION").into())].into(),
        },
        input: run.architecture.input,
        layers: source::layers(&run.architecture, Some(quantized)),
        float: classify(&verified.float_logits)?,
        fixed: Some(classify(&verified.report.values)?),
        validation,
        memory: arena_bytes.ok().map(|arena_bytes| Memory {
            flash_bytes: models.fixed.len() as u64,
            arena_bytes,
        }),
        winograd: Comparison::new(quantized, &recipe.export.winograd),
        certificate: verified.certificate.clone(),
        verification: Some(verified.into()),
        reference_accuracy: recipe.train.callbacks.reference_accuracy,
        history,
        files: source::files(&run.dir, &FILES)?,
    }))
}

fn export(run: &Run, quantized: &Quantized, data: &Dataset) -> Result<Models, export::ExportError> {
    let recipe = &run.recipe;
    let origin = Origin {
        name: &recipe.name,
        recipe_sha256: recipe.digest(),
        class_names: &run.data.class_names,
    };
    let golden_image = recipe.export.golden_image && !data.test.is_empty();
    let golden_image = golden_image.then(|| data.test.images.get(0).to_vec());
    let (preprocess, opset) = (&run.data.preprocess, recipe.export.opset);
    Ok(Models {
        float: export::onnx::float(&run.architecture, preprocess, &run.weights, opset, &origin)?,
        int8: export::onnx::int8(quantized, opset, &origin)?,
        fixed: export::fixed::model(quantized, &origin, golden_image, &recipe.export.winograd)?,
    })
}
