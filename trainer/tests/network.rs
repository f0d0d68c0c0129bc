//! Whole networks: the fused CPU operators against candle's own ones, and the same bits for any number
//! of threads; all with every instruction set of this machine.

use candle_core::{Device, Tensor, Var};
use rayon::ThreadPoolBuilder;
use trainer::{
    architecture::Architecture,
    initializer::initial_weights,
    network::{Mode, Network},
    ops::kernel::Level,
    recipe::Recipe,
    weights::Weights,
};

const TRAIN: Mode = Mode::Train { seed: 7, step: 3 };

/// A network from the `network` section of a recipe.
fn architecture(input: [usize; 3], layers: &str) -> Architecture {
    let text = format!(
        "name = \"test\"\n[data]\nformat = \"idx\"\npath = \".\"\n[network]\ninput = {input:?}\nlayers = [\n{layers}\n]\n"
    );
    let recipe: Recipe = toml::from_str(&text).expect("a recipe");
    Architecture::resolve(&recipe.network, &recipe.train.loss).expect("an architecture")
}

/// Values in -1..1 that look random; one in eight is 0.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 29 == 0 {
                0.0
            } else {
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            }
        })
        .collect()
}

/// Initial weights with biases and normalization weights that are not 0 or 1.
fn weights(architecture: &Architecture) -> Weights {
    let mut weights = initial_weights(architecture, 5);
    for (i, (name, array)) in weights.0.iter_mut().enumerate() {
        let noise = numbers(array.data.len(), i as u32);
        if !name.ends_with("kernel") {
            for (value, noise) in array.data.iter_mut().zip(noise) {
                *value += 0.2 * noise;
            }
        }
    }
    weights
}

/// Logits and the gradients of `sum(logits * cotangent)`: the parameters', and the input's if it is a variable.
fn gradients(
    network: &Network,
    x: &[f32],
    n: usize,
    fused: bool,
    variable: bool,
) -> Vec<(String, Vec<f32>)> {
    let input = network.architecture().input;
    let x = Var::from_slice(x, (n, input.h, input.w, input.c), network.device()).expect("x");
    let x = if variable {
        x.as_tensor().clone()
    } else {
        x.as_detached_tensor()
    };
    let logits = if fused {
        network.forward(&x, TRAIN)
    } else {
        network.forward_composed(&x, TRAIN)
    }
    .expect("logits");
    let cotangent = Tensor::from_vec(
        numbers(logits.elem_count(), 99),
        logits.shape(),
        network.device(),
    )
    .expect("a cotangent");
    let sum = (&logits * cotangent)
        .and_then(|t| t.sum_all())
        .expect("a sum");
    let store = network.gradients(&sum).expect("gradients");
    let values = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1()).expect("values");
    let mut all = vec![("logits".to_owned(), values(&logits))];
    if variable {
        all.push(("x".to_owned(), values(store.get(&x).expect("a gradient"))));
    }
    for parameter in network.parameters() {
        let gradient = store.get(&parameter.var).expect("a gradient");
        all.push((parameter.name.clone(), values(gradient)));
    }
    all
}

const CASES: &[(&str, [usize; 3], &str)] = &[
    (
        "base, smaller images",
        [18, 18, 1],
        r#"{ type = "conv", filters = 32, activation = "relu" }, { type = "max_pool" },
           { type = "conv", filters = 64, activation = "relu" }, { type = "max_pool" },
           { type = "conv", filters = 64, kernel = [2, 2], activation = "relu" }, { type = "flatten" },
           { type = "dense", units = 70, activation = "relu" }, { type = "dense", units = 10, activation = "softmax" }"#,
    ),
    (
        "odd channels, padding, strides, overlapping and padded pools",
        [13, 11, 3],
        r#"{ type = "conv", filters = 7, kernel = [5, 3], padding = "same", activation = "tanh" },
           { type = "max_pool", size = [3, 2], stride = [2, 1], padding = "same" },
           { type = "conv", filters = 33, stride = [2, 1], padding = "same", activation = "elu" },
           { type = "max_pool", size = [3, 3], stride = [2, 2] },
           { type = "conv", filters = 5, kernel = [1, 1], use_bias = false, activation = "selu" },
           { type = "flatten" }, { type = "dense", units = 4, activation = "softmax" }"#,
    ),
    (
        "sparse gradients behind overlapping, padded pools",
        [9, 9, 16],
        r#"{ type = "conv", filters = 20, padding = "same", activation = "sigmoid" },
           { type = "max_pool", size = [3, 3], stride = [2, 2], padding = "same" },
           { type = "conv", filters = 16, kernel = [2, 3], activation = "relu" }, { type = "global_avg_pool" },
           { type = "dense", units = 3, activation = "softmax" }"#,
    ),
    (
        "few channels behind pooling, then padding",
        [13, 12, 3],
        r#"{ type = "conv", filters = 20, activation = "tanh" }, { type = "max_pool" },
           { type = "conv", filters = 37, padding = "same", activation = "relu" }, { type = "max_pool" },
           { type = "flatten" }, { type = "dense", units = 5, activation = "softmax" }"#,
    ),
    (
        "groups, depthwise, batch norm, dropout, add",
        [8, 8, 4],
        r#"{ type = "conv", filters = 8, padding = "same", groups = 2, use_bias = false, name = "a" },
           { type = "batch_norm" }, { type = "activation", activation = "relu", name = "b" },
           { type = "conv", filters = 16, padding = "same", groups = 8, activation = "relu" },
           { type = "conv", filters = 8, kernel = [1, 1], name = "c" },
           { type = "add", with = "b", activation = "relu" }, { type = "dropout", rate = 0.25 },
           { type = "conv", filters = 8, groups = 8, activation = "tanh" }, { type = "avg_pool" },
           { type = "flatten" }, { type = "dense", units = 5, activation = "softmax" }"#,
    ),
    (
        "mlp",
        [7, 7, 1],
        r#"{ type = "flatten" }, { type = "dense", units = 70, activation = "sigmoid" },
           { type = "dense", units = 30, activation = "sigmoid" }, { type = "dense", units = 10, activation = "softmax" }"#,
    ),
];

