//! Quantization-aware fine-tuning: training goes on while the forward pass rounds weights and activations as the integer
//! network will, and the gradients pass the rounding unchanged (straight-through estimator).

use std::collections::BTreeMap;

use candle_core::Device;

use crate::{
    architecture::{Architecture, LayerKind},
    batch::{Batch, Batches},
    dataset::Labelled,
    loss,
    network::{Mode, Network},
    ops::fake_quantize::Grid,
    optimizer::Optimizer,
    preprocess::Preprocess,
    quantize::{
        NodeScale, QuantizeError,
        graph::{self, Graph, NodeKind, Operand, Tap},
        scale,
    },
    recipe::{OptimizerRecipe, Recipe, ScheduleRecipe},
    schedule::Schedule,
    weights::Weights,
};

/// Why a fine-tuning stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QatError {
    /// The tensors' device.
    #[error("quantization-aware training: {0}")]
    Device(#[from] candle_core::Error),
    /// The network cannot be quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The loss is no number any more.
    #[error(
        "quantization-aware training, step {step}: the loss is {loss}; try a smaller quantize.qat_learning_rate"
    )]
    NotFinite {
        /// Step of the fine-tuning, from 0.
        step: u64,
        /// What it was.
        loss: f32,
    },
}

/// Trains `recipe.quantize.qat_epochs` more epochs with Adam, its learning rate going from `qat_learning_rate` to 0 in a
/// cosine, at these activation scales. Batches, distortions and dropout go on where the training ended. Calls `progress` with
/// the number of images done so far.
///
/// # Errors
/// [`QatError`].
pub fn tune(
    recipe: &Recipe,
    architecture: &Architecture,
    weights: &Weights,
    preprocess: &Preprocess,
    scales: &[NodeScale],
    data: &Labelled,
    progress: &mut dyn FnMut(usize),
) -> Result<Weights, QatError> {
    let train = &recipe.train;
    let (epochs, seed) = (recipe.quantize.qat_epochs as u64, train.seed);
    let steps_per_epoch = data.len().div_ceil(train.batch) as u64;
    let earlier_epochs = train.epochs as u64;
    let adam = OptimizerRecipe::Adam {
        learning_rate: recipe.quantize.qat_learning_rate,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-7,
        amsgrad: false,
    };
    let cosine = ScheduleRecipe::Cosine {
        decay_steps: None,
        alpha: 0.0,
        warmup_target: None,
        warmup_steps: 0,
    };
    let schedule = Schedule::new(&cosine, adam.learning_rate(), epochs * steps_per_epoch);
    let mut optimizer = Optimizer::new(adam, train.clip);

    let graph = graph::build(architecture, preprocess, weights)?;
    let rounding = Rounding::new(architecture, preprocess, &graph, scales);
    let network = Network::new(architecture, weights, &Device::Cpu)?
        .with_fake_quantization(rounding.outputs.clone());
    let mut weights = weights.clone();
    let mut done = 0;
    for epoch in 0..epochs {
        let steps = rounding.weight_steps(&weights);
        let number = earlier_epochs + epoch;
        let batches = Batches::shuffled(data, preprocess, train.batch, seed, number).augmented(
            &recipe.data.augment,
            seed,
            number,
        );
        for batch in batches {
            let step = optimizer.iterations();
            network.set_weights(&steps.rounded(&weights))?;
            let mode = Mode::Train {
                seed,
                step: earlier_epochs * steps_per_epoch + step,
            };
            let images = batch.n;
            let (loss, gradients) = gradients(recipe, &network, &rounding, batch, mode)?;
            if !loss.is_finite() {
                return Err(QatError::NotFinite { step, loss });
            }
            let mut values = BTreeMap::new();
            for name in gradients.keys() {
                if let Some(array) = weights.0.get_mut(name) {
                    values.insert(name.clone(), std::mem::take(&mut array.data));
                }
            }
            let Ok(()) = optimizer.step(&mut values, &gradients, schedule.learning_rate(step));
            keep_statistics(&network, &mut weights)?;
            for (name, data) in values {
                if let Some(array) = weights.0.get_mut(&name) {
                    array.data = data;
                }
            }
            done += images;
            progress(done);
        }
    }
    Ok(weights)
}

