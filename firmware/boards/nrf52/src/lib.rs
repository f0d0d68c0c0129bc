//! What the boards with an nRF52 share: serial port, clock and flash. The board's package chooses the chip.

#![no_std]

use core::cell::RefCell;

use cortex_m::peripheral::DWT;
use embassy_nrf::{
    Peri, bind_interrupts,
    buffered_uarte::{self, BufferedUarte},
    gpio::{AnyPin, Input},
    nvmc::Nvmc,
    pac,
    peripherals::{NVMC, PPI_CH0, PPI_CH1, PPI_GROUP0, TIMER0, UARTE0},
    uarte,
};
use embedded_model::Buffers;
use static_cell::ConstStaticCell;
use support::{Buffered, Button, Display, Hardware};

/// The processor clock.
pub const CLOCK: u32 = 64_000_000;

static RECEIVED: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);

bind_interrupts!(struct Interrupts {
    UARTE0 => buffered_uarte::InterruptHandler<UARTE0>;
});

/// What the program needs of the chip, and what the board connects to it.
#[expect(missing_debug_implementations, reason = "the drivers have none")]
pub struct Parts<D> {
    /// The board, as in firmware/targets.toml.
    pub name: &'static str,
    /// Counts cycles.
    pub core: cortex_m::Peripherals,
    /// Serial port.
    pub uarte: Peri<'static, UARTE0>,
    /// Counts received bytes.
    pub timer: Peri<'static, TIMER0>,
    /// Connect the two.
    pub channels: (Peri<'static, PPI_CH0>, Peri<'static, PPI_CH1>),
    /// Of these channels.
    pub group: Peri<'static, PPI_GROUP0>,
    /// From the host.
    pub rx: Peri<'static, AnyPin>,
    /// To the host.
    pub tx: Peri<'static, AnyPin>,
    /// Flash controller.
    pub nvmc: Peri<'static, NVMC>,
    /// Shows the result.
    pub display: D,
    /// Active low.
    pub button: Input<'static>,
}

/// Answers the host for ever. Uploaded models are kept in the flash behind the program.
pub fn serve<const ARENA: usize, const FRAME: usize, D: Display>(
    buffers: &mut Buffers<ARENA, FRAME>,
    mut parts: Parts<D>,
) -> ! {
    // Instructions from flash wait without it. It does not keep data, so it never holds an old model.
    pac::NVMC.icachecnf().write(|w| w.set_cacheen(true));
    parts.core.DCB.enable_trace();
    parts.core.DWT.enable_cycle_counter();
    let mut config = uarte::Config::default();
    config.baudrate = uarte::Baudrate::Baud115200;
    let port = BufferedUarte::new(
        parts.uarte,
        parts.timer,
        parts.channels.0,
        parts.channels.1,
        parts.group,
        parts.rx,
        parts.tx,
        Interrupts,
        config,
        RECEIVED.take(),
        SENT.take(),
    );
    let mut board = Hardware {
        name: parts.name,
        wire: Buffered(port),
        clock: DWT::cycle_count,
        ticks_per_second: CLOCK,
        display: parts.display,
        button: Button::new(parts.button),
        stack: || Some(embedded_model::stack()),
    };
    let flash = RefCell::new(Nvmc::new(parts.nvmc));
    // SAFETY: the program lies in this flash, at address 0, and nothing else writes to it.
    let places = unsafe { embedded_model::flash_places(&flash, 0) };
    match buffers.serve(&mut board, places) {}
}
