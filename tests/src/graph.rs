//! An ONNX file as plain owned values: what the reference, the certificate and the comparison read.

use std::collections::BTreeMap;

use onnx_protobuf::{
    AttributeProto, Message, ModelProto, TensorProto, TensorShapeProto, tensor_shape_proto,
    type_proto,
};
use serde::Deserialize;

/// Element types that the exporter uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `FLOAT`.
    F32,
    /// `UINT8`.
    U8,
    /// `INT8`.
    I8,
    /// `INT32`.
    I32,
    /// `INT64`.
    I64,
}

impl Element {
    fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            6 => Self::I32,
            7 => Self::I64,
            _ => return None,
        })
    }

    /// Smallest and largest value of an integer type; infinite for f32.
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::F32 => (f64::NEG_INFINITY, f64::INFINITY),
            Self::U8 => (0.0, 255.0),
            Self::I8 => (-128.0, 127.0),
            Self::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Self::I64 => (i64::MIN as f64, i64::MAX as f64),
        }
    }
}

/// A dense row-major tensor. Every type but i64 beyond 2^53 is exact in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions, slowest first; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f64>,
    /// Type of the stored values.
    pub element: Element,
}

/// A node's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// `FLOAT`.
    Float(f32),
    /// `INT`.
    Int(i64),
    /// `INTS`.
    Ints(Vec<i64>),
    /// `STRING`.
    Text(String),
    /// `TENSOR`.
    Tensor(Tensor),
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Node name; the first output's name where the file has none.
    pub name: String,
    /// ONNX operator.
    pub op: String,
    /// Value names; an omitted optional input is empty.
    pub inputs: Vec<String>,
    /// Value names.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

impl Node {
    /// An integer attribute or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }

    /// A float attribute or its default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => *value,
            _ => default,
        }
    }

    /// A list attribute.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// A string attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(value)) => Some(value),
            _ => None,
        }
    }
}

/// Power-of-two exponent of a value: one, or one per class (logits).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub enum Exponent {
    /// Per tensor.
    One(i32),
    /// Per class.
    PerClass(Vec<i32>),
}

impl TryFrom<serde_json::Value> for Exponent {
    type Error = serde_json::Error;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        if value.is_array() {
            serde_json::from_value(value).map(Self::PerClass)
        } else {
            serde_json::from_value(value).map(Self::One)
        }
    }
}

impl Exponent {
    /// The exponent of channel or class `c`.
    pub fn at(&self, c: usize) -> Option<i32> {
        match self {
            Self::One(e) => Some(*e),
            Self::PerClass(list) => list.get(c).copied(),
        }
    }
}

/// One entry of the metadata `isobit.ops`: an ONNX value that equals a tensor of model.fxp times `2^exponent`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OpRecord {
    /// Position of the operator in model.fxp.
    pub op: usize,
    /// Layer of the recipe.
    pub layer: String,
    /// Name of the f32 value in the ONNX graph.
    pub value: String,
    /// Real value of one step.
    pub exponent: Exponent,
    /// `u8`, `i8` or `i32`.
    pub dtype: String,
}

/// A parsed ONNX model with one image input.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Version of the default operator set.
    pub opset: i64,
    /// Name of the image input, u8 `[N, C, H, W]`.
    pub input: String,
    /// `[C, H, W]`.
    pub image: [usize; 3],
    /// Output names.
    pub outputs: Vec<String>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Initializers by name.
    pub constants: BTreeMap<String, Tensor>,
    /// `metadata_props`.
    pub metadata: BTreeMap<String, String>,
}

