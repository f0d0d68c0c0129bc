//! `model.int8.onnx`: QuantizeLinear and DequantizeLinear around f32 operators (QDQ).
//!
//! All scales are powers of two and all accumulators below 2^24 steps, so every f32 value is exact and the result does not depend on
//! the engine. Weights are int8 behind a per-axis DequantizeLinear, biases int32; activations have rank-0 scales. Tensors
//! that are never negative are int8 with zero point -128 (`q_onnx = q - 128`).

use runtime::encode::{DType, OpSpec, Post};
use serde_json::json;

use super::{
    LOGITS,
    builder::{Builder, Value, int, window},
};
use crate::{
    architecture::Shape,
    export::{ExportError, Origin},
    layout::chw_from_hwc,
    quantize::{Operator, Quantized, Tensor, scale::pow2},
};

/// The bytes of `model.int8.onnx`. The metadata `isobit.ops` names, for every operator of model.fxp, the f32 value that equals
/// its output times `2^exponent`.
pub fn int8(
    quantized: &Quantized,
    opset: u32,
    origin: &Origin<'_>,
) -> Result<Vec<u8>, ExportError> {
    let mut writer = Writer {
        builder: Builder::default(),
        quantized,
    };
    let image = quantized.tensors[0];
    let pixels = writer.builder.image(image.shape);
    let pixels = writer.requantize(&pixels.name, image.dtype, image.exponent, "input");
    let mut values = vec![Value {
        name: pixels,
        shape: image.shape,
        flat: false,
    }];
    let mut records = Vec::new();
    for (index, operator) in quantized.operators.iter().enumerate() {
        let tensor = quantized.tensors[index + 1];
        let value = writer.operator(operator, tensor, &values);
        let exponent = match tensor.dtype {
            DType::I32 => json!(quantized.logit_exponents),
            _ => json!(tensor.exponent),
        };
        let dtype = match tensor.dtype {
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::I32 => "i32",
        };
        records.push(json!({
            "op": index, "layer": operator.layer, "value": value.name, "exponent": exponent, "dtype": dtype,
        }));
        values.push(value);
    }
    let Writer { mut builder, .. } = writer;
    if let (Some(logits), Some(record)) = (values.last(), records.last_mut()) {
        builder.output(logits, LOGITS);
        record["value"] = json!(LOGITS);
    }
    let metadata = vec![("isobit.ops", serde_json::Value::from(records).to_string())];
    builder.finish(image.shape, opset, origin, metadata)
}

struct Writer<'a> {
    builder: Builder,
    quantized: &'a Quantized,
}

