//! Depthwise convolution of one position, four channels at a time. `docs/kernels.md` gives the instruction budgets.

use core::arch::naked_asm;

#[cfg(kernels = "dsp")]
use super::dsp::Core;
#[cfg(kernels = "lanes")]
use super::lanes::Core;
use crate::kernel::depthwise::{Arguments, Depthwise, Table};
use crate::kernel::walk::Span;

impl Depthwise for Core {
    const PAIRS: bool = cfg!(kernels = "dsp");

    #[inline(always)]
    fn pixel(table: &Table, values: &[u8], part: &[Span; 2], out: &mut [u8]) {
        if let Some(arguments) = table.arguments(values, part, out) {
            // SAFETY: `arguments` says so only if all of the table, four values for each tap and four channels, and the output
            // are there.
            unsafe { pixel(&arguments) }
        }
    }
}

/// One tap of four channels, values that `\kind` loads or extends: r0 values, r1 table, r4-r7 sums. 8 instructions.
#[cfg(kernels = "dsp")]
macro_rules! tap {
    () => {
        "
        .macro isobit_tap kind
            ldm r1!, {{r2, r3, r8}}
            ldr r2, [r0, r2]
            \\kind r12, r2
            \\kind r2, r2, ror #8
            smlabb r4, r12, r3, r4
            smlatt r6, r12, r3, r6
            smlabb r5, r2, r8, r5
            smlatt r7, r2, r8, r7
        .endm
        .macro isobit_unsigned
            isobit_tap uxtb16
        .endm
        .macro isobit_signed
            isobit_tap sxtb16
        .endm
        "
    };
}

/// The same without those instructions: 11.
#[cfg(all(kernels = "lanes", not(armv6m)))]
macro_rules! tap {
    () => {
        "
        .macro isobit_tap kind
            ldm r1!, {{r2, r3, r8}}
            add r2, r2, r0
            \\kind r12, [r2]
            mla r4, r12, r3, r4
            \\kind r12, [r2, #1]
            mla r5, r12, r8, r5
            ldm r1!, {{r3, r8}}
            \\kind r12, [r2, #2]
            mla r6, r12, r3, r6
            \\kind r12, [r2, #3]
            mla r7, r12, r8, r7
        .endm
        .macro isobit_unsigned
            isobit_tap ldrb
        .endm
        .macro isobit_signed
            isobit_tap ldrsb
        .endm
        "
    };
}

/// # Safety
/// As [`Table::arguments`] returns them.
#[cfg(not(armv6m))]
#[unsafe(naked)]
unsafe extern "C" fn pixel(arguments: *const Arguments) {
    // r9 output, r10 rows, r11 twos of taps, lr arguments.
    naked_asm!(
        extension!(),
        tap!(),
        round!(),
        "
            push {{r4-r11, lr}}
            mov lr, r0
            ldm lr, {{r0, r1, r9}}
        2: @ four channels
            ldm r1!, {{r4-r7}}
            ldrd r2, r10, [lr, #12]
            add r1, r1, r2
        3: @ a row
            ldrd r11, r2, [lr, #20]
            lsrs r11, r11, #1
            cbz r2, 6f
            bcc 5f @ an odd number of taps
        4:
            isobit_signed
        5:
            isobit_signed
            subs r11, r11, #1
            bne 4b
            b 9f
        6:
            bcc 8f
        7:
            isobit_unsigned
        8:
            isobit_unsigned
            subs r11, r11, #1
            bne 7b
        9:
            ldrd r2, r3, [lr, #28]
            add r1, r1, r2
            subs r10, r10, #1
            bne 3b
            add r1, r1, r3
            ldm r1!, {{r2, r3, r8, r11}}
            mov r10, #1
            isobit_round r4, r2, r12, r10
            usat r4, #8, r4
            isobit_round r5, r3, r12, r10
            usat r5, #8, r5
            isobit_round r6, r8, r12, r10
            usat r6, #8, r6
            isobit_round r7, r11, r12, r10
            usat r7, #8, r7
            ldrd r2, r3, [lr, #36]
            orr r4, r4, r5, lsl #8
            orr r4, r4, r6, lsl #16
            orr r4, r4, r7, lsl #24
            eor r4, r4, r2
            str r4, [r9], #4
            adds r0, r0, #4
            cmp r9, r3
            bne 2b
            pop {{r4-r11, pc}}
        .purgem isobit_tap
        .purgem isobit_unsigned
        .purgem isobit_signed
        .purgem isobit_round
        "
    )
}

/// # Safety
/// As [`Table::arguments`] returns them.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn pixel(arguments: *const Arguments) {
    // r1 table, r4-r7 sums, r8 values, r9 end of the row, r10 rows, r11 output, r12 arguments.
    naked_asm!(
        round!(),
        "
        .macro isobit_one sum, at, extend:vararg
            ldrb r3, [r2, #\\at]
            \\extend
            ldm r1!, {{r0}}
            muls r3, r0, r3
            adds \\sum, \\sum, r3
        .endm
        .macro isobit_tap extend:vararg
            ldm r1!, {{r2}}
            add r2, r8
            isobit_one r4, 0, \\extend
            isobit_one r5, 1, \\extend
            isobit_one r6, 2, \\extend
            isobit_one r7, 3, \\extend
        .endm
        .macro isobit_result sum
            ldm r1!, {{r0}}
            isobit_round \\sum, r0, r2, r3
            isobit_saturate \\sum, r2
        .endm
        ",
        save!(),
        "
            mov r12, r0
            ldm r0, {{r0, r1, r2}}
            mov r8, r0
            mov r11, r2
        2: @ four channels
            ldm r1!, {{r4-r7}}
            mov r0, r12
            ldr r2, [r0, #12]
            adds r1, r1, r2
            ldr r2, [r0, #16]
            mov r10, r2
        3: @ a row
            mov r0, r12
            ldr r2, [r0, #20]
            subs r2, r2, #1
            lsls r3, r2, #2
            adds r2, r2, r3
            lsls r2, r2, #2
            adds r2, r2, r1
            mov r9, r2
            ldr r2, [r0, #24]
            cmp r2, #0
            bne 5f
        4:
            isobit_tap
            cmp r1, r9
            bne 4b
            b 6f
        5:
            isobit_tap sxtb r3, r3
            cmp r1, r9
            bne 5b
        6:
            mov r0, r12
            ldr r2, [r0, #28]
            adds r1, r1, r2
            mov r2, r10
            subs r2, r2, #1
            mov r10, r2
            bne 3b
            ldr r2, [r0, #32]
            adds r1, r1, r2
            isobit_result r4
            isobit_result r5
            isobit_result r6
            isobit_result r7
            mov r3, r12
            ldr r2, [r3, #36]
            ldr r3, [r3, #40]
            mov r0, r11
            eors r4, r4, r2
            strb r4, [r0, #0]
            eors r5, r5, r2
            strb r5, [r0, #1]
            eors r6, r6, r2
            strb r6, [r0, #2]
            eors r7, r7, r2
            strb r7, [r0, #3]
            adds r0, r0, #4
            mov r11, r0
            movs r2, #4
            add r8, r2
            cmp r0, r3
            beq 7f
            b 2b
        7:
        .purgem isobit_one
        .purgem isobit_tap
        .purgem isobit_result
        .purgem isobit_round
        .purgem isobit_saturate
        ",
        restore!(),
    )
}
