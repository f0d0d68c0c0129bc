//! Random operators and models, with extremes as frequent as everything between them.

use runtime::encode::{
    AffineParam, DType, ModelSpec, OpSpec, OutputActivation, PoolSpec, Post, Shape, TensorSpec,
};

use crate::random::Random;

impl Random {
    /// Extremes are as frequent as everything between them.
    pub fn byte(&mut self) -> u8 {
        match self.range(0, 5) {
            0 => 0,
            1 => 255,
            2 => 128,
            _ => self.range(0, 255) as u8,
        }
    }

    /// A weight such that `count` of them, times 255, stay below 2^24 with room for a bias.
    pub fn weight(&mut self, count: usize) -> i8 {
        let limit = (((1 << 24) - 70_000) / 255 / count.max(1) as i64).min(127);
        match self.range(0, 5) {
            0 => limit as i8,
            1 => -limit as i8,
            2 => self.range(-limit.min(2), limit.min(2)) as i8,
            _ => self.range(-limit, limit) as i8,
        }
    }

    pub fn table(&mut self) -> Box<[u8; 256]> {
        Box::new(std::array::from_fn(|_| self.byte()))
    }

    pub fn dtype(&mut self) -> DType {
        if self.chance(2) { DType::U8 } else { DType::I8 }
    }

    /// Right shifts only, without a table: what the fast paths take.
    pub fn plain_post(&mut self, channels: usize) -> Post {
        let count = if self.chance(2) { 1 } else { channels };
        let most = if self.chance(4) { 31 } else { 14 };
        Post {
            shift: (0..count).map(|_| self.range(1, most) as i8).collect(),
            table: None,
        }
    }

    /// Shifts near those that keep values in range, so that ties and saturation both happen.
    pub fn post(&mut self, channels: usize, dtype: DType, table: bool) -> Post {
        if dtype == DType::I32 {
            return Post::default();
        }
        let count = if self.chance(3) { 1 } else { channels };
        Post {
            shift: (0..count)
                .map(|_| match self.range(0, 9) {
                    0 => self.range(-24, 31),
                    1 => self.range(-2, 0),
                    _ => self.range(1, 16),
                } as i8)
                .collect(),
            table: (table && self.chance(4)).then(|| self.table()),
        }
    }
}

pub fn shape(h: u16, w: u16, c: u16) -> Shape {
    Shape { h, w, c }
}

/// A random operator on a tensor; the description of its output.
fn random_op(
    random: &mut Random,
    kind: usize,
    input: usize,
    x: TensorSpec,
) -> (OpSpec, TensorSpec) {
    let output = input + 1;
    let dtype = random.dtype();
    let channels = usize::from(x.shape.c);
    match kind {
        0 => {
            let count = if random.chance(2) {
                channels
            } else {
                x.shape.len()
            };
            let params = (0..count)
                .map(|_| AffineParam {
                    mul: random.range(-32_768, 32_767) as i16,
                    add: random.range(-8_000_000, 8_000_000) as i32,
                    shift: random.range(0, 31) as u8,
                })
                .collect();
            let spec = TensorSpec {
                shape: x.shape,
                dtype,
            };
            (
                OpSpec::Affine {
                    input,
                    output,
                    params,
                },
                spec,
            )
        }
        1 => random_conv(random, input, x),
        7 => random_depthwise(random, input, x),
        2 => {
            let units = random.range(1, 19) as u16;
            let count = x.shape.len();
            (
                OpSpec::Dense {
                    input,
                    output,
                    weight: (0..count * usize::from(units))
                        .map(|_| random.weight(count))
                        .collect(),
                    bias: (0..units)
                        .map(|_| random.range(-60_000, 60_000) as i32)
                        .collect(),
                    post: random.post(usize::from(units), dtype, true),
                },
                TensorSpec {
                    shape: shape(1, 1, units),
                    dtype,
                },
            )
        }
        3 => {
            let (mut size, mut stride, mut pad, mut out) = ([0; 2], [0; 2], [0; 2], [0; 2]);
            for (axis, n) in [x.shape.h, x.shape.w].into_iter().enumerate() {
                size[axis] = random.range(1, i64::from(n).min(4)) as u8;
                stride[axis] = random.range(1, 3) as u8;
                pad[axis] = random.range(0, i64::from(size[axis]) - 1) as u8;
                // Windows may overhang at the end as long as they begin inside.
                let most = (i64::from(n) + i64::from(pad[axis]) - 1) / i64::from(stride[axis]) + 1;
                out[axis] = random.range(1, most) as u16;
            }
            (
                OpSpec::MaxPool {
                    input,
                    output,
                    size,
                    stride,
                    pad,
                },
                TensorSpec {
                    shape: shape(out[0], out[1], x.shape.c),
                    dtype: x.dtype,
                },
            )
        }
        4 => {
            let (mut size, mut stride, mut out) = ([0; 2], [0; 2], [0; 2]);
            for (axis, n) in [x.shape.h, x.shape.w].into_iter().enumerate() {
                size[axis] = random.range(1, i64::from(n)) as u16;
                stride[axis] = random.range(1, 3) as u16;
                out[axis] = (n - size[axis]) / stride[axis] + 1;
            }
            (
                OpSpec::AvgPool {
                    input,
                    output,
                    size,
                    stride,
                    multiplier: random.range(-128, 127) as i8,
                    post: random.post(channels, dtype, true),
                },
                TensorSpec {
                    shape: shape(out[0], out[1], x.shape.c),
                    dtype,
                },
            )
        }
        5 => {
            let b = random.range(0, input as i64) as usize;
            (
                OpSpec::Add {
                    a: input,
                    b,
                    output,
                    shift_a: random.range(0, 14) as u8,
                    shift_b: random.range(0, 14) as u8,
                    post: random.post(channels, dtype, true),
                },
                TensorSpec {
                    shape: x.shape,
                    dtype,
                },
            )
        }
        _ => {
            let table = random.table();
            (
                OpSpec::Table {
                    input,
                    output,
                    table,
                },
                TensorSpec {
                    shape: x.shape,
                    dtype,
                },
            )
        }
    }
}

