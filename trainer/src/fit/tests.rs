//! Eight steps of Keras's own training of a small CNN (tests/golden/train_trace.json; its `_meta` element states the
//! generator's versions). Tolerance: `5e-6 + 1e-5 * |b|`.

use candle_core::Device;
use serde_json::Value;

use super::*;
use crate::{
    architecture::{Architecture, Shape},
    dataset::Images,
};

const RECIPE: &str = r#"
name = "trace"
[data]
format = "idx"
path = "."
[network]
input = [8, 8, 1]
layers = [
    { type = "conv", name = "conv", filters = 4, activation = "relu" },
    { type = "max_pool" },
    { type = "flatten" },
    { type = "dense", name = "dense1", units = 5, activation = "relu", l2 = 0.001 },
    { type = "dense", name = "dense2", units = 3, activation = "softmax", l2 = 0.001 },
]
[train]
batch = 4
optimizer = { type = "rmsprop", learning_rate = 0.001, rho = 0.9, momentum = 0.5 }
schedule = { type = "inverse_time", decay_steps = 1, decay_rate = 0.001 }
"#;

fn array(value: &Value) -> Array {
    let list = |key: &str| value[key].as_array().unwrap().iter();
    Array {
        shape: list("shape")
            .map(|v| v.as_u64().unwrap() as usize)
            .collect(),
        data: list("data").map(|v| v.as_f64().unwrap() as f32).collect(),
    }
}

fn near(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (a, b) in got.iter().zip(expected) {
        let tolerance = 5e-6 + 1e-5 * b.abs();
        assert!((a - b).abs() <= tolerance, "{what}: {a}, Keras {b}");
    }
}

/// Without images: the tests make their own batches.
fn empty() -> Dataset {
    let part = || Labelled {
        images: Images {
            shape: Shape { h: 8, w: 8, c: 1 },
            pixels: Vec::new(),
        },
        labels: Vec::new(),
    };
    Dataset {
        train: part(),
        validation: None,
        test: part(),
        class_names: Vec::new(),
    }
}

fn recipe() -> (Recipe, Architecture) {
    let recipe = Recipe::parse(RECIPE, Path::new("r.toml"), &[]).unwrap();
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss).unwrap();
    (recipe, architecture)
}

fn job<'a>(recipe: &'a Recipe, data: &'a Dataset) -> Job<'a> {
    Job {
        recipe,
        data,
        preprocess: &Preprocess::None,
        dir: Path::new("."),
    }
}

#[test]
fn the_steps_are_keras_s() {
    check_steps(&Device::Cpu);
}

#[cfg(feature = "cuda")]
#[test]
fn the_steps_on_cuda_are_keras_s() {
    check_steps(&Device::new_cuda(0).unwrap());
}

fn check_steps(device: &Device) {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../tests/golden/train_trace.json")).unwrap();
    let case = &cases[1];
    let (inputs, expected) = (&case["inputs"], &case["expected"]);
    let (recipe, architecture) = recipe();
    let initial = inputs["initial_weights"].as_object().unwrap().iter();
    let initial = Weights(initial.map(|(name, v)| (name.clone(), array(v))).collect());
    let network = Network::new(&architecture, &initial, device).unwrap();
    let data = empty();
    let job = job(&recipe, &data);
    let start = Checkpoint::start(String::new(), String::new(), initial);
    let mut training = Training::new(&job, &network, start).unwrap();
    let (x, y) = (array(&inputs["x"]).data, array(&inputs["y"]).data);
    let label = |row: &[f32]| row.iter().position(|&v| v == 1.0).unwrap() as u32;
    let labels: Vec<u32> = y.chunks(3).map(label).collect();
    let (losses, rates) = (array(&expected["loss"]).data, array(&expected["lr"]).data);
    assert_eq!(losses.len(), 8);
    let [data_losses, penalties, epoch_losses] =
        ["data_loss", "penalty", "fit_epoch_loss"].map(|key| array(&expected[key]).data);
    let mut epoch_loss = [0.0f64; 2];
    for step in 0..8 {
        let batch = Batch {
            n: 4,
            x: x.chunks(4 * 64).nth(step % 4).unwrap().to_vec(),
            labels: labels.chunks(4).nth(step % 4).unwrap().to_vec(),
        };
        let (of_data, penalty) = parts_of_the_loss(&recipe, &network, &batch);
        near(
            &format!("data loss {step}"),
            &[of_data],
            &[data_losses[step]],
        );
        near(&format!("penalty {step}"), &[penalty], &[penalties[step]]);
        if step == 0 {
            check_the_first_step(&recipe, &network, &batch, expected);
        }
        let (loss, _, rate) = training.update(batch.clone()).unwrap();
        epoch_loss[step / 4] += f64::from(loss) / 4.0;
        near(&format!("loss {step}"), &[loss], &[losses[step]]);
        near(&format!("rate {step}"), &[rate], &[rates[step]]);
        for (name, array_after) in &network.weights().unwrap().0 {
            let keras = array(&expected["weights_after_step"][step][name]).data;
            near(
                &format!("{name} after step {step}"),
                &array_after.data,
                &keras,
            );
        }
    }
    // Keras's own `model.fit`: the same batches, two epochs of four steps.
    near(
        "loss of an epoch",
        &epoch_loss.map(|loss| loss as f32),
        &epoch_losses,
    );
    for (name, array_after) in &network.weights().unwrap().0 {
        for run in ["weights_final", "fit_weights_final"] {
            let keras = array(&expected[run][name]).data;
            near(&format!("{run}: {name}"), &array_after.data, &keras);
        }
    }
}

