//! The arithmetic once more, independently: plain loops over the description of a model, in i64 and exact rationals,
//! without any code of the runtime's kernels.

use runtime::encode::{DType, ModelSpec, OpSpec, Post, TensorSpec};

/// Values of a tensor, row-major with the channels innermost.
pub type Values = Vec<i64>;

/// `acc / 2^shift`, rounded half to even, by Euclidean division instead of bit tricks.
pub fn round(acc: i64, shift: i64) -> i64 {
    if shift <= 0 {
        return acc << -shift;
    }
    let unit = 1i64 << shift;
    let (floor, rest) = (acc.div_euclid(unit), acc.rem_euclid(unit));
    match (2 * rest).cmp(&unit) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + floor.rem_euclid(2),
    }
}

fn saturate(q: i64, dtype: DType) -> i64 {
    match dtype {
        DType::U8 => q.clamp(0, 255),
        DType::I8 => q.clamp(-128, 127),
        DType::I32 => q,
    }
}

/// A byte of a table as a value.
fn read(byte: u8, dtype: DType) -> i64 {
    match dtype {
        DType::I8 => i64::from(byte as i8),
        _ => i64::from(byte),
    }
}

fn finish(post: &Post, channel: usize, dtype: DType, acc: i64) -> i64 {
    assert!(acc.abs() < 1 << 24, "an accumulator left its bound: {acc}");
    if dtype == DType::I32 {
        return acc;
    }
    let shift = if post.shift.len() == 1 {
        post.shift[0]
    } else {
        post.shift[channel]
    };
    let q = round(acc, i64::from(shift));
    match &post.table {
        None => saturate(q, dtype),
        Some(table) => read(table[(saturate(q, DType::I8) & 255) as usize], dtype),
    }
}

/// Position `[y][x][c]` of a tensor; `None` outside.
fn at(spec: TensorSpec, values: &Values, y: i64, x: i64, c: usize) -> Option<i64> {
    let (h, w) = (i64::from(spec.shape.h), i64::from(spec.shape.w));
    if y < 0 || x < 0 || y >= h || x >= w {
        return None;
    }
    Some(values[(y * w + x) as usize * usize::from(spec.shape.c) + c])
}

/// The output of every operator for one image.
pub fn run(model: &ModelSpec, image: &[u8]) -> Vec<Values> {
    let mut tensors: Vec<Values> = vec![Vec::new(); model.tensors.len()];
    tensors[0] = image.iter().map(|&v| i64::from(v)).collect();
    model
        .ops
        .iter()
        .map(|op| {
            let values = run_op(model, &tensors, op);
            tensors[op.output()] = values.clone();
            values
        })
        .collect()
}

fn run_op(model: &ModelSpec, tensors: &[Values], op: &OpSpec) -> Values {
    let input = op.inputs()[0].unwrap();
    let (x, xs) = (&tensors[input], model.tensors[input]);
    let ys = model.tensors[op.output()];
    let (oh, ow, oc) = (
        i64::from(ys.shape.h),
        i64::from(ys.shape.w),
        usize::from(ys.shape.c),
    );
    // One output value at a time.
    let map = |value: &dyn Fn(i64, i64, usize) -> i64| -> Values {
        let mut y = Vec::new();
        for oy in 0..oh {
            for ox in 0..ow {
                for o in 0..oc {
                    y.push(value(oy, ox, o));
                }
            }
        }
        y
    };
    match op {
        OpSpec::Affine { params, .. } => x
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                let p = params[i % params.len()];
                let acc = x * i64::from(p.mul) + i64::from(p.add);
                assert!(acc.abs() < 1 << 24);
                saturate(round(acc, i64::from(p.shift)), ys.dtype)
            })
            .collect(),
        OpSpec::Table { table, .. } => x
            .iter()
            .map(|&x| read(table[(x & 255) as usize], ys.dtype))
            .collect(),
        OpSpec::Add {
            b,
            shift_a,
            shift_b,
            post,
            ..
        } => x
            .iter()
            .zip(&tensors[*b])
            .enumerate()
            .map(|(i, (&a, &b))| {
                let acc = a * (1 << shift_a) + b * (1 << shift_b);
                finish(post, i % oc, ys.dtype, acc)
            })
            .collect(),
        OpSpec::Dense {
            weight, bias, post, ..
        } => map(&|_, _, o| {
            let row = &weight[o * x.len()..][..x.len()];
            let acc = x
                .iter()
                .zip(row)
                .map(|(&x, &w)| x * i64::from(w))
                .sum::<i64>();
            finish(post, o, ys.dtype, acc + i64::from(bias[o]))
        }),
        OpSpec::MaxPool {
            size, stride, pad, ..
        } => map(&|oy, ox, o| {
            let mut best = None;
            for ky in 0..i64::from(size[0]) {
                for kx in 0..i64::from(size[1]) {
                    let y = oy * i64::from(stride[0]) + ky - i64::from(pad[0]);
                    let xx = ox * i64::from(stride[1]) + kx - i64::from(pad[1]);
                    best = best.max(at(xs, x, y, xx, o));
                }
            }
            best.unwrap()
        }),
        OpSpec::AvgPool {
            size,
            stride,
            multiplier,
            post,
            ..
        } => map(&|oy, ox, o| {
            let mut sum = 0;
            for ky in 0..i64::from(size[0]) {
                for kx in 0..i64::from(size[1]) {
                    let y = oy * i64::from(stride[0]) + ky;
                    let xx = ox * i64::from(stride[1]) + kx;
                    sum += at(xs, x, y, xx, o).unwrap();
                }
            }
            finish(post, o, ys.dtype, sum * i64::from(*multiplier))
        }),
        OpSpec::Conv {
            kernel,
            stride,
            pad,
            groups,
            weight,
            bias,
            pool,
            post,
            ..
        } => {
            let depth = usize::from(xs.shape.c / groups);
            let per_group = oc / usize::from(*groups);
            let acc = |cy: i64, cx: i64, o: usize| {
                let mut acc = i64::from(bias[o]);
                for ky in 0..usize::from(kernel[0]) {
                    for kx in 0..usize::from(kernel[1]) {
                        for i in 0..depth {
                            let y = cy * i64::from(stride[0]) + ky as i64 - i64::from(pad[0]);
                            let xx = cx * i64::from(stride[1]) + kx as i64 - i64::from(pad[1]);
                            let v = at(xs, x, y, xx, o / per_group * depth + i).unwrap_or(0);
                            let w = ((o * usize::from(kernel[0]) + ky) * usize::from(kernel[1])
                                + kx)
                                * depth
                                + i;
                            acc += v * i64::from(weight[w]);
                        }
                    }
                }
                acc
            };
            // Requantized first and pooled afterwards where there is no table: the order that the ONNX model has.
            map(&|oy, ox, o| match pool {
                None => finish(post, o, ys.dtype, acc(oy, ox, o)),
                Some(pool) => {
                    let mut best = i64::MIN;
                    for py in 0..i64::from(pool.size[0]) {
                        for px in 0..i64::from(pool.size[1]) {
                            let cy = oy * i64::from(pool.stride[0]) + py;
                            let cx = ox * i64::from(pool.stride[1]) + px;
                            let value = acc(cy, cx, o);
                            best = best.max(if post.table.is_some() {
                                value
                            } else {
                                finish(post, o, ys.dtype, value)
                            });
                        }
                    }
                    if post.table.is_some() {
                        finish(post, o, ys.dtype, best)
                    } else {
                        best
                    }
                }
            })
        }
    }
}
