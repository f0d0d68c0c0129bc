//! What QEMU's Cortex-M machines share. A machine's own folder holds its memory map, its buffers, and the address and
//! kind of its UART.

#![no_std]

mod bench;
mod clock;
mod cmsdk;
mod nrf;
mod nvmc;
mod register;
mod stack;

use core::{convert::Infallible, panic::PanicInfo};

use app::{Board, Event, Stack};
use cortex_m::{Peripherals, interrupt::InterruptNumber, peripheral::NVIC};
use cortex_m_semihosting::debug;
use defmt_semihosting as _;

pub use bench::bench;
pub use cmsdk::CmsdkUart;
pub use nrf::NrfUart;
pub use nvmc::NrfFlash;

use clock::Clock;

/// A machine of QEMU.
#[derive(Debug)]
pub struct Machine {
    /// As QEMU calls it (`-M`).
    name: &'static str,
    /// Rate of the processor's clock, and thereby of SysTick.
    clock: u32,
}

/// Arm MPS2 with AN385: Cortex-M3.
pub const MPS2_AN385: Machine = Machine {
    name: "mps2-an385",
    clock: 25_000_000,
};

/// Arm MPS2 with AN386: Cortex-M4F.
pub const MPS2_AN386: Machine = Machine {
    name: "mps2-an386",
    clock: 25_000_000,
};

/// Arm MPS3 with AN547: Cortex-M55.
pub const MPS3_AN547: Machine = Machine {
    name: "mps3-an547",
    clock: 32_000_000,
};

/// BBC micro:bit, first version: nRF51822, Cortex-M0.
pub const MICROBIT: Machine = Machine {
    name: "microbit",
    clock: 16_000_000,
};

impl Machine {
    /// The app's board, with its serial port. Takes SysTick: only once.
    pub fn board<U: Uart>(&'static self, uart: U) -> impl Board<End = Infallible> {
        Running {
            name: self.name,
            uart,
            clock: self.start_clock(),
        }
    }

    fn start_clock(&self) -> Clock {
        match Peripherals::take() {
            Some(peripherals) => Clock::start(peripherals.SYST, self.clock),
            None => fail(),
        }
    }
}

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

struct Running<U> {
    name: &'static str,
    uart: U,
    clock: Clock,
}

impl<U: Uart> Board for Running<U> {
    type End = Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn wait(&mut self) -> Result<Event, Infallible> {
        loop {
            if let Some(byte) = self.uart.poll() {
                return Ok(Event::Byte(byte));
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

    fn stack(&self) -> Option<Stack> {
        Some(embedded_model::stack())
    }
}

/// Ends QEMU with exit code 1.
fn fail() -> ! {
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    defmt::error!("panic");
    fail()
}
