//! What the boards share: the app's [`Board`] over a serial port, a clock, a display and a button.

#![no_std]

use core::{convert::Infallible, task::Poll};

use app::{Board, Event};
use embassy_futures::{block_on, poll_once};
use embedded_hal::digital::{InputPin, StatefulOutputPin};
use embedded_io_async::{Read, Write};

pub use app::{Glyph, Stack, glyph};

/// Rate of every board's serial port, 8N1.
pub const BAUD: u32 = 115_200;

/// A serial port.
pub trait Wire {
    /// The next byte, if there is one.
    fn poll(&mut self) -> Option<u8>;
    /// Sends all bytes; waits.
    fn write(&mut self, bytes: &[u8]);
}

/// A port with interrupt-driven buffers, as embassy's HALs have it.
#[derive(Debug)]
pub struct Buffered<P>(pub P);

impl<P: Read + Write> Wire for Buffered<P> {
    fn poll(&mut self) -> Option<u8> {
        let mut byte = [0];
        match poll_once(self.0.read(&mut byte)) {
            Poll::Ready(Ok(1)) => Some(byte[0]),
            _ => None,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        // The host notices what is lost by the CRC and asks again.
        let _ = block_on(async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        });
    }
}

/// Shows a class.
pub trait Display {
    /// Until the next one.
    fn show(&mut self, class: usize);
}

/// A LED that changes with every result.
#[derive(Debug)]
pub struct Blink<L>(pub L);

impl<L: StatefulOutputPin> Display for Blink<L> {
    fn show(&mut self, _: usize) {
        // A LED that fails is no reason to stop.
        let _ = self.0.toggle();
    }
}

/// A button between a pin and ground, with a pull-up.
#[derive(Debug)]
pub struct Button<I> {
    pin: Option<I>,
    down: bool,
}

impl<I: InputPin> Button<I> {
    /// On this pin.
    pub fn new(pin: I) -> Self {
        Self {
            pin: Some(pin),
            down: false,
        }
    }

    /// On a board without one.
    pub const fn none() -> Self {
        Self {
            pin: None,
            down: false,
        }
    }

    /// Whether it went down since the last call. A pin that bounces counts more than once.
    fn pressed(&mut self) -> bool {
        let down = self
            .pin
            .as_mut()
            .is_some_and(|pin| pin.is_low().unwrap_or(false));
        let pressed = down && !self.down;
        self.down = down;
        pressed
    }
}

/// One board.
#[derive(Debug)]
pub struct Hardware<W, C, D, I, S> {
    /// As in firmware/targets.toml.
    pub name: &'static str,
    /// Port to the host.
    pub wire: W,
    /// Free-running counter that wraps at 2^32.
    pub clock: C,
    /// Rate of the counter.
    pub ticks_per_second: u32,
    /// For the result.
    pub display: D,
    /// Classifies the golden image.
    pub button: Button<I>,
    /// Extent of the stack, where it can be told.
    pub stack: S,
}

impl<W, C, D, I, S> Board for Hardware<W, C, D, I, S>
where
    W: Wire,
    C: FnMut() -> u32,
    D: Display,
    I: InputPin,
    S: Fn() -> Option<Stack>,
{
    type End = Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn wait(&mut self) -> Result<Event, Infallible> {
        loop {
            if let Some(byte) = self.wire.poll() {
                return Ok(Event::Byte(byte));
            }
            if self.button.pressed() {
                return Ok(Event::Button);
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.wire.write(bytes);
    }

    fn ticks(&mut self) -> u32 {
        (self.clock)()
    }

    fn ticks_per_second(&self) -> u32 {
        self.ticks_per_second
    }

    fn show(&mut self, class: usize) {
        self.display.show(class);
    }

    fn stack(&self) -> Option<Stack> {
        (self.stack)()
    }
}
