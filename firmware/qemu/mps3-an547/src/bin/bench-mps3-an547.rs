//! Executed instructions of the model on Arm MPS3 with AN547; run with `-icount shift=0`.

#![no_std]
#![no_main]

use cortex_m::Peripherals;
use embedded_model::ARENA_LEN;
use machine::Clock;
use runtime::Aligned;

const CLOCK: u32 = 32_000_000;

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; ARENA_LEN]> = Aligned([0; ARENA_LEN]);
    let Some(peripherals) = Peripherals::take() else {
        machine::fail()
    };
    machine::bench(
        "mps3-an547",
        Clock::start(peripherals.SYST, CLOCK),
        &mut ARENA.0,
    )
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    machine::fail()
}
