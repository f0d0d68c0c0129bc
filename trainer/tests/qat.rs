//! Quantization-aware fine-tuning: what the fine-tuned network computes with its rounding is what the integer network
//! computes, and training at coarse scales wins back classes that rounding alone loses.

use candle_core::{Device, Tensor};
use trainer::{
    architecture::{Architecture, Shape},
    dataset::{Images, Labelled},
    fold,
    initializer::initial_weights,
    network::Network,
    preprocess::Preprocess,
    ptq, qat,
    quantize::{self, NodeScale, graph},
    recipe::Recipe,
    weights::Weights,
};
use verifier::tolerance::argmax;

const IMAGES: usize = 512;

fn recipe() -> Recipe {
    toml::from_str(
        r#"
        name = "qat"
        [data]
        format = "idx"
        path = "."
        preprocess = "unit"
        [network]
        input = [8, 8, 1]
        layers = [
            { type = "conv", filters = 6, use_bias = false },
            { type = "batch_norm" },
            { type = "activation", activation = "relu" },
            { type = "max_pool" },
            { type = "flatten" },
            { type = "dense", units = 12, activation = "relu" },
            { type = "dense", units = 4, activation = "softmax" },
        ]
        [train]
        epochs = 1
        batch = 32
        [quantize]
        qat_epochs = 12
        qat_learning_rate = 0.003
        "#,
    )
    .unwrap()
}

/// The class is the quarter with the bright spot.
fn data() -> Labelled {
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..IMAGES {
        let mut image: Vec<u8> = (0..64).map(|_| random(200) as u8).collect();
        let class = random(4);
        let (y, x) = (class / 2 * 4 + random(3), class % 2 * 4 + random(3));
        for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            image[8 * (y + dy) + x + dx] = 200 + random(56) as u8;
        }
        pixels.extend(image);
        labels.push(class as u32);
    }
    let shape = Shape { h: 8, w: 8, c: 1 };
    Labelled {
        images: Images { shape, pixels },
        labels,
    }
}

struct Setup {
    recipe: Recipe,
    architecture: Architecture,
    weights: Weights,
    data: Labelled,
    scales: Vec<NodeScale>,
}

/// An untrained network with its batch norm folded, and its scales.
fn setup() -> Setup {
    let (recipe, data) = (recipe(), data());
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss).unwrap();
    let weights = initial_weights(&architecture, 2);
    let (architecture, weights) = fold::batch_norm(&architecture, &weights);
    let network = Network::new(&architecture, &weights, &Device::Cpu).unwrap();
    let reference = ptq::calibrate(&network, &Preprocess::Unit, &data).unwrap();
    let graph = graph::build(&architecture, &Preprocess::Unit, &weights).unwrap();
    let scales = ptq::scales(&recipe.quantize, &graph, &architecture, &reference, &data).unwrap();
    Setup {
        recipe,
        architecture,
        weights,
        data,
        scales,
    }
}

fn fixed_logits(setup: &Setup, weights: &Weights, scales: &[NodeScale]) -> Vec<Vec<f64>> {
    let graph = graph::build(&setup.architecture, &Preprocess::Unit, weights).unwrap();
    let quantized = quantize::assemble(&graph, &setup.architecture, scales).unwrap();
    let images: Vec<&[u8]> = (0..IMAGES).map(|i| setup.data.images.get(i)).collect();
    ptq::logits(&quantized, &images).unwrap()
}

fn right(logits: &[Vec<f64>], labels: &[u32]) -> usize {
    let pairs = logits.iter().zip(labels);
    pairs
        .filter(|(row, label)| argmax(row) == **label as usize)
        .count()
}

#[test]
fn fine_tuning_learns_at_coarse_scales() {
    let mut setup = setup();
    // A few levels for every activation.
    for scale in &mut setup.scales {
        scale.exponent += 5;
    }
    let tune = |recipe: &Recipe| {
        qat::tune(
            recipe,
            &setup.architecture,
            &setup.weights,
            &Preprocess::Unit,
            &setup.scales,
            &setup.data,
            &mut |_| {},
        )
        .unwrap()
    };
    let tuned = tune(&setup.recipe);
    let before = right(
        &fixed_logits(&setup, &setup.weights, &setup.scales),
        &setup.data.labels,
    );
    let after = right(
        &fixed_logits(&setup, &tuned, &setup.scales),
        &setup.data.labels,
    );
    println!("{before} -> {after} of {IMAGES}");
    assert!(before < 300 && after > 400, "{before} -> {after}");
    assert_eq!(
        tuned,
        tune(&setup.recipe),
        "the same run gives the same weights"
    );

    let mut none = setup.recipe.clone();
    none.quantize.qat_epochs = 0;
    assert_eq!(tune(&none), setup.weights);
}

/// The rounding of the fine-tuning is that of the integer network: without it the logits are far apart.
#[test]
fn the_rounded_network_is_the_integer_network() {
    let setup = setup();
    let rounding = qat::Rounding::new(
        &setup.architecture,
        &Preprocess::Unit,
        &graph::build(&setup.architecture, &Preprocess::Unit, &setup.weights).unwrap(),
        &setup.scales,
    );
    let rounded = rounding.weights(&setup.weights);
    let network = Network::new(&setup.architecture, &rounded, &Device::Cpu)
        .unwrap()
        .with_fake_quantization(rounding.outputs.clone());
    let x: Vec<f32> = setup
        .data
        .images
        .pixels
        .iter()
        .map(|&p| f32::from(p) / 255.0)
        .collect();
    let x = Tensor::from_vec(x, (IMAGES, 8, 8, 1), &Device::Cpu).unwrap();
    let float: Vec<Vec<f32>> = network
        .forward_composed(&x, trainer::network::Mode::Infer)
        .unwrap()
        .to_vec2()
        .unwrap();
    let fused: Vec<Vec<f32>> = network
        .forward(&x, trainer::network::Mode::Infer)
        .unwrap()
        .to_vec2()
        .unwrap();
    let fixed = fixed_logits(&setup, &setup.weights, &setup.scales);
    // Biases are rounded to accumulator units only in the integer network, which moves few values over a boundary.
    let mut far = 0;
    for ((float, fused), fixed) in float
        .iter()
        .flatten()
        .zip(fused.iter().flatten())
        .zip(fixed.iter().flatten())
    {
        far += usize::from(
            (f64::from(*float) - fixed).abs() > 1e-3 || (f64::from(*fused) - fixed).abs() > 1e-3,
        );
    }
    println!("{far} of {} logits differ by more than 0.001", 4 * IMAGES);
    assert!(far < 4 * IMAGES / 20);
}
