//! Raspberry Pi Pico (RP2040): UART0 on GP0 and GP1, for example to a Debug Probe; LED on GP25.

#![no_std]
#![no_main]

use defmt_rtt as _;
use embassy_rp::{
    bind_interrupts,
    gpio::{Level, Output},
    peripherals,
    uart::{self, BufferedUart},
};
use embedded_model::Buffers;
use panic_probe as _;
use static_cell::ConstStaticCell;
use support::{BAUD, Buffered, Hardware};

static BUFFERS: ConstStaticCell<Buffers<{ 16 * 1024 }, { 4 * 1024 }, { 104 * 1024 }>> =
    ConstStaticCell::new(Buffers::new());
static RECEIVED: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);

bind_interrupts!(struct Interrupts {
    UART0_IRQ => uart::BufferedInterruptHandler<peripherals::UART0>;
});

#[cortex_m_rt::entry]
fn main() -> ! {
    let chip = embassy_rp::init(embassy_rp::config::Config::default());
    let mut config = uart::Config::default();
    config.baudrate = BAUD;
    let port = BufferedUart::new(
        chip.UART0,
        chip.PIN_0,
        chip.PIN_1,
        Interrupts,
        SENT.take(),
        RECEIVED.take(),
        config,
    );
    let mut board = Hardware {
        name: "raspberry-pi-pico",
        wire: Buffered(port),
        // The chip's microsecond timer; a Cortex-M0+ has no cycle counter.
        clock: || embassy_rp::pac::TIMER.timerawl().read(),
        ticks_per_second: 1_000_000,
        led: Output::new(chip.PIN_25, Level::Low),
    };
    match BUFFERS.take().serve(&mut board) {}
}
