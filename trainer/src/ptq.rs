//! Post-training quantization: a trained network, images to calibrate with, and the recipe's method give the exponents of
//! all activations.

use candle_core::Tensor;
use verifier::{
    backend::{Backend, BackendError},
    compare::real,
    host::Host,
};

use crate::{
    architecture::Architecture,
    batch::Batches,
    calibrate::Calibration,
    dataset::Labelled,
    export::{ExportError, Origin, fixed},
    network::Network,
    preprocess::Preprocess,
    quantize::{
        self, Method, NodeScale, QuantizeError, Quantized,
        graph::Graph,
        search::{divergence, search},
    },
    random::{Purpose, permutation},
    recipe::{CalibrationMethod, Quantize, Winograd},
};

/// Images of a calibration batch.
const BATCH: usize = 100;
/// Calibration images that the search over exponents runs on the integer network; it runs some forty times.
const SEARCH_IMAGES: usize = 500;

/// Why there are no exponents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PtqError {
    /// The tensors' device.
    #[error("calibration: {0}")]
    Device(#[from] candle_core::Error),
    /// The trace does not have the network's layers.
    #[error("calibration: {got} layers were traced, expected {expected}")]
    Trace {
        /// Traced.
        got: usize,
        /// In the network.
        expected: usize,
    },
    /// The network cannot be quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The integer network cannot be written for the runtime.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The runtime refuses it.
    #[error(transparent)]
    Runtime(#[from] BackendError),
}

/// What the float network computes on the calibration images.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Statistics of all tensors.
    pub calibration: Calibration,
    /// The logits of every image.
    pub logits: Vec<Vec<f64>>,
}

/// A random choice of training images; all of them if there are no more.
pub fn calibration_images(data: &Labelled, images: usize, seed: u64) -> Labelled {
    let order = permutation(data.len(), seed, Purpose::Calibration, 0);
    data.select(&order[..images.min(order.len())])
}

/// Runs the images through the float network.
///
/// # Errors
/// [`PtqError::Device`], [`PtqError::Trace`].
pub fn calibrate(
    network: &Network,
    preprocess: &Preprocess,
    data: &Labelled,
) -> Result<Reference, PtqError> {
    let architecture = network.architecture();
    let mut calibration = Calibration::new(architecture);
    let mut logits = Vec::new();
    for batch in Batches::in_order(data, preprocess, BATCH) {
        let x = network.images(batch.x.clone())?;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let traces = network.trace(&x)?;
        let layers = traces
            .iter()
            .map(|trace| Ok((values(&trace.pre_activation)?, values(&trace.output)?)))
            .collect::<Result<Vec<_>, candle_core::Error>>()?;
        if let Some((_, output)) = layers.last() {
            let of_image = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect();
            logits.extend(output.chunks(architecture.classes()).map(of_image));
        }
        let slices = layers
            .iter()
            .map(|(before, after)| (before.as_slice(), after.as_slice()));
        calibration
            .extend(&batch.x, slices)
            .map_err(|got| PtqError::Trace {
                got,
                expected: architecture.layers.len(),
            })?;
    }
    Ok(Reference {
        calibration,
        logits,
    })
}

/// The exponents of all activations of `graph` by the recipe's method. `data` are the images that `reference` was made with.
///
/// # Errors
/// A network that cannot be quantized, or that the runtime refuses.
pub fn scales(
    recipe: &Quantize,
    graph: &Graph,
    architecture: &Architecture,
    reference: &Reference,
    data: &Labelled,
) -> Result<Vec<NodeScale>, PtqError> {
    let method = Method::from_recipe(recipe);
    let calibration = &reference.calibration;
    if recipe.method != CalibrationMethod::Divergence {
        let scales = quantize::choose_scales(graph, architecture, calibration, method, &[])?;
        return Ok(scales);
    }
    let float = &reference.logits[..reference.logits.len().min(SEARCH_IMAGES)];
    let images: Vec<&[u8]> = (0..float.len()).map(|i| data.images.get(i)).collect();
    search(graph, architecture, calibration, method, |quantized| {
        let fixed = logits(quantized, &images)?;
        let pairs = float.iter().zip(&fixed);
        Ok(pairs
            .map(|(float, fixed)| divergence(architecture.output, float, fixed))
            .sum())
    })
}

/// The logits of the integer network, computed by the runtime.
///
/// # Errors
/// [`PtqError::Export`], [`PtqError::Runtime`].
pub fn logits(quantized: &Quantized, images: &[&[u8]]) -> Result<Vec<Vec<f64>>, PtqError> {
    let nameless = Origin {
        name: "",
        recipe_sha256: [0; 32],
        class_names: &[],
    };
    let file = fixed::model(quantized, &nameless, None, &Winograd::default())?;
    let accumulators = Host::new(&file)?.logits(images)?;
    let value = |(&q, &exponent): (&i32, &i32)| real(q, exponent);
    Ok(accumulators
        .iter()
        .map(|image| {
            image
                .iter()
                .zip(&quantized.logit_exponents)
                .map(value)
                .collect()
        })
        .collect())
}
