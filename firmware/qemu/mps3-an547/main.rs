//! Arm MPS3 with AN547: Cortex-M55.

#![no_std]
#![no_main]

use embedded_model::{Buffers, Uploads};
use machine::{CmsdkUart, MPS3_AN547};

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut BUFFERS: Buffers<{ 64 * 1024 }, { 4 * 1024 }> = Buffers::new();
    static mut UPLOADS: Uploads<{ 128 * 1024 }> = Uploads::new();
    // SAFETY: the CMSDK UART of this board, used only here.
    let uart = unsafe { CmsdkUart::new(0x5930_3000, 33) };
    match BUFFERS.serve(&mut MPS3_AN547.board(uart), UPLOADS.places()) {}
}
