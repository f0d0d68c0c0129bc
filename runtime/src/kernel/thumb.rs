//! The inner loop for Cortex-M cores without DSP instructions. The only unsafe code of their builds; what the instructions rely on
//! is checked before them.

#![allow(unsafe_code)]

use core::arch::naked_asm;

use super::lanes::{Lanes, Work};
use crate::weight::SECTION;

/// The core's own instructions.
///
/// Eight taps of a channel are 32 products: 75 instructions on Armv6-M, 51 on Armv7-M; where they are taken two at a time 90 and 65.
pub(super) struct Core;

impl Lanes for Core {
    #[inline(always)]
    fn multiply(work: &mut Work<'_>) {
        let channels = work.accs.len();
        let last = channels.saturating_sub(1) / 2;
        let needed = last
            .saturating_mul(work.block)
            .saturating_add(work.taps.len().saturating_mul(2));
        if work.taps.is_empty()
            || work.taps.len() > SECTION
            || channels == 0
            || work.block < 2
            || needed > work.weights.len()
            || work.splits.len() < 2 * channels
        {
            return;
        }
        let taps = work.taps.as_ptr_range();
        let arguments = Arguments {
            taps: taps.start,
            weights: work.weights.as_ptr(),
            accs: work.accs.as_mut_ptr(),
            splits: work.splits.as_ptr(),
            after_odd: work.block - 1,
            after_even: 1,
            channels,
            groups: taps.end.wrapping_sub(work.taps.len() % 8),
            pairs: taps.end.wrapping_sub(work.taps.len() % 2),
            odd: work.taps.len() % 2,
        };
        // SAFETY: reads the taps; for each pair of channels `2 * taps.len()` bytes from `weights` on, `block` bytes further for
        // each pair, which is in bounds as checked; two bytes of `splits` and one of
        // `accs` for each channel; writes `accs`.
        unsafe { lanes(&arguments) }
    }
}

/// What [`lanes`] reads; it changes the fields up to `channels` in its own copy.
#[repr(C)]
struct Arguments {
    taps: *const [u32; 2],
    weights: *const u8,
    accs: *mut [i32; 4],
    splits: *const u8,
    /// Bytes from the weights of an odd channel to those of the next one.
    after_odd: usize,
    after_even: usize,
    channels: usize,
    /// End of the whole groups of eight taps.
    groups: *const [u32; 2],
    /// End of the pairs of taps.
    pairs: *const [u32; 2],
    /// 1 if one more tap follows.
    odd: usize,
}

