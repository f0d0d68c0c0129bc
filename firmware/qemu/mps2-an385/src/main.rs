//! Arm MPS2 with AN385: Cortex-M3.

#![no_std]
#![no_main]

use cortex_m::Peripherals;
use embedded_model::Buffers;
use machine::{Clock, CmsdkUart, Machine};

const CLOCK: u32 = 25_000_000;
/// Bytes of each place for an uploaded model.
const UPLOAD: usize = 256 * 1024;

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut BUFFERS: Buffers<{ 64 * 1024 }, { 4 * 1024 }, UPLOAD> = Buffers::new();
    let Some(peripherals) = Peripherals::take() else {
        machine::fail()
    };
    let mut machine = Machine {
        name: "mps2-an385",
        // SAFETY: the CMSDK UART of this board, used only here.
        uart: unsafe { CmsdkUart::new(0x4000_4000, 0) },
        clock: Clock::start(peripherals.SYST, CLOCK),
    };
    match BUFFERS.serve(&mut machine) {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    defmt::error!("panic");
    machine::fail()
}
