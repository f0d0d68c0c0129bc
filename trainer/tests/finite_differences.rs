//! Every operator's gradients against central differences of its own forward pass, for the input and every weight; fused
//! and composed. The step is 2^-10; within 2^-10 of a kink (relu, a tie of a pooling) there is no derivative to compare with:
//! there the differences to both sides disagree, and the value is left out.

use candle_core::{Device, Tensor, Var};
use trainer::{
    architecture::Architecture,
    initializer::initial_weights,
    network::{Mode, Network},
    recipe::Recipe,
};

const TRAIN: Mode = Mode::Train { seed: 7, step: 3 };
const STEP: f32 = 1.0 / 1024.0;
const N: usize = 3;
/// Values checked of one tensor.
const CHECKED: usize = 24;

const CASES: &[(&str, [usize; 3], &str)] = &[
    ("dense", [2, 5, 1], ""),
    (
        "dense relu",
        [2, 3, 1],
        r#"{ type = "flatten" }, { type = "dense", units = 6, activation = "relu" },"#,
    ),
    (
        "dense sigmoid",
        [2, 3, 1],
        r#"{ type = "flatten" }, { type = "dense", units = 6, activation = "sigmoid" },"#,
    ),
    (
        "dense tanh",
        [2, 3, 1],
        r#"{ type = "flatten" }, { type = "dense", units = 6, activation = "tanh" },"#,
    ),
    (
        "dense elu",
        [2, 3, 1],
        r#"{ type = "flatten" }, { type = "dense", units = 6, activation = "elu" },"#,
    ),
    (
        "dense selu",
        [2, 3, 1],
        r#"{ type = "flatten" }, { type = "dense", units = 6, activation = "selu" },"#,
    ),
    ("conv", [5, 6, 2], r#"{ type = "conv", filters = 3 },"#),
    (
        "conv same, strides",
        [6, 5, 3],
        r#"{ type = "conv", filters = 4, kernel = [3, 2], stride = [2, 1], padding = "same", activation = "tanh" },"#,
    ),
    (
        "conv with max pool",
        [8, 8, 1],
        r#"{ type = "conv", filters = 4, activation = "relu" }, { type = "max_pool" },"#,
    ),
    (
        "conv without bias",
        [4, 4, 2],
        r#"{ type = "conv", filters = 3, use_bias = false },"#,
    ),
    (
        "grouped conv",
        [5, 5, 4],
        r#"{ type = "conv", filters = 6, groups = 2, padding = "same" },"#,
    ),
    (
        "depthwise conv",
        [5, 5, 3],
        r#"{ type = "depthwise_conv", multiplier = 2, activation = "sigmoid" },"#,
    ),
    (
        "max pool",
        [6, 6, 2],
        r#"{ type = "max_pool", size = [3, 2], stride = [2, 1], padding = "same" },"#,
    ),
    (
        "average pool",
        [6, 6, 2],
        r#"{ type = "avg_pool", size = [3, 2], stride = [2, 1], padding = "same" },"#,
    ),
    (
        "global average pool",
        [4, 5, 3],
        r#"{ type = "global_avg_pool" },"#,
    ),
    ("batch norm", [4, 4, 3], r#"{ type = "batch_norm" },"#),
    ("dropout", [4, 4, 2], r#"{ type = "dropout", rate = 0.4 },"#),
    (
        "activation",
        [4, 4, 2],
        r#"{ type = "activation", activation = "tanh" },"#,
    ),
    (
        "add",
        [4, 4, 2],
        r#"{ type = "conv", filters = 2, padding = "same", name = "a" }, { type = "conv", filters = 2, padding = "same" }, { type = "add", with = "a", activation = "relu" },"#,
    ),
];

/// Values in -1..1 that look random.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn architecture(input: [usize; 3], layers: &str) -> Architecture {
    let end = r#"{ type = "flatten" }, { type = "dense", units = 4, activation = "softmax" }"#;
    let end = if layers.contains("\"flatten\"") || layers.contains("global") {
        r#"{ type = "dense", units = 4, activation = "softmax" }"#
    } else {
        end
    };
    let text = format!(
        "name = \"test\"\n[data]\nformat = \"idx\"\npath = \".\"\n[network]\ninput = {input:?}\nlayers = [\n{layers}\n{end}\n]\n"
    );
    let recipe: Recipe = toml::from_str(&text).expect("a recipe");
    Architecture::resolve(&recipe.network, &recipe.train.loss).expect("an architecture")
}

struct Case {
    network: Network,
    fused: bool,
    cotangent: Vec<f32>,
}

impl Case {
    fn forward(&self, x: &Tensor) -> Tensor {
        let logits = if self.fused {
            self.network.forward(x, TRAIN)
        } else {
            self.network.forward_composed(x, TRAIN)
        };
        logits.expect("logits")
    }

    fn tensor(&self, x: &[f32]) -> Tensor {
        let input = self.network.architecture().input;
        Tensor::from_slice(x, (N, input.h, input.w, input.c), &Device::Cpu).expect("x")
    }

    /// `sum(logits * cotangent)`, summed in f64.
    fn value(&self, x: &[f32]) -> f64 {
        let logits = self.forward(&self.tensor(x)).flatten_all();
        let logits = logits.and_then(|t| t.to_vec1::<f32>()).expect("values");
        let terms = logits.iter().zip(&self.cotangent);
        terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    /// Compares the gradient with differences of `value_at(index, offset)`; returns (checked, left out).
    fn check(
        &self,
        what: &str,
        gradient: &[f32],
        value_at: impl Fn(usize, f32) -> f64,
    ) -> (usize, usize) {
        let largest = gradient.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let largest = f64::from(largest).max(0.1);
        let (mut checked, mut left_out) = (0, 0);
        for i in (0..gradient.len()).step_by(gradient.len().div_ceil(CHECKED)) {
            let [below, here, above] = [-STEP, 0.0, STEP].map(|offset| value_at(i, offset));
            let step = f64::from(STEP);
            let sides = [(here - below) / step, (above - here) / step];
            if (sides[0] - sides[1]).abs() > 4e-3 * largest {
                left_out += 1;
                continue;
            }
            let expected = (sides[0] + sides[1]) / 2.0;
            let got = f64::from(gradient[i]);
            assert!(
                (got - expected).abs() <= 3e-3 * largest,
                "{what}[{i}]: gradient {got}, difference {expected}"
            );
            checked += 1;
        }
        (checked, left_out)
    }
}

#[test]
fn gradients_are_the_slopes_of_the_forward_pass() {
    for &(name, input, layers) in CASES {
        let architecture = architecture(input, layers);
        let mut weights = initial_weights(&architecture, 5);
        for (i, (name, array)) in weights.0.iter_mut().enumerate() {
            if !name.ends_with("kernel") && !name.contains("moving") {
                let noise = numbers(array.data.len(), i as u32);
                let values = array.data.iter_mut().zip(noise);
                values.for_each(|(value, noise)| *value += 0.3 * noise);
            }
        }
        let x = numbers(N * architecture.input.len(), 1);
        for fused in [true, false] {
            let network = Network::new(&architecture, &weights, &Device::Cpu).expect("a network");
            let case = Case {
                network,
                fused,
                cotangent: numbers(N * 4, 99),
            };
            let variable = Var::from_tensor(&case.tensor(&x)).expect("a variable");
            let logits = case.forward(&variable);
            let cotangent = Tensor::from_slice(&case.cotangent, (N, 4), &Device::Cpu);
            let sum = (logits * cotangent.expect("a cotangent")).and_then(|t| t.sum_all());
            let store = case
                .network
                .gradients(&sum.expect("a sum"))
                .expect("gradients");
            let values = |var: &Var| {
                let gradient = store.get(var).expect("a gradient").flatten_all();
                gradient.and_then(|t| t.to_vec1::<f32>()).expect("values")
            };
            let what = |part: &str| format!("{name}, {part}, fused {fused}");
            let (mut checked, mut left_out) = (0, 0);
            let mut count = |(a, b): (usize, usize)| {
                checked += a;
                left_out += b;
            };
            count(case.check(&what("x"), &values(&variable), |i, offset| {
                let mut x = x.clone();
                x[i] += offset;
                case.value(&x)
            }));
            for parameter in case.network.parameters() {
                let key = &parameter.name;
                count(
                    case.check(&what(key), &values(&parameter.var), |i, offset| {
                        let mut moved = weights.clone();
                        moved.0.get_mut(key).expect("a weight").data[i] += offset;
                        case.network.set_weights(&moved).expect("weights");
                        case.value(&x)
                    }),
                );
                case.network.set_weights(&weights).expect("weights");
            }
            assert!(
                checked >= 20 && left_out * 4 <= checked,
                "{name}: {checked} values checked, {left_out} left out"
            );
        }
    }
}
