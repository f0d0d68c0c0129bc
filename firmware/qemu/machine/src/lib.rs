//! What QEMU's Cortex-M machines share. A machine's own files hold its memory map, the address and
//! kind of its UART, and its clock rate.

#![no_std]

mod bench;
mod clock;
mod cmsdk;
mod nrf;
mod register;
mod stack;

use core::convert::Infallible;

use app::Board;
use cortex_m::{interrupt::InterruptNumber, peripheral::NVIC};
use cortex_m_semihosting::debug;
use defmt_semihosting as _;

pub use bench::bench;
pub use clock::Clock;
pub use cmsdk::CmsdkUart;
pub use nrf::NrfUart;

/// A byte-wise serial port, polled.
pub trait Uart {
    /// A received byte, if there is one.
    fn poll(&mut self) -> Option<u8>;
    /// Waits until the byte can be sent.
    fn send(&mut self, byte: u8);
    /// Number of the interrupt that is pending while there is a received byte.
    fn interrupt(&self) -> u16;
}

/// The number, for the interrupt controller.
#[derive(Clone, Copy)]
struct Line(u16);

// SAFETY: the number never changes.
unsafe impl InterruptNumber for Line {
    fn number(self) -> u16 {
        self.0
    }
}

/// A machine: its UART and its clock.
pub struct Machine<U> {
    /// As QEMU calls it (`-M`).
    pub name: &'static str,
    /// Serial port to the host.
    pub uart: U,
    /// SysTick.
    pub clock: Clock,
}

impl<U: Uart> Board for Machine<U> {
    type End = Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn read(&mut self) -> Result<u8, Infallible> {
        loop {
            if let Some(byte) = self.uart.poll() {
                return Ok(byte);
            }
            // The processor sleeps until the interrupt is pending. Interrupts are masked: none is taken.
            cortex_m::interrupt::disable();
            let line = Line(self.uart.interrupt());
            NVIC::unpend(line);
            // SAFETY: no code relies on this interrupt's mask.
            unsafe { NVIC::unmask(line) };
            cortex_m::asm::wfi();
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.uart.send(byte);
        }
    }

    fn ticks(&mut self) -> u32 {
        self.clock.ticks()
    }

    fn ticks_per_second(&self) -> u32 {
        self.clock.ticks_per_second()
    }
}

/// Ends QEMU with exit code 1; for panic handlers.
pub fn fail() -> ! {
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}
