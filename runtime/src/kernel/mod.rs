//! Compute routines, and the one place that chooses among them.

#[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
mod asm;
mod conv;
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
mod depthwise;
#[cfg(any(feature = "encode", kernels = "dsp"))]
mod dsp;
mod elementwise;
#[cfg(any(feature = "encode", kernels = "lanes"))]
mod lanes;
mod pool;
mod winograd;

use core::cell::Cell;

use crate::fixed::requantize;
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
use crate::fixed::{round_right, saturate};
use crate::op::{Kind, Op, Post, Tensor, Window};
use crate::shape::DType;
#[cfg(any(feature = "encode", kernels = "dsp"))]
use crate::weight::Layout;

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

/// Whether this build has the portable convolution that widens windows for 16 channels at a time: it is fast, but beside another
/// set of kernels it would be large and rarely run.
const WIDENED: bool = cfg!(any(feature = "encode", kernels = "portable"));

/// A stored byte as a number.
#[inline(always)]
fn widen(dtype: DType, byte: u8) -> i32 {
    match dtype {
        DType::U8 => i32::from(byte),
        DType::I8 | DType::I32 => i32::from(byte as i8),
    }
}

/// What a stored byte is flipped by to become the number plus the same: 0 for U8, 128 for I8.
#[inline(always)]
fn centre(dtype: DType) -> u8 {
    if dtype == DType::U8 { 0 } else { 0x80 }
}

/// A stored byte as a number, without a branch: [`centre`] of its type is found once.
#[inline(always)]
fn widen_by(centre: u8, byte: u8) -> i32 {
    i32::from(byte ^ centre) - i32::from(centre)
}

/// Runs one operator in the arena. `None` if a tensor does not lie in it, which validation excludes.
#[inline(never)]
pub(crate) fn run(kernels: Kernels, op: &Op<'_>, arena: &mut [u8]) -> Option<()> {
    let (input, output) = (op.input, op.output);
    let flat;
    let layer = match &op.kind {
        Kind::Conv(conv) => conv,
        Kind::Dense(dense) => {
            flat = dense.as_conv(input.shape);
            &flat
        }
        _ => return portable(op, arena),
    };
    let (x, y) = input_output(arena, input, output)?;
    let widened = WIDENED && kernels == Kernels::Portable;
    match kernels {
        #[cfg(any(feature = "encode", kernels = "lanes"))]
        Kernels::Lanes if lanes::runs(layer) => {
            lanes::conv2d::<LanesCore>(layer, input, x, output, y);
        }
        #[cfg(any(feature = "encode", kernels = "dsp"))]
        Kernels::Dsp if layer.weights.layout == Layout::Ohwi2o => {
            dsp::conv2d::<DspCore>(layer, input, x, output, y);
        }
        #[cfg(any(feature = "encode", kernels = "lanes"))]
        Kernels::Lanes if depthwise::runs::<LanesCore>(layer, output) => {
            depthwise::conv2d::<LanesCore>(layer, input, x, output, y);
        }
        #[cfg(any(feature = "encode", kernels = "dsp"))]
        Kernels::Dsp if depthwise::runs::<DspCore>(layer, output) => {
            depthwise::conv2d::<DspCore>(layer, input, x, output, y);
        }
        #[cfg(all(feature = "winograd", any(feature = "encode", kernels = "dsp")))]
        Kernels::Dsp if dsp::winograd::runs(layer) => {
            dsp::winograd::conv2d::<DspCore>(layer, input, x, output, y);
        }
        _ if layer.weights.transformed() => winograd::direct(layer, input, x, output, y, widened),
        _ => {
            conv::conv2d(layer, input, x, output, y, widened);
        }
    }
    Some(())
}

/// Bytes of the buffers of the DSP kernels' convolution.
#[cfg(feature = "encode")]
pub(crate) fn buffer_bytes(transformed: bool) -> usize {
    if transformed {
        dsp::winograd::BUFFERS
    } else {
        dsp::BUFFERS
    }
}

