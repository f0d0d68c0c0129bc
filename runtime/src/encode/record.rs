//! One operator record and its sections.

use std::{vec, vec::Vec};

use super::{
    EncodeError, ModelSpec, OpSpec, Plan, Post, TensorSpec, WeightOrder, append, put, to_u32,
};
use crate::format::{AFFINE_LEN, RECORD_LEN, kind, record};
use crate::shape::{DType, Shape};
use crate::weight::{Facts, Layout, SECTION, Tally, winograd};

pub(super) fn shape_bytes(shape: Shape) -> [u8; 6] {
    let [h0, h1] = shape.h.to_le_bytes();
    let [w0, w1] = shape.w.to_le_bytes();
    let [c0, c1] = shape.c.to_le_bytes();
    [h0, h1, w0, w1, c0, c1]
}

fn signed(values: &[i8]) -> Vec<u8> {
    values.iter().map(|&v| v as u8).collect()
}

/// [`Facts`] of weights given as `[co][k]`.
fn facts(channels: usize, weights: &[i8]) -> Vec<u8> {
    let per_channel = weights.len() / channels.max(1);
    let mut bytes = vec![0; Facts::bytes(channels, per_channel)];
    for (channel, row) in weights.chunks(per_channel.max(1)).enumerate() {
        let mut tally = Tally::NEW;
        for (section, taps) in row.chunks(SECTION).enumerate() {
            for &weight in taps {
                tally.add(weight);
            }
            let at = 4 * channels + 2 * (section * channels + channel);
            put(&mut bytes, at, &tally.split.to_le_bytes());
        }
        put(&mut bytes, 4 * channel, &tally.sum.to_le_bytes());
    }
    bytes
}

/// A record under construction.
pub(super) struct Record {
    op: usize,
    pub(super) bytes: [u8; RECORD_LEN],
}

impl Record {
    /// The fields that every operator has.
    pub(super) fn new(
        op: usize,
        spec: &OpSpec,
        model: &ModelSpec,
        plan: &Plan,
    ) -> Result<Self, EncodeError> {
        let input = spec.inputs()[0].unwrap_or(0);
        let output = spec.output();
        let mut record = Self {
            op,
            bytes: [0; RECORD_LEN],
        };
        let types = model.tensors[input].dtype.code() | model.tensors[output].dtype.code() << 4;
        record.put(record::DTYPES, &[types]);
        for (at, tensor) in [
            (record::INPUT_OFFSET, Some(input)),
            (record::OUTPUT_OFFSET, Some(output)),
            (record::SECOND_OFFSET, spec.inputs()[1]),
        ] {
            if let Some(tensor) = tensor {
                let offset = to_u32("arena offset", plan.offsets[tensor])?;
                record.put(at, &offset.to_le_bytes());
            }
        }
        record.put(record::INPUT, &shape_bytes(model.tensors[input].shape));
        record.put(record::OUTPUT, &shape_bytes(model.tensors[output].shape));
        Ok(record)
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        put(&mut self.bytes, at, value);
    }

    fn flag(&mut self, flag: u8) {
        self.bytes[record::FLAGS] |= flag;
    }

    fn count(&self, what: &'static str, expected: usize, got: usize) -> Result<(), EncodeError> {
        if expected == got {
            return Ok(());
        }
        Err(EncodeError::Count {
            op: self.op,
            what,
            expected,
            got,
        })
    }

    fn section(&mut self, at: usize, file: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
        let offset = append(file, bytes)?;
        self.put(at, &offset.to_le_bytes());
        Ok(())
    }

    fn window(&mut self, size: [u16; 2], stride: [u16; 2], pad: [u8; 2]) {
        for axis in 0..2 {
            self.put(record::WINDOW + 2 * axis, &size[axis].to_le_bytes());
            self.put(record::STRIDE + 2 * axis, &stride[axis].to_le_bytes());
        }
        self.put(record::PAD, &pad);
    }

    fn post(
        &mut self,
        post: &Post,
        output: TensorSpec,
        file: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if output.dtype == DType::I32 {
            self.count("shifts of raw accumulators", 0, post.shift.len())?;
            return self.count(
                "tables of raw accumulators",
                0,
                usize::from(post.table.is_some()),
            );
        }
        let channels = usize::from(output.shape.c);
        if post.shift.len() != 1 {
            self.count("shifts", channels, post.shift.len())?;
            self.flag(record::PER_CHANNEL);
        }
        self.section(record::SHIFT, file, &signed(&post.shift))?;
        if let Some(table) = &post.table {
            self.flag(record::HAS_TABLE);
            self.section(record::TABLE, file, &table[..])?;
        }
        Ok(())
    }

