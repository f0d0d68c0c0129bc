//! What the two models of a run answer to labelled images.

use candle_core::Device;
use rayon::prelude::*;
use runtime::{Model, RunError};

use crate::{
    batch::Batches,
    dataset::Labelled,
    fit::{EVALUATION_BATCH, FitError},
    network::{Mode, Network},
    ops::storage,
    run::Run,
};

/// The logits of the float network, computed on the CPU, image by image.
///
/// # Errors
/// Those of the tensors.
pub fn float(
    run: &Run,
    data: &Labelled,
    mut done: impl FnMut(usize),
) -> Result<Vec<f32>, FitError> {
    let network = Network::new(&run.architecture, &run.weights, &Device::Cpu)?;
    let mut logits = Vec::with_capacity(data.len() * run.architecture.classes());
    for batch in Batches::in_order(data, &run.data.preprocess, EVALUATION_BATCH) {
        let images = network.images(batch.x)?;
        let of_batch = network.forward(&images, Mode::Infer)?;
        logits.extend(of_batch.flatten_all()?.to_vec1::<f32>()?);
        storage::recycle(&images)?;
        done(batch.n);
    }
    Ok(logits)
}

/// The classes that the fixed-point model predicts, computed by the runtime.
///
/// # Errors
/// Images of another size than the model's.
pub fn fixed(model: &Model<'_>, data: &Labelled) -> Result<Vec<u32>, RunError> {
    (0..data.len())
        .into_par_iter()
        .map_init(
            || vec![0; model.arena_len()],
            |arena, i| Ok(model.run(data.images.get(i), arena)?.argmax() as u32),
        )
        .collect()
}
