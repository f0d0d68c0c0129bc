//! A network that computes: an [`Architecture`] with its weights on a device.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Tensor, TensorId, Var, backprop::GradStore, bail};

use crate::{
    architecture::{
        Activation, Architecture, Layer, LayerKind, Padding, Regularizer, Shape, Source, Window,
    },
    ops::{
        self, activation, batch_norm, composed, conv, dense, dropout,
        fake_quantize::{self, Grid},
        geometry::Geometry,
        grouped,
        kernel::{Level, conv::Plan},
        pool,
        tape::{Gradients, Sum, Tape},
    },
    random::{Purpose, generator},
    weights::{Array, Weights},
};

/// What the forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, which also move the moving ones; dropout drawn from (seed, step, layer).
    Train {
        /// Seed of the run.
        seed: u64,
        /// Number of updates so far.
        step: u64,
    },
    /// Moving statistics, no dropout.
    Infer,
}

/// A weight that the optimizer changes.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// `<layer>.kernel`, `.bias`, `.gamma` or `.beta`.
    pub name: String,
    /// The values; the same variable as the network's.
    pub var: Var,
    /// Penalty; all 0 except for kernels with one.
    pub regularizer: Regularizer,
}

/// What one layer computed, in inference mode.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The layer's name.
    pub name: String,
    /// Before the activation; the same as `output` for layers without one. `[n, h, w, c]`, or `[n, c]` if flat.
    pub pre_activation: Tensor,
    /// After it.
    pub output: Tensor,
}

/// An [`Architecture`] with its weights on a device.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    device: Device,
    /// Instructions of the fused operators.
    level: Level,
    /// Grid of every layer's output; empty without fake quantization.
    grids: Vec<Option<Grid>>,
    /// For every layer its weights, in the order of [`Layer::weight_shapes`].
    weights: Vec<Vec<Var>>,
    parameters: Vec<Parameter>,
    /// Makes the logits part of candle's graph.
    token: Var,
    /// The parameters' gradients of the last backward pass, until [`Network::gradients`] takes them.
    handed_over: Arc<Mutex<Gradients>>,
}

impl Network {
    /// Puts the weights on the device.
    ///
    /// # Errors
    /// If a weight is missing or has another shape, or the device fails.
    pub fn new(architecture: &Architecture, weights: &Weights, device: &Device) -> Result<Self> {
        let mut parameters = Vec::new();
        let mut vars = Vec::new();
        for layer in &architecture.layers {
            let mut layer_vars = Vec::new();
            for (kind, shape) in layer.weight_shapes() {
                let name = format!("{}.{kind}", layer.name);
                let array = find(weights, &name, &shape)?;
                let var = Var::from_slice(&array.data, shape, device)?;
                if !kind.starts_with("moving") {
                    parameters.push(Parameter {
                        name,
                        var: var.clone(),
                        regularizer: regularizer(layer, kind),
                    });
                }
                layer_vars.push(var);
            }
            vars.push(layer_vars);
        }
        Ok(Self {
            architecture: architecture.clone(),
            device: device.clone(),
            level: Level::detect(),
            grids: Vec::new(),
            weights: vars,
            parameters,
            token: Var::zeros(1, DType::F32, device)?,
            handed_over: Arc::default(),
        })
    }

    /// The same network with the fused operators in other instructions than the fastest ones of this machine.
    pub fn with_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// The same network with the outputs of its layers rounded to these grids, one entry per layer; the gradient is that of the
    /// straight-through estimator.
    pub fn with_fake_quantization(self, grids: Vec<Option<Grid>>) -> Self {
        Self { grids, ..self }
    }

    /// What the network computes.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A batch's images ([`crate::batch::Batch::x`]) as a tensor `[n, h, w, c]` on the network's device.
    ///
    /// # Errors
    /// Another number of values than those of whole images, and the errors of the device.
    pub fn images(&self, x: Vec<f32>) -> Result<Tensor> {
        let Shape { h, w, c } = self.architecture.input;
        Tensor::from_vec(x, ((), h, w, c), &Device::Cpu)?.to_device(&self.device)
    }

