//! The routines of Winograd's algorithm in assembly, for Cortex-M cores with the DSP extension.
//!
//! Values of one frequency lie 256 bytes apart, and products 32 bytes; the transforms reach them by immediate offsets.

use core::arch::naked_asm;

use super::dsp::Core;
use crate::kernel::dsp::winograd::{Pixels, Products, Sums, Values, Winograd};
use crate::weight::winograd::{FREQUENCIES, INPUTS_MAX, QUAD};

/// Bytes of a frequency of the values, and of a tile's sums; the routines below contain them, and the 32 bytes of the products.
const PITCH: usize = 256;
const _: () = assert!(size_of::<Values>() == FREQUENCIES * PITCH);
const _: () = assert!(size_of::<Products>() == FREQUENCIES * 32);
const _: () = assert!(size_of::<Sums>() == 2 * PITCH);

/// Two channels of a pixel whose address is in `$at`: 2 instructions.
macro_rules! pixel {
    ($at:literal, $extend:literal, $rotate:literal) => {
        concat!(
            concat!("ldr ", $at, ", [", $at, ", r2]\n"),
            concat!($extend, " ", $at, ", ", $at, $rotate, "\n"),
        )
    };
}

/// A column of four pixels, whose addresses are at `$at` of the list, and its transform, which is then in `$a`, `$t`, `$c`,
/// `$d`; `$b` is free. 14 instructions.
macro_rules! column {
    ($at:literal, $extend:literal, $rotate:literal, $a:literal, $b:literal, $c:literal, $d:literal, $t:literal) => {
        concat!(
            concat!("ldrd ", $a, ", ", $b, ", [r0, #", $at, "]\n"),
            concat!("ldrd ", $c, ", ", $d, ", [r0, #", $at, "+8]\n"),
            pixel!($a, $extend, $rotate),
            pixel!($b, $extend, $rotate),
            pixel!($c, $extend, $rotate),
            pixel!($d, $extend, $rotate),
            concat!("ssub16 ", $a, ", ", $a, ", ", $c, "\n"),
            concat!("sadd16 ", $t, ", ", $b, ", ", $c, "\n"),
            concat!("ssub16 ", $c, ", ", $c, ", ", $b, "\n"),
            concat!("ssub16 ", $d, ", ", $b, ", ", $d, "\n"),
        )
    };
}

/// One value of row `$y` and column `$x` of the transformed tile, and where it goes.
macro_rules! value {
    ($combine:literal, $to:literal, $a:literal, $b:literal, $y:literal, $x:literal, $pair:literal) => {
        concat!(
            concat!($combine, " ", $to, ", ", $a, ", ", $b, "\n"),
            concat!(
                "str ", $to, ", [r1, #", $y, "*1024+", $x, "*256+", $pair, "*8]\n"
            ),
        )
    };
}

/// A pair of input channels of a tile: 40 instructions to read and widen it, 32 to transform it, 16 to store it.
/// r0 addresses of the pixels, column by column, r1 values, r2 offset of the channels.
macro_rules! pair {
    ($extend:literal, $rotate:literal, $pair:literal) => {
        concat!(
            column!("0", $extend, $rotate, "r4", "r5", "r6", "r7", "r12"),
            column!("32", $extend, $rotate, "r8", "r9", "r10", "r11", "r5"),
            value!("ssub16", "r4", "r4", "r8", "0", "0", $pair),
            value!("ssub16", "r12", "r12", "r5", "1", "0", $pair),
            value!("ssub16", "r6", "r6", "r10", "2", "0", $pair),
            value!("ssub16", "r7", "r7", "r11", "3", "0", $pair),
            column!("16", $extend, $rotate, "r4", "r6", "r7", "r9", "r12"),
            value!("sadd16", "r6", "r4", "r8", "0", "1", $pair),
            value!("sadd16", "r6", "r12", "r5", "1", "1", $pair),
            value!("sadd16", "r6", "r7", "r10", "2", "1", $pair),
            value!("sadd16", "r6", "r9", "r11", "3", "1", $pair),
            value!("ssub16", "r8", "r8", "r4", "0", "2", $pair),
            value!("ssub16", "r5", "r5", "r12", "1", "2", $pair),
            value!("ssub16", "r10", "r10", "r7", "2", "2", $pair),
            value!("ssub16", "r11", "r11", "r9", "3", "2", $pair),
            column!("48", $extend, $rotate, "r5", "r6", "r8", "r10", "r11"),
            value!("ssub16", "r4", "r4", "r5", "0", "3", $pair),
            value!("ssub16", "r12", "r12", "r11", "1", "3", $pair),
            value!("ssub16", "r7", "r7", "r8", "2", "3", $pair),
            value!("ssub16", "r9", "r9", "r10", "3", "3", $pair),
        )
    };
}