impl Writer<'_> {
    /// QuantizeLinear and DequantizeLinear at a tensor's scale; returns the f32 value `{name}/value`.
    fn requantize(&mut self, input: &str, dtype: DType, exponent: i32, name: &str) -> String {
        let scale = self
            .builder
            .f32(&format!("scale/{exponent}"), &[], &[pow2(exponent) as f32]);
        let zero_point = match dtype {
            DType::U8 => self.builder.i8("zero_point/unsigned", &[], &[-128]),
            DType::I8 | DType::I32 => self.builder.i8("zero_point/signed", &[], &[0]),
        };
        let q = self.builder.node(
            "QuantizeLinear",
            &[input, &scale, &zero_point],
            &format!("{name}/quantized"),
            vec![],
        );
        self.builder.node(
            "DequantizeLinear",
            &[&q, &scale, &zero_point],
            &format!("{name}/value"),
            vec![],
        )
    }

    /// Int8 weights behind a per-axis DequantizeLinear.
    fn weight(&mut self, name: &str, shape: &[usize], values: &[i8], exponents: &[i32]) -> String {
        let scales: Vec<f32> = exponents.iter().map(|&e| pow2(e) as f32).collect();
        let weight = self.builder.i8(&format!("{name}/weight"), shape, values);
        let scale = self
            .builder
            .f32(&format!("{name}/weight_scale"), &[scales.len()], &scales);
        let zero = self.builder.i8(
            &format!("{name}/weight_zero_point"),
            &[scales.len()],
            &vec![0; scales.len()],
        );
        self.builder.node(
            "DequantizeLinear",
            &[&weight, &scale, &zero],
            &format!("{name}/weight_value"),
            vec![int("axis", 0)],
        )
    }

    /// Int32 biases at scale `s_in * s_w` behind a DequantizeLinear.
    fn bias(&mut self, name: &str, values: &[i32], exponents: &[i32], input: Tensor) -> String {
        let scales: Vec<f32> = exponents
            .iter()
            .map(|&e| pow2(e + input.exponent) as f32)
            .collect();
        let bias = self
            .builder
            .i32(&format!("{name}/bias"), &[values.len()], values);
        let scale = self
            .builder
            .f32(&format!("{name}/bias_scale"), &[scales.len()], &scales);
        self.builder.node(
            "DequantizeLinear",
            &[&bias, &scale],
            &format!("{name}/bias_value"),
            vec![int("axis", 0)],
        )
    }

    /// From accumulators to the output: activation, requantization; nothing for logits.
    fn post(
        &mut self,
        operator: &Operator,
        accumulator: &str,
        post: &Post,
        tensor: Tensor,
        name: &str,
    ) -> String {
        if tensor.dtype == DType::I32 {
            return accumulator.into();
        }
        let mut value = accumulator.to_owned();
        if let (Some(before), Some(_)) = (operator.table_exponent, &post.table) {
            value = self.requantize(&value, DType::I8, before, &format!("{name}/pre_activation"));
        }
        let function = format!("{name}/{:?}", operator.activation).to_lowercase();
        value = self
            .builder
            .activation(operator.activation, &value, &function);
        self.requantize(&value, tensor.dtype, tensor.exponent, name)
    }

    fn operator(&mut self, operator: &Operator, tensor: Tensor, values: &[Value]) -> Value {
        let name = operator.layer.as_str();
        let shape = tensor.shape;
        let tensors = &self.quantized.tensors;
        let (mut flat, mut pooled) = (false, None);
        let value = match &operator.spec {
            OpSpec::Affine { input, params, .. } => {
                let (read, x) = (tensors[*input], &values[*input]);
                flat = x.flat;
                let scale = |shift: u8| pow2(tensor.exponent - i32::from(shift));
                let mul: Vec<f32> = params
                    .iter()
                    .map(|p| (f64::from(p.mul) * scale(p.shift) * pow2(-read.exponent)) as f32)
                    .collect();
                let add: Vec<f32> = params
                    .iter()
                    .map(|p| (f64::from(p.add) * scale(p.shift)) as f32)
                    .collect();
                let (dims, mul, add) = per_value(read.shape, flat, mul, add);
                let mul = self.builder.f32(&format!("{name}/mul"), &dims, &mul);
                let add = self.builder.f32(&format!("{name}/add"), &dims, &add);
                let product =
                    self.builder
                        .node("Mul", &[&x.name, &mul], &format!("{name}/product"), vec![]);
                let sum = self.builder.node(
                    "Add",
                    &[&product, &add],
                    &format!("{name}/accumulator"),
                    vec![],
                );
                self.post(operator, &sum, &Post::default(), tensor, name)
            }
            OpSpec::Conv {
                input,
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
                let read = tensors[*input];
                let x = self.builder.map(&values[*input], name);
                let (kernel, stride) = (kernel.map(usize::from), stride.map(usize::from));
                let co = bias.len();
                let ci = read.shape.c / usize::from(*groups);
                let oihw = chw_from_hwc(weight, [kernel[0], kernel[1], ci]);
                let weight = self.weight(
                    name,
                    &[co, ci, kernel[0], kernel[1]],
                    &oihw,
                    &operator.weight_exponents,
                );
                let bias = self.bias(name, bias, &operator.weight_exponents, read);
                let mut attributes = window(
                    kernel,
                    stride,
                    pad.map(usize::from),
                    read.shape,
                    conv.map(usize::from),
                );
                attributes.push(int("group", (*groups).into()));
                pooled = pool.map(|pool| (pool, conv.map(usize::from)));
                let sum = self.builder.node(
                    "Conv",
                    &[&x, &weight, &bias],
                    &format!("{name}/accumulator"),
                    attributes,
                );
                let before_pool = if pooled.is_some() {
                    format!("{name}/unpooled")
                } else {
                    name.into()
                };
                self.post(operator, &sum, post, tensor, &before_pool)
            }
            OpSpec::Dense {
                input,
                weight,
                bias,
                post,
                ..
            } => {
                let read = tensors[*input];
                let x = self.builder.flat(&values[*input], name);
                let Shape { h, w, c } = read.shape;
                let columns = chw_from_hwc(weight, [h, w, c]);
                let weight = self.weight(
                    name,
                    &[bias.len(), h * w * c],
                    &columns,
                    &operator.weight_exponents,
                );
                let bias = self.bias(name, bias, &operator.weight_exponents, read);
                let inputs = [x.as_str(), &weight, &bias];
                let sum = self.builder.node(
                    "Gemm",
                    &inputs,
                    &format!("{name}/accumulator"),
                    vec![int("transB", 1)],
                );
                flat = true;
                self.post(operator, &sum, post, tensor, name)
            }
            OpSpec::MaxPool {
                input,
                size,
                stride,
                pad,
                ..
            } => {
                let read = tensors[*input];
                let x = self.builder.map(&values[*input], name);
                let [size, stride, pad] = [size, stride, pad].map(|pair| pair.map(usize::from));
                let attributes = window(size, stride, pad, read.shape, [shape.h, shape.w]);
                let max =
                    self.builder
                        .node("MaxPool", &[&x], &format!("{name}/maximum"), attributes);
                self.requantize(&max, tensor.dtype, tensor.exponent, name)
            }
            OpSpec::AvgPool {
                input,
                size,
                stride,
                multiplier,
                post,
                ..
            } => {
                let read = tensors[*input];
                let x = self.builder.map(&values[*input], name);
                let [size, stride] = [size, stride].map(|pair| pair.map(usize::from));
                let c = read.shape.c;
                let ones = vec![*multiplier; c * size[0] * size[1]];
                let exponents = vec![operator.weight_exponents[0]; c];
                let weight = self.weight(name, &[c, 1, size[0], size[1]], &ones, &exponents);
                let mut attributes = window(size, stride, [0, 0], read.shape, [shape.h, shape.w]);
                attributes.push(int("group", c as i64));
                let sum = self.builder.node(
                    "Conv",
                    &[&x, &weight],
                    &format!("{name}/accumulator"),
                    attributes,
                );
                self.post(operator, &sum, post, tensor, name)
            }
            OpSpec::Add { a, b, post, .. } => {
                flat = values[*a].flat && values[*b].flat;
                let [a, b] = [a, b].map(|&i| match flat {
                    true => values[i].name.clone(),
                    false => self.builder.map(&values[i], &format!("{name}/{i}")),
                });
                let sum =
                    self.builder
                        .node("Add", &[&a, &b], &format!("{name}/accumulator"), vec![]);
                self.post(operator, &sum, post, tensor, name)
            }
            OpSpec::Table { input, .. } => {
                flat = values[*input].flat;
                let x = values[*input].name.clone();
                self.post(operator, &x, &Post::default(), tensor, name)
            }
        };
        let name = match pooled {
            None => value,
            Some((pool, conv)) => {
                let unpooled = Shape {
                    h: conv[0],
                    w: conv[1],
                    c: shape.c,
                };
                let [size, stride] = [pool.size, pool.stride].map(|pair| pair.map(usize::from));
                let attributes = window(size, stride, [0, 0], unpooled, [shape.h, shape.w]);
                let max =
                    self.builder
                        .node("MaxPool", &[&value], &format!("{name}/maximum"), attributes);
                match tensor.dtype {
                    DType::I32 => max,
                    _ => self.requantize(&max, tensor.dtype, tensor.exponent, name),
                }
            }
        };
        Value { name, shape, flat }
    }
}

/// Constants per channel or per value as ONNX broadcasts them.
fn per_value(
    shape: Shape,
    flat: bool,
    mul: Vec<f32>,
    add: Vec<f32>,
) -> (Vec<usize>, Vec<f32>, Vec<f32>) {
    let Shape { h, w, c } = shape;
    if flat {
        return (vec![1, c], mul, add);
    }
    if mul.len() == c {
        return (vec![1, c, 1, 1], mul, add);
    }
    let permute = |values: Vec<f32>| chw_from_hwc(&values, [h, w, c]);
    (vec![1, c, h, w], permute(mul), permute(add))
}