    /// The weights that the optimizer changes, in layer order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Logits `[n, classes]` of preprocessed images `[n, h, w, c]`; on the CPU by the fused operators. Mode `Infer` leaves
    /// nothing for gradients there.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if !x.device().is_cpu() {
            return self.forward_composed(x, mode);
        }
        let x = x.contiguous()?;
        let mut tape = Tape::new(mode != Mode::Infer);
        // applies what no parameter comes before: it has no gradients
        let mut untaped = Tape::new(false);
        let mut outputs: Vec<Tensor> = Vec::new();
        // whether a gradient is wanted of each output
        let mut trained: Vec<bool> = Vec::new();
        let layers = &self.architecture.layers;
        while let Some(layer) = layers.get(outputs.len()) {
            let index = outputs.len();
            let inputs = layer.inputs.iter().map(|source| match source {
                Source::Input => &x,
                Source::Layer(source) => &outputs[*source],
            });
            let inputs: Vec<&Tensor> = inputs.collect();
            let wanted = layer.inputs.iter().any(|source| match source {
                Source::Input => x.track_op(),
                Source::Layer(source) => trained[*source],
            });
            let any = wanted || !self.weights[index].is_empty();
            let tape = if any { &mut tape } else { &mut untaped };
            let pool = self.pool_of(index);
            let mut y = self.fused_layer(tape, index, &inputs, wanted, pool, mode)?;
            if let Some(grid) = self.grid(index + usize::from(pool.is_some())) {
                y = tape.apply1(fake_quantize::operator(grid), &y)?;
            }
            if pool.is_some() {
                outputs.push(y.clone());
                trained.push(any);
            }
            outputs.push(y);
            trained.push(any);
        }
        let logits = match outputs.pop() {
            Some(y) => {
                if mode == Mode::Infer {
                    recycle(&outputs, &[x.id(), y.id()])?;
                }
                tape.finish(&self.token, &x, &y, &self.handed_over)?
            }
            None => bail!("the network has no layers"),
        };
        let n = x.dim(0)?;
        match layers.last().map(|layer| layer.output) {
            Some(Shape { h, w, c }) if h * w > 1 => logits.reshape((n, h, w, c)),
            _ => logits.reshape((n, ())),
        }
    }

    /// Gradients of a loss made from [`Network::forward`]'s logits, for every parameter. Use it instead of
    /// `loss.backward()`: the fused operators hand their gradients over here, without candle's sums in between.
    pub fn gradients(&self, loss: &Tensor) -> Result<GradStore> {
        self.take_handed_over()?;
        let mut store = loss.backward()?;
        let mut gradients = self.take_handed_over()?;
        for Parameter { var, .. } in &self.parameters {
            let Some(gradient) = gradients.remove(&var.id()) else {
                continue;
            };
            let sum = match store.remove(var) {
                // the loss reads the parameter itself too
                Some(other) => (other + gradient)?,
                None => gradient,
            };
            store.insert(var, sum);
        }
        Ok(store)
    }

    fn take_handed_over(&self) -> Result<Gradients> {
        match self.handed_over.lock() {
            Ok(mut gradients) => Ok(std::mem::take(&mut gradients)),
            Err(_) => bail!("an earlier backward pass panicked"),
        }
    }

    fn grid(&self, layer: usize) -> Option<Grid> {
        self.grids.get(layer).copied().flatten()
    }

    /// The max pooling that can be computed together with the conv layer at `index`: the next layer, if nothing else
    /// reads the conv layer.
    fn pool_of(&self, index: usize) -> Option<Geometry> {
        let layers = &self.architecture.layers;
        let LayerKind::Conv { groups: 1, .. } = layers[index].kind else {
            return None;
        };
        let next = layers.get(index + 1)?;
        let LayerKind::MaxPool { window } = next.kind else {
            return None;
        };
        let readers = layers.iter().flat_map(|layer| &layer.inputs);
        let readers = readers.filter(|&&source| source == Source::Layer(index));
        let fits = window.size[0] * window.size[1] <= 255;
        (next.inputs == [Source::Layer(index)] && readers.count() == 1 && fits)
            .then(|| Geometry::new(next.input, window))
    }

    /// One layer (with the pooling after it) on the CPU. `wanted`: compute the inputs' gradients.
    fn fused_layer(
        &self,
        tape: &mut Tape,
        index: usize,
        inputs: &[&Tensor],
        wanted: bool,
        pool: Option<Geometry>,
        mode: Mode,
    ) -> Result<Tensor> {
        let layer = &self.architecture.layers[index];
        let weights = &self.weights[index];
        let x = inputs[0];
        let bias = weights.get(1).map(|bias| bias.as_tensor());
        match layer.kind {
            LayerKind::Conv {
                filters: co,
                window,
                groups,
                activation,
                ..
            } => {
                let geometry = Geometry::new(layer.input, window);
                let bias_or_zeros = ops::bias_or_zeros(bias, co, x)?;
                if groups > 1 {
                    let operator =
                        grouped::operator(self.level, geometry, groups, co, wanted, bias.is_some());
                    let y = tape.apply3(operator, x, &weights[0], &bias_or_zeros)?;
                    return fused_activation(tape, y, activation);
                }
                let plan = Plan {
                    geometry,
                    co,
                    activation,
                    pool,
                };
                let operator = conv::operator(self.level, plan, wanted, bias.is_some());
                tape.apply3(operator, x, &weights[0], &bias_or_zeros)
            }
            LayerKind::MaxPool { window } => {
                tape.apply1(pool::max_operator(Geometry::new(layer.input, window)), x)
            }
            LayerKind::AvgPool { window } => {
                tape.apply1(pool::avg_operator(Geometry::new(layer.input, window)), x)
            }
            LayerKind::GlobalAvgPool => {
                let whole = Window {
                    size: [layer.input.h, layer.input.w],
                    stride: [1, 1],
                    padding: Padding::Valid,
                };
                tape.apply1(pool::avg_operator(Geometry::new(layer.input, whole)), x)
            }
            LayerKind::BatchNorm { momentum, epsilon } => {
                let [gamma, beta, mean, variance] = &weights[..] else {
                    bail!("layer `{}`: batch norm has four weights", layer.name);
                };
                if mode == Mode::Infer {
                    return composed::normalize(&x.detach(), gamma, beta, mean, variance, epsilon)
                        .map(|y| y.detach());
                }
                let (operator, moments) = batch_norm::operator(epsilon);
                let y = tape.apply3(operator, x, gamma, beta)?;
                if let Some(moments) = moments.get() {
                    let tensor = |v: &[f32]| Tensor::from_slice(v, layer.input.c, &self.device);
                    move_towards(mean, &tensor(&moments.mean)?, momentum)?;
                    move_towards(variance, &tensor(&moments.variance)?, momentum)?;
                }
                Ok(y)
            }
            LayerKind::Dropout { rate } => match mode {
                Mode::Train { seed, step } if rate > 0.0 => {
                    let mut random = generator(seed, Purpose::Dropout, step, index as u64);
                    let mask = dropout::mask(x.elem_count(), rate, &mut random);
                    tape.apply1(dropout::operator(mask), x)
                }
                _ => Ok(x.clone()),
            },
            // the operators take any dimensions after the first
            LayerKind::Flatten => Ok(x.clone()),
            LayerKind::Dense {
                units, activation, ..
            } => {
                let bias_or_zeros = ops::bias_or_zeros(bias, units, x)?;
                let operator = dense::operator(self.level, activation, wanted, bias.is_some());
                tape.apply3(operator, x, &weights[0], &bias_or_zeros)
            }
            LayerKind::Activation { activation } => fused_activation(tape, x.clone(), activation),
            LayerKind::Add { activation } => {
                let sum = tape.apply2(Sum, x, inputs[1])?;
                fused_activation(tape, sum, activation)
            }
        }
    }

    /// The same as [`Network::forward`] from candle's own operators: any device.
    pub fn forward_composed(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let traces = self.compose(x, mode)?;
        match traces.into_iter().last() {
            Some(trace) => Ok(trace.output),
            None => bail!("the network has no layers"),
        }
    }

    /// What every layer computes, in inference mode, before and after its activation.
    pub fn trace(&self, x: &Tensor) -> Result<Vec<Trace>> {
        self.compose(x, Mode::Infer)
    }

    fn compose(&self, x: &Tensor, mode: Mode) -> Result<Vec<Trace>> {
        let mut traces: Vec<Trace> = Vec::new();
        for (index, layer) in self.architecture.layers.iter().enumerate() {
            let input = |i: usize| match layer.inputs[i] {
                Source::Input => x,
                Source::Layer(source) => &traces[source].output,
            };
            let (pre_activation, activation) =
                self.compose_layer(index, layer, input(0), || input(1), mode)?;
            let mut output = composed::activate(&pre_activation, activation)?;
            if let Some(grid) = self.grid(index) {
                output = fake_quantize::composed(&output, grid)?;
            }
            traces.push(Trace {
                name: layer.name.clone(),
                pre_activation,
                output,
            });
        }
        Ok(traces)
    }

    fn compose_layer<'a>(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
        second: impl Fn() -> &'a Tensor,
        mode: Mode,
    ) -> Result<(Tensor, Activation)> {
        let n = x.dim(0)?;
        let weights = &self.weights[index];
        let map = || x.reshape((n, layer.input.h, layer.input.w, layer.input.c));
        let linear = |y: Tensor| Ok((y, Activation::Linear));
        match layer.kind {
            LayerKind::Conv {
                window,
                groups,
                activation,
                ..
            } => {
                let geometry = Geometry::new(layer.input, window);
                let bias = weights.get(1).map(|bias| bias.as_tensor());
                let y = composed::conv(&map()?, &weights[0], bias, &geometry, groups)?;
                Ok((y, activation))
            }
            LayerKind::MaxPool { window } => linear(composed::max_pool(
                &map()?,
                &Geometry::new(layer.input, window),
            )?),
            LayerKind::AvgPool { window } => linear(composed::avg_pool(
                &map()?,
                &Geometry::new(layer.input, window),
            )?),
            LayerKind::GlobalAvgPool => linear(composed::global_avg_pool(&map()?)?),
            LayerKind::BatchNorm { momentum, epsilon } => {
                let [gamma, beta, mean, variance] = &weights[..] else {
                    bail!("layer `{}`: batch norm has four weights", layer.name);
                };
                if mode == Mode::Infer {
                    return linear(composed::normalize(
                        x, gamma, beta, mean, variance, epsilon,
                    )?);
                }
                let (batch_mean, batch_variance) = composed::moments(x)?;
                let y = composed::normalize(x, gamma, beta, &batch_mean, &batch_variance, epsilon)?;
                move_towards(mean, &batch_mean, momentum)?;
                move_towards(variance, &batch_variance, momentum)?;
                linear(y)
            }
            LayerKind::Dropout { rate } => match mode {
                Mode::Train { seed, step } if rate > 0.0 => {
                    let mut random = generator(seed, Purpose::Dropout, step, index as u64);
                    let mask = dropout::mask(x.elem_count(), rate, &mut random);
                    let mask = Tensor::from_vec(mask, x.shape(), &self.device)?;
                    linear(composed::dropout(x, &mask)?)
                }
                _ => linear(x.clone()),
            },
            LayerKind::Flatten => linear(x.reshape((n, layer.output.c))?),
            LayerKind::Dense { activation, .. } => {
                let x = x.reshape((n, layer.input.c))?;
                let bias = weights.get(1).map(|bias| bias.as_tensor());
                Ok((composed::dense(&x, &weights[0], bias)?, activation))
            }
            LayerKind::Activation { activation } => Ok((x.clone(), activation)),
            LayerKind::Add { activation } => Ok(((x + second())?, activation)),
        }
    }

    /// All weights, moving statistics included.
    pub fn weights(&self) -> Result<Weights> {
        let mut weights = Weights::default();
        for (layer, vars) in self.architecture.layers.iter().zip(&self.weights) {
            for ((kind, shape), var) in layer.weight_shapes().into_iter().zip(vars) {
                let data = var.flatten_all()?.to_vec1()?;
                weights
                    .0
                    .insert(format!("{}.{kind}", layer.name), Array { shape, data });
            }
        }
        Ok(weights)
    }

    /// Replaces all weights, moving statistics included. Weights of other names are ignored.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn set_weights(&self, weights: &Weights) -> Result<()> {
        for (layer, vars) in self.architecture.layers.iter().zip(&self.weights) {
            for ((kind, shape), var) in layer.weight_shapes().into_iter().zip(vars) {
                let array = find(weights, &format!("{}.{kind}", layer.name), &shape)?;
                var.set(&Tensor::from_slice(&array.data, shape, &self.device)?)?;
            }
        }
        Ok(())
    }
}