    /// Weights given as `[co][k]`, written in `layout`, and the biases.
    fn weights(
        &mut self,
        file: &mut Vec<u8>,
        layout: Layout,
        weights: &[i8],
        bias: &[i32],
    ) -> Result<(), EncodeError> {
        let channels = bias.len();
        let bytes = if layout == Layout::Winograd {
            winograd::encode(channels, weights)
        } else {
            let per_channel = weights.len() / channels.max(1);
            let mut bytes = vec![0; layout.bytes(channels, per_channel)];
            for (i, &weight) in weights.iter().enumerate() {
                let (channel, index) = (i / per_channel, i % per_channel);
                bytes[layout.position(channels, per_channel, channel, index)] = weight as u8;
            }
            bytes
        };
        self.put(record::LAYOUT, &[layout.code()]);
        self.section(record::WEIGHT, file, &bytes)?;
        let bias: Vec<u8> = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
        self.section(record::BIAS, file, &bias)
    }

    /// The fields of the operator's kind; its sections are appended to the file.
    pub(super) fn fill(
        &mut self,
        op: &OpSpec,
        model: &ModelSpec,
        order: WeightOrder,
        file: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let input = model.tensors[op.inputs()[0].unwrap_or(0)];
        let output = model.tensors[op.output()];
        let channels = usize::from(output.shape.c);
        let code = match op {
            OpSpec::Affine { params, .. } => {
                if params.len() == usize::from(input.shape.c) {
                    self.flag(record::PER_CHANNEL);
                } else {
                    self.count("affine parameters", input.shape.len(), params.len())?;
                }
                let mut bytes = Vec::with_capacity(params.len() * AFFINE_LEN);
                for param in params {
                    bytes.extend_from_slice(&param.mul.to_le_bytes());
                    bytes.extend_from_slice(&[param.shift, 0]);
                    bytes.extend_from_slice(&param.add.to_le_bytes());
                }
                self.section(record::BIAS, file, &bytes)?;
                kind::AFFINE
            }
            OpSpec::Conv {
                kernel,
                stride,
                pad,
                conv,
                groups,
                weight,
                bias,
                pool,
                post,
                ..
            } => {
                self.window(kernel.map(u16::from), stride.map(u16::from), *pad);
                self.put(record::CONV, &conv[0].to_le_bytes());
                self.put(record::CONV + 2, &conv[1].to_le_bytes());
                self.put(record::GROUPS, &groups.to_le_bytes());
                if let Some(pool) = pool {
                    self.flag(record::HAS_POOL);
                    self.put(record::POOL, &pool.size);
                    self.put(record::POOL + 2, &pool.stride);
                }
                let area = usize::from(kernel[0]) * usize::from(kernel[1]);
                let depth = usize::from(input.shape.c / (*groups).max(1));
                self.count("weights", area * depth * channels, weight.len())?;
                self.count("biases", channels, bias.len())?;
                let layout = order.layout(op, input.shape, output.shape.c);
                self.weights(file, layout, weight, bias)?;
                if layout == Layout::Ohwi2o {
                    self.section(record::FACTS, file, &facts(channels, weight))?;
                }
                self.post(post, output, file)?;
                kind::CONV
            }
            OpSpec::Dense {
                weight, bias, post, ..
            } => {
                self.count("weights", input.shape.len() * channels, weight.len())?;
                self.count("biases", channels, bias.len())?;
                let layout = order.layout(op, input.shape, output.shape.c);
                self.weights(file, layout, weight, bias)?;
                self.post(post, output, file)?;
                kind::DENSE
            }
            OpSpec::MaxPool {
                size, stride, pad, ..
            } => {
                self.window(size.map(u16::from), stride.map(u16::from), *pad);
                kind::MAX_POOL
            }
            OpSpec::AvgPool {
                size,
                stride,
                multiplier,
                post,
                ..
            } => {
                self.window(*size, *stride, [0, 0]);
                self.put(record::SCALAR, &[*multiplier as u8]);
                self.post(post, output, file)?;
                kind::AVG_POOL
            }
            OpSpec::Add {
                a,
                b,
                shift_a,
                shift_b,
                post,
                ..
            } => {
                let (a, b) = (model.tensors[*a], model.tensors[*b]);
                self.count("values of the second summand", a.shape.len(), b.shape.len())?;
                self.put(record::LAYOUT, &[b.dtype.code()]);
                self.put(record::SCALAR, &[*shift_a, *shift_b]);
                self.post(post, output, file)?;
                kind::ADD
            }
            OpSpec::Table { table, .. } => {
                self.section(record::TABLE, file, &table[..])?;
                kind::TABLE
            }
        };
        self.put(record::KIND, &[code]);
        Ok(())
    }
}
