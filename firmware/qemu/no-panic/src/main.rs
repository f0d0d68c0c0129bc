//! Validation and inference of a model that the compiler knows nothing about. The panic handler calls a
//! function that does not exist: if a panic is reachable from `Model::new`, `Model::run` or the
//! self-test, the program does not link. It is never run.

#![no_std]
#![no_main]

use core::{array, panic::PanicInfo};

use runtime::{Aligned, Model, SelfTest};

/// Data register of a UART.
const PORT: *mut u32 = 0x4000_4000 as *mut u32;

fn receive<const N: usize>() -> [u8; N] {
    // SAFETY: a device register.
    array::from_fn(|_| unsafe { PORT.read_volatile() } as u8)
}

fn send(word: u32) {
    // SAFETY: a device register.
    unsafe { PORT.write_volatile(word) }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; 64 * 1024]> = Aligned([0; 64 * 1024]);
    loop {
        let file = Aligned(receive::<{ 128 * 1024 }>());
        let Ok(model) = Model::new(&file.0) else {
            continue;
        };
        let image = receive::<4096>();
        if let Some(image) = image.get(..model.input().len())
            && let Ok(logits) = model.run(image, &mut ARENA.0)
        {
            send(logits.argmax() as u32);
        }
        send((model.self_test(&mut ARENA.0) == Ok(SelfTest::Passed)).into());
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn a_panic_is_reachable() -> !;
    }
    a_panic_is_reachable()
}
