//! Compute routines, and the one place that chooses among them.

#[cfg(all(any(kernels = "dsp", kernels = "lanes"), target_arch = "arm"))]
mod asm;
#[cfg(any(feature = "encode", kernels = "portable"))]
mod conv;
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
mod depthwise;
#[cfg(any(feature = "encode", kernels = "dsp"))]
mod dsp;
mod elementwise;
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
mod finish;
#[cfg(any(feature = "encode", kernels = "dsp", kernels = "lanes"))]
mod grouped;
#[cfg(any(feature = "encode", kernels = "lanes"))]
mod lanes;
mod pool;
mod walk;
mod winograd;

use core::cell::Cell;

use crate::fixed::requantize;
use crate::op::{Kind, Op, Post, Tensor};
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
    let (input, output) = (&op.input, &op.output);
    if let Kind::Affine(_) | Kind::Add(_) | Kind::Table(_) = op.kind {
        return elementwise(op, arena);
    }
    let (x, y) = input_output(arena, input, output)?;
    let (Kind::Conv(layer) | Kind::Dense(layer)) = &op.kind else {
        pool::pool(op, x, y);
        return Some(());
    };
    match kernels {
        #[cfg(any(feature = "encode", kernels = "lanes"))]
        Kernels::Lanes if lanes::runs(layer) => {
            lanes::conv2d::<LanesCore>(layer, op, x, y);
        }
        #[cfg(any(feature = "encode", kernels = "dsp"))]
        Kernels::Dsp if layer.weights.layout == Layout::Ohwi2o => {
            dsp::conv2d::<DspCore>(layer, op, x, y);
        }
        #[cfg(any(feature = "encode", kernels = "lanes"))]
        Kernels::Lanes if depthwise::runs::<LanesCore>(layer, output.dtype) => {
            depthwise::conv2d::<LanesCore>(layer, op, x, y);
        }
        #[cfg(any(feature = "encode", kernels = "dsp"))]
        Kernels::Dsp if depthwise::runs::<DspCore>(layer, output.dtype) => {
            depthwise::conv2d::<DspCore>(layer, op, x, y);
        }
        #[cfg(all(feature = "winograd", any(feature = "encode", kernels = "dsp")))]
        Kernels::Dsp if dsp::winograd::runs(layer) => {
            dsp::winograd::conv2d::<DspCore>(layer, op, x, y);
        }
        _ if layer.weights.transformed() => winograd::direct(layer, op, x, y),
        #[cfg(feature = "encode")]
        Kernels::Portable => conv::conv2d(layer, op, x, y),
        #[cfg(any(feature = "encode", not(kernels = "portable")))]
        _ => grouped::conv2d(layer, op, x, y),
        #[cfg(not(any(feature = "encode", not(kernels = "portable"))))]
        _ => conv::conv2d(layer, op, x, y),
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
fn input_output<'r>(
    arena: &'r mut [u8],
    input: &Tensor,
    output: &Tensor,
) -> Option<(&'r [u8], &'r mut [u8])> {
    let ordered = input.offset < output.offset;
    let (first, second) = if ordered {
        (input, output)
    } else {
        (output, input)
    };
    let (low, high) = arena.split_at_mut_checked(second.offset)?;
    let low = low.get_mut(first.range())?;
    let high = high.get_mut(..second.range().len())?;
    Some(if ordered { (low, high) } else { (high, low) })
}

/// The values of a tensor.
#[inline(never)]
fn cells<'r>(arena: &'r [Cell<u8>], tensor: &Tensor) -> Option<&'r [Cell<u8>]> {
    arena.get(tensor.range())
}

/// The operators that may work in place.
#[inline(never)]
fn elementwise(op: &Op<'_>, arena: &mut [u8]) -> Option<()> {
    let (input, output) = (&op.input, &op.output);
    let arena = Cell::from_mut(arena).as_slice_of_cells();
    let (x, y) = (cells(arena, input)?, cells(arena, output)?);
    match &op.kind {
        Kind::Affine(affine) => elementwise::affine(affine, input, x, output.dtype, y),
        Kind::Table(table) => elementwise::table(table, x, y),
        Kind::Add(add) => {
            let second = cells(arena, &add.b)?;
            elementwise::add(add, input, [x, second], output, y);
        }
        Kind::Conv(_) | Kind::Dense(_) | Kind::MaxPool(_) | Kind::AvgPool(_) => {}
    }
    Some(())
}

/// Stores the accumulator of an output channel at the beginning of `out`, if there is room: a requantized byte, or i32,
/// little-endian. What follows it.
#[inline(never)]
fn store<'y>(
    post: &Post<'_>,
    dtype: DType,
    channel: usize,
    acc: i32,
    out: &'y mut [u8],
) -> &'y mut [u8] {
    if dtype == DType::I32 {
        let Some((out, rest)) = out.split_first_chunk_mut() else {
            return &mut [];
        };
        *out = acc.to_le_bytes();
        return rest;
    }
    let Some((out, rest)) = out.split_first_mut() else {
        return &mut [];
    };
    let range = if post.table.is_some() {
        DType::I8
    } else {
        dtype
    };
    *out = requantize(acc, post.shift(channel), range);
    if let Some(table) = post.table {
        *out = *table.get(usize::from(*out)).unwrap_or(&0);
    }
    rest
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
