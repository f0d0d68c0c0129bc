//! Operators of the network. [`composed`] builds them from candle's own, for any device, with the right gradients;
//! they are compared with Keras and with finite differences.

pub mod composed;
pub mod geometry;
