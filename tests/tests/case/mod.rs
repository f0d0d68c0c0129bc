//! A case file as a quantized network: random weights, ranges from a float forward pass, images.

pub mod float;
pub mod image;

use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use trainer::{
    architecture::{Activation, Architecture, Shape},
    preprocess::Preprocess,
    quantize::{Method, Quantized, quantize},
    recipe::{LayerRecipe, LossRecipe, Network, PreprocessMode},
    weights::{Array, Weights},
};

/// One file of cases/.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    preprocess: PreprocessMode,
    weights: Distribution,
    seed: u64,
    network: Network,
}

/// How the weights are drawn.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Distribution {
    /// Normal, variance 2 / fan-in.
    Normal,
    /// Uniform; some channels are 16 times larger or smaller than the others.
    Extreme,
    /// Small multiples of one power of two: sums that lie exactly between two steps.
    Ties,
    /// Normal, with ranges that are a quarter of what the images need.
    Saturating,
    /// Seven of ten weights, and whole channels, are zero.
    Sparse,
}

/// A case, ready to be quantized.
pub struct Case {
    pub name: String,
    pub architecture: Architecture,
    pub preprocess: Preprocess,
    pub weights: Weights,
    /// Raw NHWC images that every engine runs.
    pub images: Vec<Vec<u8>>,
    saturating: bool,
}

impl Case {
    pub fn load(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let file: CaseFile = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let loss = loss(&file.network);
        let architecture =
            Architecture::resolve(&file.network, &loss).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut random = ChaCha8Rng::seed_from_u64(file.seed);
        let preprocess = preprocess(file.preprocess, architecture.input, &mut random);
        let weights = draw(&architecture, file.weights, &mut random);
        let images = image::all(architecture.input, &mut random);
        Self {
            name,
            architecture,
            preprocess,
            weights,
            images,
            saturating: file.weights == Distribution::Saturating,
        }
    }

    pub fn quantize(&self) -> Quantized {
        let mut calibration = float::calibrate(self);
        if self.saturating {
            float::narrow(&mut calibration, 4.0);
        }
        quantize(
            &self.architecture,
            &self.preprocess,
            &self.weights,
            &calibration,
            Method::MinMax,
        )
        .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    pub fn views(&self) -> Vec<&[u8]> {
        self.images.iter().map(Vec::as_slice).collect()
    }
}

/// The loss that belongs to the activation of the last layer.
fn loss(network: &Network) -> LossRecipe {
    let label_smoothing = 0.0;
    match network.layers.last() {
        Some(LayerRecipe::Dense {
            activation: Activation::Softmax,
            ..
        }) => LossRecipe::CategoricalCrossentropy { label_smoothing },
        Some(LayerRecipe::Dense {
            activation: Activation::Sigmoid,
            ..
        }) => LossRecipe::BinaryCrossentropy { label_smoothing },
        _ => LossRecipe::MeanSquaredError,
    }
}

fn preprocess(mode: PreprocessMode, input: Shape, random: &mut impl Rng) -> Preprocess {
    match mode {
        PreprocessMode::None => Preprocess::None,
        PreprocessMode::Unit => Preprocess::Unit,
        PreprocessMode::Global => Preprocess::Global {
            mean: 33.3,
            std: 78.6,
        },
        PreprocessMode::PerPixel => Preprocess::PerPixel {
            mean: (0..input.len())
                .map(|_| random.random_range(0.0..200.0))
                .collect(),
            // A pixel that never varied has std 1.
            std: (0..input.len())
                .map(|i| {
                    if i % 7 == 0 {
                        1.0
                    } else {
                        random.random_range(1.0..120.0)
                    }
                })
                .collect(),
        },
    }
}

/// Standard normal (sum of twelve uniforms is close enough for test data, and reproducible).
fn normal(random: &mut impl Rng) -> f32 {
    (0..12)
        .map(|_| random.random_range(0.0f32..1.0))
        .sum::<f32>()
        - 6.0
}

fn draw(architecture: &Architecture, distribution: Distribution, random: &mut impl Rng) -> Weights {
    let mut weights = Weights::default();
    for layer in &architecture.layers {
        for (name, shape) in layer.weight_shapes() {
            let len: usize = shape.iter().product();
            let channels = shape.last().copied().unwrap_or(1).max(1);
            let fan_in = (len / channels).max(1) as f32;
            let data = (0..len)
                .map(|i| match name {
                    "kernel" => kernel(distribution, fan_in, i % channels, random),
                    "bias" => bias(distribution, i, random),
                    "gamma" => random.random_range(0.5..1.5) * if i % 3 == 2 { -1.0 } else { 1.0 },
                    "moving_variance" => random.random_range(0.05..2.0),
                    _ => normal(random) * 0.3,
                })
                .collect();
            weights
                .0
                .insert(format!("{}.{name}", layer.name), Array { shape, data });
        }
    }
    weights
}

fn kernel(distribution: Distribution, fan_in: f32, channel: usize, random: &mut impl Rng) -> f32 {
    let scale = (2.0 / fan_in).sqrt();
    match distribution {
        Distribution::Normal | Distribution::Saturating => normal(random) * scale,
        Distribution::Extreme => {
            let channel = [1.0, 16.0, 1.0 / 16.0, 1.0][channel % 4];
            random.random_range(-1.0f32..1.0) * scale * channel
        }
        Distribution::Ties => random.random_range(-3i32..=3) as f32 / 16.0,
        Distribution::Sparse if channel % 3 == 1 || random.random_range(0..10) < 7 => 0.0,
        Distribution::Sparse => normal(random) * scale,
    }
}

fn bias(distribution: Distribution, channel: usize, random: &mut impl Rng) -> f32 {
    match distribution {
        Distribution::Ties => random.random_range(-8i32..=8) as f32 / 32.0,
        Distribution::Sparse if channel % 3 == 1 => 0.0,
        _ => normal(random) * 0.1,
    }
}
