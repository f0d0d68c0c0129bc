//! Fully connected.

use super::{Value, bias_of, dot, part, store};
use crate::op::Dense;
use crate::shape::DType;

/// `acc[o] = sum_i x[i] * weight[o][i] + bias[o]`; x is the whole input tensor in its order.
pub(super) fn dense<X: Value>(dense: &Dense<'_>, x: &[u8], dtype: DType, y: &mut [u8]) {
    for (o, y) in y.chunks_mut(dtype.size()).enumerate() {
        let row = part(dense.weights, o * x.len(), x.len());
        let acc = dot::<X>(x, row) + bias_of(dense.bias, o);
        store(&dense.post, dtype, o, &[acc], y);
    }
}
