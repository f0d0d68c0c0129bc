//! Writes the network of a case as a run would: model.onnx, model.int8.onnx and model.fxp.
//!
//! usage: cargo run --release -p verifier --example network -- CASE DIR
//!
//! CASE is a file of tests/cases. Its weights are random, its scales come from the quantizer; the same case gives the
//! same bytes.

#[path = "../tests/case/mod.rs"]
mod case;

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use case::Case;
use trainer::{
    export::{self, Origin},
    recipe::Winograd,
};

/// ONNX operator set of the files.
const OPSET: u32 = 17;

fn write(path: PathBuf, folder: PathBuf) -> Result<(), Box<dyn Error>> {
    if !path.is_file() {
        return Err(format!("{}: no such case file", path.display()).into());
    }
    let case = Case::load(&path);
    let names: Vec<String> = (0..case.architecture.classes())
        .map(|class| class.to_string())
        .collect();
    let origin = Origin {
        name: &case.name,
        recipe_sha256: [0; 32],
        class_names: &names,
    };
    let quantized = case.quantize();
    let image = case.views().last().map(|image| image.to_vec());
    let (architecture, weights) = (&case.architecture, &case.weights);
    fs::create_dir_all(&folder)?;
    for (name, bytes) in [
        (
            "model.onnx",
            export::onnx::float(architecture, &case.preprocess, weights, OPSET, &origin)?,
        ),
        (
            "model.int8.onnx",
            export::onnx::int8(&quantized, OPSET, &origin)?,
        ),
        (
            "model.fxp",
            export::fixed::model(&quantized, &origin, image, &Winograd::default())?,
        ),
    ] {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(path), Some(folder), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: network CASE DIR");
        return ExitCode::from(2);
    };
    match write(path, folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("network: {error}");
            ExitCode::FAILURE
        }
    }
}
