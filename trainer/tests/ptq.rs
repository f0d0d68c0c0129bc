//! The search over activation exponents, on a network whose input has a few values far larger than the others.

use candle_core::Device;
use trainer::{
    architecture::Architecture,
    dataset::{Images, Labelled},
    initializer::initial_weights,
    network::Network,
    preprocess::Preprocess,
    ptq,
    quantize::{self, graph},
    recipe::{self, CalibrationMethod, LossRecipe, Quantize},
};
use verifier::tolerance::argmax;

const IMAGES: usize = 300;

/// 8 x 8 pixels; the last one is 0 in all images but some, so that its deviation is tiny.
fn data() -> Labelled {
    let mut state = 1u64;
    let mut pixel = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let mut pixels: Vec<u8> = (0..IMAGES * 64).map(|_| pixel()).collect();
    for (i, image) in pixels.chunks_mut(64).enumerate() {
        image[63] = if i % 100 == 7 { 255 } else { 0 };
    }
    let shape = trainer::architecture::Shape { h: 8, w: 8, c: 1 };
    Labelled {
        images: Images { shape, pixels },
        labels: vec![0; IMAGES],
    }
}

fn preprocess(data: &Labelled) -> Preprocess {
    let column = |i: usize| {
        data.images
            .pixels
            .iter()
            .skip(i)
            .step_by(64)
            .map(|&p| f32::from(p))
    };
    let mean: Vec<f32> = (0..64)
        .map(|i| column(i).sum::<f32>() / IMAGES as f32)
        .collect();
    let std = (0..64)
        .map(|i| {
            (column(i).map(|p| (p - mean[i]).powi(2)).sum::<f32>() / IMAGES as f32).sqrt()
                / if i == 63 { 20.0 } else { 1.0 }
        })
        .collect();
    Preprocess::PerPixel { mean, std }
}

/// Images with another class than the float network's.
fn disagreement(method: CalibrationMethod) -> usize {
    let network: recipe::Network = toml::from_str(
        r#"
        input = [8, 8, 1]
        layers = [
            { type = "conv", filters = 6, activation = "relu" },
            { type = "flatten" },
            { type = "dense", units = 12, activation = "sigmoid" },
            { type = "dense", units = 5, activation = "softmax" },
        ]
        "#,
    )
    .unwrap();
    let architecture = Architecture::resolve(&network, &LossRecipe::default()).unwrap();
    let (data, weights) = (data(), initial_weights(&architecture, 5));
    let preprocess = preprocess(&data);
    let network = Network::new(&architecture, &weights, &Device::Cpu).unwrap();
    let reference = ptq::calibrate(&network, &preprocess, &data).unwrap();
    let graph = graph::build(&architecture, &preprocess, &weights).unwrap();
    let recipe = Quantize {
        method,
        ..Quantize::default()
    };
    let scales = ptq::scales(&recipe, &graph, &architecture, &reference, &data).unwrap();
    let quantized = quantize::assemble(&graph, &architecture, &scales).unwrap();
    let images: Vec<&[u8]> = (0..IMAGES).map(|i| data.images.get(i)).collect();
    let fixed = ptq::logits(&quantized, &images).unwrap();
    let pairs = reference.logits.iter().zip(&fixed);
    pairs.filter(|(a, b)| argmax(a) != argmax(b)).count()
}

#[test]
fn the_search_keeps_the_classes_where_a_squared_error_loses_them() {
    let (mse, searched) = (
        disagreement(CalibrationMethod::Mse),
        disagreement(CalibrationMethod::Divergence),
    );
    println!("mse {mse}, divergence {searched} of {IMAGES}");
    assert!(mse > 30 && 4 * searched <= mse, "{mse} {searched}");
}
