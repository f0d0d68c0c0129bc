//! Small networks through quantizer and exporter: the int8 model means what the float model means, every engine gives the
//! same bits, and the accumulator bound holds. The files are left in the target folder, where `tests/python/check_onnx.py`
//! checks them with onnx and onnxruntime.

mod cases;

use runtime::encode::{DType, OpSpec};
use trainer::{
    architecture::Architecture,
    calibrate::Calibration,
    export::{Origin, onnx},
    preprocess::Preprocess,
    quantize::{ACCUMULATOR_LIMIT, Method, Quantized, quantize, scale::max_magnitude},
    recipe::{LossRecipe, Network},
    weights::{Array, Weights},
};
use verifier::{
    graph::Graph,
    naive::{self, Rounding},
    tract::{Mode, Tract},
};

use cases::{CASES, Case, Random, unit};

const IMAGES: usize = 24;

struct Built {
    architecture: Architecture,
    weights: Weights,
    quantized: Quantized,
    float: Vec<u8>,
    int8: Vec<u8>,
    images: Vec<Vec<u8>>,
}

fn build(case: &Case, opset: u32) -> Built {
    let text = format!("input = {}\n{}", case.input, case.layers);
    let network: Network = toml::from_str(&text).expect(case.name);
    let architecture =
        Architecture::resolve(&network, &LossRecipe::MeanSquaredError).expect(case.name);
    let preprocess = (case.preprocess)(architecture.input.len());
    let mut random = Random(case.name.len() as u64);
    let mut weights = Weights::default();
    for layer in &architecture.layers {
        for (part, shape) in layer.weight_shapes() {
            let len: usize = shape.iter().product();
            let fan_in = (len / shape.last().copied().unwrap_or(1)).max(1) as f32;
            let pixel = if case.name.starts_with("pool_first") {
                100.0
            } else {
                1.0
            };
            let data = (0..len)
                .map(|_| match part {
                    "kernel" => (random.uniform() - 0.5) * 3.0 / fan_in.sqrt() / pixel,
                    "gamma" | "moving_variance" => 0.5 + random.uniform(),
                    _ => random.uniform() - 0.5,
                })
                .collect();
            weights
                .0
                .insert(format!("{}.{part}", layer.name), Array { shape, data });
        }
    }
    let images: Vec<Vec<u8>> = (0..IMAGES)
        .map(|i| match i {
            0 => vec![0; architecture.input.len()],
            1 => vec![255; architecture.input.len()],
            _ => (0..architecture.input.len())
                .map(|_| (256.0 * random.uniform()) as u8)
                .collect(),
        })
        .collect();
    let classes: Vec<String> = (0..architecture.classes())
        .map(|i| format!("class {i}"))
        .collect();
    let origin = Origin {
        name: case.name,
        recipe_sha256: [0xab; 32],
        class_names: &classes,
    };
    let float = onnx::float(&architecture, &preprocess, &weights, opset, &origin).expect(case.name);
    let calibration = calibrate(&architecture, &preprocess, &float, &images);
    let quantized = quantize(
        &architecture,
        &preprocess,
        &weights,
        &calibration,
        Method::Mse,
    )
    .expect(case.name);
    let int8 = onnx::int8(&quantized, opset, &origin).expect(case.name);
    Built {
        architecture,
        weights,
        quantized,
        float,
        int8,
        images,
    }
}

fn run(
    model: &[u8],
    images: &[Vec<u8>],
    rounding: Rounding,
) -> std::collections::BTreeMap<String, Vec<f64>> {
    let graph = Graph::parse(model).expect("exported models parse");
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let values = naive::run(&graph, &images, rounding).expect("exported models run");
    values
        .into_iter()
        .map(|(name, tensor)| (name, tensor.data))
        .collect()
}

