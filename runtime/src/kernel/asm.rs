//! The only unsafe code of the crate: functions without a prologue, in assembly, for Cortex-M. What the instructions rely on is checked
//! before them. A build has one of the two sets.
//!
//! Loads of words and halves from the file need not be aligned from Armv7-M on (the core's default, which the compiler's code
//! relies on too); Armv6-M loads bytes there.
#![allow(unsafe_code)]

/// Makes the assembler accept the DSP extension where the target's name leaves it open; code of other functions is not affected.
#[cfg(optional_dsp)]
macro_rules! extension {
    () => {
        ".cpu cortex-m33\n"
    };
}
#[cfg(not(any(optional_dsp, armv6m)))]
macro_rules! extension {
    () => {
        ""
    };
}

/// Begins a function that changes all registers but r12.
#[cfg(armv6m)]
macro_rules! save {
    () => {
        "
            push {{r4-r7, lr}}
            mov r4, r8
            mov r5, r9
            mov r6, r10
            mov r7, r11
            push {{r4-r7}}
        "
    };
}
/// Ends it.
#[cfg(armv6m)]
macro_rules! restore {
    () => {
        "
            pop {{r4-r7}}
            mov r8, r4
            mov r9, r5
            mov r10, r6
            mov r11, r7
            pop {{r4-r7, pc}}
        "
    };
}

/// `sum * 2^-shift`, rounded half to even; then what fits in a byte.
#[cfg(armv6m)]
macro_rules! round {
    () => {
        "
        .macro isobit_round sum, shift, a, b
            movs \\a, \\sum
            lsrs \\a, \\a, \\shift
            mvns \\a, \\a
            movs \\b, #1
            ands \\a, \\b @ 1 if the quotient is even: then a tie goes down
            subs \\sum, \\sum, \\a
            asrs \\sum, \\sum, \\shift
            movs \\a, #0
            adcs \\sum, \\a @ the last bit that was shifted out
        .endm
        .macro isobit_saturate sum, a
            uxtb \\a, \\sum
            cmp \\a, \\sum
            beq 10f
            mvns \\sum, \\sum
            asrs \\sum, \\sum, #31
        10:
        .endm
        "
    };
}
/// `sum * 2^-shift`, rounded half to even; `one` holds 1.
#[cfg(not(armv6m))]
macro_rules! round {
    () => {
        "
        .macro isobit_round sum, shift, a, one
            lsr \\a, \\sum, \\shift
            bic \\a, \\one, \\a @ 1 if the quotient is even: then a tie goes down
            sub \\sum, \\sum, \\a
            asrs \\sum, \\sum, \\shift
            adc \\sum, \\sum, #0 @ the last bit that was shifted out
        .endm
        "
    };
}

mod depthwise;
#[cfg(kernels = "dsp")]
pub(super) mod dsp;
#[cfg(kernels = "lanes")]
pub(super) mod lanes;
#[cfg(all(kernels = "dsp", feature = "winograd"))]
mod winograd;

use core::arch::naked_asm;

use super::finish::Lane;

#[cfg(not(armv6m))]
macro_rules! requantize {
    ($name:ident, $saturate:literal, $($load:tt)*) => {
        /// # Safety
        /// `bias`, `shifts` and `out` point to `count` >= 1 values each, `sums` to as many, 16 bytes apart.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            sums: *const i32,
            bias: *const [u8; 4],
            shifts: *const u8,
            out: *mut u8,
            count: usize,
        ) {
            naked_asm!(
                round!(),
                "
                    push {{r4-r11, lr}}
                    ldr r4, [sp, #36]
                    movs r6, #1
                    .p2align 2
                2:
                    ldrb r7, [r2], #1
                ",
                $($load)*,
                "
                    ldr r12, [r1], #4
                    add r8, r8, r12
                    isobit_round r8, r7, r12, r6
                ",
                $saturate,
                "
                    strb r8, [r3], #1
                    subs r4, #1
                    bne 2b
                    pop {{r4-r11, pc}}
                .purgem isobit_round
                ",
            )
        }
    };
}

#[cfg(not(armv6m))]
requantize!(unsigned, "usat r8, #8, r8", "ldr r8, [r0], #16");
#[cfg(not(armv6m))]
requantize!(signed, "ssat r8, #8, r8", "ldr r8, [r0], #16");

/// The greatest of four.
#[cfg(kernels = "dsp")]
macro_rules! greatest {
    () => {
        "
            ldm r0!, {{r8-r11}}
            cmp r8, r9
            it lt
            movlt r8, r9
            cmp r10, r11
            it lt
            movlt r10, r11
            cmp r8, r10
            it lt
            movlt r8, r10
        "
    };
}
#[cfg(kernels = "dsp")]
requantize!(greatest_unsigned, "usat r8, #8, r8", greatest!());

/// `centre`: 128 for i8, 0 for u8.
///
/// # Safety
/// `bias` and `shifts` point to as many values as there are bytes from `out` to `end`, at least one; `sums` to as many, 16 bytes
/// apart.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn requantize_all(
    sums: *const i32,
    bias: *const [u8; 4],
    shifts: *const u8,
    out: *mut u8,
    end: *mut u8,
    centre: usize,
) {
    naked_asm!(
        save!(),
        round!(),
        "
            ldr r4, [sp, #36]
            mov r8, r4
            ldr r4, [sp, #40]
            mov r9, r4
        2:
            ldrb r5, [r2]
            adds r2, r2, #1
            ldr r4, [r0]
            adds r0, r0, #16
            ldm r1!, {{r6}}
            adds r4, r4, r6
            isobit_round r4, r5, r6, r7
            add r4, r9
            isobit_saturate r4, r6
            mov r6, r9
            eors r4, r4, r6
            strb r4, [r3]
            adds r3, r3, #1
            cmp r3, r8
            bne 2b
        .purgem isobit_round
        .purgem isobit_saturate
        ",
        restore!(),
    )
}

/// As in plain Rust.
#[inline(always)]
pub(super) fn requantize(
    sums: &[[i32; 4]],
    lane: Lane,
    bias: &[[u8; 4]],
    shifts: &[u8],
    signed: bool,
    out: &mut [u8],
) {
    let count = sums.len().min(bias.len()).min(shifts.len()).min(out.len());
    if count == 0 {
        return;
    }
    let at = match lane {
        Lane::At(at) => at.min(3),
        #[cfg(kernels = "dsp")]
        Lane::Greatest => 0,
    };
    #[cfg(not(armv6m))]
    let requantize = match (lane, signed) {
        (Lane::At(_), false) => unsigned,
        (Lane::At(_), true) => self::signed,
        #[cfg(kernels = "dsp")]
        (Lane::Greatest, _) => greatest_unsigned,
    };
    let sums = sums.as_flattened().as_ptr();
    let (bias, shifts, out) = (bias.as_ptr(), shifts.as_ptr(), out.as_mut_ptr());
    // SAFETY: `count` >= 1 fours of sums, biases, shifts and values are there.
    unsafe {
        #[cfg(not(armv6m))]
        requantize(sums.add(at), bias, shifts, out, count);
        #[cfg(armv6m)]
        requantize_all(
            sums.add(at),
            bias,
            shifts,
            out,
            out.add(count),
            usize::from(signed) << 7,
        );
    }
}