fn parts_of_the_loss(recipe: &Recipe, network: &Network, batch: &Batch) -> (f32, f32) {
    let images = network.images(batch.x.clone()).unwrap();
    let (_, loss) = loss::logits_and_loss(
        &recipe.train.loss,
        network,
        &images,
        &batch.labels,
        Mode::Infer,
    )
    .unwrap();
    let penalty = loss::penalty(network.parameters()).unwrap().unwrap();
    (loss.to_scalar().unwrap(), penalty.to_scalar().unwrap())
}

/// Class probabilities and gradients before the first update.
fn check_the_first_step(recipe: &Recipe, network: &Network, batch: &Batch, expected: &Value) {
    let mode = Mode::Train { seed: 0, step: 0 };
    let images = network.images(batch.x.clone()).unwrap();
    let (logits, loss) =
        loss::logits_and_objective(&recipe.train.loss, network, &images, &batch.labels, mode)
            .unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let probabilities = candle_nn::ops::softmax(&logits, 1).unwrap();
    let keras = array(&expected["probabilities_step0"]).data;
    near("probabilities", &values(&probabilities), &keras);
    let store = network.gradients(&loss).unwrap();
    for parameter in network.parameters() {
        let keras = array(&expected["gradients_step0"][&parameter.name]).data;
        let gradient = values(store.get(parameter.var.as_tensor()).unwrap());
        near(
            &format!("gradient of {}", parameter.name),
            &gradient,
            &keras,
        );
    }
}

/// The update is `average = m average + (1 - m) weight`, and starts as the first weight: three SGD steps by hand.
#[test]
fn the_average_starts_as_the_first_weights() {
    let (_, architecture) = recipe();
    let mut weights = crate::initializer::initial_weights(&architecture, 1);
    let network = Network::new(&architecture, &weights, &Device::Cpu).unwrap();
    let mut average = Average::new(0.75, BTreeMap::new());
    average.swap(network.parameters()).unwrap();
    assert_eq!(network.weights().unwrap(), weights);
    for value in [1.0, 2.0, 4.0] {
        weights.0.get_mut("dense2.bias").unwrap().data = vec![value; 3];
        network.set_weights(&weights).unwrap();
        average.update(network.parameters()).unwrap();
    }
    average.swap(network.parameters()).unwrap();
    // 1, then 0.75 * 1 + 0.25 * 2 = 1.25, then 0.75 * 1.25 + 0.25 * 4 = 1.9375
    assert_eq!(
        network.weights().unwrap().0["dense2.bias"].data,
        [1.9375; 3]
    );
    average.swap(network.parameters()).unwrap();
    assert_eq!(network.weights().unwrap(), weights);
}

#[test]
fn a_loss_that_is_no_number_names_step_and_layer() {
    let (recipe, architecture) = recipe();
    let good = crate::initializer::initial_weights(&architecture, 1);
    let network = Network::new(&architecture, &good, &Device::Cpu).unwrap();
    let data = empty();
    let job = job(&recipe, &data);
    let start = Checkpoint::start(String::new(), String::new(), good.clone());
    let mut training = Training::new(&job, &network, start).unwrap();
    let batch = Batch {
        n: 4,
        x: vec![1.0; 4 * 64],
        labels: vec![0, 1, 2, 0],
    };
    training.update(batch.clone()).unwrap();
    let mut broken = |name: &str, value: f32| {
        let mut weights = good.clone();
        weights.0.get_mut(name).unwrap().data.fill(value);
        network.set_weights(&weights).unwrap();
        training.update(batch.clone()).unwrap_err().to_string()
    };
    let message = broken("dense1.bias", f32::NAN);
    assert!(
        message.starts_with("step 1: the loss is NaN, "),
        "{message}"
    );
    assert!(
        message.contains("the weight `dense1.bias` contains NaN"),
        "{message}"
    );
    let message = broken("dense1.kernel", f32::MAX);
    assert!(
        message.contains("the layer `dense1` is the first to give inf"),
        "{message}"
    );
}