/// Statistics from the verifier's reference interpreter, which shares no code with the trainer.
fn calibrate(
    architecture: &Architecture,
    preprocess: &Preprocess,
    float: &[u8],
    images: &[Vec<u8>],
) -> Calibration {
    let values = run(float, images, Rounding::HalfEven);
    let mut calibration = Calibration::new(architecture);
    let extend = |histogram: &mut trainer::calibrate::Histogram, name: &str| {
        if let Some(values) = values.get(name) {
            histogram.extend(&values.iter().map(|&v| v as f32).collect::<Vec<_>>());
        }
    };
    for image in images {
        let mut out = vec![0.0; image.len()];
        preprocess.apply(image, &mut out);
        calibration.input.extend(&out);
    }
    for (layer, statistics) in architecture.layers.iter().zip(&mut calibration.layers) {
        let linear = format!("{}/linear", layer.name);
        let value = format!("{}/value", layer.name);
        extend(&mut statistics.pre_activation, &linear);
        let output = if values.contains_key(&value) {
            &value
        } else {
            &linear
        };
        extend(&mut statistics.output, output);
    }
    calibration
}

#[test]
fn int8_means_what_float_means() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("onnx");
    std::fs::create_dir_all(&folder).unwrap();
    for (i, case) in CASES.iter().enumerate() {
        let built = build(case, 13 + (i as u32) % 6);
        std::fs::write(folder.join(format!("{}.onnx", case.name)), &built.float).unwrap();
        std::fs::write(folder.join(format!("{}.int8.onnx", case.name)), &built.int8).unwrap();
        let float = run(&built.float, &built.images, Rounding::HalfEven);
        let int8 = run(&built.int8, &built.images, Rounding::HalfEven);
        let (a, b) = (&float["logits"], &int8["logits"]);
        assert_eq!(a.len(), IMAGES * built.architecture.classes());
        let mean = a.iter().sum::<f64>() / a.len() as f64;
        let noise: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
        let signal: f64 = a.iter().map(|a| (a - mean).powi(2)).sum();
        let ratio = (noise / signal).sqrt();
        println!("{}: noise to signal {ratio:.4}", case.name);
        assert!(ratio < 0.06, "{}: noise to signal {ratio}", case.name);
    }
}

#[test]
fn tract_gives_the_same_bits() {
    for case in CASES {
        let built = build(case, 17);
        let expected = &run(&built.int8, &built.images, Rounding::HalfEven)["logits"];
        let images: Vec<&[u8]> = built.images.iter().map(Vec::as_slice).collect();
        let shape = built.architecture.input;
        let image = [shape.c, shape.h, shape.w];
        for mode in [Mode::Optimized, Mode::Plain] {
            let tract = Tract::load(&built.int8, image, &[], IMAGES, mode).expect(case.name);
            let outputs = tract.run(&images).expect(case.name);
            let logits: Vec<f64> = outputs[0].data.iter().map(|&v| f64::from(v)).collect();
            assert_eq!(&logits, expected, "{} {mode:?}", case.name);
        }
    }
}

/// Another rounding rule changes the bits, so the equality above says something about rounding.
#[test]
fn half_up_is_noticed() {
    let differing = CASES
        .iter()
        .filter(|case| {
            let built = build(case, 17);
            let right = run(&built.int8, &built.images, Rounding::HalfEven);
            let wrong = run(&built.int8, &built.images, Rounding::HalfUp);
            right["logits"] != wrong["logits"]
        })
        .count();
    assert!(
        differing > CASES.len() / 2,
        "{differing} of {}",
        CASES.len()
    );
}

