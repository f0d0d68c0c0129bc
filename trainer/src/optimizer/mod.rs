//! Keras's optimizers over named weights: clipping, then the update rule.

mod rule;
mod slice;
mod value;

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::{
    ops::storage,
    recipe::{Clip, OptimizerRecipe},
};
pub use value::Value;

use rule::{Moment, Slots};

/// Optimizer with its state. `T` is `Vec<f32>` on the CPU, a candle [`Tensor`] elsewhere.
#[derive(Clone, Debug)]
pub struct Optimizer<T> {
    recipe: OptimizerRecipe,
    clip: Clip,
    step: u64,
    u_product: f32,
    slots: BTreeMap<String, Slots<T>>,
}

/// A weight's values: how one update runs over all of them.
pub trait Values: Sized + Clone {
    /// Never for slices in memory.
    type Error;
    /// Same shape, all `value`.
    fn filled(&self, value: f32) -> Result<Self, Self::Error>;
    /// Sum of squares.
    fn square_sum(&self) -> Result<f64, Self::Error>;
    /// All values times `factor`.
    fn scaled(&self, factor: f32) -> Result<Self, Self::Error>;
    /// All values limited to `-limit..=limit`.
    fn limited(&self, limit: f32) -> Result<Self, Self::Error>;
    /// Applies the update rule. A tensor on the CPU and a variable change in place, with all that share their values.
    fn updated(
        &mut self,
        recipe: &OptimizerRecipe,
        moment: Moment,
        gradient: &Self,
        slots: &mut Slots<Self>,
    ) -> Result<(), Self::Error>;
    /// The values in row-major order.
    fn to_values(&self) -> Result<Vec<f32>, Self::Error>;
    /// Same shape, these values, as many as `self` has.
    fn with_values(&self, values: &[f32]) -> Result<Self, Self::Error>;
    /// Number of values.
    fn count(&self) -> usize;
}

/// What an optimizer remembers between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Updates done.
    pub step: u64,
    /// Nadam: product of its momentum schedule so far; 1 otherwise.
    pub u_product: f32,
    /// By slot (Keras's name) and weight: the values in row-major order. Empty before the first step.
    pub slots: BTreeMap<(String, String), Vec<f32>>,
}

/// Why a state does not fit an optimizer and its weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError<E> {
    /// A slot is not there.
    #[error("the optimizer's `{slot}` of `{weight}` is missing")]
    Missing {
        /// Slot.
        slot: &'static str,
        /// Weight.
        weight: String,
    },
    /// A slot of another weight.
    #[error("the optimizer's `{slot}` of `{weight}` has {got} values, expected {expected}")]
    Length {
        /// Slot.
        slot: &'static str,
        /// Weight.
        weight: String,
        /// Values found.
        got: usize,
        /// Values of the weight.
        expected: usize,
    },
    /// The tensors' device.
    #[error("{0}")]
    Device(E),
}

impl Values for Vec<f32> {
    type Error = std::convert::Infallible;

    fn filled(&self, value: f32) -> Result<Self, Self::Error> {
        Ok(vec![value; self.len()])
    }

    fn square_sum(&self) -> Result<f64, Self::Error> {
        Ok(self.iter().map(|&x| f64::from(x) * f64::from(x)).sum())
    }

    fn scaled(&self, factor: f32) -> Result<Self, Self::Error> {
        Ok(self.iter().map(|x| x * factor).collect())
    }

    fn limited(&self, limit: f32) -> Result<Self, Self::Error> {
        Ok(self.iter().map(|x| x.max(-limit).min(limit)).collect())
    }

    fn updated(
        &mut self,
        recipe: &OptimizerRecipe,
        moment: Moment,
        gradient: &Self,
        slots: &mut Slots<Self>,
    ) -> Result<(), Self::Error> {
        slice::update(
            recipe,
            moment,
            self,
            gradient,
            &mut slots.each_mut().map(Vec::as_mut_slice),
        );
        Ok(())
    }

    fn to_values(&self) -> Result<Vec<f32>, Self::Error> {
        Ok(self.clone())
    }

