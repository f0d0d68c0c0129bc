//! Host side: the description of a fixed-point model and its encoding as `model.fxp`.
//!
//! A tensor is `h x w x c` (NHWC order, one sample). Its real value is `q * 2^exponent`; the exponents
//! live with the exporter, the file only needs the shifts between them.

use std::{boxed::Box, string::String, vec, vec::Vec};

use crate::error::{ModelError, RunError};
use crate::format::{
    AFFINE_LEN, HEADER_LEN, MAGIC, RECORD_LEN, VERSION, header, kind, layout, record,
};
use crate::model::Model;
pub use crate::op::AffineParam;
pub use crate::plan::{Plan, plan};
pub use crate::shape::{DType, OutputActivation, Shape};
use crate::validate::checksum;

/// A tensor: shape and stored type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Shape of one sample.
    pub shape: Shape,
    /// Stored type.
    pub dtype: DType,
}

/// Index into [`ModelSpec::tensors`]; tensor 0 is the input image (U8).
pub type TensorId = usize;

/// From i32 accumulators to the output tensor. If the output is I32 the accumulators are stored as they are
/// and `shift` and `table` are empty. Otherwise, per output channel (or one shift for all):
/// `q = saturate(round_half_even(acc * 2^-shift))` to the output dtype, or to I8 and then through `table`.
/// Saturation to U8 is relu. A shift may be negative (left shift, saturating), range -24..=31.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Post {
    /// One shift, or one per output channel; none for I32.
    pub shift: Vec<i8>,
    /// Indexed by the byte of the I8 result.
    pub table: Option<Box<[u8; 256]>>,
}

/// Fused max pooling over the i32 accumulators of a convolution (before requantization); no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Rows and columns of the window.
    pub size: [u8; 2],
    /// Step in rows and columns.
    pub stride: [u8; 2],
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpSpec {
    /// `y = saturate(round_half_even((x * mul + add) * 2^-shift))`; |x * mul + add| < 2^24.
    Affine {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// `c` parameters (per channel) or `h * w * c` (per value).
        params: Vec<AffineParam>,
    },
    /// Cross-correlation.
    Conv {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Rows and columns.
        kernel: [u8; 2],
        /// Step in rows and columns.
        stride: [u8; 2],
        /// Zero padding `[top, left]`.
        pad: [u8; 2],
        /// Rows and columns of the map before pooling (bottom and right padding follow from it).
        conv: [u16; 2],
        /// Divides the input and the output channels.
        groups: u16,
        /// OHWI `[co][kh][kw][ci / groups]`, |w| <= 127.
        weight: Vec<i8>,
        /// Per output channel.
        bias: Vec<i32>,
        /// Fused max pooling.
        pool: Option<PoolSpec>,
        /// Requantization.
        post: Post,
    },
    /// `acc[o] = sum_i x[i] * weight[o][i] + bias[o]`, x the whole input tensor in its order.
    Dense {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// `[co][inputs]`, |w| <= 127.
        weight: Vec<i8>,
        /// Per output.
        bias: Vec<i32>,
        /// Requantization.
        post: Post,
    },
    /// Standalone maximum (same dtype in and out); padding is ignored.
    MaxPool {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Rows and columns of the window.
        size: [u8; 2],
        /// Step in rows and columns.
        stride: [u8; 2],
        /// Padding `[top, left]`, less than `size`.
        pad: [u8; 2],
    },
    /// `acc = multiplier * sum(window)`, no padding; windows up to the whole map (global average pooling).
    AvgPool {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Rows and columns of the window.
        size: [u16; 2],
        /// Step in rows and columns.
        stride: [u16; 2],
        /// Constant factor.
        multiplier: i8,
        /// Requantization.
        post: Post,
    },
    /// `acc = (a << shift_a) + (b << shift_b)`.
    Add {
        /// First summand.
        a: TensorId,
        /// Second summand, of the same shape.
        b: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Left shift of `a`.
        shift_a: u8,
        /// Left shift of `b`.
        shift_b: u8,
        /// Requantization.
        post: Post,
    },
    /// `y = table[x as u8]`, same shape.
    Table {
        /// Tensor read.
        input: TensorId,
        /// Tensor written.
        output: TensorId,
        /// Indexed by the stored byte.
        table: Box<[u8; 256]>,
    },
}

/// A whole model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Shown by firmware at start.
    pub name: String,
    /// sha256 of the recipe.
    pub recipe_hash: [u8; 32],
    /// Tensor 0 is the image.
    pub tensors: Vec<TensorSpec>,
    /// In order; the last one writes the logits (I32, `1 x 1 x classes`).
    pub ops: Vec<OpSpec>,
    /// Logit `i` is `acc * 2^logit_exponents[i]`.
    pub logit_exponents: Vec<i8>,
    /// From logits to probabilities.
    pub output: OutputActivation,
    /// One raw image for the device's self-test; the encoder runs the portable kernels on it and stores the CRC-32 of its
    /// logits (i32, little-endian).
    pub golden_image: Option<Vec<u8>>,
}

