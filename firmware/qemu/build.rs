//! Links every program with the memory map in its machine's folder.

const MACHINES: [&str; 4] = ["mps2-an385", "mps2-an386", "mps3-an547", "microbit"];

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    for machine in MACHINES {
        println!("cargo::rerun-if-changed={machine}/memory.x");
        for program in [machine.to_owned(), format!("bench-{machine}")] {
            // The script of cortex-m-rt includes `memory.x`.
            println!("cargo::rustc-link-arg-bin={program}=-L{root}/{machine}");
        }
    }
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
}
