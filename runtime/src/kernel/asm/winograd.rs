//! The routines of Winograd's algorithm in assembly, for Cortex-M cores with the DSP extension.
//!
//! Values of one frequency lie 128 bytes apart, and products 32 bytes; the transforms reach them by immediate offsets.

use core::arch::naked_asm;

use super::dsp::Core;
use crate::kernel::dsp::winograd::{Pixels, Products, Sums, Values, Winograd};
use crate::weight::winograd::{FREQUENCIES, INPUTS_MAX, QUAD};

// What the routines below contain as numbers.
const _: () = assert!(size_of::<Values>() == FREQUENCIES * 128);
const _: () = assert!(size_of::<Products>() == FREQUENCIES * 32);
const _: () = assert!(size_of::<Sums>() == 2 * 256);

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
    ($combine:literal, $to:literal, $a:literal, $b:literal, $y:literal, $x:literal) => {
        concat!(
            concat!($combine, " ", $to, ", ", $a, ", ", $b, "\n"),
            concat!("str ", $to, ", [r1, #", $y, "*512+", $x, "*128]\n"),
        )
    };
}

/// A pair of input channels of a tile: 40 instructions to read and widen it, 32 to transform it, 16 to store it.
/// r0 addresses of the pixels, column by column, r1 values, r2 offset of the channels, lr bytes to the next pair.
macro_rules! pair {
    ($extend:literal, $rotate:literal) => {
        concat!(
            column!("0", $extend, $rotate, "r4", "r5", "r6", "r7", "r12"),
            column!("32", $extend, $rotate, "r8", "r9", "r10", "r11", "r5"),
            value!("ssub16", "r4", "r4", "r8", "0", "0"),
            value!("ssub16", "r12", "r12", "r5", "1", "0"),
            value!("ssub16", "r6", "r6", "r10", "2", "0"),
            value!("ssub16", "r7", "r7", "r11", "3", "0"),
            column!("16", $extend, $rotate, "r4", "r6", "r7", "r9", "r12"),
            value!("sadd16", "r6", "r4", "r8", "0", "1"),
            value!("sadd16", "r6", "r12", "r5", "1", "1"),
            value!("sadd16", "r6", "r7", "r10", "2", "1"),
            value!("sadd16", "r6", "r9", "r11", "3", "1"),
            value!("ssub16", "r8", "r8", "r4", "0", "2"),
            value!("ssub16", "r5", "r5", "r12", "1", "2"),
            value!("ssub16", "r10", "r10", "r7", "2", "2"),
            value!("ssub16", "r11", "r11", "r9", "3", "2"),
            column!("48", $extend, $rotate, "r5", "r6", "r8", "r10", "r11"),
            value!("ssub16", "r4", "r4", "r5", "0", "3"),
            value!("ssub16", "r12", "r12", "r11", "1", "3"),
            value!("ssub16", "r7", "r7", "r8", "2", "3"),
            value!("ssub16", "r9", "r9", "r10", "3", "3"),
            "add r1, r1, lr\n",
        )
    };
}

