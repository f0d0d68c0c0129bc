//! Initial weights with Keras's distributions: kernels by variance scaling, biases and moving means 0, `gamma` and
//! moving variances 1. Every layer draws from its own generator, so adding a layer at the end changes no other.
//!
//! | initializer | variance | distribution |
//! |---|---|---|
//! | Glorot | `2 / (fan_in + fan_out)` | uniform in `±sqrt(3 * variance)`, or normal cut at two standard deviations |
//! | He | `2 / fan_in` | the same |
//! | LeCun | `1 / fan_in` | the same |
//!
//! `fan_in = kh * kw * ci`, `fan_out = kh * kw * co`, with the dimensions of the kernel (depthwise:
//! `[kh, kw, ci, multiplier]`). Source: Keras 3, `VarianceScaling`.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{
    architecture::{Architecture, Initializer, Layer, LayerKind},
    random::{Purpose, generator},
    weights::{Array, Weights},
};

/// Standard deviation of a standard normal distribution cut at ±2.
const TRUNCATED_DEVIATION: f64 = 0.879_625_661_034_239_8;

/// Weights of all layers before the first step. The same seed gives the same bits on every machine with the same libm.
pub fn initial_weights(architecture: &Architecture, seed: u64) -> Weights {
    let mut weights = Weights::default();
    for (index, layer) in architecture.layers.iter().enumerate() {
        let mut random = generator(seed, Purpose::Initializer, index as u64, 0);
        for (name, shape) in layer.weight_shapes() {
            let len = shape.iter().product();
            let data = match name {
                "kernel" => kernel(layer, len, &mut random),
                "gamma" | "moving_variance" => vec![1.0; len],
                _ => vec![0.0; len],
            };
            weights
                .0
                .insert(format!("{}.{name}", layer.name), Array { shape, data });
        }
    }
    weights
}

fn kernel(layer: &Layer, len: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let (initializer, fan_in, fan_out) = match layer.kind {
        LayerKind::Conv {
            filters,
            window,
            groups,
            initializer,
            ..
        } => {
            let area = window.size[0] * window.size[1];
            let (inputs, outputs) = if groups > 1 && groups == layer.input.c {
                (layer.input.c, filters / groups)
            } else {
                (layer.input.c / groups, filters)
            };
            (initializer, area * inputs, area * outputs)
        }
        LayerKind::Dense {
            units, initializer, ..
        } => (initializer, layer.input.c, units),
        _ => return Vec::new(),
    };
    let (fan_in, fan_out) = (fan_in as f64, fan_out as f64);
    let variance = match initializer {
        Initializer::GlorotUniform | Initializer::GlorotNormal => 2.0 / (fan_in + fan_out),
        Initializer::HeUniform | Initializer::HeNormal => 2.0 / fan_in,
        Initializer::LecunUniform | Initializer::LecunNormal => 1.0 / fan_in,
    };
    match initializer {
        Initializer::GlorotUniform | Initializer::HeUniform | Initializer::LecunUniform => {
            let limit = (3.0 * variance).sqrt();
            let uniform = || ((2.0 * random.random::<f64>() - 1.0) * limit) as f32;
            std::iter::repeat_with(uniform).take(len).collect()
        }
        Initializer::GlorotNormal | Initializer::HeNormal | Initializer::LecunNormal => {
            let deviation = variance.sqrt() / TRUNCATED_DEVIATION;
            let normal = || (truncated_normal(random) * deviation) as f32;
            std::iter::repeat_with(normal).take(len).collect()
        }
    }
}

/// A standard normal value, drawn again while it is beyond ±2 (Box-Muller).
fn truncated_normal(random: &mut ChaCha8Rng) -> f64 {
    loop {
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        let value = radius * (std::f64::consts::TAU * random.random::<f64>()).cos();
        if value.abs() <= 2.0 {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{Activation, OutputActivation, Regularizer, Shape, Source};

    fn dense(name: &str, inputs: usize, units: usize, initializer: Initializer) -> Layer {
        Layer {
            name: name.into(),
            kind: LayerKind::Dense {
                units,
                use_bias: true,
                activation: Activation::Linear,
                regularizer: Regularizer::default(),
                initializer,
            },
            inputs: vec![Source::Input],
            input: Shape {
                h: 1,
                w: 1,
                c: inputs,
            },
            output: Shape {
                h: 1,
                w: 1,
                c: units,
            },
        }
    }

    fn draw(initializer: Initializer, seed: u64) -> Weights {
        let layers = vec![
            dense("a", 300, 200, initializer),
            dense("b", 200, 10, initializer),
        ];
        let architecture = Architecture {
            input: layers[0].input,
            layers,
            output: OutputActivation::Linear,
        };
        initial_weights(&architecture, seed)
    }

    #[test]
    fn moments_and_limits_are_keras_s() {
        // kernel 300 x 200: 60,000 values; the estimated deviation is within 1% of the true one
        for (initializer, variance, limit) in [
            (
                Initializer::GlorotUniform,
                2.0f64 / 500.0,
                (6.0f64 / 500.0).sqrt(),
            ),
            (Initializer::HeUniform, 2.0 / 300.0, (6.0f64 / 300.0).sqrt()),
            (
                Initializer::LecunUniform,
                1.0 / 300.0,
                (3.0f64 / 300.0).sqrt(),
            ),
            (
                Initializer::GlorotNormal,
                2.0f64 / 500.0,
                2.0 * (2.0f64 / 500.0).sqrt() / TRUNCATED_DEVIATION,
            ),
            (
                Initializer::HeNormal,
                2.0 / 300.0,
                2.0 * (2.0f64 / 300.0).sqrt() / TRUNCATED_DEVIATION,
            ),
            (
                Initializer::LecunNormal,
                1.0 / 300.0,
                2.0 * (1.0f64 / 300.0).sqrt() / TRUNCATED_DEVIATION,
            ),
        ] {
            let weights = draw(initializer, 1);
            let kernel = &weights.0["a.kernel"];
            assert_eq!(kernel.shape, [300, 200]);
            let n = kernel.data.len() as f64;
            let mean = kernel.data.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let square = kernel
                .data
                .iter()
                .map(|&v| f64::from(v).powi(2))
                .sum::<f64>()
                / n;
            let largest = kernel
                .data
                .iter()
                .fold(0.0f64, |m, &v| m.max(f64::from(v).abs()));
            assert!(
                mean.abs() < 0.02 * variance.sqrt(),
                "{initializer:?}: mean {mean}"
            );
            assert!(
                (square / variance - 1.0).abs() < 0.02,
                "{initializer:?}: variance {square}, expected {variance}"
            );
            assert!(
                largest <= limit * 1.000_001 && largest > 0.99 * limit,
                "{initializer:?}: largest {largest}, limit {limit}"
            );
            assert!(weights.0["a.bias"].data.iter().all(|&v| v == 0.0));
        }
    }

    #[test]
    fn seed_and_layer_choose_the_values() {
        let one = draw(Initializer::GlorotUniform, 1);
        assert_eq!(one, draw(Initializer::GlorotUniform, 1));
        assert_ne!(one, draw(Initializer::GlorotUniform, 2));
        assert_ne!(
            one.0["a.kernel"].data[0] / (6.0f32 / 500.0).sqrt(),
            one.0["b.kernel"].data[0] / (6.0f32 / 210.0).sqrt()
        );
    }
}