fn random_conv(random: &mut Random, input: usize, x: TensorSpec) -> (OpSpec, TensorSpec) {
    let ci = x.shape.c;
    let (groups, co) = match random.range(0, 3) {
        0 => (ci, ci),                                                    // depthwise
        1 => (ci, ci * random.range(2, 3) as u16), // depthwise with a multiplier
        2 if ci.is_multiple_of(2) => (2, 2 * random.range(1, 10) as u16), // grouped
        3 if random.chance(4) => (1, random.range(65, 140) as u16), // more than a kernel takes at a time
        _ => (1, random.range(1, 35) as u16),
    };
    random_conv_of(random, input, x, (groups, co), 5)
}

/// Kernels of at most `most_taps` rows and columns.
fn random_conv_of(
    random: &mut Random,
    input: usize,
    x: TensorSpec,
    (groups, co): (u16, u16),
    most_taps: i64,
) -> (OpSpec, TensorSpec) {
    let dtype = random.dtype();
    let ci = x.shape.c;
    let (mut kernel, mut stride, mut pad, mut map) = ([0; 2], [0; 2], [0; 2], [0; 2]);
    for (axis, n) in [x.shape.h, x.shape.w].into_iter().enumerate() {
        kernel[axis] = random.range(1, most_taps) as u8;
        stride[axis] = random.range(1, 3) as u8;
        pad[axis] = random.range(0, i64::from(kernel[axis]) - 1) as u8;
        let most = (i64::from(n) + i64::from(pad[axis]) - 1) / i64::from(stride[axis]) + 1;
        map[axis] = random.range(1, most) as u16;
    }
    let pool = random.chance(2).then(|| PoolSpec {
        size: std::array::from_fn(|a| random.range(1, i64::from(map[a]).min(3)) as u8),
        stride: std::array::from_fn(|_| random.range(1, 3) as u8),
    });
    let out: [u16; 2] = std::array::from_fn(|a| match pool {
        Some(pool) => (map[a] - u16::from(pool.size[a])) / u16::from(pool.stride[a]) + 1,
        None => map[a],
    });
    let count = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(ci / groups);
    let op = OpSpec::Conv {
        input,
        output: input + 1,
        kernel,
        stride,
        pad,
        conv: map,
        groups,
        weight: (0..count * usize::from(co))
            .map(|_| random.weight(count))
            .collect(),
        bias: (0..co)
            .map(|_| random.range(-60_000, 60_000) as i32)
            .collect(),
        pool,
        post: random.post(usize::from(co), dtype, true),
    };
    let y = TensorSpec {
        shape: shape(out[0], out[1], co),
        dtype,
    };
    (op, y)
}

