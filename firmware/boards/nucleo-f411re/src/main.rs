//! ST Nucleo-F411RE: serial port of the on-board ST-LINK (USART2: PA2, PA3), LED LD2, button B1.

#![no_std]
#![no_main]

use core::cell::RefCell;

use cortex_m::peripheral::DWT;
use defmt_rtt as _;
use embassy_stm32::{
    bind_interrupts,
    flash::Flash,
    gpio::{Input, Level, Output, Pull, Speed},
    pac,
    peripherals,
    rcc::{AHBPrescaler, APBPrescaler, Pll, PllMul, PllPDiv, PllPreDiv, PllSource, Sysclk},
    usart::{self, BufferedUart},
};
use embedded_model::Buffers;
use panic_probe as _;
use static_cell::ConstStaticCell;
use support::{BAUD, Blink, Buffered, Button, Hardware};

/// The processor clock: 16 MHz internal oscillator / 8 * 100 / 2.
const CLOCK: u32 = 100_000_000;

/// Where the processor sees the flash.
const FLASH: usize = 0x0800_0000;

static BUFFERS: ConstStaticCell<Buffers<{ 48 * 1024 }, { 8 * 1024 }>> =
    ConstStaticCell::new(Buffers::new());
static RECEIVED: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);

bind_interrupts!(struct Interrupts {
    USART2 => usart::BufferedInterruptHandler<peripherals::USART2>;
});

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(mut core) = cortex_m::Peripherals::take() else {
        defmt::panic!("started twice")
    };
    core.DCB.enable_trace();
    core.DWT.enable_cycle_counter();
    let mut config = embassy_stm32::Config::default();
    config.rcc.hsi = true;
    config.rcc.pll_src = PllSource::HSI;
    config.rcc.pll = Some(Pll {
        prediv: PllPreDiv::DIV8,
        mul: PllMul::MUL100,
        divp: Some(PllPDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.ahb_pre = AHBPrescaler::DIV1;
    config.rcc.apb1_pre = APBPrescaler::DIV2;
    config.rcc.apb2_pre = APBPrescaler::DIV1;
    config.rcc.sys = Sysclk::PLL1_P;
    let chip = embassy_stm32::init(config);
    // The flash waits three cycles; the HAL leaves its accelerator off. Not its cache of data: that would keep an old model.
    pac::FLASH.acr().modify(|w| {
        w.set_icen(true);
        w.set_prften(true);
    });
    let mut config = usart::Config::default();
    config.baudrate = BAUD;
    let port = BufferedUart::new(
        chip.USART2,
        chip.PA3,
        chip.PA2,
        SENT.take(),
        RECEIVED.take(),
        Interrupts,
        config,
    );
    let Ok(port) = port else {
        defmt::panic!("the UART refuses its configuration")
    };
    let mut board = Hardware {
        name: "nucleo-f411re",
        wire: Buffered(port),
        clock: DWT::cycle_count,
        ticks_per_second: CLOCK,
        display: Blink(Output::new(chip.PA5, Level::Low, Speed::Low)),
        button: Button::new(Input::new(chip.PC13, Pull::Up)),
        stack: || Some(embedded_model::stack()),
    };
    let flash = RefCell::new(Flash::new_blocking(chip.FLASH));
    // SAFETY: the program lies in this flash, and nothing else writes to it.
    let places = unsafe { embedded_model::flash_places(&flash, FLASH) };
    match BUFFERS.take().serve(&mut board, places) {}
}
