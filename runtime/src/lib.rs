//! Integer-only inference of small convolutional networks: `no_std`, no allocation, no panic.
//!
//! A model is a fixed-point file (`model.fxp`, specified in `docs/format.md`) that is read in place from flash.
//! [`Model::new`] validates it completely, once, also at compile time ([`Model::from_static`]); after that
//! [`Model::run`] can only fail for a buffer of the wrong size.
//!
//! The arithmetic is defined by the portable kernels: u8 or i8 activations, i8 weights, i32 accumulators below 2^24, and
//! one rounding rule ([`fixed::requantize`]: shift with round half to even, then saturation).
//! The results are the same bits on every machine, and the same bits as the int8 ONNX model of the same export.
//!
//! Letters: `h` rows, `w` columns, `c` channels (`ci` in, `co` out), `kh` x `kw` kernel. Tensors are NHWC with one sample.
//!
//! Features: `defmt` derives `defmt::Format` on errors and reports; `winograd` runs layers whose weights are stored transformed
//! ([`Layout::Winograd`]); `encode` (host) writes fixed-point files, and runs every layer.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

#[cfg(any(feature = "encode", test))]
extern crate std;

pub mod crc;
#[cfg(feature = "encode")]
pub mod encode;
mod error;
pub mod fixed;
mod format;
mod kernel;
mod logits;
mod model;
mod op;
#[cfg(feature = "encode")]
mod plan;
mod shape;
mod validate;
mod weight;

pub use error::{ModelError, OpProblem, RunError};
pub use format::VERSION;
pub use kernel::Kernels;
pub use logits::{Logits, Ranked};
pub use model::{Aligned, Golden, Model, OpEvent, SelfTest};
pub use op::{Add, Affine, AffineParam, AvgPool, Conv, Kind, Op, Post, Tensor, Window};
/// Name of the kernels that this build chose.
pub const KERNELS: &str = Kernels::CHOSEN.name();

pub use shape::{DType, OutputActivation, Shape};
pub use weight::{Facts, Layout, Weights};
