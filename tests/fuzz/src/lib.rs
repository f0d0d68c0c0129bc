//! What each target does with a sequence of bytes. None of them may panic, overflow, take memory that the bytes do not
//! back, or run on; a refusal is a result like any other.
//!
//! `cargo xtask soak fuzz` runs them under libFuzzer; `tests/fuzz_seeds.rs` replays the corpora in every test run.

pub mod device;
#[cfg(feature = "host")]
pub mod host;

/// Memory of a process that runs the targets, bytes: far more than any input of some kilobytes may need.
pub const MEMORY: usize = 512 << 20;
