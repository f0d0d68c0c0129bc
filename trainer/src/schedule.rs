//! Learning rate as a pure function of the step: Keras's schedules, and PyTorch's one-cycle.
//!
//! Step 0 is the first update. The hyper-parameters are f32, as in Keras; the arithmetic is f64 (the cosine itself
//! f32) and is rounded once.

use std::f32::consts::PI;

use crate::recipe::ScheduleRecipe;

/// A schedule with everything that it depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    recipe: ScheduleRecipe,
    initial: f64,
    total_steps: u64,
}

impl Schedule {
    /// `initial` is the optimizer's learning rate, `total_steps` the length of the run in updates.
    pub fn new(recipe: &ScheduleRecipe, initial: f32, total_steps: u64) -> Self {
        Self {
            recipe: recipe.clone(),
            initial: f64::from(initial),
            total_steps,
        }
    }

    /// Learning rate of the update with this number.
    pub fn learning_rate(&self, step: u64) -> f32 {
        let initial = self.initial;
        let s = step as f64;
        let rate = match &self.recipe {
            ScheduleRecipe::Constant => initial,
            ScheduleRecipe::InverseTime {
                decay_steps,
                decay_rate,
                staircase,
            } => initial / (1.0 + f64::from(*decay_rate) * progress(s, *decay_steps, *staircase)),
            ScheduleRecipe::Exponential {
                decay_steps,
                decay_rate,
                staircase,
            } => initial * f64::from(*decay_rate).powf(progress(s, *decay_steps, *staircase)),
            ScheduleRecipe::Piecewise { boundaries, values } => {
                let place = boundaries.partition_point(|&boundary| boundary < step);
                f64::from(values.get(place).or(values.last()).copied().unwrap_or(0.0))
            }
            ScheduleRecipe::Polynomial {
                decay_steps,
                end_learning_rate,
                power,
                cycle,
            } => {
                let end = f64::from(*end_learning_rate);
                let length = f64::from(*decay_steps);
                let (s, length) = if *cycle {
                    (s, length * (s / length).ceil().max(1.0))
                } else {
                    (s.min(length), length)
                };
                (initial - end) * (1.0 - s / length).powf(f64::from(*power)) + end
            }
            ScheduleRecipe::Cosine {
                decay_steps,
                alpha,
                warmup_target,
                warmup_steps,
            } => {
                let warmup = if warmup_target.is_some() {
                    *warmup_steps
                } else {
                    0
                };
                let peak = warmup_target.map_or(initial, f64::from);
                if step < warmup {
                    initial + (peak - initial) * s / warmup as f64
                } else {
                    let length = decay_steps
                        .unwrap_or(self.total_steps.saturating_sub(warmup))
                        .max(1) as f64;
                    let done = (s - warmup as f64).min(length) / length;
                    let alpha = f64::from(*alpha);
                    peak * ((1.0 - alpha) * cosine(done) + alpha)
                }
            }
            ScheduleRecipe::CosineRestarts {
                first_decay_steps,
                t_mul,
                m_mul,
                alpha,
            } => {
                let (cycle, done) = restart(s / *first_decay_steps as f64, f64::from(*t_mul));
                let alpha = f64::from(*alpha);
                let peak = f64::from(*m_mul).powf(cycle);
                initial * ((1.0 - alpha) * peak * cosine(done) + alpha)
            }
            ScheduleRecipe::OneCycle {
                pct_start,
                div_factor,
                final_div_factor,
                total_steps,
            } => {
                let total = total_steps.unwrap_or(self.total_steps) as f64;
                let first = initial / f64::from(*div_factor);
                let last = first / f64::from(*final_div_factor);
                let top = (f64::from(*pct_start) * total - 1.0).max(0.0);
                let end = (total - 1.0).max(top + 1.0);
                let s = s.min(end);
                if s <= top {
                    anneal(first, initial, if top > 0.0 { s / top } else { 1.0 })
                } else {
                    anneal(initial, last, (s - top) / (end - top))
                }
            }
        };
        rate as f32
    }
}

fn progress(step: f64, decay_steps: f32, staircase: bool) -> f64 {
    let progress = step / f64::from(decay_steps);
    if staircase {
        progress.floor()
    } else {
        progress
    }
}

/// From 1 at 0 down to 0 at 1. In f32, as in Keras: near the end the rounding of `1 + cos` is all that differs.
fn cosine(done: f64) -> f64 {
    f64::from(0.5 * (1.0 + (PI * done as f32).cos()))
}

fn anneal(from: f64, to: f64, done: f64) -> f64 {
    to + (from - to) * cosine(done)
}

/// Number of the cycle and the part of it that is done; `completed` is in units of the first cycle.
fn restart(completed: f64, t_mul: f64) -> (f64, f64) {
    if t_mul == 1.0 {
        return (completed.floor(), completed.fract());
    }
    let cycle = ((1.0 - completed * (1.0 - t_mul)).ln() / t_mul.ln()).floor();
    let start = (1.0 - t_mul.powf(cycle)) / (1.0 - t_mul);
    (cycle, (completed - start) / t_mul.powf(cycle))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch's OneCycleLR, 10 steps, maximum 1, pct_start 0.3: phases end at steps 2 and 9.
    #[test]
    fn one_cycle_rises_to_the_maximum_and_falls() {
        let recipe = ScheduleRecipe::OneCycle {
            pct_start: 0.3,
            div_factor: 25.0,
            final_div_factor: 1e4,
            total_steps: Some(10),
        };
        let schedule = Schedule::new(&recipe, 1.0, 0);
        for (step, expected) in [(0, 0.04), (1, 0.52), (2, 1.0), (9, 4e-6), (50, 4e-6)] {
            let got = schedule.learning_rate(step);
            assert!(
                (got - expected).abs() < 1e-6,
                "step {step}: {got}, expected {expected}"
            );
        }
    }

    #[test]
    fn cosine_lasts_for_the_run_by_default() {
        let recipe = ScheduleRecipe::Cosine {
            decay_steps: None,
            alpha: 0.0,
            warmup_target: None,
            warmup_steps: 0,
        };
        let schedule = Schedule::new(&recipe, 0.5, 100);
        assert_eq!(schedule.learning_rate(0), 0.5);
        assert!((schedule.learning_rate(50) - 0.25).abs() < 1e-7);
        assert_eq!(schedule.learning_rate(100), 0.0);
    }
}
