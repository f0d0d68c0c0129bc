//! From the bytes of a record to an operator.

use core::num::NonZeroU16;

use super::{Add, Affine, AvgPool, Conv, Dense, Kind, Op, Post, Tensor, Window, tri};
use crate::error::OpProblem;
use crate::format::{
    AFFINE_LEN, HEADER_LEN, RECORD_LEN, TENSOR_MAX, kind, record, section, u8_at, u16_at, u32_at,
};
use crate::shape::{DType, Shape};
use crate::weight::{Facts, Layout, Weights};

/// The shape at `at` of a record.
const fn shape_at(bytes: &[u8; RECORD_LEN], at: usize) -> Shape {
    Shape {
        h: u16_at(bytes, at),
        w: u16_at(bytes, at + 2),
        c: u16_at(bytes, at + 4),
    }
}

const fn dtype(code: u8) -> Option<DType> {
    match code {
        0 => Some(DType::U8),
        1 => Some(DType::I8),
        2 => Some(DType::I32),
        _ => None,
    }
}

/// A section of `len` bytes at a multiple of 4.
const fn aligned(file: &[u8], offset: u32, len: usize) -> Result<&[u8], OpProblem> {
    match section(file, offset, len) {
        Some(bytes) if offset.is_multiple_of(4) => Ok(bytes),
        _ => Err(OpProblem::Section {
            offset,
            len: if len > u32::MAX as usize {
                u32::MAX
            } else {
                len as u32
            },
        }),
    }
}

const fn table(file: &[u8], offset: u32) -> Result<&[u8; 256], OpProblem> {
    match tri!(aligned(file, offset, 256)).first_chunk::<256>() {
        Some(table) => Ok(table),
        None => Err(OpProblem::Section { offset, len: 256 }),
    }
}

const fn weights<'a>(
    file: &'a [u8],
    r: &[u8; RECORD_LEN],
    layout: Layout,
    channels: usize,
    per_channel: usize,
) -> Result<Weights<'a>, OpProblem> {
    let len = layout.bytes(channels, per_channel);
    Ok(Weights {
        bytes: tri!(aligned(file, u32_at(r, record::WEIGHT), len)),
        layout,
        channels,
        per_channel,
    })
}

/// A number of values of a tensor, if there are some and not too many.
const fn values(shape: Shape) -> Result<usize, OpProblem> {
    let len = shape.len();
    if len == 0 || len > TENSOR_MAX {
        return Err(OpProblem::Size { got: shape });
    }
    Ok(len)
}

impl<'a> Op<'a> {
    /// Decodes record `index`. Checks what reading needs: codes, and that every section lies in the file.
    pub(crate) const fn decode(file: &'a [u8], index: u16) -> Result<Self, OpProblem> {
        let at = HEADER_LEN + index as usize * RECORD_LEN;
        let record = match section(file, at as u32, RECORD_LEN) {
            Some(record) => record.first_chunk::<RECORD_LEN>(),
            None => None,
        };
        let r = match record {
            Some(r) => r,
            None => {
                return Err(OpProblem::Section {
                    offset: at as u32,
                    len: RECORD_LEN as u32,
                });
            }
        };
        let flags = u8_at(r, record::FLAGS);
        let types = u8_at(r, record::DTYPES);
        let (input_type, output_type) = match (dtype(types & 15), dtype(types >> 4)) {
            (Some(input), Some(output)) => (input, output),
            _ => {
                return Err(OpProblem::DType {
                    got: [types & 15, types >> 4],
                });
            }
        };
        let input = Tensor {
            offset: u32_at(r, record::INPUT_OFFSET) as usize,
            shape: shape_at(r, record::INPUT),
            dtype: input_type,
        };
        let output = Tensor {
            offset: u32_at(r, record::OUTPUT_OFFSET) as usize,
            shape: shape_at(r, record::OUTPUT),
            dtype: output_type,
        };
        let inputs = tri!(values(input.shape));
        let outputs = tri!(values(output.shape));
        let code = u8_at(r, record::KIND);
        let allowed = match code {
            kind::AFFINE => record::PER_CHANNEL,
            kind::CONV => record::HAS_TABLE | record::HAS_POOL | record::PER_CHANNEL,
            kind::DENSE | kind::AVG_POOL | kind::ADD => record::HAS_TABLE | record::PER_CHANNEL,
            kind::MAX_POOL | kind::TABLE => 0,
            got => return Err(OpProblem::Kind { got }),
        };
        if flags & !allowed != 0 {
            return Err(OpProblem::Flags { got: flags });
        }
        let kind = match code {
            kind::AFFINE => {
                let per_channel = flags & record::PER_CHANNEL != 0;
                let count = if per_channel {
                    input.shape.c as usize
                } else {
                    inputs
                };
                let bytes = tri!(aligned(file, u32_at(r, record::BIAS), count * AFFINE_LEN));
                Kind::Affine(Affine {
                    params: bytes.as_chunks::<AFFINE_LEN>().0,
                    per_channel,
                })
            }
            kind::CONV => Kind::Conv(tri!(conv(file, r, flags, input, output))),
            kind::DENSE => {
                let code = u8_at(r, record::LAYOUT);
                let layout = match Layout::from_code(code) {
                    Some(layout @ (Layout::Ohwi | Layout::Ohwi2o)) => layout,
                    _ => return Err(OpProblem::Layout { got: code }),
                };
                let weights = tri!(weights(file, r, layout, outputs, inputs));
                let bias = tri!(aligned(file, u32_at(r, record::BIAS), outputs * 4));
                Kind::Dense(Dense {
                    weights,
                    bias: bias.as_chunks::<4>().0,
                    post: tri!(post(file, r, flags, output)),
                })
            }
            kind::MAX_POOL => Kind::MaxPool(tri!(window(r))),
            kind::AVG_POOL => Kind::AvgPool(AvgPool {
                window: tri!(window(r)),
                multiplier: u8_at(r, record::SCALAR) as i8,
                post: tri!(post(file, r, flags, output)),
            }),
            kind::ADD => Kind::Add(Add {
                b: Tensor {
                    offset: u32_at(r, record::SECOND_OFFSET) as usize,
                    shape: input.shape,
                    // The type of the second summand takes the layout byte: Add has no weights.
                    dtype: match dtype(u8_at(r, record::LAYOUT)) {
                        Some(dtype) => dtype,
                        None => {
                            return Err(OpProblem::DType {
                                got: [u8_at(r, record::LAYOUT), types >> 4],
                            });
                        }
                    },
                },
                shift_a: u8_at(r, record::SCALAR),
                shift_b: u8_at(r, record::SCALAR_B),
                post: tri!(post(file, r, flags, output)),
            }),
            _ => Kind::Table(tri!(table(file, u32_at(r, record::TABLE)))),
        };
        Ok(Self {
            input,
            output,
            kind,
        })
    }
}

