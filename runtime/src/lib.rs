//! placeholder
#[cfg(feature = "encode")]
#[rustfmt::skip]
pub mod encode;
