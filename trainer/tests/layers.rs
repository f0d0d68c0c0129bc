//! Every layer against Keras: outputs, gradients and moving statistics of `golden/layers.json` (its `_meta` element states
//! the generator's versions). Tolerance: `1e-5 * (|b| + min(1, largest |b| of the tensor))`.

use candle_core::{Device, Tensor, Var};
use serde_json::Value;
use trainer::{
    architecture::{
        Activation, Architecture, Initializer, Layer, LayerKind, OutputActivation, Padding,
        Regularizer, Shape, Source, Window,
    },
    network::{Mode, Network},
    ops::geometry::Geometry,
    ops::kernel::Level,
    weights::{Array, Weights},
};

fn array(value: &Value) -> Array {
    let numbers = |key: &str| value[key].as_array().expect("an array").iter();
    Array {
        shape: numbers("shape")
            .map(|v| v.as_u64().expect("a size") as usize)
            .collect(),
        data: numbers("data")
            .map(|v| v.as_f64().expect("a number") as f32)
            .collect(),
    }
}

fn pair(value: &Value) -> [usize; 2] {
    let at = |i: usize| value[i].as_u64().expect("a size") as usize;
    [at(0), at(1)]
}

fn activation(params: &Value) -> Activation {
    match params["activation"].as_str() {
        None => Activation::Linear,
        Some(_) => serde_json::from_value(params["activation"].clone()).expect("an activation"),
    }
}

fn padding(params: &Value) -> Padding {
    serde_json::from_value(params["padding"].clone()).expect("a padding")
}

/// The case as a network of one layer called `layer`.
fn network(case: &Value) -> (Architecture, Weights) {
    let (params, inputs) = (&case["params"], &case["inputs"]);
    let input = match array(&inputs["input"]).shape[..] {
        [_, h, w, c] => Shape { h, w, c },
        [_, c] => Shape { h: 1, w: 1, c },
        ref other => panic!("{other:?}"),
    };
    let mut weights = Weights::default();
    for name in [
        "kernel",
        "bias",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ] {
        if inputs.get(name).is_some() {
            weights
                .0
                .insert(format!("layer.{name}"), array(&inputs[name]));
        }
    }
    let conv = |filters: usize, groups: usize, size: [usize; 2]| LayerKind::Conv {
        filters,
        window: Window {
            size,
            stride: pair(&params["strides"]),
            padding: padding(params),
        },
        groups,
        use_bias: params["use_bias"].as_bool().expect("a flag"),
        activation: activation(params),
        regularizer: Regularizer::default(),
        initializer: Initializer::default(),
    };
    let pool = || Window {
        size: pair(&params["pool_size"]),
        stride: pair(&params["strides"]),
        padding: padding(params),
    };
    let kind = match params["class"].as_str().expect("a class") {
        "Conv2D" => conv(
            params["filters"].as_u64().expect("a number") as usize,
            1,
            pair(&params["kernel_size"]),
        ),
        "DepthwiseConv2D" => {
            let filters = input.c * params["depth_multiplier"].as_u64().expect("a number") as usize;
            let kernel = weights.0.get_mut("layer.kernel").expect("a kernel");
            kernel.shape = vec![kernel.shape[0], kernel.shape[1], 1, filters];
            conv(filters, input.c, pair(&params["kernel_size"]))
        }
        "MaxPooling2D" => LayerKind::MaxPool { window: pool() },
        "AveragePooling2D" => LayerKind::AvgPool { window: pool() },
        "GlobalAveragePooling2D" => LayerKind::GlobalAvgPool,
        "Dense" => LayerKind::Dense {
            units: params["units"].as_u64().expect("a number") as usize,
            use_bias: params["use_bias"].as_bool().expect("a flag"),
            activation: activation(params),
            regularizer: Regularizer::default(),
            initializer: Initializer::default(),
        },
        "BatchNormalization" => LayerKind::BatchNorm {
            momentum: params["momentum"].as_f64().expect("a number") as f32,
            epsilon: params["epsilon"].as_f64().expect("a number") as f32,
        },
        "Activation" => LayerKind::Activation {
            activation: activation(params),
        },
        other => panic!("class {other}"),
    };
    let output = match &kind {
        LayerKind::Conv {
            window, filters, ..
        } => {
            let [h, w] = Geometry::new(input, *window).output;
            Shape { h, w, c: *filters }
        }
        LayerKind::MaxPool { window } | LayerKind::AvgPool { window } => {
            let [h, w] = Geometry::new(input, *window).output;
            Shape { h, w, c: input.c }
        }
        LayerKind::Dense { units, .. } => Shape {
            h: 1,
            w: 1,
            c: *units,
        },
        LayerKind::GlobalAvgPool => Shape {
            h: 1,
            w: 1,
            c: input.c,
        },
        _ => input,
    };
    let layer = Layer {
        name: "layer".into(),
        kind,
        inputs: vec![Source::Input],
        input,
        output,
    };
    let architecture = Architecture {
        input,
        layers: vec![layer],
        output: OutputActivation::Linear,
    };
    (architecture, weights)
}

