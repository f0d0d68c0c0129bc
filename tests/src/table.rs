//! Activation tables, proved: all 256 inputs through tract.

use onnx_protobuf::{
    GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};

use protobuf::MessageField;

use crate::{
    lower::Step,
    tract::{Mode, Tract, TractError},
};

/// What a table must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// ONNX operator: `Sigmoid`, `Tanh`, `Elu`, `Selu`, `Relu`.
    pub function: String,
    /// Entry `q as u8` for the stored value `q`.
    pub table: [u8; 256],
    /// Quantization of its index.
    pub before: Step,
    /// Quantization of its entries.
    pub after: Step,
}

/// Why tract could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("table of {function}: {reason}")]
pub struct TableError {
    function: String,
    #[source]
    reason: TractError,
}

/// Compares a table with tract's QuantizeLinear(function(x)) for every stored value, optimized and not.
/// `None`: equal; else the first entry that differs, for a message.
///
/// # Errors
/// tract refuses the function.
pub fn prove(question: &Question) -> Result<Option<String>, TableError> {
    let onnx = model(question);
    // Pixel p stands for the int8 value p - 128, as the model stores it.
    let pixels: Vec<u8> = (0..=255).collect();
    for mode in [Mode::Plain, Mode::Optimized] {
        let values = Tract::load(&onnx, [1, 1, 256], &[], 1, mode)
            .and_then(|t| t.run(&[&pixels]))
            .map_err(|reason| TableError {
                function: question.function.clone(),
                reason,
            })?;
        for (p, &value) in values[0].data.iter().enumerate() {
            let stored = |onnx: i32, step: Step| (onnx - step.zero_point) as u8;
            let index = stored(p as i32 - 128, question.before);
            let expected = stored(value as i32, question.after);
            let got = question.table[usize::from(index)];
            if got != expected {
                return Ok(Some(format!(
                    "table of {}: entry {index} is {got} in model.fxp, tract ({mode:?}) gives {expected}",
                    question.function
                )));
            }
        }
    }
    Ok(None)
}

/// `q = QuantizeLinear(function(DequantizeLinear(cast(image) - 128)))` over a row of 256 pixels.
fn model(question: &Question) -> Vec<u8> {
    let mut initializer = vec![
        float("offset", -128.0 - question.before.zero_point as f32),
        float("before", f64::from(question.before.exponent).exp2() as f32),
        float("after", f64::from(question.after.exponent).exp2() as f32),
    ];
    initializer.push(TensorProto {
        name: "zero".into(),
        data_type: 3,
        raw_data: vec![question.after.zero_point as i8 as u8],
        ..Default::default()
    });
    let mut cast = node("Cast", &["image"], "pixel");
    cast.attribute.push(onnx_protobuf::AttributeProto {
        name: "to".into(),
        i: 1,
        type_: onnx_protobuf::attribute_proto::AttributeType::INT.into(),
        ..Default::default()
    });
    let graph = GraphProto {
        name: "table".into(),
        node: vec![
            cast,
            node("Add", &["pixel", "offset"], "steps"),
            node("Mul", &["steps", "before"], "x"),
            node(&question.function, &["x"], "y"),
            node("QuantizeLinear", &["y", "after", "zero"], "q"),
        ],
        initializer,
        input: vec![value("image", 2)],
        output: vec![value("q", 3)],
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..Default::default()
        }],
        graph: MessageField::some(graph),
        ..Default::default()
    };
    model.write_to_bytes().unwrap_or_default()
}

fn float(name: &str, value: f32) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: 1,
        raw_data: value.to_le_bytes().to_vec(),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: output.into(),
        input: inputs.iter().map(|i| i.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn value(name: &str, element: i32) -> ValueInfoProto {
    let dim = [1, 1, 1, 256].map(|n| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(n)),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: element,
        shape: MessageField::some(TensorShapeProto {
            dim: dim.into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sigmoid() -> Question {
        let table = std::array::from_fn(|i| {
            let x = f64::from(i as u8 as i8) / 16.0;
            (256.0 / (1.0 + (-x).exp())).round_ties_even().min(255.0) as u8
        });
        Question {
            function: "Sigmoid".into(),
            table,
            before: Step {
                exponent: -4,
                zero_point: 0,
            },
            after: Step {
                exponent: -8,
                zero_point: -128,
            },
        }
    }

    #[test]
    fn a_right_table_is_proved_and_one_wrong_entry_is_named() {
        let mut question = sigmoid();
        assert_eq!(prove(&question).unwrap(), None);
        question.table[200] = question.table[200].wrapping_add(1);
        let message = prove(&question).unwrap().unwrap();
        assert!(message.contains("entry 200"), "{message}");
    }

    #[test]
    fn unsigned_indices_have_their_zero_point() {
        let question = Question {
            function: "Relu".into(),
            table: std::array::from_fn(|i| (i as u8).div_ceil(2).min(127) & 0x7f),
            before: Step {
                exponent: 0,
                zero_point: -128,
            },
            after: Step {
                exponent: 1,
                zero_point: 0,
            },
        };
        // 1 / 2 is a tie: half to even gives 0, the table above says 1.
        assert!(prove(&question).unwrap().unwrap().contains("entry 1 is 1"));
    }
}
