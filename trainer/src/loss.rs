//! Losses from logits, with Keras's formulas: the mean over the batch.

use candle_core::{D, DType, Result, Tensor};
use verifier::tolerance::argmax;

use crate::{
    architecture::OutputActivation,
    batch::Batch,
    network::{Mode, Network, Parameter},
    ops,
    recipe::LossRecipe,
};

/// Scalar loss of logits `[n, classes]` and one-hot targets of the same shape. The output layer's activation is part of it:
///
/// - categorical: `-sum_c t_c log softmax(z)_c`, with `t = y (1 - s) + s / classes`;
/// - binary: `mean_c max(z, 0) - z t + log(1 + exp(-|z|))`, with `t = y (1 - s) + s / 2`;
/// - mean squared error: `mean_c (activation(z) - y)^2`.
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
    match *recipe {
        LossRecipe::CategoricalCrossentropy { label_smoothing: s } => {
            let targets = one_hot.affine(1.0 - f64::from(s), f64::from(s) / classes as f64)?;
            let log_probabilities = candle_nn::ops::log_softmax(logits, D::Minus1)?;
            (targets * log_probabilities)?
                .sum(D::Minus1)?
                .mean_all()?
                .neg()
        }
        LossRecipe::BinaryCrossentropy { label_smoothing: s } => {
            let targets = one_hot.affine(1.0 - f64::from(s), 0.5 * f64::from(s))?;
            let tail = logits.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
            ((logits.relu()? - (logits * targets)?)? + tail)?.mean_all()
        }
        LossRecipe::MeanSquaredError => {
            let outputs = match output {
                OutputActivation::Softmax => candle_nn::ops::softmax(logits, D::Minus1)?,
                OutputActivation::Sigmoid => candle_nn::ops::sigmoid(logits)?,
                OutputActivation::Linear => logits.clone(),
            };
            (outputs - one_hot)?.sqr()?.mean_all()
        }
    }
}

/// Logits of preprocessed images, and their loss without penalties.
///
/// # Errors
/// Those of the tensors' device.
pub fn logits_and_loss(
    recipe: &LossRecipe,
    network: &Network,
    batch: &Batch,
    mode: Mode,
) -> Result<(Tensor, Tensor)> {
    let architecture = network.architecture();
    let logits = network.forward(&network.images(batch)?, mode)?;
    let targets = one_hot(&batch.labels, architecture.classes(), network.device())?;
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
    batch: &Batch,
    mode: Mode,
) -> Result<(Tensor, Tensor)> {
    let (logits, loss) = logits_and_loss(recipe, network, batch, mode)?;
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
    let rows: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
    Ok(rows
        .iter()
        .zip(labels)
        .filter(|&(row, &label)| argmax(row) == label as usize)
        .count())
}
