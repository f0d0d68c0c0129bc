//! BBC micro:bit v2 (nRF52833): serial port of the on-board DAPLink (P1.08, P0.06), button A; the 5 x 5 LEDs show the digit.

#![no_std]
#![no_main]

mod matrix;

use cortex_m_rt::exception;
use defmt_rtt as _;
use embassy_nrf::{
    Peri,
    gpio::{AnyPin, Input, Level, Output, OutputDrive, Pull},
};
use embedded_model::Buffers;
use matrix::{Matrix, Screen};
use nrf52::Parts;
use panic_probe as _;
use static_cell::ConstStaticCell;

static BUFFERS: ConstStaticCell<Buffers<{ 48 * 1024 }, { 8 * 1024 }>> =
    ConstStaticCell::new(Buffers::new());

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(mut core) = cortex_m::Peripherals::take() else {
        defmt::panic!("started twice")
    };
    let chip = embassy_nrf::init(embassy_nrf::config::Config::default());
    let row = |pin: Peri<'static, AnyPin>| Output::new(pin, Level::Low, OutputDrive::Standard);
    let column = |pin: Peri<'static, AnyPin>| Output::new(pin, Level::High, OutputDrive::Standard);
    let screen = Screen::start(
        &mut core.SYST,
        Matrix {
            rows: [
                chip.P0_21.into(),
                chip.P0_22.into(),
                chip.P0_15.into(),
                chip.P0_24.into(),
                chip.P0_19.into(),
            ]
            .map(row),
            columns: [
                chip.P0_28.into(),
                chip.P0_11.into(),
                chip.P0_31.into(),
                chip.P1_05.into(),
                chip.P0_30.into(),
            ]
            .map(column),
        },
    );
    let parts = Parts {
        name: "microbit-v2",
        core,
        uarte: chip.UARTE0,
        timer: chip.TIMER0,
        channels: (chip.PPI_CH0, chip.PPI_CH1),
        group: chip.PPI_GROUP0,
        rx: chip.P1_08.into(),
        tx: chip.P0_06.into(),
        nvmc: chip.NVMC,
        display: screen,
        button: Input::new(chip.P0_14, Pull::Up),
    };
    nrf52::serve(BUFFERS.take(), parts)
}

#[exception]
fn SysTick() {
    matrix::refresh();
}