/// Gives the memory of layers' outputs to later steps, but for those that are another name of a tensor in `needed`.
fn recycle(outputs: &[Tensor], needed: &[TensorId]) -> Result<()> {
    let mut outputs = outputs.iter().filter(|y| !needed.contains(&y.id()));
    outputs.try_for_each(ops::storage::recycle)
}

fn fused_activation(tape: &mut Tape, x: Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Linear => Ok(x),
        Activation::Softmax => bail!("softmax belongs to the output, not to a layer"),
        _ => tape.apply1(activation::operator(activation), &x),
    }
}

/// `moving = momentum * moving + (1 - momentum) * batch`.
fn move_towards(moving: &Var, batch: &Tensor, momentum: f32) -> Result<()> {
    let momentum = f64::from(momentum);
    let moved = ((moving.as_detached_tensor() * momentum)? + (batch.detach() * (1.0 - momentum))?)?;
    moving.set(&moved)
}

fn regularizer(layer: &Layer, weight: &str) -> Regularizer {
    match layer.kind {
        LayerKind::Conv { regularizer, .. } | LayerKind::Dense { regularizer, .. }
            if weight == "kernel" =>
        {
            regularizer
        }
        _ => Regularizer::default(),
    }
}

fn find<'a>(weights: &'a Weights, name: &str, shape: &[usize]) -> Result<&'a Array> {
    match weights.0.get(name) {
        None => bail!("weight `{name}` is missing"),
        Some(array) if array.shape != shape => bail!(
            "weight `{name}`: expected shape {shape:?}, got {:?}",
            array.shape
        ),
        Some(array) if array.data.len() != shape.iter().product::<usize>() => bail!(
            "weight `{name}`: shape {shape:?} needs {} values, got {}",
            shape.iter().product::<usize>(),
            array.data.len()
        ),
        Some(array) => Ok(array),
    }
}