/// What an operator reads and writes, where these lie apart.
fn input_output(arena: &mut [u8], input: Tensor, output: Tensor) -> Option<(&[u8], &mut [u8])> {
    let (x, y) = (input.range(), output.range());
    let middle = x.start.max(y.start);
    let (low, high) = arena.split_at_mut_checked(middle)?;
    let shifted = ..(if x.start < y.start { y.end } else { x.end }).checked_sub(middle)?;
    Some(if x.start < y.start {
        (low.get(x)?, high.get_mut(shifted)?)
    } else {
        (high.get(shifted)?, low.get_mut(y)?)
    })
}

/// The operators without weights.
#[inline(never)]
fn portable(op: &Op<'_>, arena: &mut [u8]) -> Option<()> {
    let (input, output) = (op.input, op.output);
    match &op.kind {
        Kind::MaxPool(window) => {
            let (x, y) = input_output(arena, input, output)?;
            pool::max_pool(window, input, x, output, y);
        }
        Kind::AvgPool(pool) => {
            let (x, y) = input_output(arena, input, output)?;
            pool::avg_pool(pool, input, x, output, y);
        }
        kind => {
            // These may work in place.
            let arena = Cell::from_mut(arena).as_slice_of_cells();
            let (x, y) = (arena.get(input.range())?, arena.get(output.range())?);
            match kind {
                Kind::Affine(affine) => elementwise::affine(affine, input, x, output.dtype, y),
                Kind::Table(table) => elementwise::table(table, x, y),
                Kind::Add(add) => {
                    let second = arena.get(add.b.range())?;
                    elementwise::add(add, input, [x, second], output, y);
                }
                Kind::Conv(_) | Kind::Dense(_) | Kind::MaxPool(_) | Kind::AvgPool(_) => {}
            }
        }
    }
    Some(())
}

/// Stores the sums of the output channels from `first` on, `stride` apart, plus their biases if there are some: requantized bytes,
/// or i32, little-endian.
#[inline(never)]
fn store(
    post: &Post<'_>,
    dtype: DType,
    first: usize,
    (sums, stride): (&[i32], usize),
    bias: &[[u8; 4]],
    out: &mut [u8],
) {
    let mut rest = sums;
    let mut biases = bias.iter();
    let mut next = || {
        let sum = rest.first().copied().unwrap_or(0);
        rest = rest.get(stride..).unwrap_or_default();
        sum + biases.next().map_or(0, |bias| i32::from_le_bytes(*bias))
    };
    if dtype == DType::I32 {
        for out in out.as_chunks_mut::<4>().0 {
            *out = next().to_le_bytes();
        }
        return;
    }
    let range = match post.table {
        Some(_) => DType::I8,
        None => dtype,
    };
    // One shift for all, or one for each.
    let mut shifts = match post.shifts {
        [_] => post.shifts,
        all => all.get(first..).unwrap_or_default(),
    }
    .iter();
    let mut shift = 0;
    for out in out {
        shift = shifts.next().copied().unwrap_or(shift);
        *out = requantize(next(), shift as i8, range);
        if let Some(table) = post.table {
            *out = *table.get(usize::from(*out)).unwrap_or(&0);
        }
    }
}

/// True if a layer's requantization shifts right by 1 to 31 bits, without a table.
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
        let acc = sum.wrapping_add(i32::from_le_bytes(*bias));
        *out = saturate(round_right(acc, u32::from(*shift)), signed);
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

/// The position after `at` in a map with this many columns.
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
#[inline(always)]
fn next([row, column]: [usize; 2], columns: usize) -> [usize; 2] {
    if column + 1 < columns {
        [row, column + 1]
    } else {
        [row + 1, 0]
    }
}

/// The bias of a channel.
#[inline(always)]
fn bias_of(bias: &[[u8; 4]], channel: usize) -> i32 {
    bias.get(channel).map_or(0, |b| i32::from_le_bytes(*b))
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