#[test]
fn accumulators_stay_below_the_limit() {
    for case in CASES {
        let Quantized {
            tensors, operators, ..
        } = build(case, 17).quantized;
        for (operator, output) in operators.iter().zip(&tensors[1..]) {
            assert!(
                output.dtype != DType::I32 || std::ptr::eq(operator, operators.last().unwrap())
            );
            let (OpSpec::Conv {
                input,
                weight,
                bias,
                ..
            }
            | OpSpec::Dense {
                input,
                weight,
                bias,
                ..
            }) = &operator.spec
            else {
                continue;
            };
            let largest = max_magnitude(tensors[*input].dtype);
            for (row, bias) in weight.chunks(weight.len() / bias.len()).zip(bias) {
                let sum: i64 = row.iter().map(|w| i64::from(w.unsigned_abs())).sum();
                assert!(row.iter().all(|&w| w != -128));
                assert!(
                    sum * largest + i64::from(bias.unsigned_abs()) < ACCUMULATOR_LIMIT,
                    "{}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn files_are_reproducible() {
    let (a, b) = (build(&CASES[4], 17), build(&CASES[4], 17));
    assert_eq!((a.float, a.int8), (b.float, b.int8));
}

/// What cannot be quantized is refused with the layer's name.
#[test]
fn refusals_name_the_layer() {
    let refuse = |layers: &str, change: fn(&mut Weights)| {
        let text = format!("input = [7, 7, 1]\n{layers}");
        let network: Network = toml::from_str(&text).unwrap();
        let architecture = Architecture::resolve(&network, &LossRecipe::MeanSquaredError).unwrap();
        let mut weights = Weights::default();
        for layer in &architecture.layers {
            for (part, shape) in layer.weight_shapes() {
                let data = vec![0.5; shape.iter().product()];
                weights
                    .0
                    .insert(format!("{}.{part}", layer.name), Array { shape, data });
            }
        }
        change(&mut weights);
        let calibration = Calibration::new(&architecture);
        quantize(
            &architecture,
            &Preprocess::Unit,
            &weights,
            &calibration,
            Method::MinMax,
        )
        .unwrap_err()
        .to_string()
    };
    let pool = r#"
        [[layers]]
        type = "avg_pool"
        padding = "same"
        [[layers]]
        type = "flatten"
        [[layers]]
        type = "dense"
        units = 2
    "#;
    let dense = r#"
        [[layers]]
        type = "flatten"
        [[layers]]
        type = "dense"
        units = 2
    "#;
    assert!(refuse(pool, |_| ()).starts_with("layer `avg_pool1`: average pooling with padding"));
    let missing = refuse(dense, |weights| weights.0.clear());
    assert_eq!(missing, "weights: `dense1.kernel` is missing");
    let nan = refuse(dense, |weights| {
        if let Some(bias) = weights.0.get_mut("dense1.bias") {
            bias.data[1] = f32::NAN;
        }
    });
    assert_eq!(nan, "weights: `dense1.bias` contains NaN");
    let short = refuse(dense, |weights| {
        if let Some(kernel) = weights.0.get_mut("dense1.kernel") {
            kernel.data.pop();
        }
    });
    assert_eq!(
        short,
        "weights: `dense1.kernel` should have 98 values, got 97"
    );
}

/// The float model against plain loops over Keras's layouts (NHWC, HWIO, dense columns in h, w, c order): a wrong
/// permutation in the exporter cannot hide behind the quantizer's use of the same one.
#[test]
fn layouts_are_keras_layouts() {
    const CASE: Case = Case {
        name: "layouts",
        input: "[4, 5, 2]",
        preprocess: unit,
        layers: r#"
            [[layers]]
            type = "conv"
            filters = 3
            kernel = [2, 3]
            [[layers]]
            type = "flatten"
            [[layers]]
            type = "dense"
            units = 4
        "#,
    };
    let built = build(&CASE, 17);
    let logits = &run(&built.float, &built.images, Rounding::HalfEven)["logits"];
    let weight = |name: &str| &built.weights.0[name].data;
    let (kernel, bias) = (weight("conv1.kernel"), weight("conv1.bias"));
    let (dense, dense_bias) = (weight("dense1.kernel"), weight("dense1.bias"));
    for (image, logits) in built.images.iter().zip(logits.chunks(4)) {
        let mut map = Vec::new();
        for (y, x, o) in
            (0..3).flat_map(|y| (0..3).flat_map(move |x| (0..3).map(move |o| (y, x, o))))
        {
            let mut sum = f64::from(bias[o]);
            for (ky, kx, i) in
                (0..2).flat_map(|a| (0..3).flat_map(move |b| (0..2).map(move |c| (a, b, c))))
            {
                let pixel = f64::from(image[((y + ky) * 5 + x + kx) * 2 + i]) / 255.0;
                sum += pixel * f64::from(kernel[((ky * 3 + kx) * 2 + i) * 3 + o]);
            }
            map.push(sum);
        }
        for (unit, logit) in logits.iter().enumerate() {
            let sum: f64 = map
                .iter()
                .enumerate()
                .map(|(i, v)| v * f64::from(dense[i * 4 + unit]))
                .sum();
            assert!((sum + f64::from(dense_bias[unit]) - logit).abs() < 1e-4);
        }
    }
}
