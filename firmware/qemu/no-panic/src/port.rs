//! Bytes that the compiler knows nothing about, and the panic handler that does not link.

use core::{array, panic::PanicInfo};

/// Data register of a UART.
const PORT: *mut u32 = 0x4000_4000 as *mut u32;

pub fn receive<const N: usize>() -> [u8; N] {
    // SAFETY: a device register.
    let bytes: [u8; N] = array::from_fn(|_| unsafe { PORT.read_volatile() } as u8);
    #[cfg(feature = "panic")]
    assert!(bytes.first() != Some(&7), "a panic, to be found");
    bytes
}

pub fn send(word: u32) {
    // SAFETY: a device register.
    unsafe { PORT.write_volatile(word) }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn a_panic_is_reachable() -> !;
    }
    a_panic_is_reachable()
}
