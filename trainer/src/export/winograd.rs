//! Which convolutions model.fxp holds transformed for Winograd's F(2x2, 3x3), and what that costs and saves.
//!
//! The results are the same bits either way. It is a choice of speed against flash, for cores with DSP instructions.

use std::fmt;

use runtime::{
    Window,
    encode::{Cost, OpSpec, Shape, WeightOrder, WinogradMisfit, saves, winograd, winograd_fits},
};
use serde::{Deserialize, Serialize};

use super::{ExportError, fixed};
use crate::{
    quantize::{
        Operator, Quantized,
        graph::{Graph, NodeKind},
    },
    recipe::Winograd,
};

/// What convolutions need in one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Bytes of weights in model.fxp, with what is kept about them.
    pub weight_bytes: u64,
    /// Multiplications of one inference.
    pub multiplications: u64,
    /// Bytes of the kernel's buffers on the stack of a core with DSP instructions; of several layers the most.
    pub stack_bytes: u64,
}

impl Form {
    fn of(op: &OpSpec, input: Shape, output: Shape, order: WeightOrder) -> Self {
        Cost::of(op, input, output, order).map_or(Self::default(), |cost| Self {
            weight_bytes: cost.weight_bytes,
            multiplications: cost.multiplications,
            stack_bytes: cost.buffer_bytes,
        })
    }

    fn with(self, other: Self) -> Self {
        Self {
            weight_bytes: self.weight_bytes + other.weight_bytes,
            multiplications: self.multiplications + other.multiplications,
            stack_bytes: self.stack_bytes.max(other.stack_bytes),
        }
    }
}

/// A convolution that can have both forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convolution {
    /// Layer of the recipe.
    pub layer: String,
    /// The form that model.fxp has.
    pub transformed: bool,
    /// With the weights as they are.
    pub direct: Form,
    /// With the transformed weights.
    pub winograd: Form,
}

/// Both forms of all convolutions that can be transformed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// In the order of the network.
    pub layers: Vec<Convolution>,
    /// All together as model.fxp has them.
    pub chosen: Form,
    /// All together with their weights as they are.
    pub direct: Form,
    /// All together transformed.
    pub winograd: Form,
}

impl Comparison {
    /// `None` if no convolution can be transformed.
    pub fn new(quantized: &Quantized, choice: &Winograd) -> Option<Self> {
        let layers: Vec<Convolution> = quantized
            .operators
            .iter()
            .filter_map(|operator| convolution(quantized, operator, choice))
            .collect();
        if layers.is_empty() {
            return None;
        }
        let sum = |form: &dyn Fn(&Convolution) -> Form| {
            layers.iter().map(form).fold(Form::default(), Form::with)
        };
        Some(Self {
            chosen: sum(&|layer| {
                if layer.transformed {
                    layer.winograd
                } else {
                    layer.direct
                }
            }),
            direct: sum(&|layer| layer.direct),
            winograd: sum(&|layer| layer.winograd),
            layers,
        })
    }
}

/// As a table; the numbers are counted, not measured.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24}{:>22}{:>24}{:>18}",
            "", "bytes of weights", "multiplications", "bytes of stack"
        )?;
        writeln!(
            f,
            "{:<16}{:<8}{:>11}{:>11}{:>12}{:>12}{:>9}{:>9}",
            "convolution", "form", "direct", "Winograd", "direct", "Winograd", "direct", "Winograd"
        )?;
        let mut row = |name: &str, form: &str, direct: Form, winograd: Form| {
            writeln!(
                f,
                "{name:<16}{form:<8}{:>11}{:>11}{:>12}{:>12}{:>9}{:>9}",
                direct.weight_bytes,
                winograd.weight_bytes,
                direct.multiplications,
                winograd.multiplications,
                direct.stack_bytes,
                winograd.stack_bytes,
            )
        };
        for layer in &self.layers {
            let form = if layer.transformed {
                "Winograd"
            } else {
                "direct"
            };
            row(&layer.layer, form, layer.direct, layer.winograd)?;
        }
        row("all", "", self.direct, self.winograd)?;
        writeln!(
            f,
            "as chosen: {} bytes of weights, {} multiplications, {} bytes of stack (counted, not measured)",
            self.chosen.weight_bytes, self.chosen.multiplications, self.chosen.stack_bytes
        )
    }
}

