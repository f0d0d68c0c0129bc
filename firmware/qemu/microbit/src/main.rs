//! BBC micro:bit (first version): nRF51822, Cortex-M0, 16 KiB of RAM.

#![no_std]
#![no_main]

use cortex_m::Peripherals;
use embedded_model::{ARENA_LEN, Buffers, FRAME_LEN};
use machine::{Clock, Machine, NrfUart};

const CLOCK: u32 = 16_000_000;
/// Bytes of each place for an uploaded model.
const UPLOAD: usize = 0;

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut BUFFERS: Buffers<ARENA_LEN, FRAME_LEN, UPLOAD> = Buffers::new();
    let Some(peripherals) = Peripherals::take() else {
        machine::fail()
    };
    let mut machine = Machine {
        name: "microbit",
        // SAFETY: an nRF51, and the only user of its UART.
        uart: unsafe { NrfUart::new() },
        clock: Clock::start(peripherals.SYST, CLOCK),
    };
    match BUFFERS.serve(&mut machine) {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    defmt::error!("panic");
    machine::fail()
}
