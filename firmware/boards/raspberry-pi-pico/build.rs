//! Links with the package's memory map, and with the second-stage boot loader of embassy-rp.

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rerun-if-changed=memory.x");
    // The script of cortex-m-rt includes `memory.x`.
    println!("cargo::rustc-link-search={root}");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=-Tlink-rp.x");
    println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
}