const fn window(r: &[u8; RECORD_LEN]) -> Result<Window, OpProblem> {
    let size = [u16_at(r, record::WINDOW), u16_at(r, record::WINDOW + 2)];
    let stride = [u16_at(r, record::STRIDE), u16_at(r, record::STRIDE + 2)];
    let pad = [u8_at(r, record::PAD), u8_at(r, record::PAD + 1)];
    let mut axis = 0;
    while axis < 2 {
        let (offset, got) = if size[axis] == 0 {
            (record::WINDOW, 0)
        } else if stride[axis] == 0 {
            (record::STRIDE, 0)
        } else if pad[axis] as u16 >= size[axis] {
            (record::PAD, pad[axis] as u16)
        } else {
            axis += 1;
            continue;
        };
        return Err(OpProblem::Window {
            offset: offset as u8,
            got,
        });
    }
    Ok(Window { size, stride, pad })
}

const fn post<'a>(
    file: &'a [u8],
    r: &[u8; RECORD_LEN],
    flags: u8,
    output: Tensor,
) -> Result<Post<'a>, OpProblem> {
    let has_table = flags & record::HAS_TABLE != 0;
    let per_channel = flags & record::PER_CHANNEL != 0;
    if let DType::I32 = output.dtype {
        if has_table || per_channel {
            return Err(OpProblem::Flags { got: flags });
        }
        return Ok(Post {
            shifts: &[],
            table: None,
        });
    }
    let count = if per_channel {
        output.shape.c as usize
    } else {
        1
    };
    Ok(Post {
        shifts: tri!(aligned(file, u32_at(r, record::SHIFT), count)),
        table: if has_table {
            Some(tri!(table(file, u32_at(r, record::TABLE))))
        } else {
            None
        },
    })
}

const fn conv<'a>(
    file: &'a [u8],
    r: &[u8; RECORD_LEN],
    flags: u8,
    input: Tensor,
    output: Tensor,
) -> Result<Conv<'a>, OpProblem> {
    let window = tri!(window(r));
    let (ci, co) = (input.shape.c, output.shape.c);
    let got = u16_at(r, record::GROUPS);
    let groups = match NonZeroU16::new(got) {
        Some(groups) if ci.is_multiple_of(groups.get()) && co.is_multiple_of(groups.get()) => {
            groups
        }
        _ => return Err(OpProblem::Groups { got }),
    };
    let pool = if flags & record::HAS_POOL != 0 {
        let mut side = 0;
        while side < 4 {
            if u8_at(r, record::POOL + side) == 0 {
                return Err(OpProblem::Window {
                    offset: (record::POOL + side) as u8,
                    got: 0,
                });
            }
            side += 1;
        }
        Some(Window {
            size: [
                u8_at(r, record::POOL) as u16,
                u8_at(r, record::POOL + 1) as u16,
            ],
            stride: [
                u8_at(r, record::POOL + 2) as u16,
                u8_at(r, record::POOL + 3) as u16,
            ],
            pad: [0, 0],
        })
    } else {
        None
    };
    let code = u8_at(r, record::LAYOUT);
    let layout = match Layout::from_code(code) {
        Some(Layout::Ohwi) => Layout::Ohwi,
        Some(Layout::Hwo) if groups.get() == ci && ci == co => Layout::Hwo,
        Some(Layout::Ohwi2o) if groups.get() == 1 => Layout::Ohwi2o,
        _ => return Err(OpProblem::Layout { got: code }),
    };
    let per_channel = (window.size[0] as usize)
        .saturating_mul(window.size[1] as usize)
        .saturating_mul((ci / groups.get()) as usize);
    let weights = tri!(weights(file, r, layout, co as usize, per_channel));
    let bias = tri!(aligned(file, u32_at(r, record::BIAS), co as usize * 4));
    let facts = match (layout, u32_at(r, record::FACTS)) {
        (Layout::Ohwi2o, offset) if offset != 0 => Some(Facts {
            bytes: tri!(aligned(
                file,
                offset,
                Facts::bytes(co as usize, per_channel)
            )),
            channels: co as usize,
        }),
        _ => None,
    };
    Ok(Conv {
        window,
        map: [u16_at(r, record::CONV), u16_at(r, record::CONV + 2)],
        pool,
        groups,
        weights,
        facts,
        bias: bias.as_chunks::<4>().0,
        post: tri!(post(file, r, flags, output)),
    })
}
