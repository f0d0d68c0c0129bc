//! The network in f64, plain loops, NHWC: the ranges for the calibration and an independent check of model.onnx.

use trainer::{
    architecture::{Activation, Layer, LayerKind, Padding, Source, Window},
    calibrate::{Calibration, Histogram},
};

use super::Case;

/// Values of every layer for one raw image: before the activation, and the output.
pub fn forward(case: &Case, image: &[u8]) -> (Vec<f64>, Vec<[Vec<f64>; 2]>) {
    let mut preprocessed = vec![0.0; image.len()];
    case.preprocess.apply(image, &mut preprocessed);
    let input: Vec<f64> = preprocessed.iter().map(|&v| f64::from(v)).collect();
    let mut values: Vec<[Vec<f64>; 2]> = Vec::new();
    for layer in &case.architecture.layers {
        let read = |source: Source| match source {
            Source::Input => &input,
            Source::Layer(i) => &values[i][1],
        };
        let x = read(layer.inputs[0]);
        let (before, activation) = match &layer.kind {
            LayerKind::Conv {
                window,
                groups,
                activation,
                ..
            } => (conv(case, layer, window, *groups, x), *activation),
            LayerKind::Dense { activation, .. } => (dense(case, layer, x), *activation),
            LayerKind::Add { activation } => {
                let y = read(layer.inputs[1]);
                (x.iter().zip(y).map(|(a, b)| a + b).collect(), *activation)
            }
            LayerKind::Activation { activation } => (x.clone(), *activation),
            LayerKind::MaxPool { window } => (pool(layer, window, x, true), Activation::Linear),
            LayerKind::AvgPool { window } => (pool(layer, window, x, false), Activation::Linear),
            LayerKind::GlobalAvgPool => {
                let (c, area) = (layer.input.c, layer.input.h * layer.input.w);
                let mean = |c0: usize| x.iter().skip(c0).step_by(c).sum::<f64>() / area as f64;
                ((0..c).map(mean).collect(), Activation::Linear)
            }
            LayerKind::BatchNorm { epsilon, .. } => {
                let [gamma, beta, mean, variance] =
                    ["gamma", "beta", "moving_mean", "moving_variance"]
                        .map(|n| weight(case, layer, n));
                let normalize = |(i, v): (usize, &f64)| {
                    let c = i % layer.input.c;
                    let deviation = (f64::from(variance[c]) + f64::from(*epsilon)).sqrt();
                    (v - f64::from(mean[c])) / deviation * f64::from(gamma[c]) + f64::from(beta[c])
                };
                (
                    x.iter().enumerate().map(normalize).collect(),
                    Activation::Linear,
                )
            }
            LayerKind::Dropout { .. } | LayerKind::Flatten => (x.clone(), Activation::Linear),
        };
        let after = before.iter().map(|&v| function(activation, v)).collect();
        values.push([before, after]);
    }
    (input, values)
}

fn function(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Linear | Activation::Softmax => x,
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Elu if x > 0.0 => x,
        Activation::Elu => x.exp_m1(),
        Activation::Selu if x > 0.0 => 1.050_700_987_355_480_5 * x,
        Activation::Selu => 1.050_700_987_355_480_5 * 1.673_263_242_354_377_2 * x.exp_m1(),
    }
}

fn weight<'a>(case: &'a Case, layer: &Layer, name: &str) -> &'a [f32] {
    case.weights
        .0
        .get(&format!("{}.{name}", layer.name))
        .map_or(&[], |a| &a.data)
}

/// `(kernel position, input position)` of the taps of output `o` that lie inside the input.
fn taps(
    window: &Window,
    axis: usize,
    input: usize,
    output: usize,
    o: usize,
) -> Vec<(usize, usize)> {
    let (size, stride) = (window.size[axis], window.stride[axis]);
    let before = match window.padding {
        Padding::Valid => 0,
        Padding::Same => ((output - 1) * stride + size).saturating_sub(input) / 2,
    };
    (0..size)
        .filter_map(|k| Some((k, (o * stride + k).checked_sub(before)?)))
        .filter(|(_, p)| *p < input)
        .collect()
}

fn conv(case: &Case, layer: &Layer, window: &Window, groups: usize, x: &[f64]) -> Vec<f64> {
    let (kernel, bias) = (weight(case, layer, "kernel"), weight(case, layer, "bias"));
    let (i, o) = (layer.input, layer.output);
    let (ci, co) = (i.c / groups, o.c / groups);
    let mut out = Vec::with_capacity(o.len());
    for y in 0..o.h {
        let rows = taps(window, 0, i.h, o.h, y);
        for z in 0..o.w {
            let columns = taps(window, 1, i.w, o.w, z);
            for c in 0..o.c {
                let mut sum = bias.get(c).map_or(0.0, |&b| f64::from(b));
                for &(ky, py) in &rows {
                    for &(kx, px) in &columns {
                        for d in 0..ci {
                            let w = kernel[((ky * window.size[1] + kx) * ci + d) * o.c + c];
                            sum += f64::from(w) * x[(py * i.w + px) * i.c + c / co * ci + d];
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

fn dense(case: &Case, layer: &Layer, x: &[f64]) -> Vec<f64> {
    let (kernel, bias) = (weight(case, layer, "kernel"), weight(case, layer, "bias"));
    let units = layer.output.c;
    (0..units)
        .map(|u| {
            let products = x
                .iter()
                .enumerate()
                .map(|(i, v)| v * f64::from(kernel[i * units + u]));
            products.sum::<f64>() + bias.get(u).map_or(0.0, |&b| f64::from(b))
        })
        .collect()
}

fn pool(layer: &Layer, window: &Window, x: &[f64], maximum: bool) -> Vec<f64> {
    let (i, o) = (layer.input, layer.output);
    let mut out = Vec::with_capacity(o.len());
    for y in 0..o.h {
        for z in 0..o.w {
            for c in 0..o.c {
                let mut values = Vec::new();
                for (_, py) in taps(window, 0, i.h, o.h, y) {
                    for (_, px) in taps(window, 1, i.w, o.w, z) {
                        values.push(x[(py * i.w + px) * i.c + c]);
                    }
                }
                out.push(if maximum {
                    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                } else {
                    values.iter().sum::<f64>() / values.len() as f64
                });
            }
        }
    }
    out
}

fn extend(histogram: &mut Histogram, values: &[f64]) {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    histogram.extend(&values);
}

/// What the quantizer needs to know about the case's own images.
pub fn calibrate(case: &Case) -> Calibration {
    let mut calibration = Calibration::new(&case.architecture);
    for image in &case.images {
        let (input, values) = forward(case, image);
        extend(&mut calibration.input, &input);
        for (statistics, [before, after]) in calibration.layers.iter_mut().zip(&values) {
            extend(&mut statistics.pre_activation, before);
            extend(&mut statistics.output, after);
        }
    }
    calibration
}

/// Ranges `factor` times smaller than what the images need: most extremes saturate.
pub fn narrow(calibration: &mut Calibration, factor: f64) {
    for statistics in &mut calibration.layers {
        for histogram in [&mut statistics.pre_activation, &mut statistics.output] {
            let (min, max) = histogram.range();
            *histogram = Histogram::uniform(min / factor, max / factor);
        }
    }
}
