//! Losses and penalties with their gradients against Keras's numbers (trainer/tests/golden/losses.json; its `_meta` element
//! states the generator's versions). Tolerance: `1e-6 + 1e-5 * |b|`.

use candle_core::{Device, Tensor, Var};
use serde_json::Value;
use trainer::{
    architecture::{OutputActivation, Regularizer},
    loss,
    network::Parameter,
    recipe::LossRecipe,
};

fn numbers(value: &Value) -> Vec<f32> {
    let list = match value.get("data").unwrap_or(value) {
        Value::Array(list) => list.clone(),
        scalar => vec![scalar.clone()],
    };
    let number = |value: &Value| value.as_f64().expect("a number") as f32;
    list.iter().map(number).collect()
}

fn shape(value: &Value) -> Vec<usize> {
    let sizes = value["shape"].as_array().expect("a shape").iter();
    sizes
        .map(|size| size.as_u64().expect("a size") as usize)
        .collect()
}

fn tensor(value: &Value, device: &Device) -> Tensor {
    Tensor::from_vec(numbers(value), shape(value), device).expect("a tensor")
}

fn compare(what: &str, got: &Tensor, expected: &Value) {
    let got = got.flatten_all().and_then(|t| t.to_vec1::<f32>());
    let (got, expected) = (got.expect("values"), numbers(expected));
    assert_eq!(got.len(), expected.len(), "{what}");
    for (a, b) in got.iter().zip(expected) {
        let tolerance = 1e-6 + 1e-5 * b.abs();
        assert!((a - b).abs() <= tolerance, "{what}: {a}, Keras {b}");
    }
}

/// One-hot targets of a case; sparse ones are labels.
fn targets(case: &Value, classes: usize, device: &Device) -> Tensor {
    let y = &case["inputs"]["y_true"];
    if y["dtype"] != "int32" {
        return tensor(y, device);
    }
    let labels: Vec<u32> = numbers(y).iter().map(|&label| label as u32).collect();
    loss::one_hot(&labels, classes, device).expect("targets")
}

/// Loss and gradient of a case. Bare predictions (`y_pred`) are outputs of a linear layer.
fn check(case: &Value, device: &Device) {
    let name = case["name"].as_str().expect("a name");
    let (params, inputs) = (&case["params"], &case["inputs"]);
    let label_smoothing = params["label_smoothing"].as_f64().unwrap_or(0.0) as f32;
    let recipe = match params["class"].as_str().expect("a class") {
        "CategoricalCrossentropy" => LossRecipe::CategoricalCrossentropy { label_smoothing },
        "SparseCategoricalCrossentropy" => LossRecipe::SparseCategoricalCrossentropy,
        "BinaryCrossentropy" => LossRecipe::BinaryCrossentropy { label_smoothing },
        "MeanSquaredError" => LossRecipe::MeanSquaredError,
        other => panic!("class {other}"),
    };
    let (key, input, output) = match (inputs.get("logits"), &recipe) {
        (Some(logits), LossRecipe::BinaryCrossentropy { .. }) => {
            ("grad_logits", logits, OutputActivation::Sigmoid)
        }
        (Some(logits), _) => ("grad_logits", logits, OutputActivation::Softmax),
        (None, _) => ("grad_y_pred", &inputs["y_pred"], OutputActivation::Linear),
    };
    let input = Var::from_tensor(&tensor(input, device)).expect("a variable");
    let logits = input.as_tensor();
    let targets = targets(case, *input.dims().last().expect("a dimension"), device);
    let loss = loss::loss(&recipe, output, logits, &targets).expect(name);
    compare(name, &loss, &case["expected"]["loss"]);
    if logits.rank() == 2 {
        let of_row = |row: usize| {
            let part = |tensor: &Tensor| tensor.narrow(0, row, 1);
            loss::loss(&recipe, output, &part(logits)?, &part(&targets)?)
        };
        let rows: candle_core::Result<Vec<Tensor>> = (0..logits.dims()[0]).map(of_row).collect();
        let rows = Tensor::stack(&rows.expect(name), 0).expect(name);
        compare(
            &format!("{name}: per sample"),
            &rows,
            &case["expected"]["per_sample"],
        );
    }
    let gradients = loss.backward().expect(name);
    let gradient = gradients.get(&input).expect(name);
    compare(&format!("{name}: {key}"), gradient, &case["expected"][key]);
}

fn check_penalty(case: &Value, device: &Device) {
    let name = case["name"].as_str().expect("a name");
    let rate = |key: &str| case["params"][key].as_f64().unwrap_or(0.0) as f32;
    let parameter = Parameter {
        name: name.into(),
        var: Var::from_tensor(&tensor(&case["inputs"]["w"], device)).expect("a variable"),
        regularizer: Regularizer {
            l1: rate("l1"),
            l2: rate("l2"),
        },
    };
    let penalty = loss::penalty(std::slice::from_ref(&parameter)).expect(name);
    let penalty = penalty.expect("a penalty");
    compare(name, &penalty, &case["expected"]["penalty"]);
    let gradients = penalty.backward().expect(name);
    let gradient = gradients.get(&parameter.var).expect(name);
    compare(
        &format!("{name}: grad_w"),
        gradient,
        &case["expected"]["grad_w"],
    );
}

fn check_all(device: &Device) {
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/losses.json")).expect("JSON");
    let (mut losses, mut penalties) = (0, 0);
    for case in cases.iter().filter(|case| case["name"] != "_meta") {
        if case["inputs"].get("w").is_some() {
            check_penalty(case, device);
            penalties += 1;
        } else {
            check(case, device);
            losses += 1;
        }
    }
    assert_eq!((losses, penalties), (29, 3));
}

#[test]
fn losses_and_penalties() {
    check_all(&Device::Cpu);
}

#[cfg(feature = "cuda")]
#[test]
fn losses_and_penalties_on_cuda() {
    check_all(&Device::new_cuda(0).expect("a GPU"));
}
