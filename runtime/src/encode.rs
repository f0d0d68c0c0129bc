//! Host side: the description of a fixed-point model and its encoding as `model.fxp`.
//!
//! A tensor is `h x w x c` (NHWC order, one sample). Its real value is `q * 2^exponent`; the exponents
//! live with the exporter, the file only needs the shifts between them.

mod cost;
mod error;
mod read;
mod record;
mod spec;

use std::{vec, vec::Vec};

use crate::format::{HEADER_LEN, MAGIC, RECORD_LEN, VERSION, header};
use crate::model::Model;
pub use crate::op::AffineParam;
pub use crate::plan::{Plan, plan};
pub use crate::shape::{DType, OutputActivation, Shape};
use crate::validate::checksum;
use crate::weight::Layout;
pub use crate::weight::winograd::{WinogradMisfit, fits as winograd_fits};
pub use cost::{Cost, saves, winograd};
pub use error::EncodeError;
use record::{Record, shape_bytes};
pub use spec::{ModelSpec, OpSpec, PoolSpec, Post, TensorId, TensorSpec};

/// How the encoder orders the weights of layers that more than one [`Layout`] fits. The results are the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightOrder {
    /// [`Layout::Hwo`] for depthwise layers (one output channel per input channel), [`Layout::Ohwi2o`] for dense layers
    /// and convolutions without groups, [`Layout::Ohwi`] for the rest: what the kernels of every target read best.
    #[default]
    Blocked,
    /// [`Layout::Ohwi`] for every layer.
    Plain,
    /// [`Layout::Winograd`] for convolutions that [`winograd`] accepts, the rest as [`WeightOrder::Blocked`]: 3.6 times the
    /// bytes for less than half of the multiplications.
    Winograd,
}

impl WeightOrder {
    /// The layout of a layer that reads a tensor of this shape.
    fn layout(self, op: &OpSpec, input: Shape, co: u16) -> Layout {
        let (groups, ci) = match op {
            OpSpec::Conv { groups, .. } => (*groups, input.c),
            _ => (1, 0),
        };
        match self {
            Self::Plain => Layout::Ohwi,
            Self::Winograd if winograd(op, input).is_ok() => Layout::Winograd,
            _ if groups == ci && ci == co => Layout::Hwo,
            _ if groups == 1 && co > 1 => Layout::Ohwi2o,
            _ => Layout::Ohwi,
        }
    }
}

/// Plans the arena and writes the file, weights in the order of [`WeightOrder::Blocked`]. Every file it returns is accepted
/// by [`Model::new`].
///
/// # Errors
/// [`EncodeError`] names the operator and what is wrong.
pub fn encode(spec: &ModelSpec) -> Result<Vec<u8>, EncodeError> {
    encode_in(spec, WeightOrder::default())
}

/// Like [`encode`], with the weights in another order.
///
/// # Errors
/// As [`encode`].
pub fn encode_in(spec: &ModelSpec, order: WeightOrder) -> Result<Vec<u8>, EncodeError> {
    encode_by(spec, |_| order)
}

