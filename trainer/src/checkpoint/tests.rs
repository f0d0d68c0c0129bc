use super::*;
use crate::recipe::Recipe;

const RECIPE: &str = r#"
name = "tiny"
[data]
format = "idx"
path = "data"
[network]
input = [1, 2, 1]
layers = [{ type = "flatten" }, { type = "dense", name = "ab", units = 2, activation = "softmax" }]
"#;

fn architecture() -> Architecture {
    let recipe = Recipe::parse(RECIPE, Path::new("r.toml"), &[]).unwrap();
    Architecture::resolve(&recipe.network, &recipe.train.loss).unwrap()
}

fn weights(first: f32) -> Weights {
    let array = |shape: &[usize]| Array {
        shape: shape.into(),
        data: (0..shape.iter().product::<usize>())
            .map(|i| first / (i + 3) as f32)
            .collect(),
    };
    Weights(BTreeMap::from([
        ("ab.bias".into(), array(&[2])),
        ("ab.kernel".into(), array(&[2, 2])),
    ]))
}

fn checkpoint() -> Checkpoint {
    let mut checkpoint = Checkpoint::start("recipe".into(), "data".into(), weights(1.0));
    checkpoint.progress.step = 7;
    checkpoint.progress.u_product = 0.1 / 3.0;
    checkpoint.progress.running.loss_sum = f64::from_bits(0x3fb9_9999_9999_9997);
    checkpoint.progress.learning_rate = Some(f32::from_bits(0x3d01_2345));
    checkpoint.slots = BTreeMap::from([
        (("velocity".into(), "ab.bias".into()), vec![0.1, 0.7]),
        (("velocity".into(), "ab.kernel".into()), vec![1e-30; 4]),
    ]);
    checkpoint.average = weights(2.0);
    checkpoint.kept = Some(weights(3.0));
    checkpoint
}

#[test]
fn reads_back_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    checkpoint().write(&path).unwrap();
    assert_eq!(
        Checkpoint::read(&path, &architecture()).unwrap(),
        checkpoint()
    );
    let bytes = fs::read(&path).unwrap();
    checkpoint().write(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn final_weights_are_the_kept_then_the_averaged_then_the_last_ones() {
    let mut checkpoint = checkpoint();
    assert_eq!(checkpoint.final_weights(), weights(2.0));
    checkpoint.progress.finished = Some(Finished {
        restore: true,
        stopped: None,
    });
    assert_eq!(checkpoint.final_weights(), weights(3.0));
    checkpoint.kept = None;
    checkpoint.average = Weights::default();
    assert_eq!(checkpoint.final_weights(), weights(1.0));
}

#[test]
fn a_damaged_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    checkpoint().write(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = Checkpoint::read(&path, &architecture()).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
    }
    fs::write(&path, weights(1.0).to_safetensors().unwrap()).unwrap();
    let error = Checkpoint::read(&path, &architecture()).unwrap_err();
    assert!(
        error.to_string().contains("expected a checkpoint"),
        "{error}"
    );

    let mut other = checkpoint();
    other.weights.0.remove("ab.bias");
    other.write(&path).unwrap();
    let error = Checkpoint::read(&path, &architecture()).unwrap_err();
    assert!(
        error.to_string().contains("`ab.bias` is missing"),
        "{error}"
    );
}
