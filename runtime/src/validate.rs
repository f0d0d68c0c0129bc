//! The complete check of a file, once, also at compile time. What it accepts runs without an error other than a
//! buffer of the wrong size, without a panic, and without an overflow.

mod bound;
mod tensor;
mod transform;

use crate::crc::Crc;
use crate::error::{ModelError, OpProblem};
use crate::format::{
    ARENA_MAX, HEADER_LEN, MAGIC, OPS_MAX, RECORD_LEN, VERSION, bytes, header, kind, record,
    section, u8_at, u16_at, u32_at,
};
use crate::op::{Kind, Op, Tensor, tri};
use crate::shape::{DType, OutputActivation, Shape};
use crate::weight::Layout;
use bound::{check_affine, check_bound, check_facts, check_post, check_weights, magnitude};
use tensor::{check_arena, check_overlap, check_pool, check_reach, check_shape, check_source};

/// A decoded header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) input: Tensor,
    pub(crate) classes: u16,
    pub(crate) arena_len: usize,
    pub(crate) ops: u16,
    pub(crate) activation: OutputActivation,
    pub(crate) exponents: u32,
    pub(crate) name: u32,
    pub(crate) name_len: u16,
    /// Offset of the image and CRC of its logits.
    pub(crate) golden: Option<(u32, u32)>,
}

const fn malformed<T>(offset: usize, got: u32) -> Result<T, ModelError> {
    Err(ModelError::Header {
        offset: offset as u16,
        got,
    })
}

const fn saturated(len: usize) -> u32 {
    if len > u32::MAX as usize {
        u32::MAX
    } else {
        len as u32
    }
}

/// Checks the whole file.
pub(crate) const fn validate(file: &[u8]) -> Result<Header, ModelError> {
    let header = tri!(check_header(file));
    let mut index = 0;
    while index < header.ops {
        if let Err(problem) = check_op(file, &header, index) {
            return Err(ModelError::Op { op: index, problem });
        }
        index += 1;
    }
    Ok(header)
}

const fn check_header(file: &[u8]) -> Result<Header, ModelError> {
    if file.len() < HEADER_LEN {
        return Err(ModelError::Truncated {
            needed: HEADER_LEN as u32,
            got: file.len() as u32,
        });
    }
    let magic = bytes::<4>(file, 0);
    if u32::from_le_bytes(magic) != u32::from_le_bytes(MAGIC) {
        return Err(ModelError::Magic { got: magic });
    }
    let version = u16_at(file, header::VERSION);
    if version != VERSION {
        return Err(ModelError::Version {
            supported: VERSION,
            got: version,
        });
    }
    let stated = u32_at(file, header::FILE_LEN);
    if stated as usize != file.len() || !stated.is_multiple_of(4) {
        return Err(ModelError::Length {
            stated,
            got: saturated(file.len()),
        });
    }
    let stated = u32_at(file, header::CRC);
    let computed = checksum(file);
    if stated != computed {
        return Err(ModelError::Checksum { stated, computed });
    }
    let header_len = u16_at(file, header::HEADER_LEN);
    if header_len as usize != HEADER_LEN {
        return malformed(header::HEADER_LEN, header_len as u32);
    }
    let shape = Shape {
        h: u16_at(file, header::INPUT),
        w: u16_at(file, header::INPUT + 2),
        c: u16_at(file, header::INPUT + 4),
    };
    if shape.is_empty() || shape.len() > crate::format::TENSOR_MAX {
        return malformed(header::INPUT, saturated(shape.len()));
    }
    let arena_len = u32_at(file, header::ARENA_LEN);
    if arena_len > ARENA_MAX {
        return malformed(header::ARENA_LEN, arena_len);
    }
    let input = Tensor {
        offset: u32_at(file, header::INPUT_OFFSET) as usize,
        shape,
        dtype: DType::U8,
    };
    if check_arena(input, arena_len as usize).is_err() {
        return malformed(header::INPUT_OFFSET, input.offset as u32);
    }
    let ops = u16_at(file, header::OPS);
    if ops == 0
        || ops > OPS_MAX
        || section(file, HEADER_LEN as u32, ops as usize * RECORD_LEN).is_none()
    {
        return malformed(header::OPS, ops as u32);
    }
    let activation = match u8_at(file, header::ACTIVATION) {
        0 => OutputActivation::Softmax,
        1 => OutputActivation::Sigmoid,
        2 => OutputActivation::Linear,
        got => return malformed(header::ACTIVATION, got as u32),
    };
    let classes = u16_at(file, header::CLASSES);
    let exponents = u32_at(file, header::EXPONENTS);
    if classes == 0 {
        return malformed(header::CLASSES, 0);
    }
    if section(file, exponents, classes as usize).is_none() {
        return malformed(header::EXPONENTS, exponents);
    }
    let name = u32_at(file, header::NAME);
    let name_len = u16_at(file, header::NAME_LEN);
    match section(file, name, name_len as usize) {
        Some(text) if core::str::from_utf8(text).is_ok() => {}
        _ => return malformed(header::NAME, name),
    }
    if u16_at(file, header::RESERVED_A) != 0 {
        return malformed(header::RESERVED_A, u16_at(file, header::RESERVED_A) as u32);
    }
    let mut at = header::RESERVED_B;
    while at < HEADER_LEN {
        if u32_at(file, at) != 0 {
            return malformed(at, u32_at(file, at));
        }
        at += 4;
    }
    let image = u32_at(file, header::GOLDEN);
    let crc = u32_at(file, header::GOLDEN_CRC);
    let golden = match u8_at(file, header::FLAGS) {
        0 if image == 0 && crc == 0 => None,
        header::HAS_GOLDEN if section(file, image, shape.len()).is_some() => Some((image, crc)),
        header::HAS_GOLDEN | 0 => return malformed(header::GOLDEN, image),
        got => return malformed(header::FLAGS, got as u32),
    };
    Ok(Header {
        input,
        classes,
        arena_len: arena_len as usize,
        ops,
        activation,
        exponents,
        name,
        name_len,
        golden,
    })
}