macro_rules! transform {
    ($name:ident, $extend:literal) => {
        /// # Safety
        /// Each of the 16 `pixels`, column by column, points to `bytes` >= 4 bytes, a multiple of 4; `values` to the first value of one tile with
        /// as many channels.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            pixels: *const [*const u8; FREQUENCIES],
            values: *mut u32,
            bytes: usize,
        ) {
            naked_asm!(
                extension!(),
                "push {{r4-r11, lr}}",
                "mov r3, r2",
                "movs r2, #0",
                "2:",
                pair!($extend, "", "0"),
                pair!($extend, ", ror #8", "1"),
                "adds r2, #4",
                "adds r1, #16",
                "cmp r2, r3",
                "bne 2b",
                "pop {{r4-r11, pc}}",
            )
        }
    };
}

transform!(transform_unsigned, "uxtb16");
transform!(transform_signed, "sxtb16");

/// One pair of input channels, four output channels, two tiles: 11 instructions of 4 bytes each, 16 multiply-accumulates. r0 values,
/// r1 weights, r2 and r3 the pairs of both tiles, r12 and lr weights, r4-r11 the products. With other arguments the first
/// step, which sets them.
macro_rules! step {
    () => {
        step!(
            "smlad", ", r4", ", r5", ", r6", ", r7", ", r8", ", r9", ", r10", ", r11"
        )
    };
    ($smlad:literal, $r4:literal, $r5:literal, $r6:literal, $r7:literal, $r8:literal, $r9:literal, $r10:literal, $r11:literal) => {
        concat!(
            "ldrd r2, r3, [r0], #8
            ldrd r12, lr, [r1], #8
            ",
            concat!($smlad, " r4, r2, r12", $r4, "\n"),
            concat!($smlad, " r5, r3, r12", $r5, "\n"),
            concat!($smlad, " r6, r2, lr", $r6, "\n"),
            concat!($smlad, " r7, r3, lr", $r7, "\n"),
            "ldrd r12, lr, [r1], #8\n",
            concat!($smlad, " r8, r2, r12", $r8, "\n"),
            concat!($smlad, " r9, r3, r12", $r9, "\n"),
            concat!($smlad, " r10, r2, lr", $r10, "\n"),
            concat!($smlad, " r11, r3, lr", $r11, "\n"),
        )
    };
}

/// Sixteen steps; the loop enters them so that a multiple of sixteen remains.
macro_rules! steps {
    () => {
        concat!(steps!(4), steps!(4), steps!(4), steps!(4))
    };
    (4) => {
        concat!(step!(), step!(), step!(), step!())
    };
}

/// # Safety
/// `pairs` >= 2; `values` points to [`Values`] with at least so many pairs, `weights` to `16 * 4 * pairs` words at a
/// multiple of 4.
#[unsafe(naked)]
unsafe extern "C" fn multiply(
    values: *const Values,
    weights: *const u8,
    pairs: usize,
    products: *mut Products,
) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "sub sp, #24",
        // [sp]: end of the frequency's values, 4: its products, 8: bytes of its values, 12: entry of the steps, 16: end of the
        // products, 20: what follows the steps.
        "lsl r12, r2, #3",
        "strd r3, r12, [sp, #4]",
        "add r12, r12, r0",
        "str r12, [sp]",
        "add r3, r3, #512",
        "str r3, [sp, #16]",
        // Up to 17 pairs are one round.
        "cmp r2, #17",
        "adr.w r3, 4f",
        "adr.w r12, 5f",
        "it ls",
        "movls r3, r12",
        "orr r3, r3, #1",
        "str r3, [sp, #20]",
        "rsb r12, r2, #1",
        "and r12, r12, #15",
        "mov r2, #44",
        "adr.w r3, 3f",
        "mla r12, r12, r2, r3",
        "orr r12, r12, #1",
        "str r12, [sp, #12]",
        "2:",
        step!("smuad", "", "", "", "", "", "", "", ""),
        "ldr pc, [sp, #12]",
        ".p2align 2",
        "3:",
        steps!(),
        "ldr pc, [sp, #20]",
        ".p2align 2",
        "4:",
        "ldr r12, [sp]",
        "cmp r0, r12",
        "bne 3b",
        ".p2align 2",
        "5:",
        "ldrd r3, r2, [sp, #4]",
        "stm r3!, {{r4-r11}}",
        "add r12, r0, #256",
        "sub r0, r12, r2",
        "strd r12, r3, [sp]",
        "ldr r2, [sp, #16]",
        "cmp r3, r2",
        "bne 2b",
        "add sp, #24",
        "pop {{r4-r11, pc}}",
    )
}