/// Why a description cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// There is no tensor 0, or it is not U8.
    NoInput,
    /// An operator reads a tensor that nothing has written.
    Undefined {
        /// Operator index.
        op: usize,
        /// The tensor.
        tensor: TensorId,
    },
    /// An operator writes a tensor that does not exist, that is the image, or that was written before.
    Redefined {
        /// Operator index.
        op: usize,
        /// The tensor.
        tensor: TensorId,
    },
    /// A list of an operator has the wrong length.
    Count {
        /// Operator index.
        op: usize,
        /// Which list.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// A number is too large for its field of the file.
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        got: usize,
    },
    /// A list that belongs to the whole model has the wrong length.
    Length {
        /// Which list.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// The file would be refused by [`Model::new`].
    Refused(ModelError),
    /// The golden image could not be run.
    Golden(RunError),
}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoInput => f.write_str("tensor 0 must be the u8 input image"),
            Self::Undefined { op, tensor } => {
                write!(
                    f,
                    "operator {op}: reads tensor {tensor}, which nothing has written"
                )
            }
            Self::Redefined { op, tensor } => write!(
                f,
                "operator {op}: writes tensor {tensor}, which does not exist or was written before"
            ),
            Self::Count {
                op,
                what,
                expected,
                got,
            } => write!(f, "operator {op}: {what}: expected {expected}, got {got}"),
            Self::TooLarge { what, got } => write!(f, "{what} too large for the file: {got}"),
            Self::Length {
                what,
                expected,
                got,
            } => write!(f, "{what}: expected {expected}, got {got}"),
            Self::Refused(error) => write!(f, "the model is not valid: {error}"),
            Self::Golden(error) => write!(f, "golden image: {error}"),
        }
    }
}

impl core::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Golden(error) => Some(error),
            _ => None,
        }
    }
}