/// Why a file is not a model that can be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Not an ONNX protobuf.
    #[error("not an ONNX file: {0}")]
    Protobuf(String),
    /// The graph input is not one image.
    #[error("graph inputs: expected one u8 image [N, C, H, W], got {0}")]
    Input(String),
    /// A tensor with an element type outside [`Element`], or with the wrong number of values.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Initializer or attribute.
        name: String,
        /// Found and expected.
        reason: String,
    },
    /// An attribute of a kind that no supported operator has.
    #[error("node `{node}`: attribute `{attribute}` has an unsupported type")]
    Attribute {
        /// Node name.
        node: String,
        /// Attribute name.
        attribute: String,
    },
    /// The metadata of the exporter is missing or malformed.
    #[error("metadata `{key}`: {reason}")]
    Metadata {
        /// Key of `metadata_props`.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Graph {
    /// Parses an ONNX file.
    ///
    /// # Errors
    /// Not an ONNX protobuf, or one that uses types outside of what the exporter writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, GraphError> {
        let model =
            ModelProto::parse_from_bytes(bytes).map_err(|e| GraphError::Protobuf(e.to_string()))?;
        let proto = model
            .graph
            .as_ref()
            .ok_or_else(|| GraphError::Protobuf("no graph inside".into()))?;
        let opset = model
            .opset_import
            .iter()
            .find(|o| o.domain.is_empty())
            .map_or(0, |o| o.version);
        let constants = proto
            .initializer
            .iter()
            .map(|t| Ok((t.name.clone(), tensor(t)?)))
            .collect::<Result<BTreeMap<_, _>, GraphError>>()?;
        let mut inputs = proto
            .input
            .iter()
            .filter(|i| !constants.contains_key(&i.name));
        let (Some(input), None) = (inputs.next(), inputs.next()) else {
            let names: Vec<_> = proto.input.iter().map(|i| i.name.as_str()).collect();
            return Err(GraphError::Input(format!("{names:?}")));
        };
        let image = image_shape(input.type_.as_ref().and_then(|t| t.value.as_ref()))?;
        let nodes = proto
            .node
            .iter()
            .map(|n| {
                let name = if n.name.is_empty() {
                    n.output.first().cloned().unwrap_or_default()
                } else {
                    n.name.clone()
                };
                let attributes = n
                    .attribute
                    .iter()
                    .map(|a| Ok((a.name.clone(), attribute(&name, a)?)))
                    .collect::<Result<_, GraphError>>()?;
                Ok(Node {
                    name,
                    op: n.op_type.clone(),
                    inputs: n.input.clone(),
                    outputs: n.output.clone(),
                    attributes,
                })
            })
            .collect::<Result<Vec<_>, GraphError>>()?;
        Ok(Self {
            opset,
            input: input.name.clone(),
            image,
            outputs: proto.output.iter().map(|o| o.name.clone()).collect(),
            nodes,
            constants,
            metadata: model
                .metadata_props
                .iter()
                .map(|p| (p.key.clone(), p.value.clone()))
                .collect(),
        })
    }

    /// The metadata `isobit.ops`: which ONNX value equals the output of which operator of model.fxp.
    ///
    /// # Errors
    /// Missing or not the JSON list that the exporter writes.
    pub fn ops(&self) -> Result<Vec<OpRecord>, GraphError> {
        const KEY: &str = "isobit.ops";
        let text = self.metadata.get(KEY).ok_or_else(|| GraphError::Metadata {
            key: KEY,
            reason: "missing; expected an int8 model of this exporter".into(),
        })?;
        serde_json::from_str(text).map_err(|e| GraphError::Metadata {
            key: KEY,
            reason: e.to_string(),
        })
    }

    /// The node that computes `value`.
    pub fn producer(&self, value: &str) -> Option<&Node> {
        self.nodes
            .iter()
            .find(|n| n.outputs.iter().any(|o| o == value))
    }
}

fn image_shape(value: Option<&type_proto::Value>) -> Result<[usize; 3], GraphError> {
    let Some(type_proto::Value::TensorType(t)) = value else {
        return Err(GraphError::Input("a value that is no tensor".into()));
    };
    let dims = t
        .shape
        .as_ref()
        .map_or(&[][..], |s: &TensorShapeProto| &s.dim);
    let sizes: Vec<Option<usize>> = dims
        .iter()
        .map(|d| match d.value {
            Some(tensor_shape_proto::dimension::Value::DimValue(n)) => usize::try_from(n).ok(),
            _ => None,
        })
        .collect();
    match (Element::from_code(t.elem_type), sizes.as_slice()) {
        (Some(Element::U8), [_, Some(c), Some(h), Some(w)]) => Ok([*c, *h, *w]),
        _ => Err(GraphError::Input(format!(
            "element type {} with dimensions {sizes:?}",
            t.elem_type
        ))),
    }
}

fn tensor(proto: &TensorProto) -> Result<Tensor, GraphError> {
    let fail = |reason: String| GraphError::Tensor {
        name: proto.name.clone(),
        reason,
    };
    let element = Element::from_code(proto.data_type)
        .ok_or_else(|| fail(format!("unsupported element type {}", proto.data_type)))?;
    let shape = proto
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| fail(format!("negative dimension {d}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let raw = &proto.raw_data;
    let data: Vec<f64> = if raw.is_empty() {
        match element {
            Element::F32 => proto.float_data.iter().map(|&v| f64::from(v)).collect(),
            Element::I64 => proto.int64_data.iter().map(|&v| v as f64).collect(),
            _ => proto.int32_data.iter().map(|&v| f64::from(v)).collect(),
        }
    } else {
        match element {
            Element::F32 => words(raw)
                .map(|b| f64::from(f32::from_le_bytes(b)))
                .collect(),
            Element::U8 => raw.iter().map(|&b| f64::from(b)).collect(),
            Element::I8 => raw.iter().map(|&b| f64::from(b as i8)).collect(),
            Element::I32 => words(raw)
                .map(|b| f64::from(i32::from_le_bytes(b)))
                .collect(),
            Element::I64 => words(raw).map(|b| i64::from_le_bytes(b) as f64).collect(),
        }
    };
    let expected: usize = shape.iter().product();
    if data.len() != expected {
        return Err(fail(format!(
            "{} values for dimensions {shape:?}, expected {expected}",
            data.len()
        )));
    }
    Ok(Tensor {
        shape,
        data,
        element,
    })
}

fn words<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> {
    raw.as_chunks::<N>().0.iter().copied()
}

fn attribute(node: &str, proto: &AttributeProto) -> Result<Attribute, GraphError> {
    // AttributeProto.AttributeType: FLOAT 1, INT 2, STRING 3, TENSOR 4, INTS 7.
    Ok(match proto.type_.value() {
        1 => Attribute::Float(proto.f),
        2 => Attribute::Int(proto.i),
        3 => Attribute::Text(String::from_utf8_lossy(&proto.s).into_owned()),
        4 => Attribute::Tensor(tensor(proto.t.get_or_default())?),
        7 => Attribute::Ints(proto.ints.clone()),
        _ => {
            return Err(GraphError::Attribute {
                node: node.into(),
                attribute: proto.name.clone(),
            });
        }
    })
}
