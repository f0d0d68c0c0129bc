//! The only unsafe code of the crate: functions without a prologue, in assembly, for Cortex-M. What the instructions rely on is checked
//! before them. A build has one of the two sets.
//!
//! Loads of words and halves from the file need not be aligned from Armv7-M on (the core's default, which the compiler's code
//! relies on too); Armv6-M loads bytes there.
#![allow(unsafe_code)]

#[cfg(kernels = "dsp")]
pub(super) mod dsp;
#[cfg(kernels = "lanes")]
pub(super) mod lanes;

#[cfg(not(armv6m))]
use core::arch::naked_asm;

#[cfg(not(armv6m))]
macro_rules! requantize {
    ($name:ident, $saturate:literal, $stride:literal) => {
        /// `each`: bytes from one shift to the next, 0 or 1.
        ///
        /// # Safety
        /// `bias` and `out` point to `count` >= 1 values each, `sums` to as many, so many bytes apart, `shifts` to one, or as many.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            sums: *const i32,
            bias: *const [u8; 4],
            shifts: *const u8,
            out: *mut u8,
            count: usize,
            each: usize,
        ) {
            naked_asm!(
                "push {{r4-r8, lr}}",
                "ldrd r4, r5, [sp, #24]",
                "movs r6, #1",
                ".p2align 2",
                "2:",
                "ldrb r7, [r2]",
                "add r2, r2, r5",
                concat!("ldr r8, [r0], #", $stride),
                "ldr r12, [r1], #4",
                "add r8, r8, r12",
                // A tie goes down if the quotient below it is even.
                "lsr r12, r8, r7",
                "bic r12, r6, r12",
                "sub r8, r8, r12",
                // The carry is the last bit that was shifted out.
                "asrs r8, r8, r7",
                "adc r8, r8, #0",
                $saturate,
                "strb r8, [r3], #1",
                "subs r4, #1",
                "bne 2b",
                "pop {{r4-r8, pc}}",
            )
        }
    };
}

#[cfg(not(armv6m))]
requantize!(unsigned, "usat r8, #8, r8", "4");
#[cfg(not(armv6m))]
requantize!(signed, "ssat r8, #8, r8", "4");
#[cfg(not(armv6m))]
requantize!(unsigned_of_four, "usat r8, #8, r8", "16");
#[cfg(not(armv6m))]
requantize!(signed_of_four, "ssat r8, #8, r8", "16");

/// As [`super::requantize_plain`], for strides of 1 and 4.
#[cfg(not(armv6m))]
fn requantize(
    sums: &[i32],
    stride: usize,
    bias: &[[u8; 4]],
    shifts: &[u8],
    signed: bool,
    out: &mut [u8],
) {
    let (count, requantize): (_, unsafe extern "C" fn(_, _, _, _, _, _)) = match (stride, signed) {
        (1, false) => (sums.len(), unsigned),
        (1, true) => (sums.len(), self::signed),
        (4, false) => (sums.len().div_ceil(4), unsigned_of_four),
        (4, true) => (sums.len().div_ceil(4), signed_of_four),
        _ => return,
    };
    let mut count = count.min(bias.len()).min(out.len());
    let each = usize::from(shifts.len() > 1);
    if shifts.len() != 1 {
        count = count.min(shifts.len());
    }
    if count == 0 {
        return;
    }
    // SAFETY: `count` >= 1 values are there, sums `stride` apart, and as many shifts, or one that `each` = 0 stays at.
    unsafe {
        requantize(
            sums.as_ptr(),
            bias.as_ptr(),
            shifts.as_ptr(),
            out.as_mut_ptr(),
            count,
            each,
        );
    }
}
