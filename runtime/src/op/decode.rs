//! From the bytes of a record to an operator.

use core::num::NonZeroU16;

use super::{Add, Affine, AvgPool, Conv, Kind, Op, Post, Tensor, Window};
use crate::error::OpProblem;
use crate::format::{
    AFFINE_LEN, HEADER_LEN, RECORD_LEN, TENSOR_MAX, kind, record, section, u8_at, u16_at, u32_at,
};
use crate::shape::{DType, Shape};
use crate::weight::{Facts, Layout, Weights, winograd};

/// A record that is being decoded. The first problem is kept; what could not be read is replaced by something harmless, so
/// that every field needs one look at the problems, at the end.
struct Record<'a> {
    file: &'a [u8],
    bytes: &'a [u8; RECORD_LEN],
    flags: u8,
    problem: Option<OpProblem>,
}

impl<'a> Op<'a> {
    /// Decodes record `index`. Checks what reading needs: codes, and that every section lies in the file.
    pub(crate) const fn decode(file: &'a [u8], index: u16) -> Result<Self, OpProblem> {
        let at = HEADER_LEN + index as usize * RECORD_LEN;
        let Some(bytes) = section(file, at as u32, RECORD_LEN) else {
            return Err(missing(at as u32, RECORD_LEN));
        };
        let Some(bytes) = bytes.first_chunk::<RECORD_LEN>() else {
            return Err(missing(at as u32, RECORD_LEN));
        };
        let mut record = Record {
            file,
            bytes,
            flags: u8_at(bytes, record::FLAGS),
            problem: None,
        };
        let op = record.op();
        match record.problem {
            None => Ok(op),
            Some(problem) => Err(problem),
        }
    }
}

/// At most `usize::MAX`.
#[inline(never)] // It is called from many places.
const fn times(a: usize, b: usize) -> usize {
    a.saturating_mul(b)
}

const fn missing(offset: u32, len: usize) -> OpProblem {
    OpProblem::Section {
        offset,
        len: if len > u32::MAX as usize {
            u32::MAX
        } else {
            len as u32
        },
    }
}