/// CRC-32 of the file without the field of the CRC itself.
pub(crate) const fn checksum(file: &[u8]) -> u32 {
    match file.split_at_checked(header::CRC) {
        Some((before, rest)) => match rest.split_at_checked(4) {
            Some((_, after)) => Crc::NEW.update(before).update(after).finish(),
            None => 0,
        },
        None => 0,
    }
}

/// Fields that an operator does not use are zero, so that a file has one meaning only.
const fn check_unused(r: &[u8], code: u8, flags: u8, raw: bool) -> Result<(), OpProblem> {
    // One bit per 2 bytes of the record from `WINDOW` on that the operator may use.
    const WINDOW: u32 = 0b1111 | 1 << 8;
    let table = if flags & record::HAS_TABLE != 0 {
        0b11 << 20
    } else {
        0
    };
    let post = if raw { 0 } else { 0b11 << 18 | table };
    let used = match code {
        kind::AFFINE => 0b11 << 16,
        kind::CONV => {
            let pool = if flags & record::HAS_POOL != 0 {
                0b11 << 6
            } else {
                0
            };
            let facts = match Layout::from_code(u8_at(r, record::LAYOUT)) {
                Some(Layout::Ohwi2o) => 0b11 << 12,
                _ => 0,
            };
            WINDOW | 0b11 << 4 | pool | 1 << 9 | facts | 0b1111 << 14 | post
        }
        kind::DENSE => 0b1111 << 14 | post,
        kind::MAX_POOL => WINDOW,
        kind::AVG_POOL => WINDOW | 1 << 10 | post,
        kind::ADD => 1 << 10 | 0b11 << 12 | post,
        _ => 0b11 << 20,
    };
    let mut half = 0;
    while half < (RECORD_LEN - record::WINDOW) / 2 {
        let at = record::WINDOW + 2 * half;
        if used >> half & 1 == 0 && u16_at(r, at) != 0 {
            return Err(OpProblem::Reserved { offset: at as u8 });
        }
        half += 1;
    }
    let layout = u8_at(r, record::LAYOUT);
    let named = matches!(code, kind::CONV | kind::DENSE | kind::ADD);
    if !named && layout != 0 {
        return Err(OpProblem::Layout { got: layout });
    }
    if code == kind::AVG_POOL && u8_at(r, record::SCALAR_B) != 0 {
        return Err(OpProblem::Reserved {
            offset: record::SCALAR_B as u8,
        });
    }
    Ok(())
}

