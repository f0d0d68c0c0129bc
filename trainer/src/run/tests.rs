use std::collections::BTreeMap;

use super::*;
use crate::{architecture::Shape, dataset::Images, weights::Array};

const RECIPE_TEXT: &str = r#"
name = "tiny"
[data]
format = "idx"
path = "data"
[network]
input = [2, 3, 1]
layers = [{ type = "flatten" }, { type = "dense", units = 2, activation = "softmax" }]
"#;

fn dataset(labels: &[u32]) -> Dataset {
    let part = |labels: &[u32]| Labelled {
        images: Images {
            shape: Shape { h: 2, w: 3, c: 1 },
            pixels: vec![7; 6 * labels.len()],
        },
        labels: labels.to_vec(),
    };
    Dataset {
        train: part(labels),
        validation: None,
        test: part(&[1]),
        class_names: vec!["a".into(), "b".into()],
    }
}

fn weights() -> Weights {
    let array = |shape: &[usize]| Array {
        shape: shape.into(),
        data: (0..shape.iter().product::<usize>())
            .map(|i| i as f32 / 3.0)
            .collect(),
    };
    Weights(BTreeMap::from([
        ("dense1.bias".into(), array(&[2])),
        ("dense1.kernel".into(), array(&[6, 2])),
    ]))
}

/// `<root>/runs/tiny` with all files, its data in `<root>/data`.
fn write_run(root: &Path, preprocess: Preprocess) -> PathBuf {
    let dir = root.join("runs/tiny");
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(root.join("data")).unwrap();
    let recipe = Recipe::parse(RECIPE_TEXT, Path::new("r.toml"), &[]).unwrap();
    let stored = store_recipe(&dir, &recipe, root).unwrap();
    assert_eq!(stored.data.path, Path::new("../../data"));
    assert_eq!(stored.digest(), recipe.digest());
    store_data_record(&dir, &DataRecord::new(&dataset(&[0, 1]), preprocess)).unwrap();
    write_weights(&dir.join(WEIGHTS), &weights()).unwrap();
    dir
}

fn per_pixel(n: usize) -> Preprocess {
    Preprocess::PerPixel {
        mean: (0..n).map(|i| 0.1 + i as f32 / 7.0).collect(),
        std: (0..n).map(|i| 1.0 / (i + 3) as f32).collect(),
    }
}

#[test]
fn a_run_reads_back_the_same_bits_also_after_a_move() {
    let root = tempfile::tempdir().unwrap();
    let dir = write_run(&root.path().join("before"), per_pixel(6));
    let run = Run::open(&dir).unwrap();
    assert_eq!(run.weights, weights());
    assert_eq!(run.data.preprocess, per_pixel(6));
    fs::rename(root.path().join("before"), root.path().join("after")).unwrap();
    let moved = Run::open(&root.path().join("after/runs/tiny")).unwrap();
    let missing = moved.load_test(None).unwrap_err().to_string();
    assert!(missing.contains("after/runs/tiny/../../data"), "{missing}");
}

#[test]
fn every_wrong_file_is_named_with_what_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let open = |change: &dyn Fn(&Path)| {
        let dir = write_run(root.path(), Preprocess::Unit);
        change(&dir);
        let error = Run::open(&dir).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
        let text = error.to_string().replace(&dir.display().to_string(), "DIR");
        (text, Error::from(error).exit_code())
    };
    let tensor = |name: &'static str, shape: &'static [usize], value: f32| {
        move |dir: &Path| {
            let mut changed = weights();
            let data = vec![value; shape.iter().product()];
            let shape = shape.into();
            changed.0.insert(name.into(), Array { shape, data });
            write_weights(&dir.join(WEIGHTS), &changed).unwrap();
        }
    };
    let record = |preprocess: Preprocess| {
        move |dir: &Path| {
            let record = DataRecord::new(&dataset(&[0, 1]), preprocess.clone());
            store_data_record(dir, &record).unwrap();
        }
    };
    type Case<'a> = (&'a dyn Fn(&Path), &'a str, u8);
    let cases: &[Case<'_>] = &[
        (
            &|dir| fs::remove_file(dir.join(RECIPE)).unwrap(),
            "DIR: no recipe.toml there",
            2,
        ),
        (
            &|dir| fs::write(dir.join(RECIPE), "name = 1").unwrap(),
            "DIR/recipe.toml:1:8",
            2,
        ),
        (
            &|dir| fs::remove_file(dir.join(DATA)).unwrap(),
            "DIR: no data.json there",
            2,
        ),
        (
            &|dir| fs::write(dir.join(DATA), "{}").unwrap(),
            "DIR/data.json: missing field",
            1,
        ),
        (
            &|dir| fs::remove_file(dir.join(WEIGHTS)).unwrap(),
            "the training has not finished",
            1,
        ),
        (
            &|dir| fs::write(dir.join(WEIGHTS), "x").unwrap(),
            "DIR/weights.safetensors: not a safetensors file",
            1,
        ),
        (
            &tensor("dense1.kernel", &[3, 2], 0.0),
            "tensor `dense1.kernel` has the shape [3, 2], expected [6, 2]",
            1,
        ),
        (
            &tensor("conv1.bias", &[4], 0.0),
            "tensor `conv1.bias` of the shape [4] belongs to no layer",
            1,
        ),
        (
            &tensor("dense1.bias", &[2], f32::NAN),
            "tensor `dense1.bias` contains NaN",
            1,
        ),
        (
            &record(per_pixel(5)),
            "DIR/data.json: preprocess: 5 means and 5 deviations, expected 6 for an image of 2x3x1",
            1,
        ),
        (
            &record(Preprocess::Global {
                mean: 1.0,
                std: 0.0,
            }),
            "preprocess: the deviation 0 is not positive",
            1,
        ),
    ];
    for (change, expected, code) in cases {
        let (text, got) = open(change);
        assert!(text.contains(expected), "{text}\nexpected {expected}");
        assert_eq!(got, *code, "{text}");
    }
}

#[test]
fn the_fingerprint_depends_on_labels_and_on_the_split() {
    let sha256 = |data: &Dataset| data_sha256(data);
    let data = dataset(&[0, 1, 1]);
    assert_ne!(sha256(&data), sha256(&dataset(&[0, 1, 0])));
    let mut split = data.clone();
    split.train = dataset(&[0]).train;
    split.validation = Some(dataset(&[1, 1]).train);
    assert_ne!(sha256(&data), sha256(&split));
}

#[test]
fn the_way_to_the_data() {
    let way = |from: &str, to: &str| relative(Path::new(from), Path::new(to));
    assert_eq!(
        way("/a/runs/x", "/a/models/data"),
        Some("../../models/data".into())
    );
    assert_eq!(way("/a/x", "/a/x/data.csv"), Some("data.csv".into()));
    assert_eq!(way("/a/x", "/a/x"), Some(".".into()));
    assert_eq!(way("/tmp/x", "/home/data"), None);
}