macro_rules! transform {
    ($name:ident, $extend:literal) => {
        /// # Safety
        /// Each of the 16 `pixels`, column by column, points to `bytes` >= 4 bytes, a multiple of 4; `values` to the first value of one
        /// tile with as many channels, whose pairs lie `next` bytes apart.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            pixels: *const [*const u8; FREQUENCIES],
            values: *mut u32,
            bytes: usize,
            next: usize,
        ) {
            naked_asm!(
                extension!(),
                "push {{r4-r11, lr}}",
                "mov lr, r3",
                "mov r3, r2",
                "movs r2, #0",
                "2:",
                pair!($extend, ""),
                pair!($extend, ", ror #8"),
                "adds r2, #4",
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

/// One pair of input channels, four output channels, one tile: 7 instructions of 4 bytes each, 8 multiply-accumulates. r2 the pair,
/// r4-r7 the products, the rest as above.
macro_rules! step_alone {
    () => {
        step_alone!("smlad", ", r4", ", r5", ", r6", ", r7")
    };
    ($smlad:literal, $r4:literal, $r5:literal, $r6:literal, $r7:literal) => {
        concat!(
            "ldr r2, [r0], #4
            ldrd r12, lr, [r1], #8
            ",
            concat!($smlad, " r4, r2, r12", $r4, "\n"),
            concat!($smlad, " r5, r2, lr", $r5, "\n"),
            "ldrd r12, lr, [r1], #8\n",
            concat!($smlad, " r6, r2, r12", $r6, "\n"),
            concat!($smlad, " r7, r2, lr", $r7, "\n"),
        )
    };
}

/// Two tiles.
///
/// # Safety
/// `pairs` is 2..=16; `values` points to [`Values`] with so many pairs of two tiles, `weights` to `16 * 4 * pairs` words at a
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
        "sub sp, #16",
        // [sp]: products of the frequency, 4: bytes from the end of its values to the next ones, 8: entry of the steps, 12: end.
        "rsb r12, r2, #16",
        "lsl r4, r12, #3",
        "strd r3, r4, [sp]",
        "mov r4, #44",
        "adr.w r5, 3f",
        "mla r12, r12, r4, r5",
        "orr r12, r12, #1",
        "add r3, r3, #512",
        "strd r12, r3, [sp, #8]",
        "2:",
        step!("smuad", "", "", "", "", "", "", "", ""),
        "ldr pc, [sp, #8]",
        ".p2align 2",
        // Fifteen steps, of which the last `pairs` - 1 are taken.
        "3:",
        concat!(step!(), step!(), step!(), step!(), step!()),
        concat!(step!(), step!(), step!(), step!(), step!()),
        concat!(step!(), step!(), step!(), step!(), step!()),
        "ldrd r3, r2, [sp]",
        "stm r3!, {{r4-r11}}",
        "add r0, r0, r2",
        "str r3, [sp]",
        "ldr r2, [sp, #12]",
        "cmp r3, r2",
        "bne 2b",
        "add sp, #16",
        "pop {{r4-r11, pc}}",
    )
}

/// One tile; its products lie 8 bytes apart.
///
/// # Safety
/// `pairs` is even and 2..=32; `values` points to [`Values`] with so many pairs of one tile, `weights` to `16 * 4 * pairs` words at
/// a multiple of 4.
#[unsafe(naked)]
unsafe extern "C" fn multiply_alone(
    values: *const Values,
    weights: *const u8,
    pairs: usize,
    products: *mut Products,
) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        // r8 end of the frequency's values, r9 their bytes, r10 entry of the steps, r11 end of the products.
        "lsl r9, r2, #2",
        "add r8, r0, r9",
        "add r11, r3, #512",
        "rsb r10, r2, #1",
        "and r10, r10, #7",
        "mov r12, #28",
        "adr.w lr, 3f",
        "mla r10, r10, r12, lr",
        "orr r10, r10, #1",
        "2:",
        step_alone!("smuad", "", "", "", ""),
        "bx r10",
        ".p2align 2",
        // Eight steps, entered so that a multiple of eight remains.
        "3:",
        concat!(step_alone!(), step_alone!(), step_alone!(), step_alone!()),
        concat!(step_alone!(), step_alone!(), step_alone!(), step_alone!()),
        "cmp r0, r8",
        "bne 3b",
        "str r4, [r3], #8",
        "str r5, [r3], #8",
        "str r6, [r3], #8",
        "str r7, [r3], #8",
        "add r8, r8, #128",
        "sub r0, r8, r9",
        "cmp r3, r11",
        "bne 2b",
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
    fn transform(pixels: &Pixels<'_>, tile: usize, tiles: usize, values: &mut Values) {
        let transform = if pixels.signed {
            transform_signed
        } else {
            transform_unsigned
        };
        let (tile, tiles) = if tiles == 2 { (tile % 2, 2) } else { (0, 1) };
        let channels = pixels.channels.min(ZEROS.len() / tiles);
        let x = pixels.x;
        let value = values.as_mut_ptr().cast::<u32>().wrapping_add(tile);
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
            // SAFETY: `channels` bytes of each pixel are there, of which 4 or more are read; a frequency of `values` has room for
            // their pairs, `tiles` words each: 64 / `tiles` channels.
            unsafe { transform(&raw const list, value, whole, 4 * tiles) }
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
            let value = value.wrapping_add(whole / 2 * tiles);
            // SAFETY: each word is 4 bytes; 4 more channels have room because `whole` + 4 <= 64 / `tiles`.
            unsafe { transform(&raw const list, value, QUAD, 4 * tiles) }
        }
    }

    #[inline(always)]
    fn multiply(values: &Values, tiles: usize, weights: &[u8], products: &mut Products) {
        let (multiply, most): (unsafe extern "C" fn(_, _, _, _), _) = if tiles == 2 {
            (multiply, 16)
        } else {
            (multiply_alone, 32)
        };
        let pairs = weights.len() / (FREQUENCIES * QUAD * 4);
        let aligned = weights.as_ptr().cast::<u32>().is_aligned();
        if pairs < 2 || pairs > most || !pairs.is_multiple_of(2) || !aligned {
            return;
        }
        // SAFETY: `pairs` is even and 2..=16 or 32; all weights that it stands for are there, aligned.
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