/// Shapes of what an operator reads and writes.
fn shapes(quantized: &Quantized, op: &OpSpec) -> [Shape; 2] {
    let input = op.inputs()[0].unwrap_or(0);
    [input, op.output()].map(|tensor| fixed::shape(quantized.tensors[tensor].shape))
}

/// `None` if the operator cannot be transformed.
fn convolution(
    quantized: &Quantized,
    operator: &Operator,
    choice: &Winograd,
) -> Option<Convolution> {
    let op = &operator.spec;
    let [input, output] = shapes(quantized, op);
    winograd(op, input).ok()?;
    Some(Convolution {
        layer: operator.layer.clone(),
        transformed: match choice {
            Winograd::Auto => saves(op, input, output),
            Winograd::Layers(names) => names.contains(&operator.layer),
        },
        direct: Form::of(op, input, output, WeightOrder::Blocked),
        winograd: Form::of(op, input, output, WeightOrder::Winograd),
    })
}

/// The order of each operator's weights.
///
/// # Errors
/// A chosen layer that does not exist or cannot be transformed.
pub fn orders(quantized: &Quantized, choice: &Winograd) -> Result<Vec<WeightOrder>, ExportError> {
    let operators = &quantized.operators;
    let fits = |operator: &Operator| winograd(&operator.spec, shapes(quantized, &operator.spec)[0]);
    let layers = operators
        .iter()
        .map(|operator| (operator.layer.as_str(), fits(operator)));
    check_layers(layers, choice)?;
    let order = |operator| match convolution(quantized, operator, choice) {
        Some(Convolution {
            transformed: true, ..
        }) => WeightOrder::Winograd,
        _ => WeightOrder::Blocked,
    };
    Ok(operators.iter().map(order).collect())
}

/// What [`orders`] would refuse, before there are integers.
///
/// # Errors
/// As [`orders`].
pub fn check(graph: &Graph, choice: &Winograd) -> Result<(), ExportError> {
    let extent = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let window = |size: [usize; 2], stride: [usize; 2]| Window {
        size: size.map(extent),
        stride: stride.map(extent),
        pad: [0, 0],
    };
    let layers = graph.nodes.iter().map(|node| {
        let NodeKind::Conv {
            kernel,
            stride,
            groups,
            ..
        } = &node.kind
        else {
            return (node.layer.as_str(), Err(WinogradMisfit::Kind));
        };
        let pool = node.pool.map(|pool| window(pool.size, pool.stride));
        let inputs = extent(node.input.c);
        let fits = winograd_fits(window(*kernel, *stride), extent(*groups), inputs, pool);
        (node.layer.as_str(), fits)
    });
    check_layers(layers, choice)
}

fn check_layers<'a>(
    layers: impl Iterator<Item = (&'a str, Result<(), WinogradMisfit>)>,
    choice: &Winograd,
) -> Result<(), ExportError> {
    let Winograd::Layers(names) = choice else {
        return Ok(());
    };
    let layers: Vec<_> = layers.collect();
    for name in names {
        let layer = name.clone();
        match layers.iter().find(|(layer, _)| layer == name) {
            Some((_, Ok(()))) => {}
            Some(&(_, Err(reason))) => return Err(ExportError::Winograd { layer, reason }),
            None => {
                let fitting = layers.iter().filter(|(_, fits)| fits.is_ok());
                let fitting: Vec<&str> = fitting.map(|(layer, _)| *layer).collect();
                let fitting = fitting.join(", ");
                return Err(ExportError::NoWinogradLayer { layer, fitting });
            }
        }
    }
    Ok(())
}
