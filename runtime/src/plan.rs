//! Placement of the tensors in the arena, by lifetimes.

use std::{vec, vec::Vec};

use crate::encode::{EncodeError, ModelSpec, OpSpec, TensorId};

/// Byte offset of each tensor, and the arena's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Offset per tensor, a multiple of 4; a tensor that is never written has 0.
    pub offsets: Vec<usize>,
    /// Bytes of the arena, a multiple of 4.
    pub len: usize,
}

/// Bytes that one or more tensors (one after the other, in place) occupy from their first definition to their last use.
struct Buffer {
    tensors: Vec<TensorId>,
    first: usize,
    last: usize,
    len: usize,
}

/// Places the tensors: an elementwise operator works in place where its input is not needed any more; buffers that
/// live at the same time are apart; larger buffers are placed first, each at the lowest free offset, and the best of
/// several orders is taken.
///
/// # Errors
/// A tensor index out of range, a tensor that is read before it is written, or written twice.
pub fn plan(spec: &ModelSpec) -> Result<Plan, EncodeError> {
    let count = spec.tensors.len();
    // Time 0 writes the image, time i + 1 runs operator i.
    let mut defined: Vec<Option<usize>> = vec![None; count];
    let mut last = vec![0; count];
    match defined.first_mut() {
        Some(image) => *image = Some(0),
        None => return Err(EncodeError::NoInput),
    }
    for (op, spec) in spec.ops.iter().enumerate() {
        for tensor in spec.inputs().into_iter().flatten() {
            match defined.get(tensor) {
                Some(Some(_)) => last[tensor] = op + 1,
                _ => return Err(EncodeError::Undefined { op, tensor }),
            }
        }
        let tensor = spec.output();
        match defined.get_mut(tensor) {
            Some(slot @ None) => *slot = Some(op + 1),
            _ => return Err(EncodeError::Redefined { op, tensor }),
        }
        last[tensor] = op + 1;
    }
    let bytes = |t: TensorId| {
        (spec.tensors[t].shape.len() * spec.tensors[t].dtype.size()).next_multiple_of(4)
    };

    let mut buffers: Vec<Buffer> = Vec::new();
    let mut buffer_of = vec![usize::MAX; count];
    buffers.push(Buffer {
        tensors: vec![0],
        first: 0,
        last: last[0],
        len: bytes(0),
    });
    buffer_of[0] = 0;
    for (index, op) in spec.ops.iter().enumerate() {
        let output = op.output();
        let exact = |t: TensorId| spec.tensors[t].shape.len() * spec.tensors[t].dtype.size();
        let host = op.inputs().into_iter().flatten().find(|&input| {
            op.elementwise() && last[input] == index + 1 && exact(input) == exact(output)
        });
        match host {
            Some(input) => {
                let buffer = &mut buffers[buffer_of[input]];
                buffer.tensors.push(output);
                buffer.last = buffer.last.max(last[output]);
                buffer_of[output] = buffer_of[input];
            }
            None => {
                buffer_of[output] = buffers.len();
                buffers.push(Buffer {
                    tensors: vec![output],
                    first: index + 1,
                    last: last[output],
                    len: bytes(output),
                });
            }
        }
    }

    let mut orders: Vec<Vec<usize>> = Vec::new();
    let in_time: Vec<usize> = (0..buffers.len()).collect();
    let mut by_size = in_time.clone();
    by_size.sort_by_key(|&b| std::cmp::Reverse(buffers[b].len));
    let mut by_life = in_time.clone();
    by_life
        .sort_by_key(|&b| std::cmp::Reverse((buffers[b].last - buffers[b].first, buffers[b].len)));
    let mut backwards = in_time.clone();
    backwards.reverse();
    orders.extend([by_size, in_time, by_life, backwards]);
    let best = orders
        .iter()
        .map(|order| place(&buffers, order))
        .min_by_key(|(_, len)| *len);
    let (starts, len) = best.unwrap_or_default();
    let mut offsets = vec![0; count];
    for (buffer, start) in buffers.iter().zip(starts) {
        for &tensor in &buffer.tensors {
            offsets[tensor] = start;
        }
    }
    Ok(Plan { offsets, len })
}

/// Each buffer of `order` at the lowest offset that is free for its whole life.
fn place(buffers: &[Buffer], order: &[usize]) -> (Vec<usize>, usize) {
    let mut starts = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for &b in order {
        let buffer = &buffers[b];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&p| buffers[p].first <= buffer.last && buffer.first <= buffers[p].last)
            .map(|&p| (starts[p], starts[p] + buffers[p].len))
            .collect();
        taken.sort_unstable();
        let mut start = 0;
        for (from, to) in taken {
            if start + buffer.len <= from {
                break;
            }
            start = start.max(to);
        }
        starts[b] = start;
        total = total.max(start + buffer.len);
        placed.push(b);
    }
    (starts, total)
}

impl OpSpec {
    /// The tensors that the operator reads.
    pub fn inputs(&self) -> [Option<TensorId>; 2] {
        match *self {
            Self::Affine { input, .. }
            | Self::Conv { input, .. }
            | Self::Dense { input, .. }
            | Self::MaxPool { input, .. }
            | Self::AvgPool { input, .. }
            | Self::Table { input, .. } => [Some(input), None],
            Self::Add { a, b, .. } => [Some(a), Some(b)],
        }
    }

    /// The tensor that the operator writes.
    pub fn output(&self) -> TensorId {
        match *self {
            Self::Affine { output, .. }
            | Self::Conv { output, .. }
            | Self::Dense { output, .. }
            | Self::MaxPool { output, .. }
            | Self::AvgPool { output, .. }
            | Self::Add { output, .. }
            | Self::Table { output, .. } => output,
        }
    }

    /// True if value `i` of the output depends on value `i` of the input only, so that it can be written in place.
    fn elementwise(&self) -> bool {
        matches!(
            self,
            Self::Affine { .. } | Self::Add { .. } | Self::Table { .. }
        )
    }
}