/// A depthwise convolution, mostly with shifts to the right and without pooling.
fn random_depthwise(random: &mut Random, input: usize, x: TensorSpec) -> (OpSpec, TensorSpec) {
    let c = x.shape.c;
    let most_taps = if random.chance(8) { 15 } else { 4 };
    let (mut op, mut y) = random_conv_of(random, input, x, (c, c), most_taps);
    if let OpSpec::Conv {
        pool, post, conv, ..
    } = &mut op
        && !random.chance(4)
    {
        *pool = None;
        let table = post.table.take();
        *post = Post {
            table,
            ..random.plain_post(usize::from(c))
        };
        y.shape = shape(conv[0], conv[1], c);
    }
    (op, y)
}

/// A chain of operators, then logits.
pub fn random_model(seed: u64, input: Shape, kinds: &[usize]) -> ModelSpec {
    let mut random = Random(seed);
    let mut tensors = vec![TensorSpec {
        shape: input,
        dtype: DType::U8,
    }];
    let mut ops = Vec::new();
    for &kind in kinds {
        let at = tensors.len() - 1;
        let (mut op, spec) = random_op(&mut random, kind, at, tensors[at]);
        // A residual connection needs an earlier tensor of the same shape; else the tensor is added to itself.
        if let OpSpec::Add { b, .. } = &mut op
            && tensors[*b].shape != tensors[at].shape
        {
            *b = at;
        }
        ops.push(op);
        tensors.push(spec);
    }
    with_logits(&mut random, tensors, ops)
}

/// The sum of two tensors of any types, or of one with itself, in place where `in_place` says so; without tables.
pub fn random_sum(seed: u64, input: Shape, in_place: bool) -> ModelSpec {
    let mut random = Random(seed);
    let mut tensors = vec![TensorSpec {
        shape: input,
        dtype: DType::U8,
    }];
    let mut ops = Vec::new();
    for _ in 0..3 {
        let spec = TensorSpec {
            shape: input,
            dtype: random.dtype(),
        };
        ops.push(OpSpec::Table {
            input: 0,
            output: tensors.len(),
            table: random.table(),
        });
        tensors.push(spec);
    }
    let mut add = |a, b, output| OpSpec::Add {
        a,
        b,
        output,
        shift_a: random.range(0, 14) as u8,
        shift_b: random.range(0, 14) as u8,
        post: Post {
            // One shift around the limits of the fast path, or one for each channel.
            shift: match random.range(0, 3) {
                0 => random.plain_post(usize::from(input.c)).shift,
                _ => vec![random.range(-10, 25) as i8],
            },
            table: None,
        },
    };
    // Tensor 3 is read later if the first sum is not to lie on it.
    ops.push(add(2, 3, 4));
    ops.push(add(if in_place { 4 } else { 3 }, 1, 5));
    ops.push(add(5, 5, 6));
    for _ in 0..3 {
        let dtype = random.dtype();
        tensors.push(TensorSpec {
            shape: input,
            dtype,
        });
    }
    with_logits(&mut random, tensors, ops)
}

/// A dense layer on the last tensor.
fn with_logits(
    random: &mut Random,
    mut tensors: Vec<TensorSpec>,
    mut ops: Vec<OpSpec>,
) -> ModelSpec {
    let at = tensors.len() - 1;
    let count = tensors[at].shape.len();
    let classes = random.range(1, 6) as u16;
    ops.push(OpSpec::Dense {
        input: at,
        output: at + 1,
        weight: (0..count * usize::from(classes))
            .map(|_| random.weight(count))
            .collect(),
        bias: (0..classes)
            .map(|_| random.range(-60_000, 60_000) as i32)
            .collect(),
        post: Post::default(),
    });
    tensors.push(TensorSpec {
        shape: shape(1, 1, classes),
        dtype: DType::I32,
    });
    ModelSpec {
        name: "random".into(),
        recipe_hash: [7; 32],
        tensors,
        ops,
        logit_exponents: vec![-3; usize::from(classes)],
        output: OutputActivation::Linear,
        golden_image: None,
    }
}
