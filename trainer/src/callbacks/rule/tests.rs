use serde::Deserialize;

use super::*;
use crate::recipe::{CheckpointRecipe, EarlyStopping, ReduceOnPlateau};

/// Written by Keras's own callbacks: `tests/golden/callbacks.py`.
#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    monitor: Monitor,
    early_stopping: EarlyStopping,
    reduce_on_plateau: ReduceOnPlateau,
    values: Vec<f32>,
    learning_rates: Vec<f32>,
    /// Epoch (from 1) that stopped; 0: none.
    stop: usize,
    /// Epoch whose weights were restored at the end.
    restored: usize,
}

fn golden() -> Vec<Case> {
    let golden: Golden =
        serde_json::from_str(include_str!("../../../tests/golden/callbacks.json")).unwrap();
    golden.cases
}

fn log(epoch: usize, value: f32, learning_rate: f32) -> EpochLog {
    EpochLog {
        epoch,
        step: epoch as u64,
        loss: value,
        accuracy: value,
        val_loss: value,
        val_accuracy: value,
        learning_rate,
        seconds: 1.0,
        samples_per_second: 1.0,
    }
}

fn relative(a: f32, b: f32) -> f32 {
    (a - b).abs() / b.abs()
}

#[test]
fn early_stopping_and_restore_as_keras() {
    let (mut stopped, mut ran_through) = (0, 0);
    for (i, case) in golden().iter().enumerate() {
        let recipe = recipe::Callbacks {
            early_stopping: Some(EarlyStopping {
                monitor: case.monitor,
                restore_best: true,
                ..case.early_stopping.clone()
            }),
            ..Default::default()
        };
        let mut rules = Rules::new(&recipe, State::default());
        let (mut kept, mut stop, mut restored) = (0, 0, 0);
        for (e, &value) in case.values.iter().enumerate() {
            let epoch = e + 1;
            let control = rules.epoch(&log(epoch, value, 0.001), epoch == case.values.len());
            if control.keep {
                kept = epoch;
            }
            if control.restore {
                restored = kept;
            }
            if control.stop.is_some() {
                stop = epoch;
                break;
            }
        }
        assert_eq!((stop, restored), (case.stop, case.restored), "case {i}");
        *(if stop == 0 {
            &mut ran_through
        } else {
            &mut stopped
        }) += 1;
    }
    assert!(stopped >= 3 && ran_through >= 3);
}

#[test]
fn reduce_on_plateau_as_keras() {
    let mut reductions = 0;
    for (i, case) in golden().iter().enumerate() {
        let recipe = recipe::Callbacks {
            reduce_on_plateau: Some(ReduceOnPlateau {
                monitor: case.monitor,
                ..case.reduce_on_plateau.clone()
            }),
            ..Default::default()
        };
        let mut rules = Rules::new(&recipe, State::default());
        let mut rate = 0.001f32;
        for (e, (&value, &expected)) in case.values.iter().zip(&case.learning_rates).enumerate() {
            if let Some(new) = rules.epoch(&log(e + 1, value, rate), false).learning_rate {
                rate = new;
                reductions += 1;
            }
            assert!(
                relative(rate, expected) < 1e-5,
                "case {i} epoch {}: {rate} instead of {expected}",
                e + 1
            );
        }
    }
    assert!(reductions >= 20, "{reductions}");
}

#[test]
fn the_state_survives_the_checkpoint_at_every_epoch() {
    for case in &golden() {
        let recipe = recipe::Callbacks {
            early_stopping: Some(EarlyStopping {
                monitor: case.monitor,
                restore_best: true,
                ..case.early_stopping.clone()
            }),
            reduce_on_plateau: Some(ReduceOnPlateau {
                monitor: case.monitor,
                ..case.reduce_on_plateau.clone()
            }),
            ..Default::default()
        };
        let mut undisturbed = Rules::new(&recipe, State::default());
        let mut state = serde_json::to_string(&State::default()).unwrap();
        for (e, &value) in case.values.iter().enumerate() {
            let log = log(e + 1, value, 0.001);
            let mut resumed = Rules::new(&recipe, serde_json::from_str(&state).unwrap());
            assert_eq!(resumed.epoch(&log, false), undisturbed.epoch(&log, false));
            state = serde_json::to_string(&resumed.state()).unwrap();
        }
    }
}

#[test]
fn best_is_strict_and_ignores_nan() {
    let recipe = recipe::Callbacks {
        checkpoint: CheckpointRecipe {
            monitor: Monitor::ValAccuracy,
            ..Default::default()
        },
        ..Default::default()
    };
    let mut rules = Rules::new(&recipe, State::default());
    let best: Vec<bool> = [f32::NAN, 0.9, 0.9, 0.91, 0.5, f32::NAN, 0.92]
        .iter()
        .enumerate()
        .map(|(e, &value)| rules.epoch(&log(e + 1, value, 0.001), false).best)
        .collect();
    assert_eq!(best, [false, true, false, true, false, false, true]);
}

#[test]
fn without_a_table_nothing_happens() {
    let recipe = recipe::Callbacks {
        checkpoint: CheckpointRecipe {
            best: false,
            ..Default::default()
        },
        ..Default::default()
    };
    let mut rules = Rules::new(&recipe, State::default());
    for epoch in 1..=30 {
        assert_eq!(
            rules.epoch(&log(epoch, 1.0, 0.001), epoch == 30),
            Control::default()
        );
    }
}
