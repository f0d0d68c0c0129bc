//! Compute routines, and the one place that chooses among them.

#[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
mod asm;
mod conv;
mod dense;
#[cfg(any(feature = "encode", kernels = "dsp"))]
mod dsp;
mod elementwise;
#[cfg(any(feature = "encode", kernels = "lanes"))]
mod lanes;
mod pool;

use core::cell::Cell;

use crate::fixed::requantize;
use crate::op::{Kind, Op, Post, Tensor, Window};
use crate::shape::DType;

#[cfg(all(kernels = "dsp", target_arch = "arm"))]
use asm::dsp::Core as DspCore;
#[cfg(all(kernels = "lanes", target_arch = "arm"))]
use asm::lanes::Core as LanesCore;
#[cfg(all(
    any(feature = "encode", kernels = "dsp"),
    not(all(kernels = "dsp", target_arch = "arm"))
))]
use dsp::twin::Twin as DspCore;
#[cfg(all(
    any(feature = "encode", kernels = "lanes"),
    not(all(kernels = "lanes", target_arch = "arm"))
))]
use lanes::twin::Twin as LanesCore;

/// A set of kernels. All give the same bits; the portable ones define them. A build chooses one by its target's name
/// (`build.rs`); on the host, with feature `encode`, all of them run, on a software twin of the core's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernels {
    /// Plain Rust for every target.
    Portable,
    /// Cortex-M without the DSP extension: M0, M0+, M3.
    Lanes,
    /// Cortex-M with the DSP extension: M4, M7, M33, M55.
    Dsp,
}

impl Kernels {
    /// Every set.
    pub const ALL: &'static [Self] = &[Self::Portable, Self::Lanes, Self::Dsp];

    /// The set that this build runs.
    pub const CHOSEN: Self = if cfg!(kernels = "lanes") {
        Self::Lanes
    } else if cfg!(kernels = "dsp") {
        Self::Dsp
    } else {
        Self::Portable
    };

    /// For logs and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Lanes => "lanes",
            Self::Dsp => "dsp",
        }
    }
}

/// Output channels whose accumulators are kept at the same time.
const BLOCK: usize = 16;

/// Whether the portable kernels of this build may meet weights in blocks: the DSP kernels take all of those, and the `lanes` those
/// of dense layers.
const BLOCKED_CONV: bool = cfg!(any(feature = "encode", not(kernels = "dsp")));
const BLOCKED_DENSE: bool = cfg!(any(feature = "encode", kernels = "portable"));

/// A stored byte as a number.
#[inline(always)]
fn widen(dtype: DType, byte: u8) -> i32 {
    match dtype {
        DType::U8 => i32::from(byte),
        DType::I8 | DType::I32 => i32::from(byte as i8),
    }
}

/// Runs one operator in the arena. `None` if a tensor does not lie in it, which validation excludes.
#[inline(never)]
pub(crate) fn run(kernels: Kernels, op: &Op<'_>, arena: &mut [u8]) -> Option<()> {
    match kernels {
        #[cfg(any(feature = "encode", kernels = "lanes"))]
        Kernels::Lanes => lanes::run::<LanesCore>(op, arena),
        #[cfg(any(feature = "encode", kernels = "dsp"))]
        Kernels::Dsp => dsp::run::<DspCore>(op, arena),
        _ => portable(op, arena),
    }
}

/// What an operator reads and writes, where these lie apart.
fn input_output(arena: &mut [u8], input: Tensor, output: Tensor) -> Option<(&[u8], &mut [u8])> {
    let [x, y] = arena
        .get_disjoint_mut([input.range(), output.range()])
        .ok()?;
    Some((x, y))
}

/// The definition of the arithmetic. Its frame is not part of another set's.
#[inline(never)]
fn portable(op: &Op<'_>, arena: &mut [u8]) -> Option<()> {
    let (input, output) = (op.input, op.output);
    match &op.kind {
        Kind::Affine(affine) => {
            let (x, y) = cells(arena, input, output)?;
            elementwise::affine(affine, input, x, output.dtype, y);
        }
        Kind::Table(table) => {
            let (x, y) = cells(arena, input, output)?;
            elementwise::table(table, x, y);
        }
        Kind::Add(add) => {
            let arena = Cell::from_mut(arena).as_slice_of_cells();
            elementwise::add(
                add,
                input,
                [arena.get(input.range())?, arena.get(add.b.range())?],
                output,
                arena.get(output.range())?,
            );
        }
        kind => {
            let (x, y) = input_output(arena, input, output)?;
            match kind {
                Kind::Conv(conv) => conv::conv2d(conv, input, x, output, y),
                Kind::Dense(dense) => dense::dense(dense, input.dtype, x, output.dtype, y),
                Kind::MaxPool(window) => pool::max_pool(window, input, x, output, y),
                Kind::AvgPool(pool) => pool::avg_pool(pool, input, x, output, y),
                Kind::Affine(_) | Kind::Table(_) | Kind::Add(_) => {}
            }
        }
    }
    Some(())
}

/// Bytes of one tensor in the arena, readable while another one is written.
type Bytes<'a> = &'a [Cell<u8>];

