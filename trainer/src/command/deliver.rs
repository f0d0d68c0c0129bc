//! From trained weights to verified model files: the end of `trainer fit`, and all of `trainer quantize` and `trainer export`.
//!
//! Everything is computed on the CPU from the values in the run folder and the run's data, so each of these commands
//! writes the same bytes.

use candle_core::Device;

use super::verify::{self, Models, Target, Verified};
use crate::{
    callbacks::progress::Display,
    dataset::Dataset,
    error::Error,
    export::{self, Origin},
    file,
    network::Network,
    ptq,
    quantize::{self, Quantized, graph},
    run::Run,
};

/// Calibrates on training images and quantizes.
///
/// # Errors
/// A network that the fixed-point format cannot hold.
pub fn quantize(run: &Run, data: &Dataset) -> Result<Quantized, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
    let (architecture, preprocess) = (&run.architecture, &run.data.preprocess);
    let network =
        Network::new(architecture, &run.weights, &Device::Cpu).map_err(|error| failed(&error))?;
    let graph =
        graph::build(architecture, preprocess, &run.weights).map_err(|error| failed(&error))?;
    let recipe = &run.recipe.quantize;
    let images = recipe.calibration_images;
    let scales = ptq::calibrate(images, &network, preprocess, &data.train)
        .and_then(|reference| ptq::scales(recipe, &graph, architecture, &reference, &data.train))
        .map_err(|error| failed(&error))?;
    quantize::assemble(&graph, architecture, &scales).map_err(|error| failed(&error))
}

/// Writes model.onnx, model.int8.onnx and model.fxp, and verifies them on the test images.
///
/// # Errors
/// A model that cannot be exported, a file that cannot be written or that the verifier refuses. Differences that the
/// verifier finds are in its result.
pub fn write_models(
    run: &Run,
    quantized: &Quantized,
    data: &Dataset,
    display: Display,
) -> Result<Verified, Error> {
    let models = export(run, quantized, data).map_err(|error| Error::Failed(error.to_string()))?;
    let contents = [&models.float, &models.int8, &models.fixed];
    for (name, bytes) in Models::NAMES.into_iter().zip(contents) {
        let path = run.dir.join(name);
        file::write_atomic(&path, bytes)
            .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    }
    let test = &data.test;
    let images: Vec<&[u8]> = (0..test.len()).map(|i| test.images.get(i)).collect();
    let target = Target {
        dir: &run.dir,
        against: "host",
        layers: false,
    };
    verify::verify(&models, &images, &test.labels, &target, display)
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
        fixed: export::fixed::model(quantized, &origin, golden_image)?,
    })
}