#[test]
fn fused_operators_are_the_composed_ones() {
    for &(name, input, layers) in CASES {
        let architecture = architecture(input, layers);
        let weights = weights(&architecture);
        let n = 9;
        let x = numbers(n * architecture.input.len(), 1);
        let run = |level, fused, variable| {
            let network = Network::new(&architecture, &weights, &Device::Cpu)
                .expect("a network")
                .with_level(level);
            let gradients = gradients(&network, &x, n, fused, variable);
            (gradients, network.weights().expect("weights"))
        };
        let (composed, composed_after) = run(Level::PORTABLE, false, true);
        let (portable, _) = run(Level::PORTABLE, true, true);
        for level in Level::available() {
            let (fused, fused_after) = run(level, true, true);
            close(&format!("{name}: {level:?}, composed"), &fused, &composed);
            close(&format!("{name}: {level:?}, portable"), &fused, &portable);
            let (constant, _) = run(level, true, false);
            let mut expected = composed.clone();
            expected.retain(|(what, _)| what != "x");
            let case = format!("{name}: {level:?}, the input is no variable");
            close(&case, &constant, &expected);
            for (key, a) in &fused_after.0 {
                for (a, b) in a.data.iter().zip(&composed_after.0[key].data) {
                    assert!((a - b).abs() <= 1e-6, "{name}: {level:?}: {key}: {a}, {b}");
                }
            }
        }
    }
}

#[cfg(feature = "cuda")]
#[test]
fn composed_operators_on_cuda_are_those_on_the_cpu() {
    let gpu = Device::new_cuda(0).expect("a GPU");
    for &(name, input, layers) in CASES {
        let architecture = architecture(input, layers);
        let weights = weights(&architecture);
        let n = 9;
        let x = numbers(n * architecture.input.len(), 1);
        let run = |device| {
            let network = Network::new(&architecture, &weights, device).expect("a network");
            let gradients = gradients(&network, &x, n, false, true);
            (gradients, network.weights().expect("weights"))
        };
        let (expected, expected_after) = run(&Device::Cpu);
        let (got, got_after) = run(&gpu);
        close(&format!("{name}: CUDA"), &got, &expected);
        for (key, a) in &got_after.0 {
            for (a, b) in a.data.iter().zip(&expected_after.0[key].data) {
                assert!((a - b).abs() <= 1e-6, "{name}: CUDA: {key}: {a}, {b}");
            }
        }
    }
}

/// Every value within 2e-5 of (the expected one plus the largest one of its tensor).
fn close(case: &str, got: &[(String, Vec<f32>)], expected: &[(String, Vec<f32>)]) {
    assert_eq!(got.len(), expected.len(), "{case}");
    for ((what, a), (_, b)) in got.iter().zip(expected) {
        let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(largest > 0.0, "{case}: {what}: all zero");
        assert_eq!(a.len(), b.len(), "{case}: {what}");
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!(
                (a - b).abs() <= 2e-5 * (b.abs() + largest),
                "{case}: {what}[{i}]: got {a}, expected {b}"
            );
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for &(name, input, layers) in CASES {
        let architecture = architecture(input, layers);
        let weights = weights(&architecture);
        for n in [1, 30, 67] {
            let x = numbers(n * architecture.input.len(), 2);
            let run = |level, threads, variable| {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build();
                let network = Network::new(&architecture, &weights, &Device::Cpu)
                    .expect("a network")
                    .with_level(level);
                let gradients = pool
                    .expect("threads")
                    .install(|| gradients(&network, &x, n, true, variable));
                (gradients, network.weights().expect("weights"))
            };
            for level in Level::available() {
                for variable in [true, false] {
                    let one = run(level, 1, variable);
                    for threads in [2, 3, 8] {
                        assert!(
                            one == run(level, threads, variable),
                            "{name}: {level:?}: batch {n}, {threads} threads, gradient of x: {variable}"
                        );
                    }
                }
            }
        }
    }
}

/// Memory is used again from step to step: here with NaN in every place that a batch of NaN reaches.
#[test]
fn a_step_does_not_see_what_earlier_ones_left() {
    for &(name, input, layers) in CASES {
        let architecture = architecture(input, layers);
        for level in Level::available() {
            let network = Network::new(&architecture, &weights(&architecture), &Device::Cpu)
                .expect("a network")
                .with_level(level);
            let x = numbers(30 * architecture.input.len(), 3);
            let nan = vec![f32::NAN; x.len()];
            for variable in [true, false] {
                let step = |x| gradients(&network, x, 30, true, variable);
                let infer = |x: &[f32]| {
                    let x = Tensor::from_slice(x, (30, input[0], input[1], input[2]), &Device::Cpu);
                    let logits = network.forward(&x.expect("x"), Mode::Infer);
                    let values = logits.and_then(|logits| logits.flatten_all()?.to_vec1::<f32>());
                    values.expect("logits")
                };
                let first = step(&x);
                let before = network.weights().expect("weights");
                let inferred = infer(&x);
                step(&nan);
                // the moving statistics are NaN now
                network.set_weights(&before).expect("weights");
                infer(&nan);
                assert_eq!(inferred, infer(&x), "{name}: {level:?}: inference");
                assert!(
                    first == step(&x),
                    "{name}: {level:?}: gradient of x: {variable}"
                );
            }
        }
    }
}
