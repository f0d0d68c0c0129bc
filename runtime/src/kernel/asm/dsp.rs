//! The DSP routines in assembly, for Cortex-M cores with the DSP extension.
//!
//! Registers of the loops: r0 activations, r1 weights, r2 and r3 the weight pairs of both channels, r12 and lr two activations,
//! r4-r7 the sums of the first channel, r8-r11 those of the second. LDRD needs aligned words, which `[[u32; 4]]` has;
//! weights are read by LDR, which does not.

use core::arch::naked_asm;

use crate::kernel::dsp::{Dsp, Offsets, Sums};

/// The core's own instructions.
pub(in crate::kernel) struct Core;

/// One word of weights against four positions: 13 instructions of 4 bytes each, 16 multiply-accumulates. With other arguments
/// the first step, which sets the sums.
macro_rules! step4 {
    () => {
        step4!(
            "smlad", ", r4", ", r5", ", r6", ", r7", ", r8", ", r9", ", r10", ", r11"
        )
    };
    ($smlad:literal, $r4:literal, $r5:literal, $r6:literal, $r7:literal, $r8:literal, $r9:literal, $r10:literal, $r11:literal) => {
        concat!(
            "ldr r3, [r1], #4
            ldrd r12, lr, [r0], #8
            sxtb16 r2, r3
            sxtb16 r3, r3, ror #8
            ",
            concat!($smlad, " r4, r12, r2", $r4, "\n"),
            concat!($smlad, " r8, r12, r3", $r8, "\n"),
            concat!($smlad, " r5, lr, r2", $r5, "\n"),
            concat!($smlad, " r9, lr, r3", $r9, "\n"),
            "ldrd r12, lr, [r0], #8\n",
            concat!($smlad, " r6, r12, r2", $r6, "\n"),
            concat!($smlad, " r10, r12, r3", $r10, "\n"),
            concat!($smlad, " r7, lr, r2", $r7, "\n"),
            concat!($smlad, " r11, lr, r3", $r11, "\n"),
        )
    };
}

/// Eight steps; a loop enters it so that a multiple of eight remains.
macro_rules! steps4 {
    () => {
        concat!(
            step4!(),
            step4!(),
            step4!(),
            step4!(),
            step4!(),
            step4!(),
            step4!(),
            step4!()
        )
    };
}

/// The sums of blocks of two channels at four positions: of `steps` words of weights each, which `skip` bytes follow. If `more` is
/// 1, they are added to what `sums` hold; else it is 0.
///
/// # Safety
/// `steps` >= 1. `sums` to `end` are those of one or more blocks. `acts` points to `4 * steps` words, `weights` to the words
/// of as many blocks.
#[unsafe(naked)]
unsafe extern "C" fn blocks4(
    acts: *const [u32; 4],
    weights: *const [u8; 4],
    steps: usize,
    sums: *mut Sums,
    end: *mut Sums,
    skip: usize,
    more: usize,
) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "ldr r4, [sp, #36]",
        "ldrd r9, r7, [sp, #40]",
        "add r5, r0, r2, lsl #4",
        "mov r6, r0",
        // Without sums to add to, the first step sets them. The loop is entered so that a multiple of eight steps remains;
        // at its end if none does.
        "adds r2, r2, r7",
        "rsb r8, r2, #1",
        "and r8, r8, #7",
        "subs r2, #1",
        "it eq",
        "moveq r8, #8",
        "movs r2, #52",
        "adr.w r12, 3f",
        "mla r8, r8, r2, r12",
        "orr r8, r8, #1",
        "mov r2, r9",
        // [sp]: skip, 4: sums, 8: end, 12: end of the activations, 16: activations, 20: more, 24: entry of the loop.
        "push {{r2-r8}}",
        "2:",
        "ldrd r0, r2, [sp, #16]",
        "cbnz r2, 4f",
        step4!("smuad", "", "", "", "", "", "", "", ""),
        "ldr pc, [sp, #24]",
        "4:",
        "ldm r3, {{r4-r11}}",
        "ldr pc, [sp, #24]",
        ".p2align 2",
        "3:",
        steps4!(),
        "ldr r12, [sp, #12]",
        "cmp r0, r12",
        "bne 3b",
        "ldm sp, {{r2, r3, r12}}",
        "add r1, r1, r2",
        "stm r3!, {{r4-r11}}",
        "str r3, [sp, #4]",
        "cmp r3, r12",
        "bne 2b",
        "add sp, #28",
        "pop {{r4-r11, pc}}",
    )
}

