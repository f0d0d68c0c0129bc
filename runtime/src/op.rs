//! Operators as views over the bytes of a file.

use core::num::NonZeroU16;

use crate::error::OpProblem;
use crate::format::{
    AFFINE_LEN, RECORD_LEN, TENSOR_MAX, kind, layout, record, section, u8_at, u16_at, u32_at,
};
use crate::shape::{DType, Shape};

/// A tensor in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tensor {
    /// Byte offset in the arena, a multiple of 4.
    pub offset: usize,
    /// Shape of one sample.
    pub shape: Shape,
    /// Stored type.
    pub dtype: DType,
}

impl Tensor {
    /// Bytes in the arena.
    pub const fn bytes(self) -> usize {
        self.shape.len().saturating_mul(self.dtype.size())
    }

    /// The bytes that it takes in the arena.
    pub const fn range(self) -> core::ops::Range<usize> {
        self.offset..self.offset.saturating_add(self.bytes())
    }
}

/// A window that moves over rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window {
    /// Rows and columns of the window; never 0.
    pub size: [u16; 2],
    /// Step in rows and columns; never 0.
    pub stride: [u16; 2],
    /// Rows above and columns left of the map that the first window begins with; less than `size`.
    pub pad: [u8; 2],
}

/// From accumulators to the output tensor: shift with round half to even, saturation, and optionally a table.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// One shift for all channels, or one per channel (each an `i8`); empty if the output is I32.
    pub shifts: &'a [u8],
    /// Applied to the I8 result of the requantization, indexed by its byte.
    pub table: Option<&'a [u8; 256]>,
}

impl Post<'_> {
    /// The shift of an output channel.
    #[inline(always)]
    pub fn shift(&self, channel: usize) -> i8 {
        let shift = match self.shifts {
            [one] => Some(one),
            all => all.get(channel),
        };
        shift.map_or(0, |&s| s as i8)
    }
}

/// An affine operator, `y = saturate(round_half_even((x * mul + add) * 2^-shift))`.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Parameters of 8 bytes, as in the file.
    pub(crate) params: &'a [[u8; AFFINE_LEN]],
    /// True: a parameter per channel; false: per value.
    pub per_channel: bool,
}

/// One parameter of an affine operator; `|x * mul + add| < 2^24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineParam {
    /// Factor.
    pub mul: i16,
    /// Summand.
    pub add: i32,
    /// Right shift, 0..=31.
    pub shift: u8,
}

impl AffineParam {
    pub(crate) const fn from_bytes(bytes: &[u8; AFFINE_LEN]) -> Self {
        let [m0, m1, shift, _, a0, a1, a2, a3] = *bytes;
        Self {
            mul: i16::from_le_bytes([m0, m1]),
            add: i32::from_le_bytes([a0, a1, a2, a3]),
            shift,
        }
    }
}

impl Affine<'_> {
    /// The parameters in order: `c` of them (per channel) or `h * w * c` (per value).
    pub fn params(&self) -> impl ExactSizeIterator<Item = AffineParam> {
        self.params.iter().map(AffineParam::from_bytes)
    }
}

/// The order of a convolution's weights in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Layout {
    /// `[co][kh][kw][ci / groups]`.
    Ohwi,
    /// `[kh][kw][co]`: depthwise with one output channel per input channel.
    Hwo,
}

/// A convolution (cross-correlation), optionally with a max pooling over its accumulators.
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    /// Kernel size, stride and zero padding (top and left; bottom and right follow from `map`).
    pub window: Window,
    /// Rows and columns of the map before pooling.
    pub map: [u16; 2],
    /// Max pooling over the accumulators, without padding.
    pub pool: Option<Window>,
    /// Groups; divides the input and the output channels.
    pub groups: NonZeroU16,
    /// Order of `weights`.
    pub layout: Layout,
    /// Bytes of the weights (each an `i8`), in the order of `layout`; [`Conv::weight`] reads any layout.
    pub weights: &'a [u8],
    /// i32, little-endian, per output channel.
    pub(crate) bias: &'a [[u8; 4]],
    /// Requantization.
    pub post: Post<'a>,
    /// Weights per output channel.
    pub(crate) per_channel: usize,
}

impl Conv<'_> {
    /// The biases, one per output channel, in accumulator units.
    pub fn biases(&self) -> impl ExactSizeIterator<Item = i32> {
        self.bias.iter().map(|b| i32::from_le_bytes(*b))
    }

    /// Weights per output channel: `kh * kw * ci / groups`.
    pub const fn weights_per_channel(&self) -> usize {
        self.per_channel
    }

    /// Weight `index` of output channel `channel`, where `index` counts `[kh][kw][ci / groups]`.
    /// `None` outside of the weights.
    pub fn weight(&self, channel: usize, index: usize) -> Option<i8> {
        if index >= self.per_channel || channel >= self.bias.len() {
            return None;
        }
        let at = match self.layout {
            Layout::Ohwi => channel * self.per_channel + index,
            Layout::Hwo => index * self.bias.len() + channel,
        };
        self.weights.get(at).map(|&w| w as i8)
    }
}

