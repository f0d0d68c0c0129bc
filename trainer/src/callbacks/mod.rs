//! What happens around the training steps. Two kinds, kept apart:
//!
//! - [`rule`]: decisions (stop early, reduce the learning rate, keep the best weights). They have a state that belongs
//!   to the checkpoint, do no input or output, and answer each epoch with a [`Control`].
//! - [`Callback`]: outputs (progress, history.csv, curves, TensorBoard). They never influence the training, and
//!   everything that they need after a resume is the list of past epochs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub mod curves;
pub mod history;
pub mod live;
pub mod progress;
pub mod rule;
pub mod tensorboard;

use progress::Display;

/// State of the running epoch after one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLog {
    /// Running epoch, from 1.
    pub epoch: usize,
    /// Optimizer steps since the start of the training, this one included (Keras: iteration).
    pub step: u64,
    /// Training samples seen in this epoch so far.
    pub samples: usize,
    /// Mean loss of the epoch so far, penalties included.
    pub loss: f32,
    /// Share of right answers in the epoch so far, 0 to 1.
    pub accuracy: f32,
    /// Learning rate of this step.
    pub learning_rate: f32,
}

/// A finished epoch. One line of history.csv.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochLog {
    /// From 1.
    pub epoch: usize,
    /// Optimizer steps since the start of the training (Keras: iteration).
    pub step: u64,
    /// Mean training loss over the epoch, penalties included.
    pub loss: f32,
    /// Training accuracy over the epoch, 0 to 1; measured while the weights change, as in Keras.
    pub accuracy: f32,
    /// Loss on the validation images after the epoch, penalties included.
    pub val_loss: f32,
    /// Accuracy on the validation images after the epoch, 0 to 1.
    pub val_accuracy: f32,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f32,
    /// Seconds of the epoch, validation included.
    pub seconds: f64,
    /// Training samples per second, validation excluded.
    pub samples_per_second: f64,
}

/// What a run is going to do; known before the first step.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Recipe name.
    pub name: String,
    /// Last epoch of the run.
    pub epochs: usize,
    /// Optimizer steps of one epoch.
    pub steps_per_epoch: u64,
    /// Training samples of one epoch.
    pub samples_per_epoch: usize,
    /// Dashed reference line of the accuracy curves, 0 to 1.
    pub reference_accuracy: Option<f32>,
    /// Epochs that are already done (after a resume), in order.
    pub history: Vec<EpochLog>,
}

/// What the fit loop does after an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Control {
    /// The weights are the best so far by the checkpoint's monitor: write best.safetensors.
    pub best: bool,
    /// The weights are the best so far by the early stopping's monitor: keep a copy for `restore`.
    pub keep: bool,
    /// Learning rate from now on.
    pub learning_rate: Option<f32>,
    /// End the training; the reason for the user.
    pub stop: Option<String>,
    /// Take the weights that were kept by `keep` as the final ones.
    pub restore: bool,
}

/// Why an output could not be written. A run stops on it: a history with holes is worse than a clear message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// A file of the run folder.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// history.csv of a resumed run.
    #[error("{}: {message}", path.display())]
    History {
        /// Which file.
        path: PathBuf,
        /// Line and problem.
        message: String,
    },
    /// The picture could not be drawn.
    #[error("{}: cannot draw the curves: {message}", path.display())]
    Draw {
        /// Which file.
        path: PathBuf,
        /// What the drawing library said.
        message: String,
    },
    /// The terminal went away or does not answer.
    #[error("terminal: {0}")]
    Terminal(std::io::Error),
}

/// An output of the fit loop.
pub trait Callback {
    /// After every optimizer step. Called often: must be cheap.
    fn step(&mut self, _log: &StepLog) -> Result<(), CallbackError> {
        Ok(())
    }

    /// While an epoch is validated: so many images of all are done. Called often: must be cheap.
    fn validation(&mut self, _done: usize, _images: usize) -> Result<(), CallbackError> {
        Ok(())
    }

    /// After every epoch.
    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError>;

    /// A sentence for the user (`interrupted: continue with ...`), shown without breaking what is on the screen.
    fn message(&mut self, _text: &str) -> Result<(), CallbackError> {
        Ok(())
    }

    /// After the last epoch, or before the training is left for another reason.
    fn end(&mut self) -> Result<(), CallbackError> {
        Ok(())
    }
}

/// All of them, in order.
impl Callback for Vec<Box<dyn Callback>> {
    fn step(&mut self, log: &StepLog) -> Result<(), CallbackError> {
        self.iter_mut().try_for_each(|c| c.step(log))
    }

    fn validation(&mut self, done: usize, images: usize) -> Result<(), CallbackError> {
        self.iter_mut().try_for_each(|c| c.validation(done, images))
    }

    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        self.iter_mut().try_for_each(|c| c.epoch(log))
    }

    fn message(&mut self, text: &str) -> Result<(), CallbackError> {
        self.iter_mut().try_for_each(|c| c.message(text))
    }

    fn end(&mut self) -> Result<(), CallbackError> {
        self.iter_mut().try_for_each(|c| c.end())
    }
}

/// The outputs of a run folder: history.csv, curves.png, TensorBoard files where the recipe asks for them, the display,
/// and JSON lines on standard output.
///
/// # Errors
/// The TensorBoard files cannot be created, or the terminal does not answer.
pub fn outputs(
    plan: &Plan,
    dir: &Path,
    tensorboard: bool,
    display: Display,
    json: bool,
) -> Result<Vec<Box<dyn Callback>>, CallbackError> {
    let mut all: Vec<Box<dyn Callback>> = vec![
        Box::new(history::History::new(
            dir.join(history::FILE),
            plan.history.clone(),
        )),
        Box::new(curves::CurvesPng::new(dir.join(curves::FILE), plan)),
    ];
    if tensorboard {
        let first_step = plan.history.last().map_or(0, |log| log.step + 1);
        all.push(Box::new(tensorboard::TensorBoard::new(
            &dir.join(tensorboard::FOLDER),
            first_step,
        )?));
    }
    if json {
        all.push(Box::new(progress::JsonLines));
    }
    match display {
        Display::Quiet => {}
        Display::Plain => all.push(Box::new(progress::Plain::new(plan))),
        Display::Bar => all.push(Box::new(progress::Bar::new(plan))),
        Display::Live => all.push(Box::new(live::Live::new(plan)?)),
    }
    Ok(all)
}
