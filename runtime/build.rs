//! Chooses the kernels for the target by its name: that a core has the DSP extension is not visible to `cfg` on stable Rust.
//! `ISOBIT_KERNELS` overrides the choice, for a Cortex-M33 without the extension or to run a set's software twin on the host.

use std::env;

/// Every set of kernels: [`runtime::Kernels`].
const SETS: [&str; 3] = ["portable", "lanes", "dsp"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ISOBIT_KERNELS");
    let target = env::var("TARGET").unwrap_or_default();
    let kernels = env::var("ISOBIT_KERNELS").unwrap_or_else(|_| for_target(&target).to_owned());
    if !SETS.contains(&kernels.as_str()) {
        println!("cargo::error=ISOBIT_KERNELS: expected one of {SETS:?}, found {kernels:?}");
    }
    println!(
        "cargo::rustc-check-cfg=cfg(kernels, values(\"{}\"))",
        SETS.join("\", \"")
    );
    println!("cargo::rustc-cfg=kernels=\"{kernels}\"");
    // Only the instructions of Armv6-M, without MLA.
    println!("cargo::rustc-check-cfg=cfg(armv6m)");
    if target.starts_with("thumbv6m") || target.starts_with("thumbv8m.base") {
        println!("cargo::rustc-cfg=armv6m");
    }
    // The assembler must be told of the DSP extension where the architecture leaves it open.
    println!("cargo::rustc-check-cfg=cfg(optional_dsp)");
    if target.starts_with("thumbv8m.main") {
        println!("cargo::rustc-cfg=optional_dsp");
    }
}

fn for_target(target: &str) -> &'static str {
    match target.split('-').next().unwrap_or_default() {
        "thumbv7em" | "thumbv8m.main" => "dsp",
        "thumbv6m" | "thumbv7m" | "thumbv8m.base" => "lanes",
        _ => "portable",
    }
}
