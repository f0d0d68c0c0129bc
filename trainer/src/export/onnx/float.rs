//! `model.onnx`: the network in f32, layer by layer, preprocessing and probabilities included.

use super::{
    LOGITS, PROBABILITIES,
    builder::{Builder, Value, float as float_attribute, int, window},
};
use crate::{
    architecture::{Architecture, Layer, LayerKind, OutputActivation, Shape, Source},
    export::{ExportError, Origin},
    layout::{chw_from_hwc, transpose},
    preprocess::Preprocess,
    weights::Weights,
};

/// The bytes of `model.onnx`.
pub fn float(
    architecture: &Architecture,
    preprocess: &Preprocess,
    weights: &Weights,
    opset: u32,
    origin: &Origin<'_>,
) -> Result<Vec<u8>, ExportError> {
    let mut writer = Writer {
        builder: Builder::default(),
        weights,
    };
    let image = writer.preprocess(architecture.input, preprocess);
    let mut values: Vec<Value> = Vec::with_capacity(architecture.layers.len());
    for layer in &architecture.layers {
        let read = |source: Source| match source {
            Source::Input => image.clone(),
            Source::Layer(i) => values[i].clone(),
        };
        let inputs: Vec<Value> = layer.inputs.iter().map(|&source| read(source)).collect();
        values.push(writer.layer(layer, &inputs)?);
    }
    let Writer { mut builder, .. } = writer;
    let logits = values.last().unwrap_or(&image);
    let classes = logits.shape.len();
    builder.output(logits, LOGITS);
    match architecture.output {
        OutputActivation::Softmax => {
            builder.node("Softmax", &[LOGITS], PROBABILITIES, vec![int("axis", 1)])
        }
        OutputActivation::Sigmoid => builder.node("Sigmoid", &[LOGITS], PROBABILITIES, vec![]),
        OutputActivation::Linear => builder.node("Identity", &[LOGITS], PROBABILITIES, vec![]),
    };
    builder.declare_output(PROBABILITIES, classes);
    builder.finish(architecture.input, opset, origin, Vec::new())
}

struct Writer<'a> {
    builder: Builder,
    weights: &'a Weights,
}

