//! Raspberry Pi Pico (RP2040): UART0 on GP0 and GP1, for example to a Debug Probe; LED on GP25.

#![no_std]
#![no_main]

use core::cell::RefCell;

use defmt_rtt as _;
use embassy_rp::{
    bind_interrupts,
    flash::Flash,
    gpio::{Input, Level, Output},
    peripherals,
    uart::{self, BufferedUart},
};
use embedded_model::Buffers;
use panic_probe as _;
use static_cell::ConstStaticCell;
use support::{BAUD, Blink, Buffered, Button, Hardware};

/// Bytes of the board's flash.
const FLASH_LEN: usize = 2 * 1024 * 1024;
/// Where the processor sees it.
const FLASH: usize = 0x1000_0000;

static BUFFERS: ConstStaticCell<Buffers<{ 64 * 1024 }, { 8 * 1024 }>> =
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
        display: Blink(Output::new(chip.PIN_25, Level::Low)),
        button: Button::<Input<'_>>::none(),
        stack: || Some(embedded_model::stack()),
    };
    let flash = RefCell::new(Flash::<_, _, FLASH_LEN>::new_blocking(chip.FLASH));
    // SAFETY: the program lies in this flash, and nothing else writes to it.
    let places = unsafe { embedded_model::flash_places(&flash, FLASH) };
    match BUFFERS.take().serve(&mut board, places) {}
}
