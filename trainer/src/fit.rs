//! The training loop.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use candle_core::Tensor;

use crate::{
    batch::{Batch, Batches},
    callbacks::{Callback, CallbackError, Control, EpochLog, StepLog, rule::Rules},
    checkpoint::{self, Checkpoint, CheckpointError, Finished, Progress, Running},
    dataset::{Dataset, Labelled},
    ema::Average,
    loss,
    network::{Mode, Network},
    ops,
    optimizer::{Optimizer, StateError},
    preprocess::Preprocess,
    recipe::Recipe,
    run::{self, RunError},
    schedule::Schedule,
    weights::{Array, Weights},
};

/// Images of an evaluation batch.
pub const EVALUATION_BATCH: usize = 250;

/// Best weights so far, in the run folder.
pub const BEST_WEIGHTS: &str = "best.safetensors";

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
    /// A file of the run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint's optimizer is another one.
    #[error("{}: {source}", path.display())]
    Optimizer {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        source: StateError<candle_core::Error>,
    },
    /// The loss is no number any more.
    #[error(
        "step {step}: {what} is {value}, {place}; try a smaller learning rate or gradient clipping (train.clip)"
    )]
    NotFinite {
        /// Number of updates before it was seen.
        step: u64,
        /// Which loss.
        what: &'static str,
        /// What it was.
        value: f32,
        /// The first layer where it shows, and what of it.
        place: String,
    },
}

/// What a training reads and never changes.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The resolved recipe.
    pub recipe: &'a Recipe,
    /// The data.
    pub data: &'a Dataset,
    /// With the numbers from the data.
    pub preprocess: &'a Preprocess,
    /// The run folder: checkpoint and best weights are written there.
    pub dir: &'a Path,
}

impl Job<'_> {
    /// Updates of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        let images = self.data.train.images.len();
        images.div_ceil(self.recipe.train.batch) as u64
    }
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The network has the final weights.
    Finished,
    /// `interrupted` answered true; the checkpoint is written.
    Interrupted {
        /// Updates done.
        step: u64,
    },
}

/// Trains from the checkpoint's state on. `interrupted` is asked after every step.
///
/// # Errors
/// [`FitError`]; the last checkpoint in the folder is a good one.
pub fn fit(
    job: &Job<'_>,
    network: &Network,
    start: Checkpoint,
    callbacks: &mut dyn Callback,
    interrupted: &dyn Fn() -> bool,
) -> Result<Ending, FitError> {
    let mut training = Training::new(job, network, start)?;
    while training.progress.finished.is_none() {
        if !training.epoch(callbacks, interrupted)? {
            training.checkpoint()?;
            callbacks.end()?;
            let step = training.optimizer.iterations();
            return Ok(Ending::Interrupted { step });
        }
    }
    network.set_weights(&training.state()?.final_weights())?;
    callbacks.end()?;
    Ok(Ending::Finished)
}

/// A running training.
struct Training<'a> {
    job: &'a Job<'a>,
    network: &'a Network,
    schedule: Schedule,
    optimizer: Optimizer<Tensor>,
    average: Option<Average>,
    rules: Rules,
    kept: Option<Weights>,
    progress: Progress,
    path: PathBuf,
}

impl<'a> Training<'a> {
    fn new(job: &'a Job<'a>, network: &'a Network, start: Checkpoint) -> Result<Self, FitError> {
        let train = &job.recipe.train;
        let path = job.dir.join(checkpoint::FILE);
        network.set_weights(&start.weights)?;
        let parameters = network.parameters();
        let mut optimizer = Optimizer::new(train.optimizer, train.clip);
        let weights = parameters
            .iter()
            .map(|p| (p.name.as_str(), p.var.as_tensor()));
        optimizer
            .load(&start.optimizer(), weights)
            .map_err(|source| FitError::Optimizer {
                path: path.clone(),
                source,
            })?;
        let tensor =
            |Array { shape, data }: Array| Tensor::from_slice(&data, shape, network.device());
        let averages = start.average.0.into_iter();
        let averages = averages
            .map(|(name, array)| Ok((name, tensor(array)?)))
            .collect::<Result<BTreeMap<_, _>, candle_core::Error>>()?;
        let progress = start.progress;
        Ok(Self {
            job,
            network,
            schedule: Schedule::new(
                &train.schedule,
                train.optimizer.learning_rate(),
                job.steps_per_epoch() * train.epochs as u64,
            ),
            optimizer,
            average: (train.ema != 0.0).then(|| Average::new(train.ema, averages)),
            rules: Rules::new(&train.callbacks, progress.rules),
            kept: start.kept,
            progress,
            path,
        })
    }

