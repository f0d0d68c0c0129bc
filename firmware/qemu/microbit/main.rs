//! BBC micro:bit (first version): nRF51822, Cortex-M0, 16 KiB of RAM; uploaded models are kept in flash.

#![no_std]
#![no_main]

use core::cell::RefCell;

use embedded_model::{ARENA_LEN, Buffers, FRAME_LEN};
use machine::{MICROBIT, NrfFlash, NrfUart};

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut BUFFERS: Buffers<ARENA_LEN, FRAME_LEN> = Buffers::new();
    // SAFETY: an nRF51, and the only user of its UART and its flash controller.
    let (uart, flash) = unsafe { (NrfUart::new(), RefCell::new(NrfFlash::new())) };
    // SAFETY: the program lies in this flash, and nothing else writes to it.
    let places = unsafe { embedded_model::flash_places(&flash, 0) };
    match BUFFERS.serve(&mut MICROBIT.board(uart), places) {}
}
