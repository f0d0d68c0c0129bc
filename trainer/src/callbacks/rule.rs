//! Decisions at the end of an epoch: early stopping, reduce-on-plateau, best weights so far.
//! Formulas and order of evaluation as in Keras 3 (`EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint(save_best_only)`).

use serde::{Deserialize, Serialize};

use super::{Control, EpochLog};
use crate::recipe::{self, Monitor};

/// The value that a rule watches.
fn value(monitor: Monitor, log: &EpochLog) -> f32 {
    match monitor {
        Monitor::Loss => log.loss,
        Monitor::Accuracy => log.accuracy,
        Monitor::ValLoss => log.val_loss,
        Monitor::ValAccuracy => log.val_accuracy,
    }
}

/// Name of the value, as in history.csv.
fn name(monitor: Monitor) -> &'static str {
    match monitor {
        Monitor::Loss => "loss",
        Monitor::Accuracy => "accuracy",
        Monitor::ValLoss => "val_loss",
        Monitor::ValAccuracy => "val_accuracy",
    }
}

/// True if `value` beats `best` by more than `min_delta`: lower for a loss, higher for an accuracy. The first value
/// (no best yet) wins unless it is NaN; NaN never wins. f32 arithmetic.
fn improves(monitor: Monitor, value: f32, best: Option<f32>, min_delta: f32) -> bool {
    let lower_is_better = matches!(monitor, Monitor::Loss | Monitor::ValLoss);
    match best {
        None => !value.is_nan(),
        Some(best) if lower_is_better => value + min_delta.abs() < best,
        Some(best) => value - min_delta.abs() > best,
    }
}

/// The rules of a run with their states. The states are part of the checkpoint: put back, the next decisions are those
/// of a run that was never interrupted.
#[derive(Clone, Debug)]
pub struct Rules {
    recipe: recipe::Callbacks,
    state: State,
}

/// State of all rules. A rule that the recipe does not ask for keeps the state it started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Early stopping.
    pub early_stopping: Waiting,
    /// Reduce-on-plateau.
    pub reduce_on_plateau: Waiting,
    /// Epochs of reduce-on-plateau's cooldown that are left.
    pub cooldown: usize,
    /// Best value of the checkpoint's monitor.
    pub best: Option<f32>,
}

/// A best value, and how long nothing has beaten it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// Best value so far.
    pub best: Option<f32>,
    /// Its epoch (from 1; 0: none yet).
    pub best_epoch: usize,
    /// Epochs since then, or since the last reduction.
    pub wait: usize,
}

impl Waiting {
    fn take(&mut self, value: f32, epoch: usize) {
        *self = Self {
            best: Some(value),
            best_epoch: epoch,
            wait: 0,
        };
    }
}

impl Rules {
    /// Rules of a recipe, with `State::default()` at the start of a run or the checkpoint's state.
    pub fn new(recipe: &recipe::Callbacks, state: State) -> Self {
        Self {
            recipe: recipe.clone(),
            state,
        }
    }

    /// What goes into the checkpoint.
    pub fn state(&self) -> State {
        self.state
    }

    /// Decides after an epoch. `last`: no epoch follows (Keras's `on_train_end` restores the best weights then too).
    pub fn epoch(&mut self, log: &EpochLog, last: bool) -> Control {
        let mut control = Control {
            best: self.best(log),
            learning_rate: self.reduce_on_plateau(log),
            ..Control::default()
        };
        self.early_stopping(log, last, &mut control);
        control
    }

    fn best(&mut self, log: &EpochLog) -> bool {
        let rule = &self.recipe.checkpoint;
        let value = value(rule.monitor, log);
        let best = rule.best && improves(rule.monitor, value, self.state.best, 0.0);
        if best {
            self.state.best = Some(value);
        }
        best
    }

    /// Keras: a reduction needs `patience` epochs without improvement outside of a cooldown; each epoch of a cooldown resets
    /// the wait; the new rate is `max(rate * factor, min_lr)`.
    fn reduce_on_plateau(&mut self, log: &EpochLog) -> Option<f32> {
        let rule = self.recipe.reduce_on_plateau.as_ref()?;
        let State {
            reduce_on_plateau: state,
            cooldown,
            ..
        } = &mut self.state;
        if *cooldown > 0 {
            *cooldown -= 1;
            state.wait = 0;
        }
        let value = value(rule.monitor, log);
        if improves(rule.monitor, value, state.best, rule.min_delta) {
            state.take(value, log.epoch);
            return None;
        }
        if *cooldown > 0 {
            return None;
        }
        state.wait += 1;
        if state.wait < rule.patience || log.learning_rate <= rule.min_lr {
            return None;
        }
        *cooldown = rule.cooldown;
        state.wait = 0;
        Some((log.learning_rate * rule.factor).max(rule.min_lr))
    }

    /// Keras: stops when `patience` epochs (at least one) have passed without improvement, never in the first epoch.
    fn early_stopping(&mut self, log: &EpochLog, last: bool, control: &mut Control) {
        let Some(rule) = &self.recipe.early_stopping else {
            return;
        };
        let state = &mut self.state.early_stopping;
        let value = value(rule.monitor, log);
        state.wait += 1;
        if improves(rule.monitor, value, state.best, rule.min_delta) {
            state.take(value, log.epoch);
            control.keep = rule.restore_best;
        } else if state.wait >= rule.patience && log.epoch > 1 {
            control.stop = Some(match state.best {
                Some(best) => format!(
                    "early stopping: {} has not improved on {best} (epoch {}) for {} epochs",
                    name(rule.monitor),
                    state.best_epoch,
                    state.wait
                ),
                None => format!("early stopping: {} was never a number", name(rule.monitor)),
            });
        }
        let ends = last || control.stop.is_some();
        control.restore = rule.restore_best && ends && state.best.is_some();
    }
}

#[cfg(test)]
mod tests;
