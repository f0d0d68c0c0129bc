//! The firmware without its board: a self-test at start, then a command loop that answers
//! [`protocol::Request`]s until the power goes off.
//!
//! A board gives bytes, a clock and memory ([`Board`], [`Memory`]) and calls [`serve`]; everything it is
//! sent, noise included, ends in an answer and never in a panic or a lock-up. A model that arrives
//! over the wire is validated and passes its own self-test before it replaces the one in use; in flash
//! ([`Flash`]) it survives resets, and a power cut at any time leaves the old model or the new one.
//!
//! Memory: what the caller hands over and a stack frame; nothing else, nothing allocates.

#![no_std]

#[cfg(test)]
extern crate std;

mod flash;
mod glyph;
mod log;
mod place;
mod serve;
mod session;
mod upload;

pub use flash::{Flash, Mapped, divide};
pub use glyph::{Glyph, glyph};
pub use place::{Mark, MemoryFailed, Place, Ram};
pub use protocol::{Stack, Storage};
pub use serve::serve;
pub use session::frame_len;

/// What the app needs from a board.
pub trait Board {
    /// What ends the command loop. [`core::convert::Infallible`] on hardware, end of input in a test.
    type End;

    /// Name of the board, for the log and [`protocol::Info`].
    fn name(&self) -> &'static str;

    /// Waits for the next byte from the host, or for the button.
    ///
    /// # Errors
    /// The end of the command loop. A byte lost on the wire is no error: the frame's CRC finds it.
    fn wait(&mut self) -> Result<Event, Self::End>;

    /// Sends all bytes to the host; may wait.
    fn write(&mut self, bytes: &[u8]);

    /// Free-running clock, wraps at 2^32.
    fn ticks(&mut self) -> u32;

    /// Unit of [`Board::ticks`].
    fn ticks_per_second(&self) -> u32;

    /// Shows a result where the board can (LED, display).
    fn show(&mut self, class: usize) {
        let _ = class;
    }

    /// The stack so far, where the board can tell.
    fn stack(&self) -> Option<Stack> {
        None
    }
}

/// What a board waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A byte from the host.
    Byte(u8),
    /// The button was pressed: the golden image is classified and its class shown.
    Button,
}

/// Buffers of the app, borrowed for as long as it runs.
#[derive(Debug)]
pub struct Memory<'m, P> {
    /// Working memory of the model in use: at least the built-in model's `arena_len()`.
    pub arena: &'m mut [u8],
    /// One frame, received or sent: at least [`protocol::frame_capacity`] of the built-in model.
    pub frame: &'m mut [u8],
    /// Two places for uploaded models: one in use, one being filled.
    pub places: [P; 2],
}
