//! From a file back to its description.

use std::{boxed::Box, string::String, vec, vec::Vec};

use super::{ModelSpec, OpSpec, PoolSpec, Post, TensorId, TensorSpec};
use crate::model::Model;
use crate::op::{self, Kind, Tensor, Window};
use crate::weight::Weights;

impl ModelSpec {
    /// The description of a model. Encoding it again gives a model with the same results, and the same file if the weights
    /// are in the same order and the encoder wrote it. `None` for a window beyond 255 rows or columns, which the encoder does not write.
    pub fn read(model: &Model<'_>) -> Option<Self> {
        // The tensors in the order in which they are written, the image first; the last that lies somewhere is the one that is read.
        let mut written = vec![model.input_tensor()];
        let mut ops = Vec::new();
        for op in model.ops() {
            let id = |tensor: Tensor| -> TensorId {
                written.iter().rposition(|&t| t == tensor).unwrap_or(0)
            };
            ops.push(read(&op, id, written.len())?);
            written.push(op.output);
        }
        Some(Self {
            name: String::from(model.name()),
            recipe_hash: model.recipe_hash(),
            tensors: written
                .iter()
                .map(|tensor| TensorSpec {
                    shape: tensor.shape,
                    dtype: tensor.dtype,
                })
                .collect(),
            ops,
            logit_exponents: signed(model.logit_exponents()),
            output: model.activation(),
            golden_image: model.golden().map(|golden| golden.image.to_vec()),
        })
    }
}

fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|&byte| byte as i8).collect()
}

fn narrow([a, b]: [u16; 2]) -> Option<[u8; 2]> {
    Some([u8::try_from(a).ok()?, u8::try_from(b).ok()?])
}

fn pool(window: Option<Window>) -> Option<Option<PoolSpec>> {
    let Some(window) = window else {
        return Some(None);
    };
    Some(Some(PoolSpec {
        size: narrow(window.size)?,
        stride: narrow(window.stride)?,
    }))
}

fn post(post: &op::Post<'_>) -> Post {
    Post {
        shift: signed(post.shifts),
        table: post.table.map(|table| Box::new(*table)),
    }
}

fn weights(weights: &Weights<'_>) -> Vec<i8> {
    (0..weights.channels())
        .flat_map(|channel| (0..weights.per_channel()).map(move |i| (channel, i)))
        .filter_map(|(channel, i)| weights.get(channel, i))
        .collect()
}

fn read(op: &op::Op<'_>, id: impl Fn(Tensor) -> TensorId, output: TensorId) -> Option<OpSpec> {
    let input = id(op.input);
    Some(match &op.kind {
        Kind::Affine(affine) => OpSpec::Affine {
            input,
            output,
            params: affine.params().collect(),
        },
        Kind::Conv(conv) => OpSpec::Conv {
            input,
            output,
            kernel: narrow(conv.window.size)?,
            stride: narrow(conv.window.stride)?,
            pad: conv.window.pad,
            conv: conv.map,
            groups: conv.groups.get(),
            weight: weights(&conv.weights),
            bias: conv.biases().collect(),
            pool: pool(conv.pool)?,
            post: post(&conv.post),
        },
        Kind::Dense(dense) => OpSpec::Dense {
            input,
            output,
            weight: weights(&dense.weights),
            bias: dense.biases().collect(),
            post: post(&dense.post),
        },
        Kind::MaxPool(window) => OpSpec::MaxPool {
            input,
            output,
            size: narrow(window.size)?,
            stride: narrow(window.stride)?,
            pad: window.pad,
        },
        Kind::AvgPool(pool) => OpSpec::AvgPool {
            input,
            output,
            size: pool.window.size,
            stride: pool.window.stride,
            multiplier: pool.multiplier,
            post: post(&pool.post),
        },
        Kind::Add(add) => OpSpec::Add {
            a: input,
            b: id(add.b),
            output,
            shift_a: add.shift_a,
            shift_b: add.shift_b,
            post: post(&add.post),
        },
        Kind::Table(table) => OpSpec::Table {
            input,
            output,
            table: Box::new(**table),
        },
    })
}
