//! Links with the memory map of an MPS2 board.

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rerun-if-changed=../mps2-an386/memory.x");
    println!("cargo::rustc-link-arg-bins=-L{root}/../mps2-an386");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
