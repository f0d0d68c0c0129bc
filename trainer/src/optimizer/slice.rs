//! The update rule in place, for values in memory.
//!
//! What is too small to matter becomes 0: weights and gradients whose square is below the smallest normal number, and slots below
//! that number themselves. Averages of a gradient that stays 0 decay to subnormal numbers, and weights that only a penalty moves have
//! subnormal squares; processors compute with those ten to a hundred times more slowly, for the rest of the training.

use std::convert::Infallible;

use rayon::prelude::*;

use super::{
    rule::{self, Moment, Slots},
    value::Value,
};
use crate::{
    ops::kernel::{self, Level},
    recipe::OptimizerRecipe,
};

/// Values that one task updates.
const TASK: usize = 1 << 14;
/// Values that one call of the rule updates: a whole number of vectors of every instruction set.
const LANES: usize = 16;

/// Applies the rule to all values of a weight. Slots that the rule does not use stay as they are.
///
/// # Panics
/// If there are not three slots, or a slice has another length than `w`.
pub fn update(
    recipe: &OptimizerRecipe,
    moment: Moment,
    w: &mut [f32],
    gradient: &[f32],
    slots: &mut [&mut [f32]],
) {
    let [first, second, third] = slots else {
        panic!("three slots");
    };
    for len in [gradient.len(), first.len(), second.len(), third.len()] {
        assert_eq!(len, w.len(), "as many values as the weight");
    }
    let slots = first
        .par_chunks_mut(TASK)
        .zip(second.par_chunks_mut(TASK))
        .zip(third.par_chunks_mut(TASK));
    w.par_chunks_mut(TASK)
        .zip(gradient.par_chunks(TASK))
        .zip(slots)
        .for_each(|((w, gradient), ((first, second), third))| {
            kernel::compiled(Level::detect(), || {
                task(recipe, moment, w, gradient, [first, second, third]);
            });
        });
}

#[inline(always)]
fn task(
    recipe: &OptimizerRecipe,
    moment: Moment,
    w: &mut [f32],
    gradient: &[f32],
    mut slots: [&mut [f32]; 3],
) {
    let used = rule::slot_names(recipe).len();
    let whole = w.len() - w.len() % LANES;
    for at in (0..whole).step_by(LANES) {
        let mut local: Slots<Lanes> = [Lanes([0.0; LANES]); 3];
        for (local, slot) in local.iter_mut().zip(&slots).take(used) {
            *local = Lanes::load(&slot[at..]);
        }
        let old = Lanes::load(&w[at..]);
        let gradient = Lanes(Lanes::load(&gradient[at..]).0.map(with_square));
        let Ok(new) = rule::update(recipe, moment, &old, &gradient, &mut local);
        w[at..at + LANES].copy_from_slice(&new.0.map(with_square));
        for (local, slot) in local.iter().zip(&mut slots).take(used) {
            slot[at..at + LANES].copy_from_slice(&local.0.map(normal));
        }
    }
    for at in whole..w.len() {
        let mut local = slots.each_ref().map(|slot| slot[at]);
        let gradient = with_square(gradient[at]);
        let Ok(new) = rule::update(recipe, moment, &w[at], &gradient, &mut local);
        w[at] = with_square(new);
        for (local, slot) in local.into_iter().zip(&mut slots).take(used) {
            slot[at] = normal(local);
        }
    }
}

/// The value, or 0 if it is subnormal.
#[inline(always)]
fn normal(value: f32) -> f32 {
    at_least(f32::MIN_POSITIVE, value)
}

/// The value, or 0 if its square is subnormal.
#[inline(always)]
fn with_square(value: f32) -> f32 {
    /// 2^-63, the square root of the smallest normal number.
    const ROOT: f32 = 1.0 / (1u64 << 63) as f32;
    at_least(ROOT, value)
}

#[inline(always)]
fn at_least(smallest: f32, value: f32) -> f32 {
    if value.abs() < smallest { 0.0 } else { value }
}

/// Some values side by side.
#[derive(Clone, Copy)]
struct Lanes([f32; LANES]);

impl Lanes {
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        Self(std::array::from_fn(|i| from[i]))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Result<Self, Infallible> {
        Ok(Self(self.0.map(f)))
    }

    #[inline(always)]
    fn with(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Result<Self, Infallible> {
        Ok(Self(std::array::from_fn(|i| f(self.0[i], other.0[i]))))
    }
}

impl Value for Lanes {
    type Error = Infallible;

    #[inline(always)]
    fn add(&self, other: &Self) -> Result<Self, Infallible> {
        self.with(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(&self, other: &Self) -> Result<Self, Infallible> {
        self.with(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(&self, other: &Self) -> Result<Self, Infallible> {
        self.with(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(&self, other: &Self) -> Result<Self, Infallible> {
        self.with(other, |a, b| a / b)
    }
    #[inline(always)]
    fn maximum(&self, other: &Self) -> Result<Self, Infallible> {
        self.with(other, f32::max)
    }
    #[inline(always)]
    fn affine(&self, factor: f32, offset: f32) -> Result<Self, Infallible> {
        self.map(|a| a * factor + offset)
    }
    #[inline(always)]
    fn sqrt(&self) -> Result<Self, Infallible> {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn abs(&self) -> Result<Self, Infallible> {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn sign(&self) -> Result<Self, Infallible> {
        self.map(|a| if a == 0.0 { 0.0 } else { a.signum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decays_ends_at_zero() {
        let recipe: OptimizerRecipe =
            toml::from_str("type = 'rmsprop'\nmomentum = 0.9").expect("a recipe");
        let moment = Moment {
            learning_rate: 0.001,
            t: 1,
            u_product: 1.0,
        };
        // more than whole vectors, so that both loops run
        let mut w = [0.0f32; LANES + 3];
        w[0] = 1e-20;
        w[1] = 0.5;
        let mut slots = [[1e-37f32; LANES + 3], [1e-37; LANES + 3], [0.0; LANES + 3]];
        slots[1][0] = 0.0;
        let [first, second, third] = &mut slots;
        let mut slots = [&mut first[..], &mut second[..], &mut third[..]];
        let gradient = [0.0; LANES + 3];
        for _ in 0..30 {
            update(&recipe, moment, &mut w, &gradient, &mut slots);
        }
        assert_eq!(w[..2], [0.0, 0.5]);
        for slot in slots {
            assert!(slot.iter().all(|&value| value == 0.0), "{slot:?}");
        }
    }
}