/// Like [`encode`], with the weights of each operator in the order that `order` gives for its index.
///
/// # Errors
/// As [`encode`].
pub fn encode_by(
    spec: &ModelSpec,
    order: impl Fn(usize) -> WeightOrder,
) -> Result<Vec<u8>, EncodeError> {
    let input = match spec.tensors.first() {
        Some(tensor) if tensor.dtype == DType::U8 => tensor.shape,
        _ => return Err(EncodeError::NoInput),
    };
    let plan = plan(spec)?;
    let ops = to_u16("number of operators", spec.ops.len())?;
    let classes = to_u16("number of classes", spec.logit_exponents.len())?;
    if let Some(last) = spec.ops.last() {
        let outputs = spec.tensors[last.output()].shape.len();
        length("logit exponents", outputs, usize::from(classes))?;
    }
    let mut file = vec![0; HEADER_LEN + spec.ops.len() * RECORD_LEN];
    for (index, op) in spec.ops.iter().enumerate() {
        let mut record = Record::new(index, op, spec, &plan)?;
        record.fill(op, spec, order(index), &mut file)?;
        let at = HEADER_LEN + index * RECORD_LEN;
        file[at..at + RECORD_LEN].copy_from_slice(&record.bytes);
    }
    let exponents: Vec<u8> = spec.logit_exponents.iter().map(|&e| e as u8).collect();
    let exponents = append(&mut file, &exponents)?;
    let name = append(&mut file, spec.name.as_bytes())?;
    let golden = match &spec.golden_image {
        Some(image) => {
            length("golden image", input.len(), image.len())?;
            Some(append(&mut file, image)?)
        }
        None => None,
    };

    put(&mut file, 0, &MAGIC);
    put(&mut file, header::VERSION, &VERSION.to_le_bytes());
    put(
        &mut file,
        header::HEADER_LEN,
        &(HEADER_LEN as u16).to_le_bytes(),
    );
    let len = to_u32("file length", file.len())?;
    put(&mut file, header::FILE_LEN, &len.to_le_bytes());
    put(&mut file, header::INPUT, &shape_bytes(input));
    put(&mut file, header::CLASSES, &classes.to_le_bytes());
    let arena = to_u32("arena length", plan.len)?;
    put(&mut file, header::ARENA_LEN, &arena.to_le_bytes());
    let at = to_u32("arena offset", plan.offsets[0])?;
    put(&mut file, header::INPUT_OFFSET, &at.to_le_bytes());
    put(&mut file, header::OPS, &ops.to_le_bytes());
    let activation = match spec.output {
        OutputActivation::Softmax => 0,
        OutputActivation::Sigmoid => 1,
        OutputActivation::Linear => 2,
    };
    put(&mut file, header::ACTIVATION, &[activation]);
    put(&mut file, header::EXPONENTS, &exponents.to_le_bytes());
    put(&mut file, header::NAME, &name.to_le_bytes());
    let name_len = to_u16("name length", spec.name.len())?;
    put(&mut file, header::NAME_LEN, &name_len.to_le_bytes());
    put(&mut file, header::RECIPE, &spec.recipe_hash);
    if let Some(image) = golden {
        put(&mut file, header::FLAGS, &[header::HAS_GOLDEN]);
        put(&mut file, header::GOLDEN, &image.to_le_bytes());
    }
    seal(&mut file);
    if let Some(image) = &spec.golden_image {
        let model = Model::new(&file).map_err(EncodeError::Refused)?;
        let mut arena = vec![0; model.arena_len()];
        let logits = model.run(image, &mut arena).map_err(EncodeError::Golden)?;
        let crc = logits.crc();
        put(&mut file, header::GOLDEN_CRC, &crc.to_le_bytes());
        seal(&mut file);
    }
    match Model::new(&file) {
        Ok(_) => Ok(file),
        Err(error) => Err(EncodeError::Refused(error)),
    }
}

/// Writes the CRC-32 of `file` into its header: after a change of the bytes on purpose.
/// A file shorter than a header is left alone.
pub fn seal(file: &mut [u8]) {
    if file.len() >= HEADER_LEN {
        let crc = checksum(file);
        put(file, header::CRC, &crc.to_le_bytes());
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Appends a section, padded to a multiple of 4; its offset.
fn append(file: &mut Vec<u8>, bytes: &[u8]) -> Result<u32, EncodeError> {
    let at = to_u32("file length", file.len())?;
    file.extend_from_slice(bytes);
    file.resize(file.len().next_multiple_of(4), 0);
    Ok(at)
}

fn to_u16(what: &'static str, got: usize) -> Result<u16, EncodeError> {
    u16::try_from(got).map_err(|_| EncodeError::TooLarge { what, got })
}

fn to_u32(what: &'static str, got: usize) -> Result<u32, EncodeError> {
    u32::try_from(got).map_err(|_| EncodeError::TooLarge { what, got })
}

fn length(what: &'static str, expected: usize, got: usize) -> Result<(), EncodeError> {
    if expected == got {
        return Ok(());
    }
    Err(EncodeError::Length {
        what,
        expected,
        got,
    })
}