/// Plans the arena and writes the file. Every file it returns is accepted by [`Model::new`].
///
/// Depthwise weights (one output channel per input channel) are stored `[kh][kw][co]`, others `[co][kh][kw][ci / groups]`.
///
/// # Errors
/// [`EncodeError`] names the operator and what is wrong.
pub fn encode(spec: &ModelSpec) -> Result<Vec<u8>, EncodeError> {
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
        record.fill(op, spec, &mut file)?;
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

fn shape_bytes(shape: Shape) -> [u8; 6] {
    let [h0, h1] = shape.h.to_le_bytes();
    let [w0, w1] = shape.w.to_le_bytes();
    let [c0, c1] = shape.c.to_le_bytes();
    [h0, h1, w0, w1, c0, c1]
}

fn signed(values: &[i8]) -> Vec<u8> {
    values.iter().map(|&v| v as u8).collect()
}

/// A record under construction.
struct Record {
    op: usize,
    bytes: [u8; RECORD_LEN],
}

impl Record {
    /// The fields that every operator has.
    fn new(op: usize, spec: &OpSpec, model: &ModelSpec, plan: &Plan) -> Result<Self, EncodeError> {
        let input = spec.inputs()[0].unwrap_or(0);
        let output = spec.output();
        let mut record = Self {
            op,
            bytes: [0; RECORD_LEN],
        };
        let types = model.tensors[input].dtype.code() | model.tensors[output].dtype.code() << 4;
        record.put(record::DTYPES, &[types]);
        for (at, tensor) in [
            (record::INPUT_OFFSET, Some(input)),
            (record::OUTPUT_OFFSET, Some(output)),
            (record::SECOND_OFFSET, spec.inputs()[1]),
        ] {
            if let Some(tensor) = tensor {
                let offset = to_u32("arena offset", plan.offsets[tensor])?;
                record.put(at, &offset.to_le_bytes());
            }
        }
        record.put(record::INPUT, &shape_bytes(model.tensors[input].shape));
        record.put(record::OUTPUT, &shape_bytes(model.tensors[output].shape));
        Ok(record)
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        put(&mut self.bytes, at, value);
    }

    fn flag(&mut self, flag: u8) {
        self.bytes[record::FLAGS] |= flag;
    }

    fn count(&self, what: &'static str, expected: usize, got: usize) -> Result<(), EncodeError> {
        if expected == got {
            return Ok(());
        }
        Err(EncodeError::Count {
            op: self.op,
            what,
            expected,
            got,
        })
    }

    fn section(&mut self, at: usize, file: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
        let offset = append(file, bytes)?;
        self.put(at, &offset.to_le_bytes());
        Ok(())
    }

    fn window(&mut self, size: [u16; 2], stride: [u16; 2], pad: [u8; 2]) {
        for axis in 0..2 {
            self.put(record::WINDOW + 2 * axis, &size[axis].to_le_bytes());
            self.put(record::STRIDE + 2 * axis, &stride[axis].to_le_bytes());
        }
        self.put(record::PAD, &pad);
    }

    fn post(
        &mut self,
        post: &Post,
        output: TensorSpec,
        file: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if output.dtype == DType::I32 {
            self.count("shifts of raw accumulators", 0, post.shift.len())?;
            return self.count(
                "tables of raw accumulators",
                0,
                usize::from(post.table.is_some()),
            );
        }
        let channels = usize::from(output.shape.c);
        if post.shift.len() != 1 {
            self.count("shifts", channels, post.shift.len())?;
            self.flag(record::PER_CHANNEL);
        }
        self.section(record::SHIFT, file, &signed(&post.shift))?;
        if let Some(table) = &post.table {
            self.flag(record::HAS_TABLE);
            self.section(record::TABLE, file, &table[..])?;
        }
        Ok(())
    }

    fn weights(
        &mut self,
        file: &mut Vec<u8>,
        weights: &[u8],
        bias: &[i32],
    ) -> Result<(), EncodeError> {
        self.section(record::WEIGHT, file, weights)?;
        let bias: Vec<u8> = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
        self.section(record::BIAS, file, &bias)
    }

    /// The fields of the operator's kind; its sections are appended to the file.
    fn fill(
        &mut self,
        op: &OpSpec,
        model: &ModelSpec,
        file: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let input = model.tensors[op.inputs()[0].unwrap_or(0)];
        let output = model.tensors[op.output()];
        let channels = usize::from(output.shape.c);
        let code = match op {
            OpSpec::Affine { params, .. } => {
                if params.len() == usize::from(input.shape.c) {
                    self.flag(record::PER_CHANNEL);
                } else {
                    self.count("affine parameters", input.shape.len(), params.len())?;
                }
                let mut bytes = Vec::with_capacity(params.len() * AFFINE_LEN);
                for param in params {
                    bytes.extend_from_slice(&param.mul.to_le_bytes());
                    bytes.extend_from_slice(&[param.shift, 0]);
                    bytes.extend_from_slice(&param.add.to_le_bytes());
                }
                self.section(record::BIAS, file, &bytes)?;
                kind::AFFINE
            }
            OpSpec::Conv {
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
                self.window(kernel.map(u16::from), stride.map(u16::from), *pad);
                self.put(record::CONV, &conv[0].to_le_bytes());
                self.put(record::CONV + 2, &conv[1].to_le_bytes());
                self.put(record::GROUPS, &groups.to_le_bytes());
                if let Some(pool) = pool {
                    self.flag(record::HAS_POOL);
                    self.put(record::POOL, &pool.size);
                    self.put(record::POOL + 2, &pool.stride);
                }
                let area = usize::from(kernel[0]) * usize::from(kernel[1]);
                let depth = usize::from(input.shape.c / (*groups).max(1));
                self.count("weights", area * depth * channels, weight.len())?;
                self.count("biases", channels, bias.len())?;
                let mut bytes = signed(weight);
                if *groups == input.shape.c && input.shape.c == output.shape.c {
                    self.put(record::LAYOUT, &[layout::HWO]);
                    let rows = bytes.clone();
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        *byte = rows[at % channels * area + at / channels];
                    }
                }
                self.weights(file, &bytes, bias)?;
                self.post(post, output, file)?;
                kind::CONV
            }
            OpSpec::Dense {
                weight, bias, post, ..
            } => {
                self.count("weights", input.shape.len() * channels, weight.len())?;
                self.count("biases", channels, bias.len())?;
                self.weights(file, &signed(weight), bias)?;
                self.post(post, output, file)?;
                kind::DENSE
            }
            OpSpec::MaxPool {
                size, stride, pad, ..
            } => {
                self.window(size.map(u16::from), stride.map(u16::from), *pad);
                kind::MAX_POOL
            }
            OpSpec::AvgPool {
                size,
                stride,
                multiplier,
                post,
                ..
            } => {
                self.window(*size, *stride, [0, 0]);
                self.put(record::SCALAR, &[*multiplier as u8]);
                self.post(post, output, file)?;
                kind::AVG_POOL
            }
            OpSpec::Add {
                a,
                b,
                shift_a,
                shift_b,
                post,
                ..
            } => {
                let (a, b) = (model.tensors[*a], model.tensors[*b]);
                self.count("values of the second summand", a.shape.len(), b.shape.len())?;
                self.put(record::LAYOUT, &[b.dtype.code()]);
                self.put(record::SCALAR, &[*shift_a, *shift_b]);
                self.post(post, output, file)?;
                kind::ADD
            }
            OpSpec::Table { table, .. } => {
                self.section(record::TABLE, file, &table[..])?;
                kind::TABLE
            }
        };
        self.put(record::KIND, &[code]);
        Ok(())
    }
}
