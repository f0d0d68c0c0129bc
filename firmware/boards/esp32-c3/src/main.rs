//! ESP32-C3-DevKitM-1: UART0 of the on-board USB bridge (GPIO 20, 21), LED on GPIO 7, button BOOT. Uploaded models are kept
//! in RAM: the chip's flash can be read in place only through its memory management unit, which esp-hal does not offer.

#![no_std]
#![no_main]

use defmt_rtt as _;
use embedded_model::{Buffers, Uploads};
use esp_hal::{
    Blocking,
    clock::CpuClock,
    gpio::{Input, InputConfig, Level, Output, OutputConfig, Pull},
    time::Instant,
    uart::{Config, Uart},
};
use static_cell::ConstStaticCell;
use support::{BAUD, Blink, Button, Hardware, Wire};

esp_bootloader_esp_idf::esp_app_desc!();

static BUFFERS: ConstStaticCell<Buffers<{ 48 * 1024 }, { 8 * 1024 }>> =
    ConstStaticCell::new(Buffers::new());
static UPLOADS: ConstStaticCell<Uploads<{ 104 * 1024 }>> = ConstStaticCell::new(Uploads::new());

struct Port(Uart<'static, Blocking>);

impl Wire for Port {
    fn poll(&mut self) -> Option<u8> {
        if !self.0.read_ready() {
            return None;
        }
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            _ => None,
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.0.write(bytes).unwrap_or(0);
            bytes = bytes.get(sent..).unwrap_or_default();
        }
    }
}

#[esp_hal::main]
fn main() -> ! {
    let chip = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    let Ok(port) = Uart::new(chip.UART0, Config::default().with_baudrate(BAUD)) else {
        defmt::panic!("the UART refuses its configuration")
    };
    let mut board = Hardware {
        name: "esp32-c3",
        wire: Port(port.with_rx(chip.GPIO20).with_tx(chip.GPIO21)),
        clock: || Instant::now().duration_since_epoch().as_micros() as u32,
        ticks_per_second: 1_000_000,
        display: Blink(Output::new(chip.GPIO7, Level::Low, OutputConfig::default())),
        button: Button::new(Input::new(
            chip.GPIO9,
            InputConfig::default().with_pull(Pull::Up),
        )),
        stack: || None,
    };
    match BUFFERS.take().serve(&mut board, UPLOADS.take().places()) {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    loop {}
}