fn compare(what: &str, got: &[f32], expected: &Value) {
    let expected = array(expected).data;
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
        let tolerance = 1e-5 * (b.abs() + largest.min(1.0));
        assert!(
            (a - b).abs() <= tolerance,
            "{what}[{i}]: got {a}, expected {b} within {tolerance}"
        );
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("a tensor");
    flat.to_vec1().expect("f32 values")
}

type Forward = fn(&Network, &Tensor, Mode) -> candle_core::Result<Tensor>;

const TRAIN: Mode = Mode::Train { seed: 0, step: 0 };

fn check(case: &Value, forward: Forward, level: Level, training: Mode, device: &Device) {
    let name = case["name"].as_str().expect("a name");
    let (architecture, weights) = network(case);
    let network = Network::new(&architecture, &weights, device)
        .expect("a network")
        .with_level(level);
    let input = array(&case["inputs"]["input"]);
    let x = Var::from_slice(&input.data, input.shape, device).expect("a tensor");
    let mode = match case["params"].get("training") {
        Some(Value::Bool(false)) => Mode::Infer,
        _ => training,
    };
    let expected = &case["expected"];

    let output = forward(&network, &x, mode).expect(name);
    compare(
        &format!("{name}: output"),
        &values(&output),
        &expected["output"],
    );
    if mode == Mode::Infer && training != Mode::Infer {
        return; // no gradients
    }
    let cotangent = array(&case["inputs"]["cotangent"]);
    let cotangent = Tensor::from_slice(&cotangent.data, output.shape(), device).expect(name);
    let sum = (output * cotangent)
        .and_then(|t| t.sum_all())
        .expect("a sum");
    let gradients = network.gradients(&sum).expect(name);
    let gradient = values(gradients.get(&x).expect(name));
    compare(
        &format!("{name}: grad_input"),
        &gradient,
        &expected["grad_input"],
    );
    for parameter in network.parameters() {
        let key = parameter.name.replace("layer.", "grad_");
        let gradient = values(gradients.get(&parameter.var).expect(name));
        compare(&format!("{name}: {key}"), &gradient, &expected[&key]);
    }
    let after = network.weights().expect("weights");
    for key in ["moving_mean", "moving_variance"] {
        if let Some(expected) = expected.get(key) {
            let got = &after.0[&format!("layer.{key}")].data;
            compare(&format!("{name}: {key}"), got, expected);
        }
    }
}

fn cases() -> Vec<Value> {
    let text = include_str!("golden/layers.json");
    let cases: Vec<Value> = serde_json::from_str(text).expect("JSON");
    assert_eq!(cases.len(), 51);
    cases.into_iter().skip(1).collect()
}

fn check_composed(device: &Device) {
    for case in cases() {
        let mode = match case["params"]["training"] {
            Value::Bool(true) => TRAIN,
            _ => Mode::Infer,
        };
        let forward = Network::forward_composed;
        check(&case, forward, Level::PORTABLE, mode, device);
    }
}

#[test]
fn composed_operators_are_keras_s() {
    check_composed(&Device::Cpu);
}

#[cfg(feature = "cuda")]
#[test]
fn composed_operators_on_cuda_are_keras_s() {
    check_composed(&Device::new_cuda(0).expect("a GPU"));
}

#[test]
fn fused_operators_are_keras_s() {
    for case in cases() {
        if case["params"]["activation"] != "softmax" {
            for level in Level::available() {
                eprintln!("{level:?}");
                check(&case, Network::forward, level, TRAIN, &Device::Cpu);
            }
        }
    }
}