/// # Safety
/// See [`Core::multiply`].
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn lanes(arguments: *const Arguments) {
    // r0 taps, r1 weights, r2-r5 taps and their sums, r6 weight, r7 splits, r8-r11 accumulators, r12 end of a loop.
    naked_asm!(
        r"
        .macro isobit_flush
            sxth r4, r2
            add r8, r4
            subs r2, r2, r4
            asrs r2, r2, #16
            add r9, r2
            sxth r4, r3
            add r10, r4
            subs r3, r3, r4
            asrs r3, r3, #16
            add r11, r3
        .endm
        .macro isobit_two first
            ldmia r0!, {{r2-r5}}
            ldrb r6, [r1, #\first]
            sxtb r6, r6
            muls r2, r6, r2
            muls r3, r6, r3
            ldrb r6, [r1, #\first + 2]
            sxtb r6, r6
            muls r4, r6, r4
            muls r5, r6, r5
            adds r2, r2, r4
            adds r3, r3, r5
        .endm
        .macro isobit_more first
            ldmia r0!, {{r4, r5}}
            ldrb r6, [r1, #\first]
            sxtb r6, r6
            muls r4, r6, r4
            muls r5, r6, r5
            adds r2, r2, r4
            adds r3, r3, r5
        .endm
            push {{r4-r7, lr}}
            mov r4, r8
            mov r5, r9
            mov r6, r10
            mov r7, r11
            push {{r4-r7}}
            sub sp, #40
            mov r1, sp
            ldmia r0!, {{r2-r6}}
            stmia r1!, {{r2-r6}}
            ldmia r0!, {{r2-r6}}
            stmia r1!, {{r2-r6}}
        2: @ a channel
            ldr r2, [sp, #8]
            ldmia r2!, {{r4-r7}}
            mov r8, r4
            mov r9, r5
            mov r10, r6
            mov r11, r7
            ldr r2, [sp, #12]
            ldrb r7, [r2, #0]
            ldrb r6, [r2, #1]
            lsls r6, r6, #8
            orrs r7, r7, r6
            adds r2, r2, #2
            str r2, [sp, #12]
            ldr r0, [sp, #0]
            ldr r1, [sp, #4]
            ldr r4, [sp, #28]
            mov r12, r4
            cmp r0, r12
            bne 3f
            b 6f
        3: @ eight taps
            lsrs r7, r7, #1
            bcs 5f
            isobit_two 0
            isobit_more 4
            isobit_more 6
            isobit_flush
            isobit_two 8
            isobit_more 12
            isobit_more 14
            isobit_flush
        4:
            adds r1, #16
            cmp r0, r12
            bne 3b
            b 6f
        5: @ eight taps whose weights are large
            isobit_two 0
            isobit_flush
            isobit_two 4
            isobit_flush
            isobit_two 8
            isobit_flush
            isobit_two 12
            isobit_flush
            adds r1, #16
            cmp r0, r12
            beq 6f
            b 3b
        6:
            ldr r4, [sp, #32]
            mov r12, r4
            cmp r0, r12
            beq 8f
        7: @ two taps
            isobit_two 0
            isobit_flush
            adds r1, #4
            cmp r0, r12
            bne 7b
        8:
            ldr r4, [sp, #36]
            cmp r4, #0
            beq 9f
            ldmia r0!, {{r2, r3}} @ one tap
            ldrb r6, [r1, #0]
            sxtb r6, r6
            muls r2, r6, r2
            muls r3, r6, r3
            isobit_flush
        9:
            mov r4, r8
            mov r5, r9
            mov r6, r10
            mov r7, r11
            ldr r2, [sp, #8]
            stmia r2!, {{r4-r7}}
            str r2, [sp, #8]
            ldr r0, [sp, #20]
            ldr r1, [sp, #16]
            str r0, [sp, #16]
            str r1, [sp, #20]
            ldr r2, [sp, #4]
            adds r2, r2, r0
            str r2, [sp, #4]
            ldr r0, [sp, #24]
            subs r0, r0, #1
            str r0, [sp, #24]
            beq 20f
            b 2b
        20:
            add sp, #40
            pop {{r4-r7}}
            mov r8, r4
            mov r9, r5
            mov r10, r6
            mov r11, r7
            pop {{r4-r7, pc}}
        .purgem isobit_flush
        .purgem isobit_two
        .purgem isobit_more
        "
    )
}

/// # Safety
/// See [`Core::multiply`].
#[cfg(not(armv6m))]
#[unsafe(naked)]
unsafe extern "C" fn lanes(arguments: *const Arguments) {
    // r0 taps, r1 weights, r4-r7 taps and their sums, r2, r12 weights, r3 splits, r8-r11 accumulators, lr end of a loop.
    naked_asm!(
        r"
        .macro isobit_flush
            sxth r12, r4
            add r8, r8, r12
            sub r4, r4, r12
            add r9, r9, r4, asr #16
            sxth r12, r5
            add r10, r10, r12
            sub r5, r5, r12
            add r11, r11, r5, asr #16
        .endm
        .macro isobit_two first
            ldmia r0!, {{r4-r7}}
            ldrsb r2, [r1, #\first]
            ldrsb r12, [r1, #\first + 2]
            mul r4, r4, r2
            mul r5, r5, r2
            mla r4, r6, r12, r4
            mla r5, r7, r12, r5
        .endm
        .macro isobit_more first
            ldmia r0!, {{r6, r7}}
            ldrsb r2, [r1, #\first]
            mla r4, r6, r2, r4
            mla r5, r7, r2, r5
        .endm
            push {{r4-r11, lr}}
            sub sp, #40
            mov r1, sp
            ldmia r0!, {{r2-r6}}
            stmia r1!, {{r2-r6}}
            ldmia r0!, {{r2-r6}}
            stmia r1!, {{r2-r6}}
        2: @ a channel
            ldr r2, [sp, #8]
            ldmia r2, {{r8-r11}}
            ldr r2, [sp, #12]
            ldrb r3, [r2], #1
            ldrb r12, [r2], #1
            orr r3, r3, r12, lsl #8
            str r2, [sp, #12]
            ldr r0, [sp, #0]
            ldr r1, [sp, #4]
            ldr lr, [sp, #28]
            cmp r0, lr
            beq 6f
        3: @ eight taps
            lsrs r3, r3, #1
            bcs 5f
            isobit_two 0
            isobit_more 4
            isobit_more 6
            isobit_flush
            isobit_two 8
            isobit_more 12
            isobit_more 14
            isobit_flush
            add r1, r1, #16
            cmp r0, lr
            bne 3b
            b 6f
        5: @ eight taps whose weights are large
            isobit_two 0
            isobit_flush
            isobit_two 4
            isobit_flush
            isobit_two 8
            isobit_flush
            isobit_two 12
            isobit_flush
            add r1, r1, #16
            cmp r0, lr
            bne 3b
        6:
            ldr lr, [sp, #32]
            cmp r0, lr
            beq 8f
        7: @ two taps
            isobit_two 0
            isobit_flush
            add r1, r1, #4
            cmp r0, lr
            bne 7b
        8:
            ldr r4, [sp, #36]
            cmp r4, #0
            beq 9f
            ldmia r0!, {{r4, r5}} @ one tap
            ldrsb r2, [r1]
            mul r4, r4, r2
            mul r5, r5, r2
            isobit_flush
        9:
            ldr r2, [sp, #8]
            stmia r2!, {{r8-r11}}
            str r2, [sp, #8]
            ldr r0, [sp, #20]
            ldr r1, [sp, #16]
            str r0, [sp, #16]
            str r1, [sp, #20]
            ldr r2, [sp, #4]
            add r2, r2, r0
            str r2, [sp, #4]
            ldr r0, [sp, #24]
            subs r0, r0, #1
            str r0, [sp, #24]
            bne 2b
            add sp, #40
            pop {{r4-r11, pc}}
        .purgem isobit_flush
        .purgem isobit_two
        .purgem isobit_more
        "
    )
}
