//! Losses with Keras's formulas: the mean over the batch.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::{log_softmax, sigmoid, softmax};
use verifier::tolerance::argmax;

use crate::{
    architecture::OutputActivation,
    network::{Mode, Network, Parameter},
    ops,
    recipe::LossRecipe,
};

/// Keras's epsilon: probabilities that come from another activation than the loss's own are clipped to `[EPSILON, 1 - EPSILON]`.
const EPSILON: f32 = 1e-7;

/// Scalar loss of logits `[n, classes]` and one-hot targets of the same shape. The output layer's activation is part of it:
///
/// - categorical behind softmax: `-sum_c t_c log softmax(z)_c`, with `t = y (1 - s) + s / classes`;
/// - binary behind sigmoid: `mean_c max(z, 0) - z t + log(1 + exp(-|z|))`, with `t = y (1 - s) + s / 2`;
/// - mean squared error: `mean_c (p_c - y_c)^2`, with `p = activation(z)`.
///
/// Behind another activation the cross-entropies take its outputs `p` for probabilities:
///
/// - categorical: `-sum_c t_c log clip(p_c / sum p)`;
/// - sparse categorical: `-sum_c y_c log(clip(p_c) / sum clip(p))`;
/// - binary: `-mean_c t_c log clip(p_c) + (1 - t_c) log(1 - clip(p_c))`.
///
/// The gradient is 0 where a value is clipped.
///
/// # Errors
/// Those of the tensors' device, and shapes that differ.
pub fn loss(
    recipe: &LossRecipe,
    output: OutputActivation,
    logits: &Tensor,
    one_hot: &Tensor,
) -> Result<Tensor> {
    let classes = logits.dim(D::Minus1)?;
    let behind_softmax = output == OutputActivation::Softmax;
    let smooth = |s: f32, rest: f64| one_hot.affine(1.0 - f64::from(s), f64::from(s) * rest);
    match *recipe {
        LossRecipe::CategoricalCrossentropy { label_smoothing } => {
            let targets = smooth(label_smoothing, 1.0 / classes as f64)?;
            if behind_softmax {
                return softmax_categorical(logits, &targets);
            }
            let p = activate(output, logits)?;
            let p = p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?;
            categorical(&targets, &clip(&p)?.log()?)
        }
        LossRecipe::SparseCategoricalCrossentropy => {
            if behind_softmax {
                return softmax_categorical(logits, one_hot);
            }
            let p = clip(&activate(output, logits)?)?;
            softmax_categorical(&p.log()?, one_hot)
        }
        LossRecipe::BinaryCrossentropy { label_smoothing } => {
            let targets = smooth(label_smoothing, 0.5)?;
            if output == OutputActivation::Sigmoid {
                let tail = logits.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
                return ((logits.relu()? - (logits * targets)?)? + tail)?.mean_all();
            }
            let p = clip(&activate(output, logits)?)?;
            let others = (targets.affine(-1.0, 1.0)? * p.affine(-1.0, 1.0)?.log()?)?;
            ((targets * p.log()?)? + others)?.mean_all()?.neg()
        }
        LossRecipe::MeanSquaredError => (activate(output, logits)? - one_hot)?.sqr()?.mean_all(),
    }
}

/// `-sum_c t_c log p_c`, the mean over the rows.
fn categorical(targets: &Tensor, log_probabilities: &Tensor) -> Result<Tensor> {
    (targets * log_probabilities)?
        .sum(D::Minus1)?
        .mean_all()?
        .neg()
}

/// [`categorical`] of softmax's probabilities.
fn softmax_categorical(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    if logits.device().is_cpu() && logits.rank() == 2 {
        let operator = ops::cross_entropy::operator();
        return logits
            .contiguous()?
            .apply_op2(&targets.contiguous()?, operator);
    }
    categorical(targets, &log_softmax(logits, D::Minus1)?)
}

/// Outputs of the last layer.
fn activate(output: OutputActivation, logits: &Tensor) -> Result<Tensor> {
    match output {
        OutputActivation::Softmax => softmax(logits, D::Minus1),
        OutputActivation::Sigmoid => sigmoid(logits),
        OutputActivation::Linear => Ok(logits.clone()),
    }
}

/// Keras's clip of probabilities.
fn clip(probabilities: &Tensor) -> Result<Tensor> {
    probabilities.clamp(EPSILON, 1.0 - EPSILON)
}

/// Logits of preprocessed images ([`Network::images`]), and their loss without penalties.
///
/// # Errors
/// Those of the tensors' device.
pub fn logits_and_loss(
    recipe: &LossRecipe,
    network: &Network,
    images: &Tensor,
    labels: &[u32],
    mode: Mode,
) -> Result<(Tensor, Tensor)> {
    let architecture = network.architecture();
    let logits = network.forward(images, mode)?;
    let targets = one_hot(labels, architecture.classes(), network.device())?;
    let loss = loss(recipe, architecture.output, &logits, &targets)?;
    Ok((logits, loss))
}

/// The same with the penalties: what a training step descends.
///
/// # Errors
/// Those of the tensors' device.
pub fn logits_and_objective(
    recipe: &LossRecipe,
    network: &Network,
    images: &Tensor,
    labels: &[u32],
    mode: Mode,
) -> Result<(Tensor, Tensor)> {
    let (logits, loss) = logits_and_loss(recipe, network, images, labels, mode)?;
    let objective = match penalty(network.parameters())? {
        Some(penalty) => (loss + penalty)?,
        None => loss,
    };
    Ok((logits, objective))
}

/// `[n, classes]` with 1 at the label.
///
/// # Errors
/// Those of the tensors' device.
pub fn one_hot(labels: &[u32], classes: usize, device: &candle_core::Device) -> Result<Tensor> {
    let mut values = vec![0f32; labels.len() * classes];
    for (row, &label) in values.chunks_exact_mut(classes).zip(labels) {
        if let Some(value) = row.get_mut(label as usize) {
            *value = 1.0;
        }
    }
    Tensor::from_vec(values, (labels.len(), classes), device)
}

/// Sum of all penalties `l1 * sum|w| + l2 * sum w^2`; none: `None`.
///
/// # Errors
/// Those of the tensors' device.
pub fn penalty(parameters: &[Parameter]) -> Result<Option<Tensor>> {
    let mut sum: Option<Tensor> = None;
    for parameter in parameters {
        let (l1, l2) = (parameter.regularizer.l1, parameter.regularizer.l2);
        if (l1, l2) == (0.0, 0.0) {
            continue;
        }
        let w = parameter.var.as_tensor();
        let term = if w.device().is_cpu() {
            w.apply_op1(ops::penalty::operator(parameter.regularizer))?
        } else {
            // candle's gradient of |w| is 1 at 0, Keras's is 0: a weight at 0 stays there
            let absolute = (w * w.sign()?.detach())?.sum_all()?;
            (absolute.affine(f64::from(l1), 0.0)?
                + w.sqr()?.sum_all()?.affine(f64::from(l2), 0.0)?)?
        };
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    Ok(sum)
}

/// Number of rows whose largest logit (ties: the lowest index) is the label.
///
/// # Errors
/// Those of the tensors' device.
pub fn correct(logits: &Tensor, labels: &[u32]) -> Result<usize> {
    let classes = logits.dim(D::Minus1)?;
    let values: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(values
        .chunks_exact(classes.max(1))
        .zip(labels)
        .filter(|&(row, &label)| argmax(row) == label as usize)
        .count())
}
