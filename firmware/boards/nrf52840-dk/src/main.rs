//! Nordic nRF52840-DK: serial port of the on-board J-Link (P0.08, P0.06), LED 1.

#![no_std]
#![no_main]

use cortex_m::peripheral::DWT;
use defmt_rtt as _;
use embassy_nrf::{
    bind_interrupts,
    buffered_uarte::{self, BufferedUarte},
    gpio::{Level, Output, OutputDrive},
    peripherals, uarte,
};
use embedded_model::Buffers;
use panic_probe as _;
use static_cell::ConstStaticCell;
use support::{Buffered, Hardware};

/// The processor clock.
const CLOCK: u32 = 64_000_000;

static BUFFERS: ConstStaticCell<Buffers<{ 16 * 1024 }, { 4 * 1024 }, { 104 * 1024 }>> =
    ConstStaticCell::new(Buffers::new());
static RECEIVED: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);

bind_interrupts!(struct Interrupts {
    UARTE0 => buffered_uarte::InterruptHandler<peripherals::UARTE0>;
});

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(mut core) = cortex_m::Peripherals::take() else {
        defmt::panic!("started twice")
    };
    core.DCB.enable_trace();
    core.DWT.enable_cycle_counter();
    let chip = embassy_nrf::init(embassy_nrf::config::Config::default());
    let mut config = uarte::Config::default();
    config.baudrate = uarte::Baudrate::Baud115200;
    let port = BufferedUarte::new(
        chip.UARTE0,
        chip.TIMER0,
        chip.PPI_CH0,
        chip.PPI_CH1,
        chip.PPI_GROUP0,
        chip.P0_08,
        chip.P0_06,
        Interrupts,
        config,
        RECEIVED.take(),
        SENT.take(),
    );
    let mut board = Hardware {
        name: "nrf52840-dk",
        wire: Buffered(port),
        clock: DWT::cycle_count,
        ticks_per_second: CLOCK,
        led: Output::new(chip.P0_13, Level::High, OutputDrive::Standard),
    };
    match BUFFERS.take().serve(&mut board) {}
}