/// Loss with penalties, and its gradients by parameter.
fn gradients(
    recipe: &Recipe,
    network: &Network,
    rounding: &Rounding,
    mut batch: Batch,
    mode: Mode,
) -> Result<(f32, BTreeMap<String, Vec<f32>>), QatError> {
    if let Some(grid) = rounding.input {
        grid.apply(&mut batch.x);
    }
    let images = network.images(batch.x)?;
    let (_, loss) =
        loss::logits_and_objective(&recipe.train.loss, network, &images, &batch.labels, mode)?;
    let store = network.gradients(&loss)?;
    let mut gradients = BTreeMap::new();
    for parameter in network.parameters() {
        if let Some(gradient) = store.get(&parameter.var) {
            gradients.insert(parameter.name.clone(), gradient.flatten_all()?.to_vec1()?);
        }
    }
    Ok((loss.to_scalar()?, gradients))
}

/// Takes over the moving statistics of the batch norms that could not be folded.
fn keep_statistics(network: &Network, weights: &mut Weights) -> Result<(), QatError> {
    let layers = &network.architecture().layers;
    if layers
        .iter()
        .any(|layer| matches!(layer.kind, LayerKind::BatchNorm { .. }))
    {
        let moved = network.weights()?.0;
        let moved = moved
            .into_iter()
            .filter(|(name, _)| name.contains(".moving_"));
        weights.0.extend(moved);
    }
    Ok(())
}

/// Where the integer network rounds.
#[derive(Clone, Debug)]
pub struct Rounding {
    /// The preprocessed image, if it becomes a tensor of its own.
    pub input: Option<Grid>,
    /// Every layer's output.
    pub outputs: Vec<Option<Grid>>,
    /// Kernels and what the integer network multiplies them with first, because preprocessing is folded into them.
    kernels: Vec<(String, f64)>,
}

impl Rounding {
    /// Of the integer network that `graph` becomes at these scales.
    pub fn new(
        architecture: &Architecture,
        preprocess: &Preprocess,
        graph: &Graph,
        scales: &[NodeScale],
    ) -> Self {
        let mut rounding = Self {
            input: None,
            outputs: vec![None; architecture.layers.len()],
            kernels: Vec::new(),
        };
        // The last node stores its accumulators as they are.
        let inner = graph.nodes.len().saturating_sub(1);
        for (node, scale) in graph.nodes.iter().zip(scales).take(inner) {
            let grid = Grid::new(scale.exponent, scale::limits(scale.dtype));
            match node.result {
                Tap::Input => rounding.input = Some(grid),
                Tap::Output(layer) => rounding.outputs[layer] = Some(grid),
                Tap::PreActivation(_) => {}
            }
        }
        for node in &graph.nodes {
            if let NodeKind::Conv { .. } | NodeKind::Dense { .. } = node.kind {
                let folded = node.inputs.contains(&Operand::Image);
                let factor = graph::preprocess::affine(preprocess).filter(|_| folded);
                let factor = factor.map_or(1.0, |(mul, _)| mul[0]);
                rounding
                    .kernels
                    .push((format!("{}.kernel", node.layer), factor));
            }
        }
        rounding
    }

    /// The weights with their kernels rounded as the quantizer rounds them.
    pub fn weights(&self, weights: &Weights) -> Weights {
        self.weight_steps(weights).rounded(weights)
    }

    /// The steps of the kernels' grids, one per output channel.
    fn weight_steps(&self, weights: &Weights) -> WeightSteps {
        let steps = self.kernels.iter().filter_map(|(name, factor)| {
            let kernel = weights.0.get(name)?;
            let channels = *kernel.shape.last()?;
            let step = |c: usize| {
                let column = kernel.data.iter().skip(c).step_by(channels);
                let column: Vec<f64> = column.map(|&w| f64::from(w) * factor).collect();
                let exponent = scale::weight_exponent(&column).unwrap_or(0);
                (scale::pow2(exponent) / factor) as f32
            };
            Some((name.clone(), (0..channels).map(step).collect()))
        });
        WeightSteps(steps.collect())
    }
}

/// By kernel, for every output channel.
struct WeightSteps(BTreeMap<String, Vec<f32>>);

impl WeightSteps {
    /// The weights with their kernels rounded to -127..=127 steps.
    fn rounded(&self, weights: &Weights) -> Weights {
        let mut rounded = weights.clone();
        for (name, steps) in &self.0 {
            let Some(kernel) = rounded.0.get_mut(name) else {
                continue;
            };
            for row in kernel.data.chunks_mut(steps.len()) {
                for (weight, step) in row.iter_mut().zip(steps) {
                    *weight = (*weight / step).round_ties_even().clamp(-127.0, 127.0) * step;
                }
            }
        }
        rounded
    }
}