const fn check_op(file: &[u8], header: &Header, index: u16) -> Result<(), OpProblem> {
    let op = tri!(Op::decode(file, index));
    let (input, output) = (op.input, op.output);
    tri!(check_arena(input, header.arena_len));
    tri!(check_arena(output, header.arena_len));
    let last = index + 1 == header.ops;
    let raw = matches!(output.dtype, DType::I32);
    let posted = matches!(
        op.kind,
        Kind::Conv(_) | Kind::Dense(_) | Kind::AvgPool(_) | Kind::Add(_)
    );
    if last != raw || (raw && !posted) || matches!(input.dtype, DType::I32) {
        return Err(OpProblem::DType {
            got: [input.dtype.code(), output.dtype.code()],
        });
    }
    if last {
        let classes = Shape {
            h: 1,
            w: 1,
            c: header.classes,
        };
        tri!(check_shape(classes, output.shape));
    }
    if let Some(r) = section(
        file,
        (HEADER_LEN + index as usize * RECORD_LEN) as u32,
        RECORD_LEN,
    ) {
        tri!(check_unused(
            r,
            u8_at(r, record::KIND),
            u8_at(r, record::FLAGS),
            raw
        ));
    }
    tri!(check_source(file, header, index, input));
    let elementwise = matches!(op.kind, Kind::Affine(_) | Kind::Add(_) | Kind::Table(_));
    tri!(check_overlap(input, output, elementwise));
    let map = [input.shape.h, input.shape.w];
    let out = [output.shape.h, output.shape.w];
    let mut same_channels = output.shape;
    same_channels.c = input.shape.c;
    match &op.kind {
        Kind::Affine(affine) => {
            tri!(check_shape(input.shape, output.shape));
            check_affine(affine, input.dtype)
        }
        Kind::Conv(conv) => {
            tri!(check_reach(conv.window, map, conv.map));
            match conv.pool {
                Some(pool) => tri!(check_pool(pool, conv.map, out)),
                None => tri!(check_shape(
                    Shape {
                        h: conv.map[0],
                        w: conv.map[1],
                        c: output.shape.c,
                    },
                    output.shape
                )),
            }
            tri!(check_post(conv.post));
            tri!(check_weights(conv.weights, conv.bias, input.dtype));
            match conv.facts {
                Some(facts) => check_facts(conv.weights, facts),
                None => Ok(()),
            }
        }
        Kind::Dense(dense) => {
            let flat = Shape {
                h: 1,
                w: 1,
                c: output.shape.c,
            };
            tri!(check_shape(flat, output.shape));
            tri!(check_post(dense.post));
            check_weights(dense.weights, dense.bias, input.dtype)
        }
        Kind::MaxPool(window) => {
            tri!(check_shape(same_channels, output.shape));
            if input.dtype.code() != output.dtype.code() {
                return Err(OpProblem::DType {
                    got: [input.dtype.code(), output.dtype.code()],
                });
            }
            check_reach(*window, map, out)
        }
        Kind::AvgPool(pool) => {
            tri!(check_shape(same_channels, output.shape));
            tri!(check_pool(pool.window, map, out));
            tri!(check_post(pool.post));
            let count = pool.window.size[0] as u64 * pool.window.size[1] as u64;
            check_bound(
                0,
                count * magnitude(pool.multiplier as i32) * input.dtype.magnitude(),
            )
        }
        Kind::Add(add) => {
            tri!(check_shape(input.shape, output.shape));
            if matches!(add.b.dtype, DType::I32) {
                return Err(OpProblem::DType {
                    got: [add.b.dtype.code(), output.dtype.code()],
                });
            }
            tri!(check_arena(add.b, header.arena_len));
            tri!(check_source(file, header, index, add.b));
            tri!(check_overlap(add.b, output, true));
            tri!(check_post(add.post));
            if add.shift_a > 24 || add.shift_b > 24 {
                return Err(OpProblem::Shift {
                    channel: 0,
                    got: (if add.shift_a > 24 {
                        add.shift_a
                    } else {
                        add.shift_b
                    }) as i8,
                });
            }
            check_bound(
                0,
                (input.dtype.magnitude() << add.shift_a) + (add.b.dtype.magnitude() << add.shift_b),
            )
        }
        Kind::Table(_) => check_shape(input.shape, output.shape),
    }
}
