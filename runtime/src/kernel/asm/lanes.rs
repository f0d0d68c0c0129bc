//! The inner loops for Cortex-M cores without DSP instructions. `docs/kernels.md` gives their instruction budgets.

use core::arch::naked_asm;

use crate::kernel::lanes::{Lanes, Work};
use crate::weight::SECTION;

/// The core's own instructions.
pub(in crate::kernel) struct Core;

/// Half of the range of a sum in the low half of a word: makes it a number without a sign.
const HALF: usize = 1 << 15;

impl Lanes for Core {
    #[inline(always)]
    fn multiply(work: &mut Work<'_>) {
        let channels = work.accs.len();
        let last = channels.saturating_sub(1) / 2;
        let count = work.taps.len();
        let needed = last
            .saturating_mul(work.block)
            .saturating_add(count.saturating_mul(2));
        if count == 0
            || count > SECTION
            || channels == 0
            || work.block < 2
            || needed > work.weights.len()
            || work.splits.len() < 2 * channels
        {
            return;
        }
        let (groups, rest) = (count / 8, count % 8);
        let arguments = Arguments {
            taps: work.taps.as_ptr(),
            weights: work.weights.as_ptr(),
            accs: work.accs.as_mut_ptr(),
            result: work.result as usize,
            bias: (HALF * (2 * groups + rest.div_ceil(2))).wrapping_neg(),
            fresh: work.fresh.into(),
            splits: work.splits.as_ptr(),
            channels,
            mask: (1 << groups) - 1,
            end: 1 << groups,
            after_even: 1usize.wrapping_sub(2 * count),
            after_odd: (work.block - 1).wrapping_sub(2 * count),
            rest,
        };
        // SAFETY: reads the taps; for each pair of channels `2 * count` bytes from `weights` on, `block` bytes further for
        // each pair, which is in bounds as checked; two bytes of `splits` and one of
        // `accs` for each channel; writes `accs`. The number of turns does not depend on `splits`, of which only the bits of `mask` count.
        unsafe { lanes(&arguments) }
    }

    #[inline(always)]
    fn add1(signed: bool, x: &[u8], weights: &[[u8; 2]], sums: &mut [i32; 2]) {
        let count = x.len().min(weights.len());
        let add = if signed { add1_signed } else { add1_unsigned };
        // SAFETY: both slices have `count` elements.
        unsafe { add(x.as_ptr(), weights.as_ptr(), count, sums) }
    }
}

/// What [`lanes`] reads; it changes some fields in its own copy.
#[repr(C)]
struct Arguments {
    taps: *const [u32; 2],
    weights: *const u8,
    accs: *mut [i32; 4],
    result: usize,
    /// Makes up for what a sum without a sign adds.
    bias: usize,
    fresh: usize,
    splits: *const u8,
    channels: usize,
    /// A bit for each group of eight taps.
    mask: usize,
    /// The bit after those.
    end: usize,
    /// From the end of an even channel's weights to the next channel's, and of an odd one's.
    after_even: usize,
    after_odd: usize,
    /// Taps after the groups.
    rest: usize,
}

