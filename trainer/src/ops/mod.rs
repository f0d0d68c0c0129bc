//! The differentiable operators of a network, on NHWC tensors.
//!
//! [`composed`] builds every operator from candle's own ones: any device, any gradient. On the CPU a network uses the
//! fused operators of [`conv`], [`dense`], [`pool`], [`batch_norm`], [`activation`] and [`dropout`], whose loops are in
//! [`kernel`]. Both are compared with Keras and with finite differences.

pub mod composed;
pub mod geometry;
