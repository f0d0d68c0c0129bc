//! The firmware without its board: a self-test at start, then a command loop that answers
//! [`protocol::Request`]s until the power goes off.
//!
//! A board gives bytes, a clock and memory ([`Board`], [`Memory`]) and calls [`serve`]; everything it is
//! sent, noise included, ends in an answer and never in a panic or a lock-up. A model that arrives
//! over the wire is validated and passes its own self-test before it replaces the one in use.
//!
//! Memory: what the caller hands over and a stack frame; nothing else, nothing allocates.

#![no_std]

mod log;
mod serve;
mod session;
mod upload;

pub use serve::serve;
pub use session::frame_len;

/// What the app needs from a board.
pub trait Board {
    /// What ends the command loop. [`core::convert::Infallible`] on hardware, end of input in a test.
    type End;

    /// Name of the board, for the log and [`protocol::Info`].
    fn name(&self) -> &'static str;

    /// Waits for the next byte from the host.
    ///
    /// # Errors
    /// The end of the command loop. A byte lost on the wire is no error: the frame's CRC finds it.
    fn read(&mut self) -> Result<u8, Self::End>;

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
}

/// Buffers of the app, borrowed for as long as it runs.
#[derive(Debug)]
pub struct Memory<'m> {
    /// Working memory of the model in use: at least the built-in model's `arena_len()`.
    pub arena: &'m mut [u8],
    /// One frame, received or sent: at least [`protocol::frame_capacity`] of the built-in model.
    pub frame: &'m mut [u8],
    /// Two places for uploaded models, 4-byte aligned (one in use, one being filled); empty where
    /// the board has no memory for them.
    pub uploads: [&'m mut [u8]; 2],
}
