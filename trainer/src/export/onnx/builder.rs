//! A thin layer over the protobuf messages: nodes, constants, and the file around them.

use std::collections::BTreeSet;

use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};
use protobuf::{Enum, EnumOrUnknown, MessageField};
use verifier::compare::hex;

use super::{IMAGE, OPSETS};
use crate::{
    architecture::{Activation, Shape},
    export::{ExportError, Origin},
    quantize::table::{SELU_ALPHA, SELU_GAMMA},
};

/// Version of the file format that goes with operator sets 13 to 18.
const IR_VERSION: i64 = 8;

/// An f32 value of the graph: `[N, C, H, W]`, or `[N, C]` if flat.
#[derive(Clone, Debug)]
pub struct Value {
    pub name: String,
    /// Of one sample, NHWC letters.
    pub shape: Shape,
    pub flat: bool,
}

/// A graph under construction.
#[derive(Debug, Default)]
pub struct Builder {
    graph: GraphProto,
    constants: BTreeSet<String>,
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: EnumOrUnknown::new(AttributeType::INT),
        i: value,
        ..Default::default()
    }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: EnumOrUnknown::new(AttributeType::FLOAT),
        f: value,
        ..Default::default()
    }
}

/// An attribute with a list of integers.
pub fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: EnumOrUnknown::new(AttributeType::INTS),
        ints: values.iter().map(|&v| v as i64).collect(),
        ..Default::default()
    }
}

/// The attributes of a window: kernel, strides and pads `[top, left, bottom, right]`.
pub fn window(
    size: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    input: Shape,
    output: [usize; 2],
) -> Vec<AttributeProto> {
    let after = |axis: usize, n: usize| {
        ((output[axis] - 1) * stride[axis] + size[axis]).saturating_sub(n + pad[axis])
    };
    let pads = [pad[0], pad[1], after(0, input.h), after(1, input.w)];
    vec![
        ints("kernel_shape", &size),
        ints("strides", &stride),
        ints("pads", &pads),
    ]
}