    /// Trains the rest of the running epoch; false: interrupted, the epoch goes on later.
    fn epoch(
        &mut self,
        callbacks: &mut dyn Callback,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<bool, FitError> {
        let Job {
            recipe,
            data,
            preprocess,
            ..
        } = *self.job;
        let train = &recipe.train;
        let epoch = self.progress.history.len() as u64;
        let start = Instant::now();
        let before = self.progress.running.seconds;
        let mut batches =
            Batches::shuffled(&data.train, preprocess, train.batch, train.seed, epoch)
                .augmented(&recipe.data.augment, train.seed, epoch)
                .starting_at(self.progress.running.steps);
        // the whole step inside the pool: batch and operators do not have to wake it one by one
        while let Some((images, step)) = rayon::scope(|_| {
            let batch = batches.next()?;
            Some((batch.n, self.update(batch)))
        }) {
            let (loss, correct, learning_rate) = step?;
            let running = &mut self.progress.running;
            running.steps += 1;
            running.samples += images;
            running.loss_sum += f64::from(loss) * images as f64;
            running.correct += correct;
            running.learning_rate = learning_rate;
            running.seconds = before + start.elapsed().as_secs_f64();
            let step = self.optimizer.iterations();
            callbacks.step(&StepLog {
                epoch: epoch as usize + 1,
                step,
                samples: running.samples,
                loss: (running.loss_sum / running.samples as f64) as f32,
                accuracy: running.correct as f32 / running.samples as f32,
                learning_rate,
            })?;
            if interrupted() {
                return Ok(false);
            }
            let every = train.callbacks.checkpoint.every_steps;
            if every != 0 && step.is_multiple_of(every) {
                self.checkpoint()?;
            }
        }
        self.end_of_epoch(callbacks)
    }

    /// Validates, decides, tells the callbacks, writes the files.
    fn end_of_epoch(&mut self, callbacks: &mut dyn Callback) -> Result<bool, FitError> {
        let start = Instant::now();
        let Job {
            recipe,
            data,
            preprocess,
            dir,
            ..
        } = *self.job;
        let train = &recipe.train;
        let validation = data.validation.as_ref().unwrap_or(&data.test);
        self.swap_average()?;
        let mut seen = 0;
        let (val_loss, val_accuracy) = evaluate(
            recipe,
            self.network,
            validation,
            preprocess,
            &mut |images| {
                seen += images;
                callbacks.validation(seen, validation.len())
            },
        )?;
        if !val_loss.is_finite() {
            let first = Batches::in_order(validation, preprocess, EVALUATION_BATCH).next();
            let images = first
                .map(|batch| self.network.images(batch.x))
                .transpose()?;
            return Err(self.not_finite("the validation loss", val_loss, images.as_ref()));
        }
        let Running {
            samples,
            loss_sum,
            correct,
            learning_rate,
            seconds,
            ..
        } = self.progress.running;
        let log = EpochLog {
            epoch: self.progress.history.len() + 1,
            step: self.optimizer.iterations(),
            loss: (loss_sum / samples as f64) as f32,
            accuracy: correct as f32 / samples as f32,
            val_loss,
            val_accuracy,
            learning_rate,
            seconds: seconds + start.elapsed().as_secs_f64(),
            samples_per_second: samples as f64 / seconds,
        };
        let last = log.epoch >= train.epochs;
        let Control {
            best,
            keep,
            learning_rate,
            stop,
            restore,
        } = self.rules.epoch(&log, last);
        if best {
            run::write_weights(&dir.join(BEST_WEIGHTS), &self.network.weights()?)?;
        }
        if keep {
            self.kept = Some(self.network.weights()?);
        }
        self.swap_average()?;
        self.progress.history.push(log);
        self.progress.running = Running::default();
        self.progress.learning_rate = learning_rate.or(self.progress.learning_rate);
        callbacks.epoch(&log)?;
        if let Some(rate) = learning_rate {
            callbacks.message(&format!("learning rate reduced to {rate}"))?;
        }
        if let Some(reason) = &stop {
            callbacks.message(reason)?;
        }
        if last || stop.is_some() {
            self.progress.finished = Some(Finished {
                restore,
                stopped: stop,
            });
        }
        let every = train.callbacks.checkpoint.every_epochs;
        if self.progress.finished.is_some() || (every != 0 && log.epoch.is_multiple_of(every)) {
            self.checkpoint()?;
        }
        Ok(true)
    }

    /// Averaged weights in the network, and back.
    fn swap_average(&mut self) -> Result<(), FitError> {
        if let Some(average) = &mut self.average {
            average.swap(self.network.parameters())?;
        }
        Ok(())
    }

    /// One optimizer step; loss with penalties and number of right answers, both before the update, and the learning rate.
    fn update(&mut self, batch: Batch) -> Result<(f32, usize, f32), FitError> {
        let (recipe, network) = (self.job.recipe, self.network);
        let step = self.optimizer.iterations();
        let learning_rate = match self.progress.learning_rate {
            Some(reduced) => reduced,
            None => self.schedule.learning_rate(step),
        };
        let mode = Mode::Train {
            seed: recipe.train.seed,
            step,
        };
        let Batch { x, labels, .. } = batch;
        let images = network.images(x)?;
        let (logits, loss) =
            loss::logits_and_loss(&recipe.train.loss, network, &images, &labels, mode)?;
        // the penalties stay outside candle's graph: their gradients are added in place
        let value = loss.to_scalar::<f32>()? + penalty(network)?;
        if !value.is_finite() {
            return Err(self.not_finite("the loss", value, Some(&images)));
        }
        let store = network.gradients(&loss)?;
        let (mut weights, mut gradients) = (BTreeMap::new(), BTreeMap::new());
        for parameter in network.parameters() {
            if let Some(gradient) = store.get(parameter.var.as_tensor()) {
                let weight = parameter.var.as_tensor();
                let gradient =
                    ops::penalty::add_gradient(parameter.regularizer, weight, gradient.detach())?;
                gradients.insert(parameter.name.clone(), gradient);
                // a variable: changes in place
                weights.insert(parameter.name.clone(), parameter.var.as_tensor().clone());
            }
        }
        self.optimizer
            .step(&mut weights, &gradients, learning_rate)?;
        if let Some(average) = &mut self.average {
            average.update(network.parameters())?;
        }
        let correct = loss::correct(&logits, &labels)?;
        ops::storage::recycle(&images)?;
        Ok((value, correct, learning_rate))
    }

    fn not_finite(&self, what: &'static str, value: f32, images: Option<&Tensor>) -> FitError {
        match first_not_finite(self.network, images) {
            Ok(place) => FitError::NotFinite {
                step: self.optimizer.iterations(),
                what,
                value,
                place,
            },
            Err(error) => error,
        }
    }

    /// The present state.
    fn state(&self) -> Result<Checkpoint, FitError> {
        let optimizer = self.optimizer.save()?;
        let mut average = Weights::default();
        for (name, tensor) in self.average.iter().flat_map(Average::values) {
            let array = Array {
                shape: tensor.dims().into(),
                data: tensor.flatten_all()?.to_vec1()?,
            };
            average.0.insert(name.clone(), array);
        }
        Ok(Checkpoint {
            progress: Progress {
                step: optimizer.step,
                u_product: optimizer.u_product,
                rules: self.rules.state(),
                ..self.progress.clone()
            },
            weights: self.network.weights()?,
            slots: optimizer.slots,
            average,
            kept: self.kept.clone(),
        })
    }

    /// Writes the checkpoint, unless the weights are no numbers any more: the last one stays.
    fn checkpoint(&self) -> Result<(), FitError> {
        let state = self.state()?;
        if let Some((name, value)) = not_finite_weight(self.network, &state.weights) {
            return Err(FitError::NotFinite {
                step: self.optimizer.iterations(),
                what: "a weight",
                value,
                place: format!("first in `{name}`"),
            });
        }
        Ok(state.write(&self.path)?)
    }
}

/// The first weight in layer order with a value that is no finite number.
fn not_finite_weight(network: &Network, weights: &Weights) -> Option<(String, f32)> {
    let layers = network.architecture().layers.iter();
    let names = layers.flat_map(|layer| {
        let kinds = layer.weight_shapes().into_iter();
        kinds.map(|(kind, _)| format!("{}.{kind}", layer.name))
    });
    names.into_iter().find_map(|name| {
        let values = &weights.0.get(&name)?.data;
        let value = *values.iter().find(|x| !x.is_finite())?;
        Some((name, value))
    })
}

/// Where a loss that is no finite number comes from: the first layer, in order, with such a weight, else the first with such
/// an output for these images.
fn first_not_finite(network: &Network, images: Option<&Tensor>) -> Result<String, FitError> {
    if let Some((name, value)) = not_finite_weight(network, &network.weights()?) {
        return Ok(format!(
            "the weight `{name}` contains {value} since the update before"
        ));
    }
    if let Some(images) = images {
        for trace in network.trace(images)? {
            let output: Vec<f32> = trace.output.flatten_all()?.to_vec1()?;
            if let Some(value) = output.iter().find(|x| !x.is_finite()) {
                return Ok(format!(
                    "the layer `{}` is the first to give {value}",
                    trace.name
                ));
            }
        }
    }
    let last = network.architecture().layers.last();
    let last = last.map_or("", |layer| layer.name.as_str());
    Ok(format!(
        "every layer gives finite numbers, those of the last one (`{last}`) are too large for the loss"
    ))
}

/// Mean loss with penalties, and accuracy, in inference mode. `done` hears the number of images of every batch that is computed.
///
/// # Errors
/// Those of the tensors' device, and of `done`.
pub fn evaluate(
    recipe: &Recipe,
    network: &Network,
    data: &Labelled,
    preprocess: &Preprocess,
    done: &mut dyn FnMut(usize) -> Result<(), CallbackError>,
) -> Result<(f32, f32), FitError> {
    let (mut sum, mut right, mut seen) = (0.0, 0, 0);
    for Batch { n, x, labels } in Batches::in_order(data, preprocess, EVALUATION_BATCH) {
        let images = network.images(x)?;
        let (logits, loss) =
            loss::logits_and_loss(&recipe.train.loss, network, &images, &labels, Mode::Infer)?;
        sum += f64::from(loss.to_scalar::<f32>()?) * n as f64;
        right += loss::correct(&logits, &labels)?;
        ops::storage::recycle(&images)?;
        seen += n;
        done(n)?;
    }
    let penalty = penalty(network)?;
    let seen = seen.max(1);
    Ok((
        (sum / seen as f64) as f32 + penalty,
        right as f32 / seen as f32,
    ))
}

/// Sum of all penalties.
fn penalty(network: &Network) -> Result<f32, candle_core::Error> {
    match loss::penalty(network.parameters())? {
        Some(penalty) => penalty.to_scalar(),
        None => Ok(0.0),
    }
}

#[cfg(test)]
mod tests;