/// `acc[o] = sum_i x[i] * weight[o][i] + bias[o]`.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a> {
    /// Bytes of the weights (each an `i8`), `[co][inputs]`.
    pub weights: &'a [u8],
    /// i32, little-endian, per output.
    pub(crate) bias: &'a [[u8; 4]],
    /// Requantization.
    pub post: Post<'a>,
}

impl Dense<'_> {
    /// The biases, one per output, in accumulator units.
    pub fn biases(&self) -> impl ExactSizeIterator<Item = i32> {
        self.bias.iter().map(|b| i32::from_le_bytes(*b))
    }
}

/// `acc = multiplier * sum(window)`, without padding.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool<'a> {
    /// Size and stride.
    pub window: Window,
    /// The constant factor.
    pub multiplier: i8,
    /// Requantization.
    pub post: Post<'a>,
}

/// `acc = (a << shift_a) + (b << shift_b)`; `a` is [`Op::input`].
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    /// The second summand.
    pub b: Tensor,
    /// Left shift of `a`.
    pub shift_a: u8,
    /// Left shift of `b`.
    pub shift_b: u8,
    /// Requantization.
    pub post: Post<'a>,
}

/// What an operator computes.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// Integer affine map per channel or per value.
    Affine(Affine<'a>),
    /// Convolution with bias, optional max pooling, requantization.
    Conv(Conv<'a>),
    /// Fully connected.
    Dense(Dense<'a>),
    /// Maximum over a window; padding is ignored.
    MaxPool(Window),
    /// Sum over a window times a constant.
    AvgPool(AvgPool<'a>),
    /// Sum of two tensors.
    Add(Add<'a>),
    /// `y = table[x as u8]`.
    Table(&'a [u8; 256]),
}

impl Kind<'_> {
    /// A short name for logs: `conv`, `dense`, ...
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Affine(_) => "affine",
            Self::Conv(_) => "conv",
            Self::Dense(_) => "dense",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::Add(_) => "add",
            Self::Table(_) => "table",
        }
    }
}

/// One operator of a model.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// Its (first) input.
    pub input: Tensor,
    /// Its output.
    pub output: Tensor,
    /// What it computes.
    pub kind: Kind<'a>,
}

/// The shape at `at` of a record.
const fn shape_at(bytes: &[u8], at: usize) -> Shape {
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

/// `?` for const functions.
macro_rules! tri {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}
pub(crate) use tri;

const fn table(file: &[u8], offset: u32) -> Result<&[u8; 256], OpProblem> {
    match tri!(aligned(file, offset, 256)).first_chunk::<256>() {
        Some(table) => Ok(table),
        None => Err(OpProblem::Section { offset, len: 256 }),
    }
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
        let at = crate::format::HEADER_LEN + index as usize * RECORD_LEN;
        let r = match section(file, at as u32, RECORD_LEN) {
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
                let weights = tri!(aligned(
                    file,
                    u32_at(r, record::WEIGHT),
                    inputs.saturating_mul(outputs),
                ));
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

    /// Multiply-accumulates of one run, as they are usually counted: every kernel position of every map value
    /// before pooling, padding included. 0 for operators without weights.
    pub fn macs(&self) -> u64 {
        match &self.kind {
            Kind::Conv(conv) => {
                let [h, w] = conv.map;
                u64::from(h) * u64::from(w) * conv.weights.len() as u64
            }
            Kind::Dense(dense) => dense.weights.len() as u64,
            _ => 0,
        }
    }
}

const fn window(r: &[u8]) -> Result<Window, OpProblem> {
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
    r: &[u8],
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
    r: &[u8],
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
    let layout = match code {
        layout::OHWI => Layout::Ohwi,
        layout::HWO if groups.get() == ci && ci == co => Layout::Hwo,
        got => return Err(OpProblem::Layout { got }),
    };
    let per_channel = (window.size[0] as usize)
        .saturating_mul(window.size[1] as usize)
        .saturating_mul((ci / groups.get()) as usize);
    let weights = tri!(aligned(
        file,
        u32_at(r, record::WEIGHT),
        per_channel.saturating_mul(co as usize),
    ));
    let bias = tri!(aligned(file, u32_at(r, record::BIAS), co as usize * 4));
    Ok(Conv {
        window,
        map: [u16_at(r, record::CONV), u16_at(r, record::CONV + 2)],
        pool,
        groups,
        layout,
        weights,
        bias: bias.as_chunks::<4>().0,
        post: tri!(post(file, r, flags, output)),
        per_channel,
    })
}
