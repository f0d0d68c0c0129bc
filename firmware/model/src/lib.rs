//! The model that the firmware is built with: checked, and its buffers sized, at compile time.
//! The environment variable `ISOBIT_MODEL` names the file.

#![no_std]

use app::{Board, Memory};
use runtime::{Aligned, Model};

/// The model.
pub static MODEL: Model<'static> =
    Model::from_static(runtime::include_model!(env!("ISOBIT_MODEL")));

/// Bytes of working memory that it needs.
pub const ARENA_LEN: usize = MODEL.arena_len();

/// Bytes of a frame buffer for it.
pub const FRAME_LEN: usize = app::frame_len(&MODEL);

/// The app's buffers, in static memory: for the built-in model at least `ARENA` = [`ARENA_LEN`] and
/// `FRAME` = [`FRAME_LEN`] bytes, and two places for uploaded models of up to `UPLOAD` bytes.
#[derive(Debug)]
pub struct Buffers<const ARENA: usize, const FRAME: usize, const UPLOAD: usize> {
    arena: Aligned<[u8; ARENA]>,
    frame: [u8; FRAME],
    uploads: [Aligned<[u8; UPLOAD]>; 2],
}

impl<const ARENA: usize, const FRAME: usize, const UPLOAD: usize> Buffers<ARENA, FRAME, UPLOAD> {
    /// All zero. Does not compile if the built-in model needs more.
    #[expect(clippy::new_without_default, reason = "only for static memory")]
    pub const fn new() -> Self {
        const { assert!(ARENA >= ARENA_LEN && FRAME >= FRAME_LEN) };
        Self {
            arena: Aligned([0; ARENA]),
            frame: [0; FRAME],
            uploads: [const { Aligned([0; UPLOAD]) }; 2],
        }
    }

    /// Answers the host with the built-in model, or an uploaded one, for ever.
    pub fn serve<B: Board>(&mut self, board: &mut B) -> B::End {
        let [first, second] = &mut self.uploads;
        let memory = Memory {
            arena: &mut self.arena.0,
            frame: &mut self.frame,
            uploads: [&mut first.0, &mut second.0],
        };
        app::serve(board, &MODEL, memory)
    }
}
