//! Where tensors lie, and which shapes follow from which.

use super::{Header, saturated};
use crate::error::OpProblem;
use crate::format::record;
use crate::op::{Op, Tensor, Window};
use crate::shape::Shape;

pub(super) const fn check_arena(tensor: Tensor, arena_len: usize) -> Result<(), OpProblem> {
    let bytes = tensor.bytes();
    if !tensor.offset.is_multiple_of(4) || bytes > arena_len || tensor.offset > arena_len - bytes {
        return Err(OpProblem::Arena {
            offset: saturated(tensor.offset),
            len: saturated(bytes),
        });
    }
    Ok(())
}

const fn overlap(a: Tensor, b: Tensor) -> bool {
    a.offset < b.offset + b.bytes() && b.offset < a.offset + a.bytes()
}

const fn same_tensor(a: Tensor, b: Tensor) -> bool {
    a.offset == b.offset && a.shape.same(b.shape) && a.dtype.code() == b.dtype.code()
}

/// The last thing written over any byte of `tensor` before operator `index` must be that tensor.
pub(super) const fn check_source(
    file: &[u8],
    header: &Header,
    index: u16,
    tensor: Tensor,
) -> Result<(), OpProblem> {
    let mut before = index;
    while before > 0 {
        before -= 1;
        let written = match Op::decode(file, before) {
            Ok(op) => op.output,
            Err(problem) => return Err(problem),
        };
        if overlap(written, tensor) {
            return if same_tensor(written, tensor) {
                Ok(())
            } else {
                Err(OpProblem::Source {
                    offset: saturated(tensor.offset),
                })
            };
        }
    }
    if same_tensor(header.input, tensor) {
        Ok(())
    } else {
        Err(OpProblem::Source {
            offset: saturated(tensor.offset),
        })
    }
}

/// The output may be apart from the input, or, for an elementwise operator, lie exactly on it.
pub(super) const fn check_overlap(
    input: Tensor,
    output: Tensor,
    elementwise: bool,
) -> Result<(), OpProblem> {
    if !overlap(input, output)
        || (elementwise && input.offset == output.offset && input.bytes() == output.bytes())
    {
        return Ok(());
    }
    Err(OpProblem::Overlap {
        input: saturated(input.offset),
        output: saturated(output.offset),
    })
}

pub(super) const fn check_shape(expected: Shape, got: Shape) -> Result<(), OpProblem> {
    if expected.same(got) {
        Ok(())
    } else {
        Err(OpProblem::Shape { expected, got })
    }
}

/// The last window along each axis must begin inside the map: every window then covers a value.
pub(super) const fn check_reach(
    window: Window,
    input: [u16; 2],
    output: [u16; 2],
) -> Result<(), OpProblem> {
    let mut axis = 0;
    while axis < 2 {
        let last = (output[axis] as u32).saturating_sub(1) as u64 * window.stride[axis] as u64;
        if output[axis] == 0 || last >= input[axis] as u64 + window.pad[axis] as u64 {
            return Err(OpProblem::Window {
                offset: (record::CONV + 2 * axis) as u8,
                got: output[axis],
            });
        }
        axis += 1;
    }
    Ok(())
}

/// Rows and columns of a pooling without padding that covers only whole windows.
pub(super) const fn check_pool(
    window: Window,
    input: [u16; 2],
    output: [u16; 2],
) -> Result<(), OpProblem> {
    let mut axis = 0;
    while axis < 2 {
        let last = (output[axis] as u32).saturating_sub(1) as u64 * window.stride[axis] as u64;
        if output[axis] == 0
            || last + window.size[axis] as u64 > input[axis] as u64
            || window.pad[axis] != 0
        {
            return Err(OpProblem::Window {
                offset: (record::POOL + axis) as u8,
                got: output[axis],
            });
        }
        axis += 1;
    }
    Ok(())
}
