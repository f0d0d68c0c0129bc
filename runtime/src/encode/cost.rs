//! What the order of an operator's weights costs, and which orders it can have.

use super::{OpSpec, Shape, WeightOrder};
use crate::kernel::buffer_bytes;
use crate::op::Window;
use crate::weight::winograd::{WinogradMisfit, fits};
use crate::weight::{Facts, Layout};

/// Whether the weights of an operator that reads a tensor of shape `input` can be stored as [`Layout::Winograd`].
///
/// # Errors
/// Why not.
pub fn winograd(op: &OpSpec, input: Shape) -> Result<(), WinogradMisfit> {
    let OpSpec::Conv {
        kernel,
        stride,
        groups,
        pool,
        ..
    } = op
    else {
        return Err(WinogradMisfit::Kind);
    };
    let window = |size: [u8; 2], stride: [u8; 2]| Window {
        size: size.map(u16::from),
        stride: stride.map(u16::from),
        pad: [0, 0],
    };
    let pool = pool.map(|pool| window(pool.size, pool.stride));
    fits(window(*kernel, *stride), *groups, input.c, pool)
}

/// What an operator with weights needs, by the order of its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of the weights in the file, with what the file says about them.
    pub weight_bytes: u64,
    /// Multiplications of one run, with those by what fills up blocks, without those of positions that pooling leaves out.
    pub multiplications: u64,
    /// Bytes of the buffers that a core with DSP instructions has on the stack, besides the frames of its functions.
    pub buffer_bytes: u64,
}

impl Cost {
    /// Of an operator that reads and writes tensors of these shapes; `None` if it has no weights.
    ///
    /// ```
    /// use runtime::encode::{Cost, OpSpec, Post, Shape, WeightOrder};
    /// let op = OpSpec::Dense { input: 0, output: 1, weight: vec![0; 12], bias: vec![0; 4], post: Post::default() };
    /// let [x, y] = [3, 4].map(|c| Shape { h: 1, w: 1, c });
    /// let cost = |order| Cost::of(&op, x, y, order).unwrap();
    /// assert_eq!(cost(WeightOrder::Plain).weight_bytes, 12);
    /// assert_eq!(cost(WeightOrder::Blocked).weight_bytes, 16); // two blocks of six, each filled to whole words
    /// assert_eq!(cost(WeightOrder::Blocked).multiplications, 16);
    /// ```
    pub fn of(op: &OpSpec, input: Shape, output: Shape, order: WeightOrder) -> Option<Self> {
        let channels = usize::from(output.c);
        let (taps, depth) = match op {
            OpSpec::Conv { kernel, groups, .. } => {
                let taps = usize::from(kernel[0]) * usize::from(kernel[1]);
                (taps, usize::from(input.c / (*groups).max(1)))
            }
            OpSpec::Dense { .. } => (1, input.len()),
            _ => return None,
        };
        let layout = order.layout(op, input, output.c);
        let (facts, pool) = match op {
            OpSpec::Conv { pool, .. } => (layout == Layout::Ohwi2o, *pool),
            _ => (false, None),
        };
        let [h, w] = [output.h, output.w].map(u64::from);
        // A tile gives one pooled value or 2x2 values.
        let times = match (layout, pool) {
            (Layout::Winograd, None) => h.div_ceil(2) * w.div_ceil(2),
            (Layout::Winograd, Some(_)) | (_, None) => h * w,
            (_, Some(pool)) => h * w * u64::from(pool.size[0]) * u64::from(pool.size[1]),
        };
        let mut weight_bytes = layout.bytes(channels, taps * depth);
        // Each weight, or transformed weight of two bytes, is multiplied once.
        let each = match layout {
            Layout::Winograd => weight_bytes / 2,
            _ => weight_bytes,
        };
        if facts {
            weight_bytes += Facts::bytes(channels, taps * depth);
        }
        Some(Self {
            weight_bytes: weight_bytes as u64,
            multiplications: times * each as u64,
            buffer_bytes: buffer_bytes(layout == Layout::Winograd) as u64,
        })
    }
}

/// Input channels from which on the transforms cost less than what is saved (docs/kernels.md).
const INPUTS_LEAST: u16 = 8;

/// Whether transformed weights are possible and pay: they save at least a fifth of the multiplications of an operator with
/// at least 8 input channels.
pub fn saves(op: &OpSpec, input: Shape, output: Shape) -> bool {
    let multiplications =
        |order| Cost::of(op, input, output, order).map(|cost| cost.multiplications);
    match [WeightOrder::Winograd, WeightOrder::Blocked].map(multiplications) {
        [Some(few), Some(many)] => {
            winograd(op, input).is_ok() && input.c >= INPUTS_LEAST && 5 * few <= 4 * many
        }
        _ => false,
    }
}
