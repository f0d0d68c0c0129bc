//! Exponential moving average of the trainable weights, as Keras's `use_ema`: it starts as the weights after the first
//! update; from then on `average = momentum * average + (1 - momentum) * weight` after every update. f32.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};

use crate::network::Parameter;

/// The averaged weights.
#[derive(Clone, Debug)]
pub struct Average {
    momentum: f32,
    /// By the weight's name; empty before the first update.
    values: BTreeMap<String, Tensor>,
}

impl Average {
    /// Before the first update, or with the averages of a checkpoint.
    pub fn new(momentum: f32, values: BTreeMap<String, Tensor>) -> Self {
        Self { momentum, values }
    }

    /// The averages by the weights' names; empty before the first update.
    pub fn values(&self) -> &BTreeMap<String, Tensor> {
        &self.values
    }

    /// After an update of the weights.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn update(&mut self, parameters: &[Parameter]) -> Result<()> {
        let old = f64::from(self.momentum);
        let new = f64::from(1.0 - self.momentum);
        for Parameter { name, var, .. } in parameters {
            let weight = var.as_detached_tensor();
            let average = match self.values.get(name) {
                Some(average) => (average.affine(old, 0.0)? + weight.affine(new, 0.0)?)?,
                None => weight.copy()?,
            };
            self.values.insert(name.clone(), average);
        }
        Ok(())
    }

    /// Exchanges weights and averages. Before the first update nothing happens.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn swap(&mut self, parameters: &[Parameter]) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        for Parameter { name, var, .. } in parameters {
            let weight = var.as_detached_tensor().copy()?;
            match self.values.insert(name.clone(), weight) {
                Some(average) => var.set(&average)?,
                None => bail!("the average of `{name}` is missing"),
            }
        }
        Ok(())
    }
}