/// Input and output of an elementwise operator, which may be the same bytes.
fn cells(arena: &mut [u8], input: Tensor, output: Tensor) -> Option<(Bytes<'_>, Bytes<'_>)> {
    let arena: &[Cell<u8>] = Cell::from_mut(arena).as_slice_of_cells();
    Some((arena.get(input.range())?, arena.get(output.range())?))
}

/// One accumulator to one stored byte.
#[inline(always)]
fn requantized(post: &Post<'_>, shift: i8, dtype: DType, acc: i32) -> u8 {
    match post.table {
        None => requantize(acc, shift, dtype),
        Some(table) => *table
            .get(usize::from(requantize(acc, shift, DType::I8)))
            .unwrap_or(&0),
    }
}

/// Stores the accumulators of the output channels from `first` on: requantized bytes, or i32, little-endian.
#[inline(never)]
fn store(post: &Post<'_>, dtype: DType, first: usize, accs: &[i32], y: &mut [u8]) {
    for ((j, y), &acc) in y.chunks_mut(dtype.size()).enumerate().zip(accs) {
        store_one(post, dtype, first + j, acc, y);
    }
}

/// Stores one accumulator.
#[inline(always)]
fn store_one(post: &Post<'_>, dtype: DType, channel: usize, acc: i32, out: &mut [u8]) {
    match dtype {
        DType::I32 => {
            for (out, byte) in out.iter_mut().zip(acc.to_le_bytes()) {
                *out = byte;
            }
        }
        DType::U8 | DType::I8 => {
            for out in out {
                *out = requantized(post, post.shift(channel), dtype, acc);
            }
        }
    }
}

/// True if a layer's requantization shifts right by 1 to 31 bits, without a table.
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
fn plain(post: &Post<'_>, dtype: DType) -> bool {
    dtype != DType::I32 && post.table.is_none() && post.shifts.iter().all(|&shift| shift as i8 > 0)
}

/// `out[i] = saturate(round_half_even((sums[i * stride] + bias[i]) * 2^-shifts[i]))`, to i8 if `signed`, else to u8, over the
/// shortest of all; one shift serves all channels. Shifts are 1..=31.
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
fn requantize_plain(
    sums: &[i32],
    stride: usize,
    bias: &[[u8; 4]],
    shifts: &[u8],
    signed: bool,
    out: &mut [u8],
) {
    let mut each = shifts.iter();
    let mut last = None;
    let sums = sums.iter().step_by(stride.max(1));
    for ((sum, bias), out) in sums.zip(bias).zip(out) {
        last = match each.next() {
            None if shifts.len() == 1 => last,
            next => next,
        };
        let Some(shift) = last else { return };
        let shift = shift & 31;
        let acc = sum.wrapping_add(i32::from_le_bytes(*bias));
        // A tie goes down if the quotient below it is even.
        let even = !(acc >> shift) & 1;
        let half = ((1u32 << shift) >> 1) as i32;
        let q = acc.wrapping_sub(even).wrapping_add(half) >> shift;
        *out = if signed {
            q.clamp(-128, 127) as u8
        } else {
            q.clamp(0, 255) as u8
        };
    }
}

/// `len` bytes from `start`; none if they are not there, which validation excludes.
#[inline(always)]
fn part(bytes: &[u8], start: usize, len: usize) -> &[u8] {
    match bytes.split_at_checked(start) {
        Some((_, rest)) => match rest.split_at_checked(len) {
            Some((part, _)) => part,
            None => &[],
        },
        None => &[],
    }
}

/// The bias of a channel.
#[inline(always)]
fn bias_of(bias: &[[u8; 4]], channel: usize) -> i32 {
    bias.get(channel).map_or(0, |b| i32::from_le_bytes(*b))
}

/// `sum_i x[i] * w[i]`, over the shorter of the two.
#[inline(always)]
fn dot(input: DType, x: &[u8], w: &[u8]) -> i32 {
    x.iter()
        .zip(w)
        .map(|(&x, &w)| widen(input, x) * i32::from(w as i8))
        .sum()
}

/// The part of a window along one axis that lies in the map.
#[derive(Clone, Copy)]
struct Span {
    /// First row or column of the map.
    start: usize,
    /// First row or column of the window.
    skip: usize,
    /// Number of rows or columns.
    len: usize,
}

impl Span {
    /// Window `index` along an axis (0 rows, 1 columns) of a map.
    fn of(window: &Window, axis: usize, index: usize, map: Tensor) -> Self {
        let limits = [map.shape.h, map.shape.w];
        let axis = axis % 2;
        Self::new(
            index,
            window.size[axis],
            window.stride[axis],
            window.pad[axis],
            limits[axis],
        )
    }

    /// Window `index` of `size` and `stride` over a map of `limit` rows or columns with `pad` before it.
    #[inline(always)]
    fn new(index: usize, size: u16, stride: u16, pad: u8, limit: u16) -> Self {
        let begin = index * usize::from(stride);
        let pad = usize::from(pad);
        let skip = pad.saturating_sub(begin);
        let start = begin.saturating_sub(pad);
        let len = usize::from(size)
            .saturating_sub(skip)
            .min(usize::from(limit).saturating_sub(start));
        Self { start, skip, len }
    }
}
