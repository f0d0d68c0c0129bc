//! High-water mark of the stack.

use core::ptr;

const PAINT: u32 = 0xcccc_cccc;
/// Bytes below the stack pointer that painting leaves alone: its own frame and calls.
const GAP: usize = 256;

unsafe extern "C" {
    // From cortex-m-rt's linker script: the lowest address that the stack may use.
    static mut _stack_end: u32;
}

/// Runs `work` and returns the bytes of stack that it used below the caller's frame, rounded up to a
/// word and never below the 256 bytes that cannot be told apart from the measurement.
#[inline(never)]
pub fn measure(work: impl FnOnce()) -> usize {
    let top = cortex_m::register::msp::read() as usize;
    let bottom = &raw mut _stack_end;
    let words = (top - GAP - bottom as usize) / size_of::<u32>();
    for i in 0..words {
        // SAFETY: between the end of the static data and the stack pointer less the gap lies free memory.
        unsafe { ptr::write_volatile(bottom.add(i), PAINT) };
    }
    work();
    let mut untouched = 0;
    // SAFETY: the words painted above.
    while untouched < words && unsafe { ptr::read_volatile(bottom.add(untouched)) } == PAINT {
        untouched += 1;
    }
    top - (bottom as usize + untouched * size_of::<u32>())
}
