//! The DSP routines in assembly, for Cortex-M cores with the DSP extension.
//!
//! Registers of the loops: r0 activations, r1 weights, r2 and r3 the weight pairs of both channels, r12 and lr two activations,
//! r4-r7 the sums of the first channel, r8-r11 those of the second. LDRD needs aligned words, which `[[u32; 4]]` has;
//! weights are read by LDR, which does not.

use core::arch::naked_asm;

use crate::kernel::dsp::{Dsp, Offsets};

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

/// `steps` >= 1 words of weights per block.
///
/// # Safety
/// `acts` points to `4 * steps` words, `weights` to `steps * blocks` words, `maxima` to `blocks` >= 1 pairs of i32.
#[unsafe(naked)]
unsafe extern "C" fn max4(
    acts: *const [u32; 4],
    weights: *const [u8; 4],
    steps: usize,
    maxima: *mut [i32; 2],
    end: *mut [i32; 2],
) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "sub sp, #24",
        // [sp]: end of the block's weights, 4: activations, 8: bytes of a block, 12: entry of the loop, 16: maxima.
        "lsl r12, r2, #2",
        "strd r0, r12, [sp, #4]",
        "str r3, [sp, #16]",
        // The loop begins after the first step, with so many steps that a multiple of eight remains; or at its end.
        "rsb r12, r2, #1",
        "and r12, r12, #7",
        "cmp r2, #1",
        "it eq",
        "moveq r12, #8",
        "mov r2, #52",
        "adr.w r3, 3f",
        "mla r12, r12, r2, r3",
        "orr r12, r12, #1",
        "str r12, [sp, #12]",
        "2:",
        "ldrd r0, r12, [sp, #4]",
        "add r12, r12, r1",
        "str r12, [sp]",
        step4!("smuad", "", "", "", "", "", "", "", ""),
        "ldr pc, [sp, #12]",
        ".p2align 2",
        "3:",
        steps4!(),
        "ldr r12, [sp]",
        "cmp r1, r12",
        "bne 3b",
        "ldr r3, [sp, #16]",
        "cmp r4, r5",
        "it lt",
        "movlt r4, r5",
        "cmp r6, r7",
        "it lt",
        "movlt r6, r7",
        "cmp r4, r6",
        "it lt",
        "movlt r4, r6",
        "cmp r8, r9",
        "it lt",
        "movlt r8, r9",
        "cmp r10, r11",
        "it lt",
        "movlt r10, r11",
        "cmp r8, r10",
        "it lt",
        "movlt r8, r10",
        "stm r3!, {{r4, r8}}",
        "str r3, [sp, #16]",
        "ldr r12, [sp, #60]",
        "cmp r3, r12",
        "bne 2b",
        "add sp, #24",
        "pop {{r4-r11, pc}}",
    )
}

/// # Safety
/// `acts` points to `4 * steps` words, `weights` to `steps` >= 1 words, `sums` to the sums of one block.
#[unsafe(naked)]
unsafe extern "C" fn add4(
    acts: *const [u32; 4],
    weights: *const [u8; 4],
    steps: usize,
    sums: *mut [[i32; 4]; 2],
) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "add r12, r1, r2, lsl #2",
        "push {{r3, r12}}",
        "ldm r3, {{r4-r11}}",
        "rsb r2, r2, #0",
        "and r2, r2, #7",
        "mov r12, #52",
        "adr.w r3, 3f",
        "mla r12, r2, r12, r3",
        "orr r12, r12, #1",
        "bx r12",
        ".p2align 2",
        "3:",
        steps4!(),
        "ldr r12, [sp, #4]",
        "cmp r1, r12",
        "bne 3b",
        "pop {{r3, r12}}",
        "stm r3, {{r4-r11}}",
        "pop {{r4-r11, pc}}",
    )
}

/// # Safety
/// `acts` and `weights` point to `steps` words each, `sums` to two i32.
#[unsafe(naked)]
unsafe extern "C" fn add1(
    acts: *const u32,
    weights: *const [u8; 4],
    steps: usize,
    sums: *mut [i32; 2],
) {
    naked_asm!(
        extension!(),
        "push {{r3-r9, lr}}",
        "ldrd r4, r5, [r3]",
        "lsrs r3, r2, #2",
        "beq 3f",
        ".p2align 2",
        "2:",
        ".rept 2",
        "ldr r6, [r1], #4",
        "ldr r7, [r1], #4",
        "ldrd r8, r9, [r0], #8",
        "sxtb16 r12, r6",
        "sxtb16 r6, r6, ror #8",
        "smlad r4, r8, r12, r4",
        "smlad r5, r8, r6, r5",
        "sxtb16 r12, r7",
        "sxtb16 r7, r7, ror #8",
        "smlad r4, r9, r12, r4",
        "smlad r5, r9, r7, r5",
        ".endr",
        "subs r3, #1",
        "bne 2b",
        "3:",
        "ands r2, r2, #3",
        "beq 5f",
        "4:",
        "ldr r6, [r1], #4",
        "ldr r8, [r0], #4",
        "sxtb16 r12, r6",
        "sxtb16 r6, r6, ror #8",
        "smlad r4, r8, r12, r4",
        "smlad r5, r8, r6, r5",
        "subs r2, #1",
        "bne 4b",
        "5:",
        "pop {{r3}}",
        "strd r4, r5, [r3]",
        "pop {{r4-r9, pc}}",
    )
}