impl Builder {
    /// Adds a node named after its output and returns that name.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.graph.node.push(NodeProto {
            name: output.into(),
            op_type: op.into(),
            input: inputs.iter().map(|&name| name.into()).collect(),
            output: vec![output.into()],
            attribute: attributes,
            ..Default::default()
        });
        output.into()
    }

    fn constant(&mut self, name: &str, shape: &[usize], kind: DataType, raw: Vec<u8>) -> String {
        if self.constants.insert(name.into()) {
            self.graph.initializer.push(TensorProto {
                name: name.into(),
                dims: shape.iter().map(|&n| n as i64).collect(),
                data_type: kind.value(),
                raw_data: raw,
                ..Default::default()
            });
        }
        name.into()
    }

    /// A constant of floats; rank 0 if `shape` is empty. A constant of this name is written once.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, DataType::FLOAT, raw)
    }

    /// A constant of int8 values.
    pub fn i8(&mut self, name: &str, shape: &[usize], values: &[i8]) -> String {
        let raw = values.iter().map(|&v| v as u8).collect();
        self.constant(name, shape, DataType::INT8, raw)
    }

    /// A constant of int32 values.
    pub fn i32(&mut self, name: &str, shape: &[usize], values: &[i32]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, DataType::INT32, raw)
    }

    /// A constant of int64 values.
    pub fn i64(&mut self, name: &str, shape: &[usize], values: &[i64]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, DataType::INT64, raw)
    }

    /// The image as f32 pixels.
    pub fn image(&mut self, shape: Shape) -> Value {
        let name = self.node(
            "Cast",
            &[IMAGE],
            "input/f32",
            vec![int("to", DataType::FLOAT.value().into())],
        );
        Value {
            name,
            shape,
            flat: false,
        }
    }

    /// Applies an activation function; softmax and linear change nothing.
    pub fn activation(&mut self, activation: Activation, input: &str, output: &str) -> String {
        match activation {
            Activation::Linear | Activation::Softmax => input.into(),
            Activation::Relu => self.node("Relu", &[input], output, vec![]),
            Activation::Sigmoid => self.node("Sigmoid", &[input], output, vec![]),
            Activation::Tanh => self.node("Tanh", &[input], output, vec![]),
            Activation::Elu => self.node("Elu", &[input], output, vec![float("alpha", 1.0)]),
            Activation::Selu => {
                let constants = vec![float("alpha", SELU_ALPHA), float("gamma", SELU_GAMMA)];
                self.node("Selu", &[input], output, constants)
            }
        }
    }

    /// `[N, C, H, W]` to `[N, C * H * W]`; `name` is the layer that needs it.
    pub fn flat(&mut self, value: &Value, name: &str) -> String {
        if value.flat {
            return value.name.clone();
        }
        self.node(
            "Flatten",
            &[&value.name],
            &format!("{name}/flat"),
            vec![int("axis", 1)],
        )
    }

    /// `[N, C]` to `[N, C, 1, 1]`.
    pub fn map(&mut self, value: &Value, name: &str) -> String {
        if !value.flat {
            return value.name.clone();
        }
        let shape = self.i64("shape/map", &[4], &[0, -1, 1, 1]);
        self.node(
            "Reshape",
            &[&value.name, &shape],
            &format!("{name}/map"),
            vec![],
        )
    }

    /// Makes `value` the output `name`, `[N, classes]` in NHWC order of the classes.
    pub fn output(&mut self, value: &Value, name: &str) {
        let classes = value.shape.len();
        if value.flat {
            self.node("Identity", &[&value.name], name, vec![]);
        } else if value.shape.h * value.shape.w == 1 {
            self.node("Flatten", &[&value.name], name, vec![int("axis", 1)]);
        } else {
            let nhwc = vec![ints("perm", &[0, 2, 3, 1])];
            let transposed = self.node("Transpose", &[&value.name], &format!("{name}/nhwc"), nhwc);
            self.node("Flatten", &[&transposed], name, vec![int("axis", 1)]);
        }
        self.declare_output(name, classes);
    }

    /// Declares an output `[N, classes]`.
    pub fn declare_output(&mut self, name: &str, classes: usize) {
        self.graph
            .output
            .push(value_info(name, DataType::FLOAT, &[classes]));
    }

    /// The finished file.
    pub fn finish(
        mut self,
        input: Shape,
        opset: u32,
        origin: &Origin<'_>,
        metadata: Vec<(&str, String)>,
    ) -> Result<Vec<u8>, ExportError> {
        if !OPSETS.contains(&opset) {
            return Err(ExportError::Opset { got: opset });
        }
        self.graph.name = origin.name.into();
        self.graph.input.push(value_info(
            IMAGE,
            DataType::UINT8,
            &[input.c, input.h, input.w],
        ));
        let hash = hex(&origin.recipe_sha256);
        let names = serde_json::Value::from(origin.class_names).to_string();
        let common = [
            ("isobit.recipe_sha256", hash),
            ("isobit.class_names", names),
        ];
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto {
                version: opset.into(),
                ..Default::default()
            }],
            producer_name: "isobit".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: MessageField::some(self.graph),
            metadata_props: common
                .into_iter()
                .chain(metadata)
                .map(|(key, value)| StringStringEntryProto {
                    key: key.into(),
                    value,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        Ok(model.write_to_bytes()?)
    }
}

/// A graph input or output with the symbolic batch dimension `N`.
fn value_info(name: &str, kind: DataType, extents: &[usize]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension};
    let dimension = |value| Dimension {
        value: Some(value),
        ..Default::default()
    };
    let batch = dimension(dimension::Value::DimParam("N".into()));
    let fixed = extents
        .iter()
        .map(|&n| dimension(dimension::Value::DimValue(n as i64)));
    let tensor = type_proto::Tensor {
        elem_type: kind.value(),
        shape: MessageField::some(TensorShapeProto {
            dim: std::iter::once(batch).chain(fixed).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    ValueInfoProto {
        name: name.into(),
        type_: MessageField::some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