/// As [`blocks4`], at the first position: 6 instructions per word of weights.
///
/// # Safety
/// As [`blocks4`].
#[unsafe(naked)]
unsafe extern "C" fn blocks1(
    acts: *const [u32; 4],
    weights: *const [u8; 4],
    steps: usize,
    sums: *mut Sums,
    end: *mut Sums,
    skip: usize,
    more: usize,
) {
    // r6 end of the activations, r7 entry of the loop, r9 end, r10 skip, r11 more, lr activations.
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "ldr r9, [sp, #36]",
        "ldrd r10, r11, [sp, #40]",
        "mov lr, r0",
        "add r6, r0, r2, lsl #4",
        // Entered so that a multiple of four steps remains.
        "rsbs r2, r2, #0",
        "and r2, r2, #3",
        "add r2, r2, r2, lsl #1",
        "adr.w r7, 3f",
        "add r7, r7, r2, lsl #3",
        "orr r7, r7, #1",
        "2:",
        "mov r0, lr",
        "movs r4, #0",
        "movs r5, #0",
        "cmp r11, #0",
        "itt ne",
        "ldrne r4, [r3]",
        "ldrne r5, [r3, #16]",
        "bx r7",
        ".p2align 2",
        "3:",
        ".rept 4",
        "ldr r2, [r1], #4",
        "ldr r8, [r0], #16",
        "sxtb16 r12, r2",
        "sxtb16 r2, r2, ror #8",
        "smlad r4, r8, r12, r4",
        "smlad r5, r8, r2, r5",
        ".endr",
        "cmp r0, r6",
        "bne 3b",
        "str r4, [r3]",
        "str r5, [r3, #16]",
        "adds r3, #32",
        "add r1, r1, r10",
        "cmp r3, r9",
        "bne 2b",
        "pop {{r4-r11, pc}}",
    )
}

/// Four bytes to two pairs: 7 instructions.
macro_rules! widen4 {
    ($extend:literal) => {
        concat!(
            "ldr r3, [r0], #4\n",
            $extend,
            " r12, r3\n",
            $extend,
            " r3, r3, ror #8\n",
            "pkhbt lr, r12, r3, lsl #16\n",
            "pkhtb r3, r3, r12, asr #16\n",
            "str lr, [r2], #16
            str r3, [r2], #16
            ",
        )
    };
}

macro_rules! widen {
    ($name:ident, $load:literal, $extend:literal) => {
        /// `odd`: 1 if the first value is the high half of its word, else 0.
        ///
        /// # Safety
        /// `values` points to `count` >= 1 bytes, `words` to the first of `(odd + count) / 2` words, rounded up, 16 bytes apart.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(values: *const u8, count: usize, words: *mut u32, odd: usize) {
            naked_asm!(
                extension!(),
                "push {{r4, lr}}",
                "cbz r3, 2f",
                concat!($load, " r3, [r0], #1"),
                "strh r3, [r2, #2]",
                "adds r2, #16",
                "subs r1, #1",
                "2:",
                "subs r1, #8",
                "blo 4f",
                "3:",
                widen4!($extend),
                widen4!($extend),
                "subs r1, #8",
                "bhs 3b",
                "4:",
                "adds r1, #8",
                "beq 6f",
                "5:",
                concat!($load, " r3, [r0], #1"),
                "strh r3, [r2]",
                "subs r1, #1",
                "beq 6f",
                concat!($load, " r3, [r0], #1"),
                "strh r3, [r2, #2]",
                "adds r2, #16",
                "subs r1, #1",
                "bne 5b",
                "6:",
                "pop {{r4, pc}}",
            )
        }
    };
}

widen!(widen_unsigned, "ldrb", "uxtb16");
widen!(widen_signed, "ldrsb", "sxtb16");