/// Four bytes to two pairs: 7 instructions.
macro_rules! widen4 {
    ($extend:literal, $stride:literal) => {
        concat!(
            "ldr r3, [r0], #4\n",
            $extend,
            " r12, r3\n",
            $extend,
            " r3, r3, ror #8\n",
            "pkhbt lr, r12, r3, lsl #16\n",
            "pkhtb r3, r3, r12, asr #16\n",
            "str lr, [r2], #",
            $stride,
            "\nstr r3, [r2], #",
            $stride,
            "\n",
        )
    };
}

macro_rules! widen {
    ($name:ident, $extend:literal, $stride:literal) => {
        /// # Safety
        /// `bytes` points to `count` >= 1 groups of four bytes; `words` to the first of `2 * count` words, so many bytes apart.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(bytes: *const [u8; 4], count: usize, words: *mut u32) {
            naked_asm!(
                extension!(),
                "push {{r4, lr}}",
                "lsrs r1, r1, #1",
                "bcc 2f",
                widen4!($extend, $stride),
                "cbz r1, 3f",
                "2:",
                widen4!($extend, $stride),
                widen4!($extend, $stride),
                "subs r1, #1",
                "bne 2b",
                "3:",
                "pop {{r4, pc}}",
            )
        }
    };
}

widen!(widen_unsigned, "uxtb16", "16");
widen!(widen_signed, "sxtb16", "16");
widen!(widen_unsigned_alone, "uxtb16", "4");
widen!(widen_signed_alone, "sxtb16", "4");

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
        /// `offsets` points to `count` >= 1 pairs; each of them is an index of all four slices that `values` points to; `words`
        /// points to `count` groups of four words.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            values: *const [*const u8; 4],
            offsets: *const [u16; 2],
            count: usize,
            words: *mut [u32; 4],
        ) {
            naked_asm!(
                extension!(),
                "push {{r4-r9, lr}}",
                "ldm r0, {{r4-r7}}",
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
    fn list4(signed: bool, values: [&[u8]; 4], offsets: &Offsets, words: &mut [[u32; 4]]) {
        let pairs = offsets.pairs();
        let count = pairs.len().min(words.len());
        let reach = offsets.reach();
        if count == 0 || values.iter().any(|values| values.len() < reach) {
            return;
        }
        let list = if signed { list4_signed } else { list4_unsigned };
        let values = values.map(<[u8]>::as_ptr);
        // SAFETY: offsets are below `reach`, which no slice falls short of; `count` >= 1 pairs and groups of words are there.
        unsafe { list(&raw const values, pairs.as_ptr(), count, words.as_mut_ptr()) }
    }

    #[inline(always)]
    fn requantize(
        sums: &[i32],
        stride: usize,
        bias: &[[u8; 4]],
        shifts: &[u8],
        signed: bool,
        out: &mut [u8],
    ) {
        super::requantize(sums, stride, bias, shifts, signed, out);
    }

    #[inline(always)]
    fn widen4(signed: bool, bytes: &[[u8; 4]], words: &mut [u32], stride: usize) {
        let (count, widen): (_, unsafe extern "C" fn(_, _, _)) = match (stride, signed) {
            (1, false) => (words.len() / 2, widen_unsigned_alone),
            (1, true) => (words.len() / 2, widen_signed_alone),
            (4, false) => ((words.len() + 3) / 8, widen_unsigned),
            (4, true) => ((words.len() + 3) / 8, widen_signed),
            _ => return,
        };
        let count = bytes.len().min(count);
        if count == 0 {
            return;
        }
        // SAFETY: `count` >= 1 words of bytes are there, and `2 * count` words `stride` apart, the last of them with index
        // `(2 * count - 1) * stride < words.len()`.
        unsafe { widen(bytes.as_ptr(), count, words.as_mut_ptr()) }
    }

    #[inline(always)]
    fn max4(acts: &[[u32; 4]], weights: &[[u8; 4]], maxima: &mut [[i32; 2]]) {
        let steps = acts.len();
        if steps == 0 {
            return;
        }
        let blocks = maxima.len().min(weights.len() / steps);
        if blocks == 0 {
            return;
        }
        let maxima = maxima.as_mut_ptr_range();
        // SAFETY: `steps` elements of `acts`, `steps * blocks` <= `weights.len()` words and 1..=`maxima.len()` pairs are there.
        unsafe {
            let end = maxima.start.add(blocks);
            max4(acts.as_ptr(), weights.as_ptr(), steps, maxima.start, end);
        }
    }

    #[inline(always)]
    fn add4(acts: &[[u32; 4]], weights: &[[u8; 4]], sums: &mut [[i32; 4]; 2]) {
        let steps = acts.len().min(weights.len());
        if steps == 0 {
            return;
        }
        // SAFETY: both slices have `steps` >= 1 elements.
        unsafe { add4(acts.as_ptr(), weights.as_ptr(), steps, sums) }
    }

    #[inline(always)]
    fn add1(acts: &[u32], weights: &[[u8; 4]], sums: &mut [i32; 2]) {
        let steps = acts.len().min(weights.len());
        // SAFETY: both slices have `steps` elements.
        unsafe { add1(acts.as_ptr(), weights.as_ptr(), steps, sums) }
    }
}