/// The products of a column of both tiles, combined to `m0 + m1 + m2` or `m1 - m2 - m3` in `$a` and `$b`: 7 instructions.
macro_rules! products {
    ($op:literal, $a:literal, $b:literal, $at:literal) => {
        concat!(
            concat!("ldrd ", $a, ", ", $b, ", [r0, #", $at, "]\n"),
            concat!("ldrd r2, r3, [r0, #", $at, "+128]\n"),
            concat!($op, " ", $a, ", ", $a, ", r2\n"),
            concat!($op, " ", $b, ", ", $b, ", r3\n"),
            concat!("ldrd r2, r3, [r0, #", $at, "+256]\n"),
            concat!($op, " ", $a, ", ", $a, ", r2\n"),
            concat!($op, " ", $b, ", ", $b, ", r3\n"),
        )
    };
}

/// Two positions of a row of both tiles, times 4, in r4 and r5, r6 and r7: 36 instructions.
macro_rules! row {
    ($op:literal, $first:literal, $second:literal, $third:literal, $fourth:literal) => {
        concat!(
            products!($op, "r4", "r5", $first),
            products!($op, "r6", "r7", $second),
            products!($op, "r8", "r9", $third),
            products!($op, "r10", "r11", $fourth),
            "add r4, r4, r6
            add r4, r4, r8
            add r5, r5, r7
            add r5, r5, r9
            sub r6, r6, r8
            sub r6, r6, r10
            sub r7, r7, r9
            sub r7, r7, r11
            ",
        )
    };
}
macro_rules! first_row {
    () => {
        row!("add", "0", "32", "64", "96")
    };
}
macro_rules! second_row {
    () => {
        row!("sub", "128", "160", "192", "224")
    };
}

/// # Safety
/// `products` points to [`Products`], `sums` to sixteen sums of the first tile; those of the second lie 256 bytes further.
#[unsafe(naked)]
unsafe extern "C" fn positions(products: *const Products, sums: *mut i32) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "add r12, r1, #64",
        "2:",
        first_row!(),
        "asr r4, r4, #2",
        "asr r5, r5, #2",
        "asr r6, r6, #2",
        "asr r7, r7, #2",
        "strd r5, r7, [r1, #256]",
        "strd r4, r6, [r1], #8",
        second_row!(),
        "asr r4, r4, #2",
        "asr r5, r5, #2",
        "asr r6, r6, #2",
        "asr r7, r7, #2",
        "strd r5, r7, [r1, #256]",
        "strd r4, r6, [r1], #8",
        "adds r0, #8",
        "cmp r1, r12",
        "bne 2b",
        "pop {{r4-r11, pc}}",
    )
}

/// Pixels outside of the map.
static ZEROS: [u8; INPUTS_MAX as usize] = [0; INPUTS_MAX as usize];

impl Winograd for Core {
    #[inline(always)]
    fn transform(pixels: &Pixels<'_>, tile: usize, values: &mut Values) {
        let transform = if pixels.signed {
            transform_signed
        } else {
            transform_unsigned
        };
        let channels = pixels.channels.min(ZEROS.len());
        let x = pixels.x;
        // Two channels are a pair, of which there are two tiles.
        let value = values.as_mut_ptr().cast::<u32>().wrapping_add(tile % 2);
        let whole = channels - channels % QUAD;
        if whole > 0
            && let Some(last) = x.len().checked_sub(channels)
        {
            let list = pixels.places.map(|place| {
                if place <= last {
                    x.as_ptr().wrapping_add(place)
                } else {
                    ZEROS.as_ptr()
                }
            });
            // SAFETY: `channels` bytes of each pixel are there, of which 4 or more are read; `values` has as many channels, at
            // most 64, of both tiles.
            unsafe { transform(&raw const list, value, whole) }
        }
        if whole < channels {
            let rest = pixels.places.map(|place| {
                let pixel = x.get(place..).and_then(|x| x.get(whole..channels));
                let mut word = [0; QUAD];
                for (to, from) in word.iter_mut().zip(pixel.unwrap_or_default()) {
                    *to = *from;
                }
                word
            });
            let list = rest.each_ref().map(|word| word.as_ptr());
            // SAFETY: each word is 4 bytes; 4 more channels have room because `whole` + 4 <= 64.
            unsafe { transform(&raw const list, value.wrapping_add(whole), QUAD) }
        }
    }

    #[inline(always)]
    fn multiply(values: &Values, weights: &[u8], products: &mut Products) {
        let pairs = weights.len() / (FREQUENCIES * QUAD * 4);
        let most = usize::from(INPUTS_MAX) / 2;
        let aligned = weights.as_ptr().cast::<u32>().is_aligned();
        if pairs < 2 || pairs > most || !aligned {
            return;
        }
        // SAFETY: `pairs` is 2..=32; all weights that it stands for are there, aligned.
        unsafe { multiply(values, weights.as_ptr(), pairs, products) }
    }

    #[inline(always)]
    fn sums(products: &Products, sums: &mut Sums, at: usize) {
        let [first, _] = sums;
        if at > first.len() - QUAD {
            return;
        }
        let first = sums.as_mut_ptr().cast::<i32>().wrapping_add(4 * at);
        // SAFETY: four sums of four channels of each tile are there.
        unsafe { positions(products, first) }
    }
}