    fn with_values(&self, values: &[f32]) -> Result<Self, Self::Error> {
        Ok(values.to_vec())
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl Values for Tensor {
    type Error = candle_core::Error;

    fn filled(&self, value: f32) -> Result<Self, Self::Error> {
        Tensor::full(value, self.shape(), self.device())
    }

    fn square_sum(&self) -> Result<f64, Self::Error> {
        self.sqr()?.sum_all()?.to_scalar::<f32>().map(f64::from)
    }

    fn scaled(&self, factor: f32) -> Result<Self, Self::Error> {
        self.affine(f64::from(factor), 0.0)
    }

    fn limited(&self, limit: f32) -> Result<Self, Self::Error> {
        self.clamp(-limit, limit)
    }

    fn updated(
        &mut self,
        recipe: &OptimizerRecipe,
        moment: Moment,
        gradient: &Self,
        slots: &mut Slots<Self>,
    ) -> Result<(), Self::Error> {
        if self.device().is_cpu() {
            let gradient = gradient.contiguous()?;
            let (gradient, layout) = gradient.storage_and_layout();
            let gradient = storage::on_cpu(&gradient, layout)?;
            let [first, second, third] = &*slots;
            return storage::change(&[self, first, second, third], &mut |mut values| {
                if let [w, slots @ ..] = &mut values[..] {
                    slice::update(recipe, moment, w, gradient, slots);
                }
            });
        }
        let updated = rule::update(recipe, moment, &self.detach(), gradient, slots)?;
        if self.is_variable() {
            return Var::from_tensor(self)?.set(&updated);
        }
        *self = updated;
        Ok(())
    }

    fn to_values(&self) -> Result<Vec<f32>, Self::Error> {
        self.flatten_all()?.to_vec1()
    }

    fn with_values(&self, values: &[f32]) -> Result<Self, Self::Error> {
        Tensor::from_slice(values, self.shape(), self.device())
    }

    fn count(&self) -> usize {
        self.elem_count()
    }
}

impl<T: Values> Optimizer<T> {
    /// At step 0, with empty slots.
    pub fn new(recipe: OptimizerRecipe, clip: Clip) -> Self {
        Self {
            recipe,
            clip,
            step: 0,
            u_product: 1.0,
            slots: BTreeMap::new(),
        }
    }

    /// Number of updates done.
    pub fn iterations(&self) -> u64 {
        self.step
    }

    /// One update of all weights; every weight has a gradient of its shape under the same name.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn step(
        &mut self,
        weights: &mut BTreeMap<String, T>,
        gradients: &BTreeMap<String, T>,
        learning_rate: f32,
    ) -> Result<(), T::Error> {
        let t = i32::try_from(self.step + 1).unwrap_or(i32::MAX);
        let moment = Moment {
            learning_rate,
            t,
            u_product: self.u_product,
        };
        let mut all = 0.0;
        if self.clip.global_norm.is_some() {
            for gradient in gradients.values() {
                all += gradient.square_sum()?;
            }
        }
        for (name, weight) in weights {
            let Some(gradient) = gradients.get(name) else {
                continue;
            };
            let gradient = clipped(&self.clip, gradient, all)?;
            if !self.slots.contains_key(name) {
                let slots = empty_slots(&self.recipe, weight)?;
                self.slots.insert(name.clone(), slots);
            }
            if let Some(slots) = self.slots.get_mut(name) {
                weight.updated(&self.recipe, moment, &gradient, slots)?;
            }
        }
        if let OptimizerRecipe::Nadam { beta_1, .. } = self.recipe {
            self.u_product *= rule::nadam_momentum(beta_1, t);
        }
        self.step += 1;
        Ok(())
    }

    /// What a checkpoint keeps.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn save(&self) -> Result<OptimizerState, T::Error> {
        let mut slots = BTreeMap::new();
        for (weight, slot, values) in self.state() {
            slots.insert((slot.into(), weight.into()), values.to_values()?);
        }
        Ok(OptimizerState {
            step: self.step,
            u_product: self.u_product,
            slots,
        })
    }

    /// Goes back to a saved state; `weights` are all weights with their names.
    ///
    /// # Errors
    /// A slot that is missing or does not have the weight's length, and the errors of the device.
    pub fn load<'a>(
        &mut self,
        state: &OptimizerState,
        weights: impl Iterator<Item = (&'a str, &'a T)>,
    ) -> Result<(), StateError<T::Error>>
    where
        T: 'a,
    {
        self.step = state.step;
        self.u_product = state.u_product;
        self.slots.clear();
        if state.step == 0 {
            return Ok(());
        }
        for (weight, like) in weights {
            let mut slots = empty_slots(&self.recipe, like).map_err(StateError::Device)?;
            for (slot, place) in rule::slot_names(&self.recipe).iter().zip(&mut slots) {
                let key = ((*slot).to_owned(), weight.to_owned());
                let Some(values) = state.slots.get(&key) else {
                    let weight = weight.into();
                    return Err(StateError::Missing { slot, weight });
                };
                if values.len() != like.count() {
                    return Err(StateError::Length {
                        slot,
                        weight: weight.into(),
                        got: values.len(),
                        expected: like.count(),
                    });
                }
                *place = like.with_values(values).map_err(StateError::Device)?;
            }
            self.slots.insert(weight.into(), slots);
        }
        Ok(())
    }

    /// The slots in use: weight's name, slot's name (Keras's), values.
    pub fn state(&self) -> impl Iterator<Item = (&str, &'static str, &T)> {
        let names = rule::slot_names(&self.recipe);
        self.slots.iter().flat_map(move |(weight, slots)| {
            names
                .iter()
                .zip(slots)
                .map(move |(name, values)| (weight.as_str(), *name, values))
        })
    }
}

/// Slots before the first step, each with values of its own.
fn empty_slots<T: Values>(recipe: &OptimizerRecipe, like: &T) -> Result<Slots<T>, T::Error> {
    let empty = || like.filled(rule::initial_slot(recipe));
    Ok([empty()?, empty()?, empty()?])
}

/// The gradient after clipping; `all` is the sum of squares over all gradients.
fn clipped<T: Values>(clip: &Clip, gradient: &T, all: f64) -> Result<T, T::Error> {
    let scale = |limit: f32, squares: f64| limit / (squares.sqrt() as f32).max(limit);
    if let Some(limit) = clip.norm {
        gradient.scaled(scale(limit, gradient.square_sum()?))
    } else if let Some(limit) = clip.global_norm {
        gradient.scaled(scale(limit, all))
    } else if let Some(limit) = clip.value {
        gradient.limited(limit)
    } else {
        Ok(gradient.clone())
    }
}