/// One pair of offsets, one position: 4 instructions.
macro_rules! pair {
    ($load:literal, $values:literal) => {
        concat!(
            $load,
            " r0, [",
            $values,
            ", r8]\n",
            $load,
            " r12, [",
            $values,
            ", r9]\n",
            "pkhbt r0, r0, r12, lsl #16\n",
            "str r0, [r3], #4\n",
        )
    };
}

macro_rules! list4 {
    ($name:ident, $load:literal) => {
        /// # Safety
        /// `offsets` points to `count` >= 1 pairs; `values`, which `starts` are indices of, has all of them after each start;
        /// `words` points to `count` groups of four words.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            values: *const u8,
            offsets: *const [u16; 2],
            count: usize,
            words: *mut [u32; 4],
            starts: *const [usize; 4],
        ) {
            naked_asm!(
                extension!(),
                "push {{r4-r9, lr}}",
                "ldr r4, [sp, #28]",
                "ldm r4, {{r4-r7}}",
                "add r4, r4, r0",
                "add r5, r5, r0",
                "add r6, r6, r0",
                "add r7, r7, r0",
                ".p2align 2",
                "2:",
                "ldrh r8, [r1], #2",
                "ldrh r9, [r1], #2",
                pair!($load, "r4"),
                pair!($load, "r5"),
                pair!($load, "r6"),
                pair!($load, "r7"),
                "subs r2, #1",
                "bne 2b",
                "pop {{r4-r9, pc}}",
            )
        }
    };
}

list4!(list4_unsigned, "ldrb");
list4!(list4_signed, "ldrsb");

impl Dsp for Core {
    #[inline(always)]
    fn list4(
        signed: bool,
        values: &[u8],
        starts: &[usize; 4],
        offsets: &Offsets,
        words: &mut [[u32; 4]],
    ) {
        let pairs = offsets.pairs();
        let count = pairs.len().min(words.len());
        let Some(last) = values.len().checked_sub(offsets.reach()) else {
            return;
        };
        if count == 0 || starts.iter().any(|&start| start > last) {
            return;
        }
        let list = if signed { list4_signed } else { list4_unsigned };
        let (values, words) = (values.as_ptr(), words.as_mut_ptr());
        // SAFETY: offsets are below `reach`, which fits after each start; `count` >= 1 pairs and groups of words are there.
        unsafe { list(values, pairs.as_ptr(), count, words, starts) }
    }

    #[inline(always)]
    fn widen(signed: bool, values: &[u8], words: &mut [u32], at: usize) {
        let widen = if signed { widen_signed } else { widen_unsigned };
        let odd = at % 2;
        let words = words.get_mut(at / 2 * 4..).unwrap_or_default();
        let room = words.len().div_ceil(4) * 2;
        let count = values.len().min(room.saturating_sub(odd));
        if count == 0 {
            return;
        }
        // SAFETY: `count` >= 1 values are there, and every fourth word up to the last one's.
        unsafe { widen(values.as_ptr(), count, words.as_mut_ptr(), odd) }
    }

    #[inline(always)]
    fn blocks(
        single: bool,
        acts: &[[u32; 4]],
        weights: &[[u8; 4]],
        pitch: usize,
        sums: &mut [Sums],
        more: bool,
    ) {
        let steps = acts.len();
        let (Some(after), Some(skip)) =
            (weights.len().checked_sub(steps), pitch.checked_sub(steps))
        else {
            return;
        };
        if steps == 0 {
            return;
        }
        let blocks = sums.len().min(after / pitch + 1);
        let Some(sums) = sums.get_mut(..blocks) else {
            return;
        };
        if sums.is_empty() {
            return;
        }
        let blocks = if single { blocks1 } else { blocks4 };
        let sums = sums.as_mut_ptr_range();
        let (acts, weights) = (acts.as_ptr(), weights.as_ptr());
        // SAFETY: there are `steps` >= 1 elements of `acts`, one or more sums, and for each of these `steps` words of weights,
        // `pitch` apart.
        unsafe {
            blocks(
                acts,
                weights,
                steps,
                sums.start,
                sums.end,
                4 * skip,
                more.into(),
            )
        }
    }
}
