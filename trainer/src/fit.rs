//! The training loop.

use std::{collections::BTreeMap, time::Instant};

use candle_core::{Device, Tensor};

use crate::{
    batch::{Batch, Batches},
    callbacks::{Callback, CallbackError, EpochLog, StepLog},
    dataset::{Dataset, Labelled},
    loss,
    network::{Mode, Network},
    optimizer::Optimizer,
    preprocess::Preprocess,
    recipe::Recipe,
    schedule::Schedule,
};

/// Images of an evaluation batch.
const EVALUATION_BATCH: usize = 250;

/// Why a training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The tensors' device.
    #[error("training: {0}")]
    Device(#[from] candle_core::Error),
    /// An output file or the terminal.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// The loss is no number any more.
    #[error(
        "step {step}: the loss is {loss}; try a smaller learning rate or gradient clipping (train.clip)"
    )]
    NotFinite {
        /// Update at which it was seen, from 0.
        step: u64,
        /// What it was.
        loss: f32,
    },
}

/// Trains the network in place and tells the callbacks; returns the finished epochs.
///
/// # Errors
/// [`FitError`]; the network then has the weights of the last good step.
pub fn fit(
    recipe: &Recipe,
    network: &Network,
    data: &Dataset,
    preprocess: &Preprocess,
    callbacks: &mut dyn Callback,
) -> Result<Vec<EpochLog>, FitError> {
    let train = &recipe.train;
    let steps = data.train.images.len().div_ceil(train.batch) as u64;
    let schedule = Schedule::new(
        &train.schedule,
        train.optimizer.learning_rate(),
        steps * train.epochs as u64,
    );
    let mut optimizer = Optimizer::new(train.optimizer, train.clip);
    let validation = data.validation.as_ref().unwrap_or(&data.test);
    let mut history = Vec::new();
    for epoch in 0..train.epochs {
        let start = Instant::now();
        let (mut sum, mut right, mut seen, mut learning_rate) = (0.0, 0, 0, 0.0);
        let batches = Batches::shuffled(
            &data.train,
            preprocess,
            train.batch,
            train.seed,
            epoch as u64,
        )
        .augmented(&recipe.data.augment, train.seed, epoch as u64);
        for batch in batches {
            let step = optimizer.iterations();
            learning_rate = schedule.learning_rate(step);
            let (loss, correct) = update(recipe, network, &mut optimizer, &batch, learning_rate)?;
            sum += f64::from(loss) * batch.n as f64;
            right += correct;
            seen += batch.n;
            callbacks.step(&StepLog {
                epoch: epoch + 1,
                step: step + 1,
                samples: seen,
                loss: (sum / seen as f64) as f32,
                accuracy: right as f32 / seen as f32,
                learning_rate,
            })?;
        }
        let training = start.elapsed().as_secs_f64();
        let (val_loss, val_accuracy) = evaluate(recipe, network, validation, preprocess)?;
        let log = EpochLog {
            epoch: epoch + 1,
            step: optimizer.iterations(),
            loss: (sum / seen as f64) as f32,
            accuracy: right as f32 / seen as f32,
            val_loss,
            val_accuracy,
            learning_rate,
            seconds: start.elapsed().as_secs_f64(),
            samples_per_second: seen as f64 / training,
        };
        callbacks.epoch(&log)?;
        history.push(log);
    }
    callbacks.end()?;
    Ok(history)
}

/// One optimizer step; loss with penalties and number of right answers, both before the update.
fn update(
    recipe: &Recipe,
    network: &Network,
    optimizer: &mut Optimizer<Tensor>,
    batch: &Batch,
    learning_rate: f32,
) -> Result<(f32, usize), FitError> {
    let step = optimizer.iterations();
    let architecture = network.architecture();
    let mode = Mode::Train {
        seed: recipe.train.seed,
        step,
    };
    let logits = network.forward(&images(batch, network)?, mode)?;
    let targets = loss::one_hot(&batch.labels, architecture.classes(), network.device())?;
    let mut loss = loss::loss(&recipe.train.loss, architecture.output, &logits, &targets)?;
    if let Some(penalty) = loss::penalty(network.parameters())? {
        loss = (loss + penalty)?;
    }
    let value = loss.to_scalar::<f32>()?;
    if !value.is_finite() {
        return Err(FitError::NotFinite { step, loss: value });
    }
    let store = network.gradients(&loss)?;
    let (mut weights, mut gradients) = (BTreeMap::new(), BTreeMap::new());
    for parameter in network.parameters() {
        if let Some(gradient) = store.get(parameter.var.as_tensor()) {
            gradients.insert(parameter.name.clone(), gradient.detach());
            weights.insert(parameter.name.clone(), parameter.var.as_detached_tensor());
        }
    }
    optimizer.step(&mut weights, &gradients, learning_rate)?;
    for parameter in network.parameters() {
        if let Some(weight) = weights.get(&parameter.name) {
            parameter.var.set(weight)?;
        }
    }
    Ok((value, loss::correct(&logits, &batch.labels)?))
}

/// Mean loss with penalties, and accuracy, in inference mode.
///
/// # Errors
/// Those of the tensors' device.
pub fn evaluate(
    recipe: &Recipe,
    network: &Network,
    data: &Labelled,
    preprocess: &Preprocess,
) -> Result<(f32, f32), FitError> {
    let architecture = network.architecture();
    let (mut sum, mut right, mut seen) = (0.0, 0, 0);
    for batch in Batches::in_order(data, preprocess, EVALUATION_BATCH) {
        let logits = network.forward(&images(&batch, network)?, Mode::Infer)?;
        let targets = loss::one_hot(&batch.labels, architecture.classes(), network.device())?;
        let loss = loss::loss(&recipe.train.loss, architecture.output, &logits, &targets)?;
        sum += f64::from(loss.to_scalar::<f32>()?) * batch.n as f64;
        right += loss::correct(&logits, &batch.labels)?;
        seen += batch.n;
    }
    let penalty = match loss::penalty(network.parameters())? {
        Some(penalty) => penalty.to_scalar::<f32>()?,
        None => 0.0,
    };
    let seen = seen.max(1);
    Ok((
        (sum / seen as f64) as f32 + penalty,
        right as f32 / seen as f32,
    ))
}

/// A batch as a tensor `[n, h, w, c]` on the network's device.
///
/// # Errors
/// Those of the device.
pub fn images(batch: &Batch, network: &Network) -> Result<Tensor, FitError> {
    let shape = network.architecture().input;
    let x = Tensor::from_slice(&batch.x, (batch.n, shape.h, shape.w, shape.c), &Device::Cpu)?;
    Ok(x.to_device(network.device())?)
}
