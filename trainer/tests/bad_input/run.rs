//! Run folders and the models in them.

use std::{fs, path::Path};

use crate::{Case, case, check, edit, fixture::idx, nothing, remove, replace, write};

/// The header of a safetensors file that claims 4 GB of values, with none behind it.
fn claims_4_gb() -> Vec<u8> {
    let header =
        r#"{"conv1.kernel":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

fn safetensors(tensors: &[(&str, Vec<usize>, f32)]) -> Vec<u8> {
    let mut weights = trainer::weights::Weights::default();
    for (name, shape, value) in tensors {
        let data = vec![*value; shape.iter().product()];
        let shape = shape.clone();
        weights
            .0
            .insert((*name).into(), trainer::weights::Array { shape, data });
    }
    weights.to_safetensors().unwrap()
}

/// The network's weights, all of one value.
fn weights(value: f32) -> Vec<u8> {
    safetensors(&[
        ("conv1.bias", vec![2], 0.0),
        ("conv1.kernel", vec![3, 3, 1, 2], value),
        ("dense1.bias", vec![2], 0.0),
        ("dense1.kernel", vec![8, 2], 0.0),
    ])
}

#[test]
fn run_folders() {
    let cases = vec![
        case("no such folder", "evaluate missing", nothing),
        case("a file for a folder", "evaluate recipe.toml", nothing),
        case("a folder without a run", "export images", nothing),
        case(
            "damaged recipe",
            "export run",
            write("run/recipe.toml", "name = "),
        ),
        case(
            "a recipe without its network",
            "export run",
            replace("run/recipe.toml", "units = 2", "units = 0"),
        ),
        case(
            "data.json is missing",
            "export run",
            remove("run/data.json"),
        ),
        case(
            "damaged data.json",
            "export run",
            write("run/data.json", "{"),
        ),
        case(
            "data.json of other classes",
            "export run",
            replace("run/data.json", "\"0\",\n    \"1\"", "\"0\", \"1\", \"2\""),
        ),
        case(
            "data.json with an unknown key",
            "export run",
            replace("run/data.json", "\"train\"", "\"trained\""),
        ),
        case(
            "weights are missing",
            "export run",
            remove("run/weights.safetensors"),
        ),
        case(
            "empty weights",
            "export run",
            write("run/weights.safetensors", ""),
        ),
        case(
            "cut weights",
            "export run",
            edit("run/weights.safetensors", |bytes| {
                bytes.truncate(bytes.len() - 4)
            }),
        ),
        case(
            "weights of 4 GB",
            "export run",
            write("run/weights.safetensors", claims_4_gb()),
        ),
        case(
            "weights with a header of 2^63 bytes",
            "export run",
            write("run/weights.safetensors", [0xff; 16]),
        ),
        case(
            "weights of another network",
            "export run",
            write(
                "run/weights.safetensors",
                safetensors(&[("conv1.bias", vec![3], 0.0)]),
            ),
        ),
        case(
            "weights that are no numbers",
            "export run",
            write("run/weights.safetensors", weights(f32::NAN)),
        ),
        case(
            "weights beyond 8 bits' scales",
            "export run",
            write("run/weights.safetensors", weights(3e38)),
        ),
        case(
            "the data has changed",
            "export run",
            edit("idx/train-images-idx3-ubyte", |bytes| bytes[20] ^= 1),
        ),
        case(
            "the data is gone",
            "quantize run",
            remove("idx/t10k-labels-idx1-ubyte"),
        ),
        case(
            "the learning rate is no number",
            "quantize run --qat-learning-rate nan",
            nothing,
        ),
        case(
            "fine-tuned weights are missing",
            "export run",
            replace("run/recipe.toml", "qat_epochs = 0", "qat_epochs = 1"),
        ),
        case(
            "other data is missing",
            "evaluate run --data missing",
            nothing,
        ),
        case(
            "other data of other sizes",
            "evaluate run --data idx",
            write("idx/t10k-images-idx3-ubyte", idx(&[4, 8, 8], &[0; 256])),
        ),
        case(
            "other data without images",
            "evaluate run --data idx",
            |folder: &Path| {
                write("idx/t10k-images-idx3-ubyte", idx(&[0, 4, 4], &[]))(folder);
                write("idx/t10k-labels-idx1-ubyte", idx(&[0], &[]))(folder);
            },
        ),
    ];
    insta::assert_snapshot!("run", check(cases));
}

#[test]
fn models() {
    let predict = "predict run images/dark/0.png";
    type Change = Box<dyn Fn(&mut Vec<u8>) + Send + Sync>;
    let fxp = |name: &str, change: Change| case(name, predict, edit("run/model.fxp", change));
    let cases: Vec<Case> = vec![
        case("model.fxp is missing", predict, remove("run/model.fxp")),
        fxp("empty model.fxp", Box::new(Vec::clear)),
        fxp("another magic number", Box::new(|bytes| bytes[0] = b'X')),
        fxp("another version", Box::new(|bytes| bytes[4] = 99)),
        fxp("one bit changed", Box::new(|bytes| bytes[300] ^= 1)),
        fxp("cut model.fxp", Box::new(|bytes| bytes.truncate(200))),
        fxp(
            "an arena of 4 GB",
            Box::new(|bytes| {
                bytes[24..28].copy_from_slice(&0xffff_fffc_u32.to_le_bytes());
                runtime::encode::seal(bytes);
            }),
        ),
        case(
            "model.int8.onnx is missing",
            predict,
            remove("run/model.int8.onnx"),
        ),
        case(
            "model.int8.onnx is no ONNX",
            predict,
            write("run/model.int8.onnx", "onnx"),
        ),
        case(
            "model.int8.onnx without class names",
            predict,
            edit("run/model.int8.onnx", |bytes| {
                let at = bytes.windows(18).position(|w| w == b"isobit.class_names");
                bytes[at.unwrap()] = b'x';
            }),
        ),
        case("no such image", "predict run missing.png", nothing),
        case("not an image", "predict run a.csv", nothing),
        case("a folder for an image", "predict run images", nothing),
        case(
            "evaluate a damaged model",
            "evaluate run",
            write("run/model.fxp", "model"),
        ),
        case(
            "verify without model.onnx",
            "verify run",
            remove("run/model.onnx"),
        ),
        case(
            "verify a damaged model.onnx",
            "verify run",
            write("run/model.onnx", "onnx"),
        ),
        case(
            "verify a damaged model.int8.onnx",
            "verify run",
            write("run/model.int8.onnx", "onnx"),
        ),
        case(
            "verify a damaged model.fxp",
            "verify run",
            write("run/model.fxp", "model"),
        ),
        case("verify another model.fxp", "verify run", |folder: &Path| {
            let valid = include_bytes!("../../../runtime/tests/ui/valid.fxp");
            fs::write(folder.join("run/model.fxp"), valid).unwrap();
        }),
        case(
            "verify with a damaged report.json",
            "verify run",
            write("run/report.json", "{"),
        ),
        case(
            "verify a model.onnx for a model.int8.onnx",
            "verify run",
            |folder: &Path| {
                fs::copy(
                    folder.join("run/model.onnx"),
                    folder.join("run/model.int8.onnx"),
                )
                .unwrap();
            },
        ),
        case(
            "flash a damaged model",
            "flash run --board nrf52840-dk --dry-run",
            write("run/model.fxp", "model"),
        ),
        case(
            "flash without a model",
            "flash images --board nrf52840-dk --dry-run",
            nothing,
        ),
    ];
    insta::assert_snapshot!("models", check(cases));
}

#[test]
fn runs_that_go_on() {
    let resume = "fit --resume --out run";
    let checkpoint = "run/checkpoint.safetensors";
    let cases = vec![
        case("no run to continue", "fit --resume --out out", nothing),
        case(
            "no checkpoint to continue",
            "fit recipe.toml --resume --out out",
            nothing,
        ),
        case(
            "no run to train again",
            "fit --reset-weights --out out",
            nothing,
        ),
        case(
            "no weights to train again from",
            "fit recipe.toml --reset-weights --out out",
            nothing,
        ),
        case(
            "no run to start from",
            "fit recipe.toml --warm-start missing --out out",
            nothing,
        ),
        case(
            "a run of another network to start from",
            "fit recipe.toml --warm-start run --out out --set network.layers.0.filters=3",
            nothing,
        ),
        case(
            "another run is there",
            "fit recipe.toml --out run --seed 7",
            nothing,
        ),
        case(
            "weights without a run are there",
            "fit recipe.toml --out run",
            remove(checkpoint),
        ),
        case(
            "a warm start where a run is",
            "fit recipe.toml --warm-start run --out run",
            nothing,
        ),
        case("empty checkpoint", resume, write(checkpoint, "")),
        case(
            "cut checkpoint",
            resume,
            edit(checkpoint, |bytes| bytes.truncate(bytes.len() - 1)),
        ),
        case("weights for a checkpoint", resume, |folder: &Path| {
            let run = folder.join("run");
            fs::copy(
                run.join("weights.safetensors"),
                run.join("checkpoint.safetensors"),
            )
            .unwrap();
        }),
        case(
            "a checkpoint of 4 GB",
            resume,
            write(checkpoint, claims_4_gb()),
        ),
        case("another seed", "fit --resume --out run --seed 7", nothing),
        case("fewer epochs", "fit --resume --out run --epochs 0", nothing),
        case(
            "another network",
            "fit --resume --out run --set network.layers.0.filters=3",
            nothing,
        ),
        case(
            "the data has changed",
            resume,
            edit("idx/train-images-idx3-ubyte", |bytes| bytes[20] ^= 1),
        ),
        case(
            "a file for the run folder",
            "fit recipe.toml --out a.csv",
            nothing,
        ),
        case(
            "a run folder below a file",
            "fit recipe.toml --out a.csv/run",
            nothing,
        ),
    ];
    insta::assert_snapshot!("resume", check(cases));
}
