//! Arm MPS2 with AN385: Cortex-M3.

#![no_std]
#![no_main]

use embedded_model::{Buffers, Uploads};
use machine::{CmsdkUart, MPS2_AN385};

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut BUFFERS: Buffers<{ 64 * 1024 }, { 4 * 1024 }> = Buffers::new();
    static mut UPLOADS: Uploads<{ 256 * 1024 }> = Uploads::new();
    // SAFETY: the CMSDK UART of this board, used only here.
    let uart = unsafe { CmsdkUart::new(0x4000_4000, 0) };
    match BUFFERS.serve(&mut MPS2_AN385.board(uart), UPLOADS.places()) {}
}
