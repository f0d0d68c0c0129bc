//! Fully connected.

use super::{BLOCKED_DENSE, bias_of, dot, part, store, widen};
use crate::op::Dense;
use crate::shape::DType;
use crate::weight::Layout;

/// `acc[o] = sum_i x[i] * weight[o][i] + bias[o]`; x is the whole input tensor in its order.
#[inline(never)]
pub(super) fn dense(dense: &Dense<'_>, input: DType, x: &[u8], dtype: DType, y: &mut [u8]) {
    if BLOCKED_DENSE && dense.weights.layout == Layout::Ohwi2o {
        for (block, (y, weights)) in y
            .chunks_mut(2 * dtype.size())
            .zip(dense.weights.blocks())
            .enumerate()
        {
            let first = 2 * block;
            let [a, b] = dot_pairs(input, x, weights.as_chunks::<2>().0);
            let accs = [
                a + bias_of(dense.bias, first),
                b + bias_of(dense.bias, first + 1),
            ];
            store(&dense.post, dtype, first, &accs, y);
        }
        return;
    }
    for (o, y) in y.chunks_mut(dtype.size()).enumerate() {
        let row = part(dense.weights.bytes, o * x.len(), x.len());
        let acc = dot(input, x, row) + bias_of(dense.bias, o);
        store(&dense.post, dtype, o, &[acc], y);
    }
}

/// `sum_i x[i] * w[i][j]` for both `j`, over the shorter of the two.
#[inline(always)]
fn dot_pairs(input: DType, x: &[u8], w: &[[u8; 2]]) -> [i32; 2] {
    let (mut first, mut second) = (0, 0);
    for (&x, &pair) in x.iter().zip(w) {
        let (x, pair) = (widen(input, x) as i16, i16::from_le_bytes(pair));
        first += i32::from(x) * i32::from((pair << 8) >> 8);
        second += i32::from(x) * i32::from(pair >> 8);
    }
    [first, second]
}