impl<'a> Record<'a> {
    const fn op(&mut self) -> Op<'a> {
        let types = self.u8(record::DTYPES);
        let types = [types & 15, types >> 4];
        let input = self.tensor(record::INPUT_OFFSET, record::INPUT, types[0], types);
        let output = self.tensor(record::OUTPUT_OFFSET, record::OUTPUT, types[1], types);
        Op {
            input,
            output,
            kind: self.kind(&input, &output),
        }
    }

    #[inline(never)]
    const fn kind(&mut self, input: &Tensor, output: &Tensor) -> Kind<'a> {
        const POST: u8 = record::HAS_TABLE | record::PER_CHANNEL;
        let code = self.u8(record::KIND);
        let allowed = match code {
            kind::AFFINE => record::PER_CHANNEL,
            kind::CONV => POST | record::HAS_POOL,
            kind::DENSE | kind::AVG_POOL | kind::ADD => POST,
            _ => 0,
        };
        if self.flags & !allowed != 0 {
            self.fail(OpProblem::Flags { got: self.flags });
        }
        match code {
            kind::AFFINE => {
                let per_channel = self.has(record::PER_CHANNEL);
                let count = if per_channel {
                    input.shape.c as usize
                } else {
                    input.shape.len()
                };
                let params = self.section(record::BIAS, times(count, AFFINE_LEN));
                Kind::Affine(Affine {
                    params: params.as_chunks().0,
                    per_channel,
                })
            }
            kind::CONV => Kind::Conv(self.conv(false, input, output)),
            kind::DENSE => Kind::Dense(self.conv(true, input, output)),
            kind::MAX_POOL => Kind::MaxPool(self.window()),
            kind::AVG_POOL => Kind::AvgPool(AvgPool {
                window: self.window(),
                multiplier: self.u8(record::SCALAR) as i8,
                post: self.post(output),
            }),
            kind::ADD => Kind::Add(Add {
                // The type of the second summand takes the layout byte: Add has no weights.
                b: Tensor {
                    offset: self.u32(record::SECOND_OFFSET) as usize,
                    shape: input.shape,
                    dtype: self.dtype(
                        self.u8(record::LAYOUT),
                        [self.u8(record::LAYOUT), self.u8(record::DTYPES) >> 4],
                    ),
                },
                shift_a: self.u8(record::SCALAR),
                shift_b: self.u8(record::SCALAR_B),
                post: self.post(output),
            }),
            kind::TABLE if let Some(table) = self.table() => Kind::Table(table),
            got => {
                self.fail(OpProblem::Kind { got });
                Kind::MaxPool(Window::ALONE)
            }
        }
    }

    #[inline(never)]
    const fn tensor(&mut self, offset: usize, shape: usize, code: u8, codes: [u8; 2]) -> Tensor {
        let shape = Shape {
            h: self.u16(shape),
            w: self.u16(shape + 2),
            c: self.u16(shape + 4),
        };
        let dtype = self.dtype(code, codes);
        let len = shape.len();
        if len == 0 || len > TENSOR_MAX {
            self.fail(OpProblem::Size { got: shape });
        }
        Tensor {
            offset: self.u32(offset) as usize,
            shape,
            dtype,
        }
    }

    const fn fail(&mut self, problem: OpProblem) {
        if self.problem.is_none() {
            self.problem = Some(problem);
        }
    }

    const fn u8(&self, at: usize) -> u8 {
        u8_at(self.bytes, at)
    }

    const fn u16(&self, at: usize) -> u16 {
        u16_at(self.bytes, at)
    }

    const fn u32(&self, at: usize) -> u32 {
        u32_at(self.bytes, at)
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    const fn dtype(&mut self, code: u8, got: [u8; 2]) -> DType {
        match code {
            0 => DType::U8,
            1 => DType::I8,
            2 => DType::I32,
            _ => {
                self.fail(OpProblem::DType { got });
                DType::U8
            }
        }
    }

    /// The section whose offset is a field of the record: `len` bytes at a multiple of 4.
    #[inline(never)]
    const fn section(&mut self, field: usize, len: usize) -> &'a [u8] {
        let offset = self.u32(field);
        match section(self.file, offset, len) {
            Some(bytes) if offset.is_multiple_of(4) => bytes,
            _ => {
                self.fail(missing(offset, len));
                &[]
            }
        }
    }

    /// There if nothing failed.
    const fn table(&mut self) -> Option<&'a [u8; 256]> {
        self.section(record::TABLE, 256).first_chunk()
    }

    /// The order of the weights; which of the special ones the operator may have.
    const fn layout(&mut self, blocks: bool, columns: bool, tiles: bool) -> Layout {
        let got = self.u8(record::LAYOUT);
        match Layout::from_code(got) {
            Some(Layout::Hwo) if columns => Layout::Hwo,
            Some(Layout::Ohwi2o) if blocks => Layout::Ohwi2o,
            Some(Layout::Winograd) if tiles => Layout::Winograd,
            Some(Layout::Ohwi) => Layout::Ohwi,
            _ => {
                self.fail(OpProblem::Layout { got });
                Layout::Ohwi
            }
        }
    }

    const fn weights(
        &mut self,
        layout: Layout,
        channels: usize,
        per_channel: usize,
    ) -> Weights<'a> {
        Weights {
            bytes: self.section(record::WEIGHT, layout.bytes(channels, per_channel)),
            layout,
            channels,
            per_channel,
        }
    }

    #[inline(never)]
    const fn window(&mut self) -> Window {
        let mut window = Window {
            size: [0; 2],
            stride: [0; 2],
            pad: [0; 2],
        };
        let mut axis = 0;
        while axis < 2 {
            let size = self.u16(record::WINDOW + 2 * axis);
            let stride = self.u16(record::STRIDE + 2 * axis);
            let pad = self.u8(record::PAD + axis);
            let (field, got) = if size == 0 {
                (record::WINDOW, 0)
            } else if stride == 0 {
                (record::STRIDE, 0)
            } else {
                (record::PAD, pad as u16)
            };
            if stride == 0 || pad as u16 >= size {
                self.fail(OpProblem::Window {
                    offset: field as u8,
                    got,
                });
            }
            window.size[axis] = size;
            window.stride[axis] = stride;
            window.pad[axis] = pad;
            axis += 1;
        }
        window
    }

    /// The fused pool, if there is one.
    #[inline(never)]
    const fn pool(&mut self) -> Option<Window> {
        if !self.has(record::HAS_POOL) {
            return None;
        }
        let mut sides = [0; 4];
        let mut side = 0;
        while side < 4 {
            sides[side] = self.u8(record::POOL + side) as u16;
            if sides[side] == 0 {
                self.fail(OpProblem::Window {
                    offset: (record::POOL + side) as u8,
                    got: 0,
                });
            }
            side += 1;
        }
        let [rows, columns, down, right] = sides;
        Some(Window {
            size: [rows, columns],
            stride: [down, right],
            pad: [0, 0],
        })
    }

    #[inline(never)]
    const fn post(&mut self, output: &Tensor) -> Post<'a> {
        let mut post = Post {
            shifts: &[],
            table: None,
        };
        let (has_table, per_channel) = (self.has(record::HAS_TABLE), self.has(record::PER_CHANNEL));
        if let DType::I32 = output.dtype {
            if has_table || per_channel {
                self.fail(OpProblem::Flags { got: self.flags });
            }
            return post;
        }
        let count = if per_channel {
            output.shape.c as usize
        } else {
            1
        };
        post.shifts = self.section(record::SHIFT, count);
        if has_table {
            post.table = self.table();
        }
        post
    }

    /// A convolution, or a dense layer, which has no fields of its own for what follows from its input's shape.
    #[inline(never)]
    const fn conv(&mut self, dense: bool, input: &Tensor, output: &Tensor) -> Conv<'a> {
        let (ci, co) = (input.shape.c, output.shape.c);
        let (window, map, pool, got) = if dense {
            let window = Window {
                size: [input.shape.h, input.shape.w],
                ..Window::ALONE
            };
            (window, [1; 2], None, 1)
        } else {
            (
                self.window(),
                [self.u16(record::CONV), self.u16(record::CONV + 2)],
                self.pool(),
                self.u16(record::GROUPS),
            )
        };
        let groups = match NonZeroU16::new(got) {
            Some(groups) if ci.is_multiple_of(got) && co.is_multiple_of(got) => groups,
            _ => {
                self.fail(OpProblem::Groups { got });
                NonZeroU16::MIN
            }
        };
        let tiles = winograd::ENABLED && !dense && winograd::fits(window, got, ci, pool).is_ok();
        let layout = self.layout(got == 1, !dense && got == ci && ci == co, tiles);
        let channels = co as usize;
        let [rows, columns] = window.size;
        let per_channel = times(
            rows as usize * columns as usize,
            (ci / groups.get()) as usize,
        );
        Conv {
            window,
            map,
            pool,
            groups,
            weights: self.weights(layout, channels, per_channel),
            facts: match layout {
                Layout::Ohwi2o if self.u32(record::FACTS) != 0 => Some(Facts {
                    bytes: self.section(record::FACTS, Facts::bytes(channels, per_channel)),
                    channels,
                }),
                _ => None,
            },
            bias: self.section(record::BIAS, channels * 4).as_chunks().0,
            post: self.post(output),
        }
    }
}
