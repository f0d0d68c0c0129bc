//! `model.fxp`: the integer operators in the file format of the runtime.

use runtime::encode::{self, ModelSpec, TensorSpec};

use super::{ExportError, Origin, winograd};
use crate::{architecture, quantize::Quantized, recipe::Winograd};

pub(super) fn shape(shape: architecture::Shape) -> encode::Shape {
    let extent = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    encode::Shape {
        h: extent(shape.h),
        w: extent(shape.w),
        c: extent(shape.c),
    }
}

/// The description that the runtime's encoder takes. `golden_image` is one raw image for the device's self-test.
pub fn model_spec(
    quantized: &Quantized,
    origin: &Origin<'_>,
    golden_image: Option<Vec<u8>>,
) -> Result<ModelSpec, ExportError> {
    let exponent = |&got: &i32| {
        i8::try_from(got).map_err(|_| ExportError::Exponent {
            layer: "logits".into(),
            got,
        })
    };
    Ok(ModelSpec {
        name: origin.name.to_owned(),
        recipe_hash: origin.recipe_sha256,
        tensors: quantized
            .tensors
            .iter()
            .map(|tensor| TensorSpec {
                shape: shape(tensor.shape),
                dtype: tensor.dtype,
            })
            .collect(),
        ops: quantized
            .operators
            .iter()
            .map(|operator| operator.spec.clone())
            .collect(),
        logit_exponents: quantized
            .logit_exponents
            .iter()
            .map(exponent)
            .collect::<Result<_, _>>()?,
        output: match quantized.output {
            architecture::OutputActivation::Softmax => encode::OutputActivation::Softmax,
            architecture::OutputActivation::Sigmoid => encode::OutputActivation::Sigmoid,
            architecture::OutputActivation::Linear => encode::OutputActivation::Linear,
        },
        golden_image,
    })
}

/// The bytes of `model.fxp`. `winograd`: the convolutions whose weights are stored transformed.
pub fn model(
    quantized: &Quantized,
    origin: &Origin<'_>,
    golden_image: Option<Vec<u8>>,
    winograd: &Winograd,
) -> Result<Vec<u8>, ExportError> {
    let spec = model_spec(quantized, origin, golden_image)?;
    let orders = winograd::orders(quantized, winograd)?;
    let order = |op: usize| orders.get(op).copied().unwrap_or_default();
    encode::encode_by(&spec, order).map_err(|error| ExportError::Encode(error.to_string()))
}
