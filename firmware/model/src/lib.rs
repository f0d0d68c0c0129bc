//! The model that the firmware is built with: checked, and its buffers sized, at compile time.
//! The environment variable `ISOBIT_MODEL` names the file.

#![no_std]

use runtime::Model;

/// The model.
pub static MODEL: Model<'static> =
    Model::from_static(runtime::include_model!(env!("ISOBIT_MODEL")));

/// Bytes of working memory that it needs.
pub const ARENA_LEN: usize = MODEL.arena_len();

/// Bytes of a frame buffer for it.
pub const FRAME_LEN: usize = app::frame_len(&MODEL);
