//! Nordic nRF52840-DK: serial port of the on-board J-Link (P0.08, P0.06), LED 1, button 1.

#![no_std]
#![no_main]

use defmt_rtt as _;
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embedded_model::Buffers;
use nrf52::Parts;
use panic_probe as _;
use static_cell::ConstStaticCell;
use support::Blink;

static BUFFERS: ConstStaticCell<Buffers<{ 64 * 1024 }, { 8 * 1024 }>> =
    ConstStaticCell::new(Buffers::new());

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(core) = cortex_m::Peripherals::take() else {
        defmt::panic!("started twice")
    };
    let chip = embassy_nrf::init(embassy_nrf::config::Config::default());
    let parts = Parts {
        name: "nrf52840-dk",
        core,
        uarte: chip.UARTE0,
        timer: chip.TIMER0,
        channels: (chip.PPI_CH0, chip.PPI_CH1),
        group: chip.PPI_GROUP0,
        rx: chip.P0_08.into(),
        tx: chip.P0_06.into(),
        nvmc: chip.NVMC,
        display: Blink(Output::new(chip.P0_13, Level::High, OutputDrive::Standard)),
        button: Input::new(chip.P0_11, Pull::Up),
    };
    nrf52::serve(BUFFERS.take(), parts)
}
