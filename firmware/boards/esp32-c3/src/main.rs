//! ESP32-C3-DevKitM-1: UART0 of the on-board USB bridge (GPIO 20, 21), LED on GPIO 7.

#![no_std]
#![no_main]

use defmt_rtt as _;
use embedded_model::Buffers;
use esp_hal::{
    Blocking,
    clock::CpuClock,
    gpio::{Level, Output, OutputConfig},
    time::Instant,
    uart::{Config, Uart},
};
use static_cell::ConstStaticCell;
use support::{BAUD, Hardware, Wire};

esp_bootloader_esp_idf::esp_app_desc!();

static BUFFERS: ConstStaticCell<Buffers<{ 16 * 1024 }, { 4 * 1024 }, { 104 * 1024 }>> =
    ConstStaticCell::new(Buffers::new());

struct Port(Uart<'static, Blocking>);

impl Wire for Port {
    fn read(&mut self) -> Option<u8> {
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
        led: Output::new(chip.GPIO7, Level::Low, OutputConfig::default()),
    };
    match BUFFERS.take().serve(&mut board) {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    loop {}
}
