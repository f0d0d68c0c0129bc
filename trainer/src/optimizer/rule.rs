//! Keras's update rules. Each formula exists once, for f32 and for tensors.

use super::value::Value;
use crate::recipe::OptimizerRecipe;

/// Slots of one weight; a rule uses the first [`slot_names`]`.len()` of them.
pub type Slots<T> = [T; 3];

/// What changes from step to step, the same for all weights.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Learning rate.
    pub learning_rate: f32,
    /// Number of the update, from 1.
    pub t: i32,
    /// Nadam: product of its momentum schedule before this step; 1 at the start.
    pub u_product: f32,
}

/// Names of the slots, as Keras calls them.
pub fn slot_names(recipe: &OptimizerRecipe) -> &'static [&'static str] {
    match *recipe {
        OptimizerRecipe::Sgd { momentum: 0.0, .. } => &[],
        OptimizerRecipe::Sgd { .. } | OptimizerRecipe::Lion { .. } => &["momentum"],
        OptimizerRecipe::Rmsprop {
            momentum, centered, ..
        } => match (momentum > 0.0, centered) {
            (false, false) => &["velocity"],
            (true, false) => &["velocity", "momentum"],
            (_, true) => &["velocity", "momentum", "average_gradient"],
        },
        OptimizerRecipe::Adam { amsgrad, .. } | OptimizerRecipe::Adamw { amsgrad, .. } => {
            if amsgrad {
                &["momentum", "velocity", "velocity_hat"]
            } else {
                &["momentum", "velocity"]
            }
        }
        OptimizerRecipe::Nadam { .. } => &["momentum", "velocity"],
        OptimizerRecipe::Adamax { .. } => &["momentum", "norm"],
        OptimizerRecipe::Adagrad { .. } => &["accumulator"],
    }
}

/// Value of the slots before the first step.
pub fn initial_slot(recipe: &OptimizerRecipe) -> f32 {
    match *recipe {
        OptimizerRecipe::Adagrad {
            initial_accumulator_value,
            ..
        } => initial_accumulator_value,
        _ => 0.0,
    }
}

/// Nadam's momentum at update `t`.
pub fn nadam_momentum(beta_1: f32, t: i32) -> f32 {
    beta_1 * (1.0 - 0.5 * 0.96f32.powi(t))
}

/// The weight after the update; the slots are updated in place.
#[inline(always)]
pub fn update<T: Value>(
    recipe: &OptimizerRecipe,
    moment: Moment,
    w: &T,
    g: &T,
    slots: &mut Slots<T>,
) -> Result<T, T::Error> {
    let Moment {
        learning_rate: lr,
        t,
        u_product,
    } = moment;
    let [first, second, third] = slots;
    match *recipe {
        OptimizerRecipe::Sgd { momentum: 0.0, .. } => w.sub(&g.affine(lr, 0.0)?),
        OptimizerRecipe::Sgd {
            momentum, nesterov, ..
        } => {
            let step = g.affine(lr, 0.0)?;
            *first = first.affine(momentum, 0.0)?.sub(&step)?;
            if nesterov {
                w.add(&first.affine(momentum, 0.0)?.sub(&step)?)
            } else {
                w.add(first)
            }
        }
        OptimizerRecipe::Rmsprop {
            rho,
            momentum,
            epsilon,
            centered,
            ..
        } => {
            *first = average(first, &g.mul(g)?, rho)?;
            let mut variance = first.clone();
            if centered {
                *third = average(third, g, rho)?;
                variance = variance.sub(&third.mul(third)?)?;
            }
            let step = g
                .affine(lr, 0.0)?
                .div(&variance.affine(1.0, epsilon)?.sqrt()?)?;
            if momentum > 0.0 {
                *second = second.affine(momentum, 0.0)?.add(&step)?;
                w.sub(second)
            } else {
                w.sub(&step)
            }
        }
        OptimizerRecipe::Adam {
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
            ..
        } => adam(
            w,
            g,
            [first, second, third],
            (lr, t),
            (beta_1, beta_2),
            epsilon,
            amsgrad,
        ),
        OptimizerRecipe::Adamw {
            weight_decay,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
            ..
        } => {
            let w = w.sub(&w.affine(weight_decay, 0.0)?.affine(lr, 0.0)?)?;
            adam(
                &w,
                g,
                [first, second, third],
                (lr, t),
                (beta_1, beta_2),
                epsilon,
                amsgrad,
            )
        }
        OptimizerRecipe::Nadam {
            beta_1,
            beta_2,
            epsilon,
            ..
        } => {
            let now = nadam_momentum(beta_1, t);
            let next = nadam_momentum(beta_1, t + 1);
            let product = u_product * now;
            *first = toward(first, g, beta_1)?;
            *second = toward(second, &g.mul(g)?, beta_2)?;
            let mean = first
                .affine(next / (1.0 - product * next), 0.0)?
                .add(&g.affine((1.0 - now) / (1.0 - product), 0.0)?)?;
            let scale = second
                .affine(1.0 / (1.0 - beta_2.powi(t)), 0.0)?
                .sqrt()?
                .affine(1.0, epsilon)?;
            w.sub(&mean.affine(lr, 0.0)?.div(&scale)?)
        }
        OptimizerRecipe::Adamax {
            beta_1,
            beta_2,
            epsilon,
            ..
        } => {
            *first = toward(first, g, beta_1)?;
            *second = second.affine(beta_2, 0.0)?.maximum(&g.abs()?)?;
            let scale = second
                .affine(1.0, epsilon)?
                .affine(1.0 - beta_1.powi(t), 0.0)?;
            w.sub(&first.affine(lr, 0.0)?.div(&scale)?)
        }
        OptimizerRecipe::Adagrad { epsilon, .. } => {
            *first = first.add(&g.mul(g)?)?;
            w.sub(
                &g.affine(lr, 0.0)?
                    .div(&first.affine(1.0, epsilon)?.sqrt()?)?,
            )
        }
        OptimizerRecipe::Lion { beta_1, beta_2, .. } => {
            let direction = average(first, g, beta_1)?.sign()?;
            *first = average(first, g, beta_2)?;
            w.sub(&direction.affine(lr, 0.0)?)
        }
    }
}

#[inline(always)]
fn adam<T: Value>(
    w: &T,
    g: &T,
    [mean, variance, maximum]: [&mut T; 3],
    (lr, t): (f32, i32),
    (beta_1, beta_2): (f32, f32),
    epsilon: f32,
    amsgrad: bool,
) -> Result<T, T::Error> {
    let alpha = lr * (1.0 - beta_2.powi(t)).sqrt() / (1.0 - beta_1.powi(t));
    *mean = toward(mean, g, beta_1)?;
    *variance = toward(variance, &g.mul(g)?, beta_2)?;
    let variance = if amsgrad {
        *maximum = maximum.maximum(variance)?;
        maximum
    } else {
        variance
    };
    w.sub(
        &mean
            .affine(alpha, 0.0)?
            .div(&variance.sqrt()?.affine(1.0, epsilon)?)?,
    )
}

/// `rate * old + (1 - rate) * new`.
#[inline(always)]
fn average<T: Value>(old: &T, new: &T, rate: f32) -> Result<T, T::Error> {
    old.affine(rate, 0.0)?.add(&new.affine(1.0 - rate, 0.0)?)
}

/// `old + (new - old) * (1 - rate)`.
#[inline(always)]
fn toward<T: Value>(old: &T, new: &T, rate: f32) -> Result<T, T::Error> {
    old.add(&new.sub(old)?.affine(1.0 - rate, 0.0)?)
}
