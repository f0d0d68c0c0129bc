//! From the recipe's list of layers to an [`Architecture`]: names, sources and shapes are inferred, and a layer
//! that does not fit says which one, what came in and what it needs.

use std::collections::BTreeMap;

use super::{
    Activation, Architecture, Layer, LayerKind, OutputActivation, Padding, Regularizer, Shape,
    Source, Window,
};
use crate::recipe::{LayerRecipe, LossRecipe, Network};

/// Largest number of values of a tensor and of weights of a layer: 2^31.
const LARGEST: usize = 1 << 31;

/// Why a recipe's network cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    #[error(
        "network.input: {got}, but rows, columns and channels must all be at least 1 and have at most 2^31 values"
    )]
    Input { got: Shape },
    #[error("network.layers: no layers")]
    Empty,
    #[error("layer {number} `{name}`: input {input}: {reason}")]
    Layer {
        number: usize,
        name: String,
        input: Shape,
        reason: String,
    },
    #[error("layer {number}: name `{name}`: {reason}")]
    Name {
        number: usize,
        name: String,
        reason: &'static str,
    },
    #[error(
        "layer {number} `{name}`: there is no earlier layer `{wanted}`; earlier layers: {known}"
    )]
    UnknownInput {
        number: usize,
        name: String,
        wanted: String,
        known: String,
    },
    #[error("layer {number} `{name}`: no later layer reads its output")]
    Unused { number: usize, name: String },
    #[error("last layer `{name}`: {reason}")]
    Output { name: String, reason: String },
    #[error("train.loss: {loss} needs a last layer with activation softmax or sigmoid, got linear")]
    Loss { loss: &'static str },
}

