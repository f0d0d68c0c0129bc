//! Takes the model file from `ISOBIT_MODEL`, by default the project's MNIST model.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=ISOBIT_MODEL");
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let path = env::var_os("ISOBIT_MODEL").map_or_else(
        || folder.join("../../models/mnist/model.fxp"),
        PathBuf::from,
    );
    let path = path.canonicalize().unwrap_or_else(|error| {
        panic!(
            "model file {}: {error}; set ISOBIT_MODEL to the path of a model.fxp",
            path.display()
        )
    });
    println!("cargo::rerun-if-changed={}", path.display());
    println!("cargo::rustc-env=ISOBIT_MODEL={}", path.display());
}
