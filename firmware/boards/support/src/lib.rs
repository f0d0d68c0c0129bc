//! What the boards share: the app's [`Board`] over a serial port, a clock and a LED.

#![no_std]

use core::convert::Infallible;

use app::Board;
use embassy_futures::block_on;
use embedded_hal::digital::StatefulOutputPin;
use embedded_io_async::{Read, Write};

/// Rate of every board's serial port, 8N1.
pub const BAUD: u32 = 115_200;

/// A serial port that waits.
pub trait Wire {
    /// The next byte; `None` if one was lost.
    fn read(&mut self) -> Option<u8>;
    /// Sends all bytes.
    fn write(&mut self, bytes: &[u8]);
}

/// A port with interrupt-driven buffers, as embassy's HALs have it.
#[derive(Debug)]
pub struct Buffered<P>(pub P);

impl<P: Read + Write> Wire for Buffered<P> {
    fn read(&mut self) -> Option<u8> {
        let mut byte = [0];
        match block_on(self.0.read(&mut byte)) {
            Ok(1) => Some(byte[0]),
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

/// One board.
#[derive(Debug)]
pub struct Hardware<W, C, L> {
    /// As in firmware/targets.toml.
    pub name: &'static str,
    /// Port to the host.
    pub wire: W,
    /// Free-running counter that wraps at 2^32.
    pub clock: C,
    /// Rate of the counter.
    pub ticks_per_second: u32,
    /// Changes with every classified image.
    pub led: L,
}

impl<W: Wire, C: FnMut() -> u32, L: StatefulOutputPin> Board for Hardware<W, C, L> {
    type End = Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn read(&mut self) -> Result<u8, Infallible> {
        loop {
            if let Some(byte) = self.wire.read() {
                return Ok(byte);
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

    fn show(&mut self, _: usize) {
        // A LED that fails is no reason to stop.
        let _ = self.led.toggle();
    }
}