impl Writer<'_> {
    fn weight(&self, layer: &Layer, part: &str, expected: usize) -> Result<&[f32], ExportError> {
        let name = format!("{}.{part}", layer.name);
        match self.weights.0.get(&name) {
            Some(array) if array.data.len() == expected => Ok(&array.data),
            _ => Err(ExportError::Weight { name, expected }),
        }
    }

    fn bias(&mut self, layer: &Layer, use_bias: bool, len: usize) -> Result<String, ExportError> {
        let zeros = vec![0.0; len];
        let bias = if use_bias {
            self.weight(layer, "bias", len)?.to_vec()
        } else {
            zeros
        };
        Ok(self
            .builder
            .f32(&format!("{}/bias", layer.name), &[len], &bias))
    }

    fn preprocess(&mut self, shape: Shape, preprocess: &Preprocess) -> Value {
        let builder = &mut self.builder;
        let image = builder.image(shape);
        let Shape { h, w, c } = shape;
        let (mean, std, dims): (Vec<f32>, Vec<f32>, Vec<usize>) = match preprocess {
            Preprocess::None => return image,
            Preprocess::Unit => (vec![], vec![255.0], vec![]),
            Preprocess::Global { mean, std } => (vec![*mean], vec![*std], vec![]),
            Preprocess::PerPixel { mean, std } => {
                let permute = |values: &[f32]| chw_from_hwc(values, [h, w, c]);
                (permute(mean), permute(std), vec![1, c, h, w])
            }
        };
        let mut name = image.name.clone();
        if !mean.is_empty() {
            let mean = builder.f32("input/mean", &dims, &mean);
            name = builder.node("Sub", &[&name, &mean], "input/centred", vec![]);
        }
        let std = builder.f32("input/std", &dims, &std);
        let name = builder.node("Div", &[&name, &std], "input/value", vec![]);
        Value { name, ..image }
    }

    /// One layer. Dropout and flatten vanish: a dense layer flattens what it reads.
    fn layer(&mut self, layer: &Layer, inputs: &[Value]) -> Result<Value, ExportError> {
        let name = layer.name.as_str();
        let x = &inputs[0];
        let (input, output) = (layer.input, layer.output);
        let value = |name: String, shape: Shape, flat: bool| Ok(Value { name, shape, flat });
        let linear = format!("{name}/linear");
        let out = format!("{name}/value");
        match &layer.kind {
            LayerKind::Conv {
                filters,
                window: size,
                groups,
                use_bias,
                activation,
                ..
            } => {
                let [kh, kw] = size.size;
                let ci = input.c / groups;
                let ohwi = transpose(
                    self.weight(layer, "kernel", kh * kw * ci * filters)?,
                    *filters,
                );
                let oihw = chw_from_hwc(&ohwi, [kh, kw, ci]);
                let weight =
                    self.builder
                        .f32(&format!("{name}/weight"), &[*filters, ci, kh, kw], &oihw);
                let bias = self.bias(layer, *use_bias, *filters)?;
                let padding = size.overhang(input, output).map(|total| total / 2);
                let mut attributes =
                    window(size.size, size.stride, padding, input, [output.h, output.w]);
                attributes.push(int("group", *groups as i64));
                let x = self.builder.map(x, name);
                let sum = self
                    .builder
                    .node("Conv", &[&x, &weight, &bias], &linear, attributes);
                value(
                    self.builder.activation(*activation, &sum, &out),
                    output,
                    false,
                )
            }
            LayerKind::Dense {
                units,
                use_bias,
                activation,
                ..
            } => {
                let rows = transpose(self.weight(layer, "kernel", input.len() * units)?, *units);
                let Shape { h, w, c } = x.shape;
                let columns = chw_from_hwc(&rows, [h, w, c]);
                let weight =
                    self.builder
                        .f32(&format!("{name}/weight"), &[*units, input.len()], &columns);
                let bias = self.bias(layer, *use_bias, *units)?;
                let x = self.builder.flat(x, name);
                let sum = self.builder.node(
                    "Gemm",
                    &[&x, &weight, &bias],
                    &linear,
                    vec![int("transB", 1)],
                );
                value(
                    self.builder.activation(*activation, &sum, &out),
                    output,
                    true,
                )
            }
            LayerKind::MaxPool { window: size } => {
                let padding = size.overhang(input, output).map(|total| total / 2);
                let attributes =
                    window(size.size, size.stride, padding, input, [output.h, output.w]);
                let x = self.builder.map(x, name);
                value(
                    self.builder.node("MaxPool", &[&x], &out, attributes),
                    output,
                    false,
                )
            }
            LayerKind::AvgPool { window: size } => {
                let padding = size.overhang(input, output).map(|total| total / 2);
                let mut attributes =
                    window(size.size, size.stride, padding, input, [output.h, output.w]);
                attributes.push(int("count_include_pad", 0));
                let x = self.builder.map(x, name);
                value(
                    self.builder.node("AveragePool", &[&x], &out, attributes),
                    output,
                    false,
                )
            }
            LayerKind::GlobalAvgPool => {
                let x = self.builder.map(x, name);
                value(
                    self.builder.node("GlobalAveragePool", &[&x], &out, vec![]),
                    output,
                    false,
                )
            }
            LayerKind::BatchNorm { epsilon, .. } => self.batch_norm(layer, *epsilon, x),
            LayerKind::Dropout { .. } | LayerKind::Flatten => Ok(x.clone()),
            LayerKind::Activation { activation } => value(
                self.builder.activation(*activation, &x.name, &out),
                x.shape,
                x.flat,
            ),
            LayerKind::Add { activation } => {
                let flat = x.flat && inputs[1].flat;
                let [a, b] = [0, 1].map(|i| match flat {
                    true => inputs[i].name.clone(),
                    false => self.builder.map(&inputs[i], &format!("{name}/{i}")),
                });
                let sum = self.builder.node("Add", &[&a, &b], &linear, vec![]);
                value(
                    self.builder.activation(*activation, &sum, &out),
                    x.shape,
                    flat,
                )
            }
        }
    }

    fn batch_norm(&mut self, layer: &Layer, epsilon: f32, x: &Value) -> Result<Value, ExportError> {
        let c = layer.input.c;
        let name = &layer.name;
        let out = format!("{name}/value");
        let mut parts = Vec::new();
        for part in ["gamma", "beta", "moving_mean", "moving_variance"] {
            parts.push(self.weight(layer, part, c)?.to_vec());
        }
        // After a flatten the normalization is per value of the map, in another order.
        let Shape { h, w, c: channels } = x.shape;
        if c != channels {
            let mul: Vec<f32> = (0..c)
                .map(|i| {
                    (f64::from(parts[0][i]) / (f64::from(parts[3][i]) + f64::from(epsilon)).sqrt())
                        as f32
                })
                .collect();
            let add: Vec<f32> = (0..c).map(|i| parts[1][i] - parts[2][i] * mul[i]).collect();
            let dims = [1, channels, h, w];
            let mul = self.builder.f32(
                &format!("{name}/mul"),
                &dims,
                &chw_from_hwc(&mul, [h, w, channels]),
            );
            let add = self.builder.f32(
                &format!("{name}/add"),
                &dims,
                &chw_from_hwc(&add, [h, w, channels]),
            );
            let product =
                self.builder
                    .node("Mul", &[&x.name, &mul], &format!("{name}/product"), vec![]);
            let name = self.builder.node("Add", &[&product, &add], &out, vec![]);
            return Ok(Value { name, ..x.clone() });
        }
        let constants: Vec<String> = ["gamma", "beta", "moving_mean", "moving_variance"]
            .iter()
            .zip(&parts)
            .map(|(part, values)| self.builder.f32(&format!("{name}/{part}"), &[c], values))
            .collect();
        let mut inputs = vec![x.name.as_str()];
        inputs.extend(constants.iter().map(String::as_str));
        let name = self.builder.node(
            "BatchNormalization",
            &inputs,
            &out,
            vec![float_attribute("epsilon", epsilon)],
        );
        Ok(Value { name, ..x.clone() })
    }
}
