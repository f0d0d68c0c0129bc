//! What every program has: the model that it is built with, checked and its buffers sized at compile time, and the
//! chip's free memory. The environment variable `ISOBIT_MODEL` names the model's file.

#![no_std]

mod chip;

use app::{Board, Memory, Place, Ram};
use runtime::{Aligned, Model};

pub use chip::{Region, flash_places, stack};

/// The model's file: in flash, or with feature `ram` in the RAM that start-up code initializes.
#[cfg_attr(model_in_ram, unsafe(link_section = ".data.model"))]
static FILE: Aligned<[u8; include_bytes!(env!("ISOBIT_MODEL")).len()]> =
    Aligned(*include_bytes!(env!("ISOBIT_MODEL")));

/// The model.
pub static MODEL: Model<'static> = Model::from_static(&FILE.0);

/// Bytes of working memory that it needs.
pub const ARENA_LEN: usize = MODEL.arena_len();

/// Bytes of a frame buffer for it.
pub const FRAME_LEN: usize = app::frame_len(&MODEL);

/// The app's buffers, in static memory: for the built-in model at least `ARENA` = [`ARENA_LEN`] and
/// `FRAME` = [`FRAME_LEN`] bytes; more lets larger models be uploaded.
#[derive(Debug)]
pub struct Buffers<const ARENA: usize, const FRAME: usize> {
    arena: Aligned<[u8; ARENA]>,
    frame: [u8; FRAME],
}

impl<const ARENA: usize, const FRAME: usize> Buffers<ARENA, FRAME> {
    /// All zero. Does not compile if the built-in model needs more.
    #[expect(clippy::new_without_default, reason = "only for static memory")]
    pub const fn new() -> Self {
        const { assert!(ARENA >= ARENA_LEN && FRAME >= FRAME_LEN) };
        Self {
            arena: Aligned([0; ARENA]),
            frame: [0; FRAME],
        }
    }

    /// Answers the host with the built-in model, or an uploaded one, for ever.
    pub fn serve<B: Board, P: Place>(&mut self, board: &mut B, places: [P; 2]) -> B::End {
        let memory = Memory {
            arena: &mut self.arena.0,
            frame: &mut self.frame,
            places,
        };
        app::serve(board, &MODEL, memory)
    }
}

/// Static memory for two uploaded models of up to `LEN` bytes each.
#[derive(Debug)]
pub struct Uploads<const LEN: usize>([Aligned<[u8; LEN]>; 2]);

impl<const LEN: usize> Uploads<LEN> {
    /// All zero.
    #[expect(clippy::new_without_default, reason = "only for static memory")]
    pub const fn new() -> Self {
        Self([const { Aligned([0; LEN]) }; 2])
    }

    /// The two places.
    pub fn places(&mut self) -> [Ram<'_>; 2] {
        self.0.each_mut().map(|place| Ram(&mut place.0))
    }
}