impl From<ArchitectureError> for crate::error::Error {
    fn from(error: ArchitectureError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Architecture {
    /// Infers names, sources and shapes, and takes the last activation off into [`Architecture::output`].
    ///
    /// # Errors
    /// A layer that does not fit its input, an unknown or doubled name, an output that nothing reads, a last layer
    /// that does not give one value per class, or a loss that does not fit the last activation.
    pub fn resolve(network: &Network, loss: &LossRecipe) -> Result<Self, ArchitectureError> {
        let input = network.input;
        if !fits(&[input.h, input.w, input.c]) || input.is_empty() {
            return Err(ArchitectureError::Input { got: input });
        }
        let mut layers: Vec<Layer> = Vec::with_capacity(network.layers.len());
        let mut numbers = BTreeMap::new();
        for recipe in &network.layers {
            let layer = resolve_layer(recipe, input, &layers, &mut numbers)?;
            layers.push(layer);
        }
        check_all_used(&layers)?;
        let output = take_output(&mut layers)?;
        check_loss(loss, output)?;
        Ok(Self {
            input,
            layers,
            output,
        })
    }
}

/// True if the product of `sizes` stays within [`LARGEST`].
fn fits(sizes: &[usize]) -> bool {
    sizes
        .iter()
        .try_fold(1_usize, |product, &n| product.checked_mul(n))
        .is_some_and(|product| product <= LARGEST)
}

fn resolve_layer(
    recipe: &LayerRecipe,
    image: Shape,
    before: &[Layer],
    numbers: &mut BTreeMap<&'static str, usize>,
) -> Result<Layer, ArchitectureError> {
    let number = before.len() + 1;
    let (kind_name, given_name, given_input) = recipe.names();
    let count = numbers.entry(kind_name).or_insert(0);
    *count += 1;
    let name = match given_name {
        Some(name) => name.clone(),
        None => format!("{kind_name}{count}"),
    };
    check_name(number, &name, before)?;
    let find = |wanted: &String| find_source(number, &name, wanted, before);
    let source = match given_input {
        Some(wanted) => find(wanted)?,
        None if before.is_empty() => Source::Input,
        None => Source::Layer(before.len() - 1),
    };
    let shape_of = |source| match source {
        Source::Input => image,
        Source::Layer(i) => before[i].output,
    };
    let input = shape_of(source);
    let mut inputs = vec![source];
    if let LayerRecipe::Add { with, .. } = recipe {
        inputs.push(find(with)?);
    }
    let error = |reason| ArchitectureError::Layer {
        number,
        name: name.clone(),
        input,
        reason,
    };
    if let Some(&second) = inputs.get(1)
        && shape_of(second) != input
    {
        return Err(error(format!(
            "add needs two inputs of the same shape, the other one is {}",
            shape_of(second)
        )));
    }
    let kind = resolve_kind(recipe, input).map_err(error)?;
    let output = infer_shape(&kind, input).map_err(error)?;
    let layer = Layer {
        name: name.clone(),
        kind,
        inputs,
        input,
        output,
    };
    if !fits(&[output.h, output.w, output.c]) || !layer.weight_shapes().iter().all(|s| fits(&s.1)) {
        return Err(error("more than 2^31 outputs or weights".into()));
    }
    Ok(layer)
}

fn check_name(number: usize, name: &str, before: &[Layer]) -> Result<(), ArchitectureError> {
    let reason = if name == "input" {
        "means the image; choose another one"
    } else if before.iter().any(|layer| layer.name == name) {
        "already taken by an earlier layer"
    } else if name.is_empty()
        || !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        "may only have letters, digits, `_` and `-`"
    } else {
        return Ok(());
    };
    Err(ArchitectureError::Name {
        number,
        name: name.into(),
        reason,
    })
}

fn find_source(
    number: usize,
    name: &str,
    wanted: &str,
    before: &[Layer],
) -> Result<Source, ArchitectureError> {
    if wanted == "input" {
        return Ok(Source::Input);
    }
    match before.iter().position(|layer| layer.name == wanted) {
        Some(position) => Ok(Source::Layer(position)),
        None => {
            let known: Vec<_> = std::iter::once("input")
                .chain(before.iter().map(|layer| layer.name.as_str()))
                .collect();
            Err(ArchitectureError::UnknownInput {
                number,
                name: name.into(),
                wanted: wanted.into(),
                known: known.join(", "),
            })
        }
    }
}

fn resolve_kind(recipe: &LayerRecipe, input: Shape) -> Result<LayerKind, String> {
    let window = |size, stride, padding| Window {
        size,
        stride,
        padding,
    };
    let regularizer = |l1: f32, l2: f32| {
        if l1.is_finite() && l2.is_finite() && l1 >= 0.0 && l2 >= 0.0 {
            Ok(Regularizer { l1, l2 })
        } else {
            Err(format!("l1 = {l1}, l2 = {l2}: expected numbers from 0 on"))
        }
    };
    Ok(match *recipe {
        LayerRecipe::Conv {
            filters,
            kernel,
            stride,
            padding,
            groups,
            use_bias,
            activation,
            l1,
            l2,
            initializer,
            ..
        } => LayerKind::Conv {
            filters,
            window: window(kernel, stride, padding),
            groups,
            use_bias,
            activation,
            regularizer: regularizer(l1, l2)?,
            initializer,
        },
        LayerRecipe::DepthwiseConv {
            multiplier,
            kernel,
            stride,
            padding,
            use_bias,
            activation,
            l1,
            l2,
            initializer,
            ..
        } => LayerKind::Conv {
            filters: input
                .c
                .checked_mul(multiplier)
                .ok_or_else(|| format!("multiplier = {multiplier} is too large"))?,
            window: window(kernel, stride, padding),
            groups: input.c,
            use_bias,
            activation,
            regularizer: regularizer(l1, l2)?,
            initializer,
        },
        LayerRecipe::MaxPool {
            size,
            stride,
            padding,
            ..
        } => LayerKind::MaxPool {
            window: window(size, stride.unwrap_or(size), padding),
        },
        LayerRecipe::AvgPool {
            size,
            stride,
            padding,
            ..
        } => LayerKind::AvgPool {
            window: window(size, stride.unwrap_or(size), padding),
        },
        LayerRecipe::GlobalAvgPool { .. } => LayerKind::GlobalAvgPool,
        LayerRecipe::BatchNorm {
            momentum, epsilon, ..
        } => LayerKind::BatchNorm { momentum, epsilon },
        LayerRecipe::Dropout { rate, .. } => LayerKind::Dropout { rate },
        LayerRecipe::Flatten { .. } => LayerKind::Flatten,
        LayerRecipe::Dense {
            units,
            use_bias,
            activation,
            l1,
            l2,
            initializer,
            ..
        } => LayerKind::Dense {
            units,
            use_bias,
            activation,
            regularizer: regularizer(l1, l2)?,
            initializer,
        },
        LayerRecipe::Activation { activation, .. } => LayerKind::Activation { activation },
        LayerRecipe::Add { activation, .. } => LayerKind::Add { activation },
    })
}

/// Output shape of a layer, after checking that the layer's own numbers make sense.
fn infer_shape(kind: &LayerKind, input: Shape) -> Result<Shape, String> {
    match *kind {
        LayerKind::Conv {
            filters,
            window,
            groups,
            ..
        } => {
            if filters == 0 {
                return Err("needs at least 1 filter".into());
            }
            if groups == 0 || !input.c.is_multiple_of(groups) || !filters.is_multiple_of(groups) {
                return Err(format!(
                    "groups = {groups} must divide the {} input channels and the {filters} filters",
                    input.c
                ));
            }
            let [h, w] = slide(window, input, "kernel")?;
            Ok(Shape { h, w, c: filters })
        }
        LayerKind::MaxPool { window } | LayerKind::AvgPool { window } => {
            let [h, w] = slide(window, input, "pool")?;
            Ok(Shape { h, w, c: input.c })
        }
        LayerKind::GlobalAvgPool => Ok(Shape {
            h: 1,
            w: 1,
            c: input.c,
        }),
        LayerKind::BatchNorm { momentum, epsilon } => {
            if !(0.0..1.0).contains(&momentum) {
                return Err(format!("momentum = {momentum} must be in [0, 1)"));
            }
            if !(epsilon > 0.0 && epsilon.is_finite()) {
                return Err(format!("epsilon = {epsilon} must be positive"));
            }
            Ok(input)
        }
        LayerKind::Dropout { rate } => {
            if !(0.0..1.0).contains(&rate) {
                return Err(format!("rate = {rate} must be in [0, 1)"));
            }
            Ok(input)
        }
        LayerKind::Flatten => Ok(Shape {
            h: 1,
            w: 1,
            c: input.len(),
        }),
        LayerKind::Dense { units, .. } => {
            if units == 0 {
                return Err("needs at least 1 unit".into());
            }
            if input.h != 1 || input.w != 1 {
                return Err(
                    "dense needs a flat input 1x1xc; put a flatten or global_avg_pool before it"
                        .into(),
                );
            }
            Ok(Shape {
                h: 1,
                w: 1,
                c: units,
            })
        }
        LayerKind::Activation { .. } | LayerKind::Add { .. } => Ok(input),
    }
}

/// Rows and columns of the output of a sliding window.
fn slide(window: Window, input: Shape, what: &str) -> Result<[usize; 2], String> {
    let mut output = [0; 2];
    for (axis, n) in [input.h, input.w].into_iter().enumerate() {
        let (k, s) = (window.size[axis], window.stride[axis]);
        if k == 0 || s == 0 {
            return Err(format!("{what} size and stride must be at least 1"));
        }
        output[axis] = match window.padding {
            Padding::Same => n.div_ceil(s),
            Padding::Valid if n >= k => (n - k) / s + 1,
            Padding::Valid => {
                return Err(format!(
                    "{what} {}x{} without padding needs an input of at least {}x{}",
                    window.size[0], window.size[1], window.size[0], window.size[1]
                ));
            }
        };
    }
    Ok(output)
}

fn check_all_used(layers: &[Layer]) -> Result<(), ArchitectureError> {
    let Some((_, earlier)) = layers.split_last() else {
        return Err(ArchitectureError::Empty);
    };
    for (i, layer) in earlier.iter().enumerate() {
        let reads = |other: &Layer| other.inputs.contains(&Source::Layer(i));
        if !layers[i + 1..].iter().any(reads) {
            return Err(ArchitectureError::Unused {
                number: i + 1,
                name: layer.name.clone(),
            });
        }
    }
    Ok(())
}

/// Takes the last layer's activation off. A last `activation` layer disappears, so that the last layer gives logits.
fn take_output(layers: &mut Vec<Layer>) -> Result<OutputActivation, ArchitectureError> {
    let Some(last) = layers.last_mut() else {
        return Err(ArchitectureError::Empty);
    };
    let shape = last.output;
    let name = last.name.clone();
    let error = |reason| ArchitectureError::Output {
        name: name.clone(),
        reason,
    };
    if shape.h != 1 || shape.w != 1 || shape.c < 2 {
        return Err(error(format!(
            "output {shape}, but a flat output 1x1xc with one value for each of at least 2 classes is needed"
        )));
    }
    let activation = last
        .activation_mut()
        .map_or(Activation::Linear, std::mem::take);
    let output = match activation {
        Activation::Softmax => OutputActivation::Softmax,
        Activation::Sigmoid => OutputActivation::Sigmoid,
        Activation::Linear => OutputActivation::Linear,
        other => {
            return Err(error(format!(
                "activation {other:?}, but softmax, sigmoid or linear is needed"
            )));
        }
    };
    if layers.len() > 1 && matches!(layers[layers.len() - 1].kind, LayerKind::Activation { .. }) {
        let source = layers[layers.len() - 1].inputs[0];
        if source != Source::Layer(layers.len() - 2) {
            return Err(error("must read the layer before it".into()));
        }
        layers.pop();
        let before = &mut layers[source_index(source)];
        if before
            .activation_mut()
            .is_some_and(|a| *a != Activation::Linear)
        {
            return Err(error(format!(
                "follows `{}`, which has an activation of its own; the layer before the last activation must be linear",
                before.name
            )));
        }
    }
    for (i, layer) in layers.iter_mut().enumerate() {
        if layer
            .activation_mut()
            .is_some_and(|a| *a == Activation::Softmax)
        {
            return Err(ArchitectureError::Layer {
                number: i + 1,
                name: layer.name.clone(),
                input: layer.input,
                reason: "softmax is only for the last layer".into(),
            });
        }
    }
    Ok(output)
}

fn source_index(source: Source) -> usize {
    match source {
        Source::Input => 0,
        Source::Layer(i) => i,
    }
}

/// A cross-entropy is of probabilities.
fn check_loss(loss: &LossRecipe, output: OutputActivation) -> Result<(), ArchitectureError> {
    let loss = match loss {
        LossRecipe::CategoricalCrossentropy { .. } => "categorical_crossentropy",
        LossRecipe::SparseCategoricalCrossentropy => "sparse_categorical_crossentropy",
        LossRecipe::BinaryCrossentropy { .. } => "binary_crossentropy",
        LossRecipe::MeanSquaredError => return Ok(()),
    };
    match output {
        OutputActivation::Softmax | OutputActivation::Sigmoid => Ok(()),
        OutputActivation::Linear => Err(ArchitectureError::Loss { loss }),
    }
}