/// # Safety
/// See [`Core::multiply`].
#[cfg(not(armv6m))]
#[unsafe(naked)]
unsafe extern "C" fn lanes(arguments: *const Arguments) {
    // r0 taps, r1 weights, r2, r12 weight, r3 splits, r4, r5 sums of a word, r4-r7 taps, r8-r11 accumulators, lr 2^15.
    naked_asm!(
        r"
        .macro isobit_flush
            add r8, r8, r4
            add r9, r9, r4, asr #16
            add r10, r10, r5
            add r11, r11, r5, asr #16
        .endm
        .macro isobit_two
            ldmia r0!, {{r4-r7}}
            ldrsb r2, [r1], #2
            ldrsb r12, [r1], #2
            mla r4, r4, r2, lr
            mla r5, r5, r2, lr
            mla r4, r6, r12, r4
            mla r5, r7, r12, r5
        .endm
        .macro isobit_four
            isobit_two
            ldrsb r2, [r1], #2
            ldrsb r12, [r1], #2
            ldmia r0!, {{r6, r7}}
            mla r4, r6, r2, r4
            mla r5, r7, r2, r5
            ldmia r0!, {{r6, r7}}
            mla r4, r6, r12, r4
            mla r5, r7, r12, r5
            isobit_flush
        .endm
            push {{r4-r11, lr}}
            sub sp, #56
            mov r1, sp
            ldmia r0!, {{r2-r8}}
            stmia r1!, {{r2-r8}}
            ldmia r0!, {{r2-r7}}
            stmia r1!, {{r2-r7}}
            ldr r1, [sp, #4]
            mov lr, #0x8000
        2: @ a channel
            ldrd r8, r3, [sp, #16]
            mov r10, r8
            mov r9, #0
            mov r11, #0
            cbnz r3, 3f
            ldr r6, [sp, #8]
            ldm r6, {{r4-r7}}
            add r8, r8, r4
            mov r9, r5
            add r10, r10, r6
            mov r11, r7
        3:
            ldr r0, [sp, #0]
            ldr r2, [sp, #24]
            ldrh r3, [r2], #2
            str r2, [sp, #24]
            ldrd r4, r5, [sp, #32]
            and r3, r3, r4
            orr r3, r3, r5
        4: @ eight taps
            lsrs r3, r3, #1
            bcs.w 5f
            isobit_four
            isobit_four
            lsrs r3, r3, #1
            bcs 5f
            isobit_four
            isobit_four
            b 4b
        5: @ the end, or eight taps whose weights are large
            beq 6f
            isobit_two
            isobit_flush
            isobit_two
            isobit_flush
            isobit_two
            isobit_flush
            isobit_two
            isobit_flush
            sub r8, r8, #0x10000 @ twice 2^15 more than otherwise
            sub r10, r10, #0x10000
            b 4b
        6:
            ldr r3, [sp, #48]
            cbz r3, 9f
        7: @ two taps
            subs r3, #2
            blt 8f
            isobit_two
            isobit_flush
            b 7b
        8:
            adds r3, #1
            bne 9f
            ldmia r0!, {{r4, r5}} @ one tap
            ldrsb r2, [r1], #2
            mla r4, r4, r2, lr
            mla r5, r5, r2, lr
            isobit_flush
        9:
            ldrd r6, r2, [sp, #8]
            cbz r2, 10f
            sub r8, r8, r9, lsl #16
            sub r10, r10, r11, lsl #16
            cmp r2, #1
            beq 10f
            cmp r8, r9
            it lt
            movlt r8, r9
            cmp r10, r11
            it lt
            movlt r10, r11
            cmp r8, r10
            it lt
            movlt r8, r10
        10:
            stmia r6!, {{r8-r11}}
            str r6, [sp, #8]
            ldrd r2, r3, [sp, #40]
            add r1, r1, r2
            strd r3, r2, [sp, #40]
            ldr r2, [sp, #28]
            subs r2, r2, #1
            str r2, [sp, #28]
            bne.w 2b
            add sp, #56
            pop {{r4-r11, pc}}
        .purgem isobit_flush
        .purgem isobit_two
        .purgem isobit_four
        "
    )
}

/// # Safety
/// See [`Core::multiply`].
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn lanes(arguments: *const Arguments) {
    // r0 taps, r1 weights, r2-r5 taps and their sums, r6 weight, r7 splits, r8-r11 accumulators, r12 2^15.
    naked_asm!(
        r"
        .macro isobit_flush
            add r8, r2
            add r2, r12
            asrs r2, r2, #16
            add r9, r2
            add r10, r3
            add r3, r12
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
        .macro isobit_eight
            isobit_two 0
            isobit_more 4
            isobit_more 6
            isobit_flush
            isobit_two 8
            isobit_more 12
            isobit_more 14
            isobit_flush
            adds r1, #16
        .endm
        ",
        save!(),
        r"
            sub sp, #52
            mov r1, sp
            ldmia r0!, {{r2-r7}}
            stmia r1!, {{r2-r7}}
            ldmia r0!, {{r2-r7}}
            stmia r1!, {{r2-r7}}
            ldmia r0!, {{r2}}
            stmia r1!, {{r2}}
            ldr r1, [sp, #4]
            movs r2, #1
            lsls r2, r2, #15
            mov r12, r2
        2: @ a channel
            movs r4, #0
            movs r5, #0
            movs r6, #0
            movs r7, #0
            ldr r3, [sp, #20]
            cmp r3, #0
            bne 3f
            ldr r2, [sp, #8]
            ldmia r2!, {{r4-r7}}
        3:
            mov r8, r4
            mov r9, r5
            mov r10, r6
            mov r11, r7
            ldr r0, [sp, #0]
            ldr r2, [sp, #24]
            ldrb r7, [r2, #0]
            ldrb r6, [r2, #1]
            adds r2, r2, #2
            str r2, [sp, #24]
            lsls r6, r6, #8
            orrs r7, r7, r6
            ldr r2, [sp, #32]
            ands r7, r7, r2
            ldr r2, [sp, #36]
            orrs r7, r7, r2
        4: @ eight taps
            lsrs r7, r7, #1
            bcs 5f
            isobit_eight
            lsrs r7, r7, #1
            bcc 14f
        5: @ the end, or eight taps whose weights are large
            bne 15f
            b 6f
        15:
            isobit_two 0
            isobit_flush
            isobit_two 4
            isobit_flush
            isobit_two 8
            isobit_flush
            isobit_two 12
            isobit_flush
            adds r1, #16
            b 4b
        14:
            isobit_eight
            b 4b
        6:
            ldr r7, [sp, #48]
        7: @ two taps
            subs r7, r7, #2
            blt 8f
            isobit_two 0
            isobit_flush
            adds r1, #4
            b 7b
        8:
            adds r7, r7, #1
            bne 9f
            ldmia r0!, {{r2, r3}} @ one tap
            ldrb r6, [r1, #0]
            sxtb r6, r6
            muls r2, r6, r2
            muls r3, r6, r3
            isobit_flush
            adds r1, #2
        9:
            mov r4, r8
            mov r5, r9
            mov r6, r10
            mov r7, r11
            ldr r2, [sp, #12]
            cmp r2, #0
            beq 10f
            lsls r3, r5, #16
            subs r4, r4, r3
            lsls r3, r7, #16
            subs r6, r6, r3
            cmp r2, #1
            beq 10f
            cmp r4, r5
            bge 11f
            movs r4, r5
        11:
            cmp r6, r7
            bge 12f
            movs r6, r7
        12:
            cmp r4, r6
            bge 10f
            movs r4, r6
        10:
            ldr r2, [sp, #8]
            stmia r2!, {{r4-r7}}
            str r2, [sp, #8]
            ldr r0, [sp, #40]
            ldr r2, [sp, #44]
            adds r1, r1, r0
            str r0, [sp, #44]
            str r2, [sp, #40]
            ldr r0, [sp, #28]
            subs r0, r0, #1
            str r0, [sp, #28]
            beq 13f
            b 2b
        13:
            add sp, #52
        .purgem isobit_flush
        .purgem isobit_two
        .purgem isobit_more
        .purgem isobit_eight
        ",
        restore!(),
    )
}

macro_rules! add1 {
    ($name:ident, $load:literal, $extend:literal) => {
        /// # Safety
        /// `x` and `weights` point to `count` elements each, `sums` to two i32.
        #[cfg(not(armv6m))]
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            x: *const u8,
            weights: *const [u8; 2],
            count: usize,
            sums: *mut [i32; 2],
        ) {
            naked_asm!(
                ".macro isobit_one",
                concat!($load, " r7, [r0], #1"),
                "ldrsb r12, [r1], #1",
                "ldrsb lr, [r1], #1",
                "mla r4, r7, r12, r4",
                "mla r5, r7, lr, r5",
                ".endm",
                "push {{r4-r7, lr}}",
                "ldrd r4, r5, [r3]",
                "lsrs r6, r2, #3",
                "beq 3f",
                "2:",
                ".rept 8",
                "isobit_one",
                ".endr",
                "subs r6, #1",
                "bne 2b",
                "3:",
                "ands r2, r2, #7",
                "beq 5f",
                "4:",
                "isobit_one",
                "subs r2, #1",
                "bne 4b",
                "5:",
                "strd r4, r5, [r3]",
                "pop {{r4-r7, pc}}",
                ".purgem isobit_one",
            )
        }

        /// # Safety
        /// `x` and `weights` point to `count` elements each, `sums` to two i32.
        #[cfg(armv6m)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            x: *const u8,
            weights: *const [u8; 2],
            count: usize,
            sums: *mut [i32; 2],
        ) {
            naked_asm!(
                ".macro isobit_one at",
                "ldrb r4, [r0, #\\at]",
                $extend,
                "ldrb r5, [r1, #2 * \\at]",
                "sxtb r5, r5",
                "muls r5, r4, r5",
                "adds r6, r6, r5",
                "ldrb r5, [r1, #2 * \\at + 1]",
                "sxtb r5, r5",
                "muls r5, r4, r5",
                "adds r7, r7, r5",
                ".endm",
                "push {{r3-r7, lr}}",
                "ldr r6, [r3, #0]",
                "ldr r7, [r3, #4]",
                "lsrs r3, r2, #3",
                "beq 3f",
                "2:",
                ".irp at, 0, 1, 2, 3, 4, 5, 6, 7",
                "isobit_one \\at",
                ".endr",
                "adds r0, #8",
                "adds r1, #16",
                "subs r3, #1",
                "bne 2b",
                "3:",
                "movs r3, #7",
                "ands r2, r3",
                "beq 5f",
                "4:",
                "isobit_one 0",
                "adds r0, #1",
                "adds r1, #2",
                "subs r2, #1",
                "bne 4b",
                "5:",
                "pop {{r3}}",
                "str r6, [r3, #0]",
                "str r7, [r3, #4]",
                "pop {{r4-r7, pc}}",
                ".purgem isobit_one",
            )
        }
    };
}

add1!(add1_unsigned, "ldrb", "");
add1!(add1_signed, "ldrsb", "sxtb r4, r4");
