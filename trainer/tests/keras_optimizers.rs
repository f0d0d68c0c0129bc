//! Optimizers and schedules against Keras's numbers (trainer/tests/golden/, with its generator's versions).

use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor};
use serde::de::DeserializeOwned;
use serde_json::Value;
use trainer::{
    optimizer::{Optimizer, Values},
    recipe::{Clip, OptimizerRecipe, ScheduleRecipe},
    schedule::Schedule,
};

fn cases(group: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{group}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    cases
        .into_iter()
        .filter(|case| case["name"] != "_meta")
        .collect()
}

fn data(tensor: &Value) -> Vec<f32> {
    let values = tensor["data"].as_array().unwrap();
    values
        .iter()
        .map(|value| value.as_f64().unwrap() as f32)
        .collect()
}

/// Keras's class and parameters as our recipe's table: the snake-case type, and the fields that the type has.
fn recipe<T: DeserializeOwned>(params: &Value, fields: &[&str]) -> T {
    let class = params["class"].as_str().unwrap();
    let name = match class {
        "InverseTimeDecay" => "inverse_time",
        "ExponentialDecay" => "exponential",
        "PiecewiseConstantDecay" => "piecewise",
        "PolynomialDecay" => "polynomial",
        "CosineDecay" => "cosine",
        "CosineDecayRestarts" => "cosine_restarts",
        other => &other.to_lowercase(),
    };
    let mut recipe = format!("type = '{name}'\n");
    for &field in fields {
        if let Some(value) = params.get(field).filter(|value| !value.is_null()) {
            // Numbers, booleans and lists of numbers are written alike in JSON and TOML.
            recipe += &format!("{field} = {value}\n");
        }
    }
    toml::from_str(&recipe).unwrap()
}

fn schedule(params: &Value) -> Schedule {
    let fields = [
        "decay_steps",
        "decay_rate",
        "staircase",
        "boundaries",
        "values",
        "end_learning_rate",
        "power",
        "cycle",
        "alpha",
        "warmup_target",
        "warmup_steps",
        "first_decay_steps",
        "t_mul",
        "m_mul",
    ];
    let recipe: ScheduleRecipe = recipe(params, &fields);
    let initial = params
        .get("initial_learning_rate")
        .or(params.get("learning_rate"));
    Schedule::new(
        &recipe,
        initial.and_then(Value::as_f64).unwrap_or(0.0) as f32,
        0,
    )
}

#[test]
fn schedules() {
    let cases = cases("schedules");
    assert_eq!(cases.len(), 23);
    for case in cases {
        let schedule = schedule(&case["params"]);
        let relative = if case["params"]["class"] == "CosineDecayRestarts" {
            2e-5
        } else {
            2e-6
        };
        let steps = case["inputs"]["steps"].as_array().unwrap();
        let expected = data(&case["expected"]["lr"]);
        assert_eq!(steps.len(), expected.len());
        for (step, b) in steps.iter().zip(expected) {
            let a = schedule.learning_rate(step.as_u64().unwrap());
            let tolerance = relative * f64::from(b) + 1e-12;
            assert!(
                f64::from(a - b).abs() <= tolerance,
                "{} at step {step}: {a}, Keras {b}",
                case["name"]
            );
        }
    }
}

fn assert_near(name: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (a, b) in got.iter().zip(expected) {
        let tolerance = 2e-6 + 2e-6 * b.abs();
        assert!((a - b).abs() <= tolerance, "{name}: {a}, Keras {b}");
    }
}

/// Every optimizer case with one kind of values; returns the number of cases.
fn check<T: Values>(make: impl Fn(&Value) -> T, read: impl Fn(&T) -> Vec<f32>) -> usize
where
    T::Error: std::fmt::Debug,
{
    let cases = cases("optimizers");
    for case in &cases {
        let (name, params) = (case["name"].as_str().unwrap(), &case["params"]);
        let fields = [
            "momentum",
            "nesterov",
            "rho",
            "epsilon",
            "centered",
            "beta_1",
            "beta_2",
            "amsgrad",
            "initial_accumulator_value",
            "weight_decay",
        ];
        let fields: Vec<&str> = fields
            .into_iter()
            .filter(|&field| field != "weight_decay" || params["class"] == "AdamW")
            .collect();
        let recipe: OptimizerRecipe = recipe(params, &fields);
        let limit = |field: &str| params[field].as_f64().map(|value| value as f32);
        let clip = Clip {
            norm: limit("clipnorm"),
            global_norm: limit("global_clipnorm"),
            value: limit("clipvalue"),
        };
        let schedule = schedule(&params["learning_rate"]);
        let named = |values: &Value| -> BTreeMap<String, T> {
            ["kernel", "bias"]
                .map(|name| (name.to_owned(), make(&values[name])))
                .into()
        };
        let mut optimizer = Optimizer::new(recipe, clip);
        let mut weights = named(&case["inputs"]["start"]);
        let rates = data(&case["expected"]["lr"]);
        for (step, gradients) in case["inputs"]["gradients"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
        {
            let rate = schedule.learning_rate(optimizer.iterations());
            assert_near(
                &format!("{name}, rate {step}"),
                &[rate],
                &rates[step..=step],
            );
            optimizer
                .step(&mut weights, &named(gradients), rate)
                .unwrap();
            for (weight, values) in &weights {
                let expected = data(&case["expected"]["weights"][step][weight]);
                assert_near(
                    &format!("{name}, {weight} after step {step}"),
                    &read(values),
                    &expected,
                );
            }
        }
        let slots = case["expected"]["slots_final"].as_object().unwrap();
        let mut seen = 0;
        for (weight, slot, values) in optimizer.state() {
            let key = format!("{weight}_{slot}");
            if let Some(expected) = slots.get(&key) {
                assert_near(&format!("{name}, {key}"), &read(values), &data(expected));
                seen += 1;
            }
        }
        let expected = slots.keys().filter(|key| *key != "u_product").count();
        assert_eq!(seen, expected, "{name}: slots {:?}", slots.keys());
    }
    cases.len()
}

#[test]
fn optimizers_on_slices() {
    assert_eq!(check(data, Vec::clone), 39);
}

#[test]
fn optimizers_on_tensors() {
    let make = |value: &Value| Tensor::new(data(value), &Device::Cpu).unwrap();
    assert_eq!(check(make, |tensor: &Tensor| tensor.to_vec1().unwrap()), 39);
}

#[cfg(feature = "cuda")]
#[test]
fn optimizers_on_cuda() {
    let gpu = Device::new_cuda(0).unwrap();
    let make = |value: &Value| Tensor::new(data(value), &gpu).unwrap();
    assert_eq!(check(make, |tensor: &Tensor| tensor.to_vec1().unwrap()), 39);
}
