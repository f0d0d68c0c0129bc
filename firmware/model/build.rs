//! Takes the model file from `ISOBIT_MODEL`, by default the project's MNIST model.

use std::{env, fs, path::PathBuf};

/// Bytes of the largest model that feature `ram` keeps in RAM: the Raspberry Pi Pico has 264 KiB, of which the buffers,
/// the stack and the rest take less than 96 KiB.
const RAM_MOST: u64 = 160 * 1024;

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
    println!("cargo::rustc-check-cfg=cfg(model_in_ram)");
    let small = fs::metadata(&path).is_ok_and(|file| file.len() <= RAM_MOST);
    if small && env::var_os("CARGO_FEATURE_RAM").is_some() {
        println!("cargo::rustc-cfg=model_in_ram");
    }
}
