//! One operator of model.fxp against the same operator of model.int8.onnx: integers, geometry, scales.

use runtime::{Affine, Conv, DType, Kind, Op, Post, Shape, Tensor, Window};

use crate::{
    graph::Exponent,
    lower::{Geometry, Linear, Lowered, Main, Operand, Step, accumulator_exponents},
    table::Question,
};

/// A tensor as an operator reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Power of two of one step.
    pub exponent: i32,
    /// True: 0..=255; false: -128..=127.
    pub unsigned: bool,
}

impl Input {
    fn max(self) -> i64 {
        if self.unsigned { 255 } else { 128 }
    }
}

/// Greatest magnitude of an accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// In accumulator units.
    pub value: i64,
    /// Where.
    pub channel: usize,
}

/// The operands of `lowered`, checked against where the fixed-point operator reads.
///
/// # Errors
/// What differs, for a message.
pub fn inputs(ops: &[Op<'_>], all: &[Lowered], lowered: &Lowered) -> Result<Vec<Input>, String> {
    let op = &ops[lowered.record.op];
    let tensors = match &op.kind {
        Kind::Add(add) => vec![op.input, add.b],
        _ => vec![op.input],
    };
    if tensors.len() != lowered.inputs.len() {
        return Err(format!(
            "{} inputs in model.fxp, {} in ONNX",
            tensors.len(),
            lowered.inputs.len()
        ));
    }
    let read = |(operand, tensor): (&Operand, Tensor)| match *operand {
        Operand::Image if tensor.dtype == DType::U8 => Ok(Input {
            exponent: 0,
            unsigned: true,
        }),
        Operand::Image => Err(format!("the image has the type {:?}", tensor.dtype)),
        Operand::Op(i) => {
            let source = ops
                .get(i)
                .filter(|_| i < lowered.record.op)
                .ok_or(format!("reads operator {i}, which is not before it"))?;
            let values = |s: Shape| usize::from(s.h) * usize::from(s.w) * usize::from(s.c);
            if source.output.offset != tensor.offset
                || source.output.dtype != tensor.dtype
                || values(source.output.shape) != values(tensor.shape)
            {
                return Err(format!(
                    "model.fxp reads {tensor:?}, ONNX the output of operator {i}: {:?}",
                    source.output
                ));
            }
            let Exponent::One(exponent) = all[i].record.exponent else {
                return Err(format!(
                    "operator {i} has an exponent per channel and is not the last"
                ));
            };
            Ok(Input {
                exponent,
                unsigned: source.output.dtype == DType::U8,
            })
        }
    };
    lowered.inputs.iter().zip(tensors).map(read).collect()
}

/// Checks that the two forms of an operator compute the same and gives its bound.
///
/// # Errors
/// What differs, for a message.
pub fn check(op: &Op<'_>, lowered: &Lowered, inputs: &[Input]) -> Result<Bound, String> {
    let declared = match lowered.record.dtype.as_str() {
        "u8" => DType::U8,
        "i8" => DType::I8,
        _ => DType::I32,
    };
    if declared != op.output.dtype {
        return Err(format!(
            "output {:?} in model.fxp, {} in ONNX",
            op.output.dtype, lowered.record.dtype
        ));
    }
    let first = inputs[0];
    match (&op.kind, &lowered.main) {
        (Kind::Conv(conv), Main::Linear(linear)) => {
            weights(linear, |o, i, [_, cg, kh, kw]| {
                let (c, k) = (i / (kh * kw), i % (kh * kw));
                conv.weight(o, k * cg + c).map(i32::from)
            })?;
            biases(linear, conv.biases())?;
            window(
                "convolution",
                &conv.window,
                linear.geometry,
                conv_pads(op, conv),
            )?;
            equal("groups", i64::from(conv.groups.get()), linear.groups)?;
            match (&conv.pool, lowered.max_pool) {
                (None, None) => {}
                (Some(pool), Some(geometry)) => {
                    window("pool", pool, geometry, [0; 4])?;
                    // The maximum before the table is the maximum after it only if the table never falls.
                    if conv
                        .post
                        .table
                        .is_some_and(|t| !never_falls(t, op.output.dtype))
                    {
                        return Err("a pool before a table that is not monotonic".into());
                    }
                }
                (fixed, onnx) => {
                    return Err(format!("pool {fixed:?} in model.fxp, {onnx:?} in ONNX"));
                }
            }
            finish(op, lowered, &conv.post, &accumulators(linear, first)?)?;
            Ok(bound(linear, first))
        }
        (Kind::Dense(dense), Main::Linear(linear)) => {
            let Shape { h, w, c } = op.input.shape;
            let (map, channels) = (usize::from(h) * usize::from(w), usize::from(c));
            let inputs = map * channels;
            equal(
                "inputs",
                inputs,
                linear.weight.len() / linear.bias.len().max(1),
            )?;
            // ONNX columns are c, h, w; the runtime's h, w, c.
            weights(linear, |o, i, _| {
                let column = i % map * channels + i / map;
                dense.weight(o, column).map(i32::from)
            })?;
            biases(linear, dense.biases())?;
            finish(op, lowered, &dense.post, &accumulators(linear, first)?)?;
            Ok(bound(linear, first))
        }
        (Kind::AvgPool(pool), Main::Linear(linear)) => {
            let constant = i32::from(pool.multiplier);
            if linear.weight.iter().any(|&w| w != constant) || linear.bias.iter().any(|&b| b != 0) {
                return Err(format!(
                    "expected every weight {constant} and no bias in ONNX"
                ));
            }
            equal("groups", i64::from(op.input.shape.c), linear.groups)?;
            window("pool", &pool.window, linear.geometry, [0; 4])?;
            finish(op, lowered, &pool.post, &accumulators(linear, first)?)?;
            Ok(bound(linear, first))
        }
        (Kind::Affine(affine), Main::Affine { mul, add }) => {
            check_affine(op, lowered, affine, first, [mul, add])
        }
        (Kind::Add(add), Main::Add) => {
            let second = inputs[1];
            let fine = first.exponent.min(second.exponent);
            equal(
                "left shift of the first summand",
                i32::from(add.shift_a),
                first.exponent - fine,
            )?;
            equal(
                "left shift of the second summand",
                i32::from(add.shift_b),
                second.exponent - fine,
            )?;
            finish(op, lowered, &add.post, &[fine])?;
            Ok(Bound {
                value: (first.max() << add.shift_a) + (second.max() << add.shift_b),
                channel: 0,
            })
        }
        (Kind::MaxPool(pool), Main::None) => {
            let geometry = lowered.max_pool.ok_or("no MaxPool in ONNX")?;
            let end = |axis: usize, n: u16, out: u16| {
                let covered = (i64::from(out) - 1) * i64::from(pool.stride[axis])
                    + i64::from(pool.size[axis]);
                (covered - i64::from(n) - i64::from(pool.pad[axis])).max(0)
            };
            let (i, o) = (op.input.shape, op.output.shape);
            let pads = [
                i64::from(pool.pad[0]),
                i64::from(pool.pad[1]),
                end(0, i.h, o.h),
                end(1, i.w, o.w),
            ];
            window("pool", pool, geometry, pads)?;
            equal(
                "output exponent",
                Exponent::One(first.exponent),
                lowered.record.exponent.clone(),
            )?;
            // A quantization to the step that the values already have changes nothing.
            let step = Step {
                exponent: first.exponent,
                zero_point: if first.unsigned { -128 } else { 0 },
            };
            if lowered.steps.iter().any(|s| *s != step)
                || lowered.function.is_some()
                || op.input.dtype != op.output.dtype
            {
                return Err(format!(
                    "expected no change of scale around the pool, got {:?}",
                    lowered.steps
                ));
            }
            Ok(Bound {
                value: first.max(),
                channel: 0,
            })
        }
        (Kind::Table(_), Main::None) if lowered.max_pool.is_none() => Ok(Bound {
            value: first.max(),
            channel: 0,
        }),
        (kind, main) => Err(format!("{} in model.fxp, {main:?} in ONNX", kind.name())),
    }
}

/// The table of an operator, with what it must hold.
///
/// # Errors
/// A table without a function in ONNX, or a function without a table.
pub fn table(op: &Op<'_>, lowered: &Lowered, inputs: &[Input]) -> Result<Option<Question>, String> {
    let table = match &op.kind {
        Kind::Table(table) => Some(*table),
        Kind::Conv(conv) => conv.post.table,
        Kind::Dense(dense) => dense.post.table,
        Kind::AvgPool(pool) => pool.post.table,
        Kind::Add(add) => add.post.table,
        Kind::Affine(_) | Kind::MaxPool(_) => None,
    };
    let (table, function) = match (table, &lowered.function) {
        (None, None) => return Ok(None),
        (Some(table), Some(function)) => (*table, function.clone()),
        // A relu between two tables of one type: also a function.
        (Some(table), None) if lowered.relu => (*table, "Relu".into()),
        (table, function) => {
            return Err(format!(
                "table: {} in model.fxp, {function:?} in ONNX",
                table.is_some()
            ));
        }
    };
    let standalone = matches!(op.kind, Kind::Table(_));
    let own = Step {
        exponent: inputs[0].exponent,
        zero_point: if inputs[0].unsigned { -128 } else { 0 },
    };
    let (before, after) = match lowered.steps.as_slice() {
        [after] if standalone => (own, *after),
        [before, after] => (*before, *after),
        steps => {
            return Err(format!(
                "a table needs a quantization before and after, got {steps:?}"
            ));
        }
    };
    if standalone && before != own || !standalone && before.zero_point != 0 {
        return Err(format!("the table is indexed with {before:?}"));
    }
    equal(
        "exponent after the table",
        Exponent::One(after.exponent),
        lowered.record.exponent.clone(),
    )?;
    equal(
        "unsigned after the table",
        op.output.dtype == DType::U8,
        after.zero_point == -128,
    )?;
    Ok(Some(Question {
        function,
        table,
        before,
        after,
    }))
}

/// Requantization: the shifts are what the exponents say, and the output has the recorded exponent and type.
fn finish(
    op: &Op<'_>,
    lowered: &Lowered,
    post: &Post<'_>,
    accumulators: &[i32],
) -> Result<(), String> {
    if op.output.dtype == DType::I32 {
        let agree = match &lowered.record.exponent {
            Exponent::One(e) => accumulators.iter().all(|a| a == e),
            Exponent::PerClass(list) => list == accumulators,
        };
        if !agree || !lowered.steps.is_empty() || lowered.relu || lowered.function.is_some() {
            return Err(format!(
                "logits: exponents {:?} in isobit.ops, {accumulators:?} from the scales",
                lowered.record.exponent
            ));
        }
        return Ok(());
    }
    let step = *lowered.steps.first().ok_or("no QuantizeLinear in ONNX")?;
    for channel in 0..usize::from(op.output.shape.c) {
        let accumulator = accumulators
            .get(channel)
            .or(accumulators.first())
            .copied()
            .unwrap_or(0);
        let expected = step.exponent - accumulator;
        let shift = i32::from(post.shift(channel));
        if shift != expected {
            return Err(format!(
                "channel {channel}: shift {shift} in model.fxp, scales of ONNX give {expected}"
            ));
        }
    }
    if lowered.function.is_some() || post.table.is_some() {
        return Ok(());
    }
    check_quantization(op, lowered)?;
    if lowered.relu && op.output.dtype != DType::U8 {
        return Err("relu in ONNX, a signed output in model.fxp".into());
    }
    Ok(())
}

/// One QuantizeLinear, whose scale and zero point are those of the recorded output.
fn check_quantization(op: &Op<'_>, lowered: &Lowered) -> Result<(), String> {
    let step = *lowered.steps.first().ok_or("no QuantizeLinear in ONNX")?;
    equal("number of quantizations", lowered.steps.len(), 1)?;
    equal(
        "output exponent",
        Exponent::One(step.exponent),
        lowered.record.exponent.clone(),
    )?;
    equal(
        "unsigned output",
        op.output.dtype == DType::U8,
        step.zero_point == -128,
    )
}

fn check_affine(
    op: &Op<'_>,
    lowered: &Lowered,
    affine: &Affine<'_>,
    input: Input,
    [mul, add]: [&crate::graph::Tensor; 2],
) -> Result<Bound, String> {
    let step = *lowered.steps.first().ok_or("no QuantizeLinear in ONNX")?;
    check_quantization(op, lowered)?;
    if lowered.relu && op.output.dtype != DType::U8
        || lowered.function.is_some()
        || lowered.max_pool.is_some()
    {
        return Err("an affine operator with more than a relu in ONNX".into());
    }
    let Shape { h, w, c } = op.input.shape;
    let (map, channels) = (usize::from(h) * usize::from(w), usize::from(c));
    let mut bound = Bound {
        value: 0,
        channel: 0,
    };
    for (i, p) in affine.params().enumerate() {
        // A constant per channel or per value; ONNX's order is c, h, w.
        let of = |t: &crate::graph::Tensor| match (t.data.len(), affine.per_channel) {
            (1, _) => Some(t.data[0]),
            (n, true) if n == channels => Some(t.data[i]),
            (n, false) if n == channels => Some(t.data[i % channels]),
            (n, false) if n == map * channels => Some(t.data[i % channels * map + i / channels]),
            _ => None,
        };
        let (Some(m), Some(a)) = (of(mul), of(add)) else {
            return Err(format!(
                "constants of {} and {} values for {h} x {w} x {c}",
                mul.data.len(),
                add.data.len()
            ));
        };
        let accumulator = f64::from(step.exponent - i32::from(p.shift)).exp2();
        let fixed = (
            f64::from(p.mul) * accumulator,
            f64::from(p.add) * accumulator,
        );
        let onnx = (m * f64::from(input.exponent).exp2(), a);
        if fixed != onnx {
            return Err(format!(
                "value {i}: x * {} + {} in model.fxp, x * {} + {} in ONNX",
                fixed.0, fixed.1, onnx.0, onnx.1
            ));
        }
        let value = i64::from(p.mul).abs() * input.max() + i64::from(p.add).abs();
        if value > bound.value {
            bound = Bound { value, channel: i };
        }
    }
    Ok(bound)
}

fn accumulators(linear: &Linear, input: Input) -> Result<Vec<i32>, String> {
    accumulator_exponents(linear, input.exponent).map_err(|(channel, expected, got)| {
        format!("channel {channel}: bias scale 2^{got} in ONNX, its products have 2^{expected}")
    })
}

fn bound(linear: &Linear, input: Input) -> Bound {
    let (value, channel) = linear.bound(input.max());
    Bound { value, channel }
}

/// Compares every weight: `fixed(channel, index in ONNX's order, ONNX shape [co, ci / groups, kh, kw])`.
fn weights(
    linear: &Linear,
    fixed: impl Fn(usize, usize, [usize; 4]) -> Option<i32>,
) -> Result<(), String> {
    let shape = match *linear.shape.as_slice() {
        [co, cg, kh, kw] => [co, cg, kh, kw],
        [co, inputs] => [co, inputs, 1, 1],
        _ => return Err(format!("weight of shape {:?} in ONNX", linear.shape)),
    };
    let per_channel = linear.weight.len() / shape[0].max(1);
    for (i, &onnx) in linear.weight.iter().enumerate() {
        let (channel, index) = (i / per_channel, i % per_channel);
        match fixed(channel, index, shape) {
            Some(w) if w == onnx => {}
            other => {
                let got = other.map_or("none".to_string(), |w| w.to_string());
                return Err(format!(
                    "channel {channel}, weight {index}: {got} in model.fxp, {onnx} in ONNX"
                ));
            }
        }
    }
    Ok(())
}

fn biases(linear: &Linear, fixed: impl ExactSizeIterator<Item = i32>) -> Result<(), String> {
    equal("output channels", fixed.len(), linear.bias.len())?;
    match fixed
        .zip(&linear.bias)
        .enumerate()
        .find(|(_, (f, o))| i64::from(*f) != **o)
    {
        Some((channel, (f, o))) => Err(format!(
            "channel {channel}: bias {f} in model.fxp, {o} in ONNX"
        )),
        None => Ok(()),
    }
}

/// True if larger indices (i8) have entries that are not smaller.
fn never_falls(table: &[u8; 256], output: DType) -> bool {
    let entry = |index: i8| match (table[usize::from(index as u8)], output) {
        (q, DType::I8) => i32::from(q as i8),
        (q, _) => i32::from(q),
    };
    (i8::MIN..i8::MAX).all(|i| entry(i) <= entry(i + 1))
}

/// Padding on all sides: what the map before pooling needs beyond the input.
fn conv_pads(op: &Op<'_>, conv: &Conv<'_>) -> [i64; 4] {
    let input = [op.input.shape.h, op.input.shape.w];
    let before = conv.window.pad.map(i64::from);
    let after = |axis: usize| {
        let covered = (i64::from(conv.map[axis]) - 1) * i64::from(conv.window.stride[axis])
            + i64::from(conv.window.size[axis]);
        (covered - i64::from(input[axis]) - before[axis]).max(0)
    };
    [before[0], before[1], after(0), after(1)]
}

fn window(what: &str, fixed: &Window, onnx: Geometry, pads: [i64; 4]) -> Result<(), String> {
    let size = fixed.size.map(i64::from);
    let stride = fixed.stride.map(i64::from);
    if size != onnx.size || stride != onnx.stride || pads != onnx.pads {
        return Err(format!(
            "{what}: size {size:?} stride {stride:?} pads {pads:?} in model.fxp, {onnx:?} in ONNX"
        ));
    }
    Ok(())
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, fixed: T, onnx: T) -> Result<(), String> {
    if fixed == onnx {
        Ok(())
    } else {
        Err(format!("{what}: {fixed:?} in model.fxp, {onnx:?} in ONNX"))
    }
}
