//! Weights transformed for Winograd's F(2x2, 3x3): four outputs from a tile of 4x4 inputs with 16 products instead of 36.
//!
//! With `G' = [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]`, twice the usual matrix, the transformed weights
//! `U = G' g G'^T` of a 3x3 kernel `g` are integers of at most `9 * 127`. They say what `g` is: `4 g` is a sum of at most four
//! of them. A kernel works with `U`, a reader that has none recovers `g`.

use super::Weights;
use crate::format::bytes;
use crate::op::Window;

/// Whether this build knows the layout.
pub(crate) const ENABLED: bool = cfg!(feature = "winograd");

/// Weights of a 3x3 kernel.
pub(crate) const TAPS: usize = 9;
/// Places of a 4x4 tile after its transform.
pub(crate) const FREQUENCIES: usize = 16;
/// Output channels of a block, and input channels that are read together.
pub(crate) const QUAD: usize = 4;
/// Bytes of one frequency of four output by four input channels.
pub(crate) const ROW: usize = QUAD * QUAD * 2;
/// Greatest number of input channels, so that a reader's buffers can have a fixed size.
pub(crate) const INPUTS_MAX: u16 = 64;

/// Why a convolution's weights cannot be stored transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WinogradMisfit {
    /// The operator is no convolution.
    #[cfg(feature = "encode")]
    Kind,
    /// The kernel is not 3x3.
    Kernel {
        /// Its rows and columns.
        got: [u16; 2],
    },
    /// The stride is not 1.
    Stride {
        /// In rows and columns.
        got: [u16; 2],
    },
    /// There is more than one group.
    Groups {
        /// Their number.
        got: u16,
    },
    /// There are too many input channels.
    Inputs {
        /// The most.
        most: u16,
        /// Their number.
        got: u16,
    },
    /// A fused pooling other than 2x2 with stride 2: a tile's four outputs would not be a pooling window.
    Pool {
        /// Rows and columns of its window.
        size: [u16; 2],
        /// Its stride.
        stride: [u16; 2],
    },
}

impl core::fmt::Display for WinogradMisfit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            #[cfg(feature = "encode")]
            Self::Kind => f.write_str("it is no convolution"),
            Self::Kernel { got: [h, w] } => write!(f, "its kernel is {h}x{w}, expected 3x3"),
            Self::Stride { got: [h, w] } => write!(f, "its stride is {h}x{w}, expected 1x1"),
            Self::Groups { got } => write!(f, "it has {got} groups, expected 1"),
            Self::Inputs { most, got } => {
                write!(f, "it has {got} input channels, expected at most {most}")
            }
            Self::Pool {
                size: [h, w],
                stride: [sh, sw],
            } => write!(
                f,
                "its fused pooling is {h}x{w} with stride {sh}x{sw}, expected 2x2 with stride 2x2"
            ),
        }
    }
}

impl core::error::Error for WinogradMisfit {}

const fn is(pair: [u16; 2], expected: u16) -> bool {
    pair[0] == expected && pair[1] == expected
}

/// Whether the weights of a convolution can be stored transformed: its window, groups and input channels, and its fused pooling.
/// Paddings play no part.
///
/// # Errors
/// Why not.
pub const fn fits(
    window: Window,
    groups: u16,
    inputs: u16,
    pool: Option<Window>,
) -> Result<(), WinogradMisfit> {
    if !is(window.size, 3) {
        return Err(WinogradMisfit::Kernel { got: window.size });
    }
    if !is(window.stride, 1) {
        return Err(WinogradMisfit::Stride { got: window.stride });
    }
    if groups != 1 {
        return Err(WinogradMisfit::Groups { got: groups });
    }
    if inputs > INPUTS_MAX {
        return Err(WinogradMisfit::Inputs {
            most: INPUTS_MAX,
            got: inputs,
        });
    }
    match pool {
        Some(Window { size, stride, .. }) if !(is(size, 2) && is(stride, 2)) => {
            Err(WinogradMisfit::Pool { size, stride })
        }
        _ => Ok(()),
    }
}

/// Bytes of a block of [`QUAD`] output channels, of `per_channel` = `9 * ci` weights each.
pub(crate) const fn block(per_channel: usize) -> usize {
    (per_channel / TAPS)
        .div_ceil(QUAD)
        .saturating_mul(FREQUENCIES * ROW)
}

/// Bytes of a layer's weights: `[co / 4][16][ci / 4][2][4][2]` of i16, the channels being `4 b + i`, the inputs `4 q + h + 2 s` for
/// indices `[b][_][q][h][i][s]`.
pub(crate) const fn len(channels: usize, per_channel: usize) -> usize {
    channels.div_ceil(QUAD).saturating_mul(block(per_channel))
}

/// Transformed kernels of four output by four input channels, `[channel][input][frequency]`.
pub(crate) type Kernels = [[[i16; FREQUENCIES]; QUAD]; QUAD];

/// Those of output channels `4 * block..` and input channels `4 * quad..`; zeros outside of the weights.
pub(crate) const fn kernels(weights: &Weights<'_>, block: usize, quad: usize) -> Kernels {
    let quads = (weights.per_channel / TAPS).div_ceil(QUAD);
    let mut kernels = [[[0; FREQUENCIES]; QUAD]; QUAD];
    let mut frequency = 0;
    while frequency < FREQUENCIES {
        let at = ((block * FREQUENCIES + frequency) * quads + quad) * ROW;
        let row = bytes::<ROW>(weights.bytes, at);
        let mut i = 0;
        while i < QUAD * QUAD {
            let (channel, input) = (i / 2 % QUAD, i / 8 + i % 2 * 2);
            kernels[channel][input][frequency] =
                (row[2 * i] as u16 | (row[2 * i + 1] as u16) << 8) as i16;
            i += 1;
        }
        frequency += 1;
    }
    kernels
}

/// The bytes of a layer's weights, given as `[co][3][3][ci]`.
#[cfg(feature = "encode")]
pub(crate) fn encode(channels: usize, weights: &[i8]) -> std::vec::Vec<u8> {
    let per_channel = weights.len() / channels.max(1);
    let inputs = per_channel / TAPS;
    let quads = inputs.div_ceil(QUAD);
    let mut bytes = std::vec![0; len(channels, per_channel)];
    for (channel, weights) in weights.chunks(per_channel.max(1)).enumerate() {
        for input in 0..inputs {
            let g = core::array::from_fn(|tap| i16::from(weights[tap * inputs + input]));
            for (frequency, u) in transform(g).into_iter().enumerate() {
                let row = (channel / QUAD * FREQUENCIES + frequency) * quads + input / QUAD;
                let place = input % 2 * QUAD * 2 + channel % QUAD * 2 + input % QUAD / 2;
                bytes[row * ROW + place * 2..][..2].copy_from_slice(&u.to_le_bytes());
            }
        }
    }
    bytes
}

/// `G' v` of three values.
const fn spread([a, b, c]: [i16; 3]) -> [i16; 4] {
    [2 * a, a + b + c, a - b + c, 2 * c]
}

/// `U = G' g G'^T`, row by row, of a kernel `g`, row by row, of i8.
const fn transform(g: [i16; TAPS]) -> [i16; FREQUENCIES] {
    let [a, b, c] = [
        spread([g[0], g[3], g[6]]),
        spread([g[1], g[4], g[7]]),
        spread([g[2], g[5], g[8]]),
    ];
    let [p, q, r, s] = [
        spread([a[0], b[0], c[0]]),
        spread([a[1], b[1], c[1]]),
        spread([a[2], b[2], c[2]]),
        spread([a[3], b[3], c[3]]),
    ];
    [
        p[0], p[1], p[2], p[3], q[0], q[1], q[2], q[3], r[0], r[1], r[2], r[3], s[0], s[1], s[2],
        s[3],
    ]
}

/// `4 g`, row by row, of the kernel `g` whose transform is `u`: the corners of `u` are those of `4 g`, and what lies
/// between is the difference of two rows, of two columns, or of both.
const fn fourfold(u: &[i16; FREQUENCIES]) -> [i32; TAPS] {
    const fn difference(a: i16, b: i16) -> i32 {
        a as i32 - b as i32
    }
    [
        u[0] as i32,
        difference(u[1], u[2]),
        u[3] as i32,
        difference(u[4], u[8]),
        difference(u[5], u[6]) - difference(u[9], u[10]),
        difference(u[7], u[11]),
        u[12] as i32,
        difference(u[13], u[14]),
        u[15] as i32,
    ]
}

/// The kernel whose transform is `u`, row by row, if there is one of i8.
pub(crate) const fn recover(u: &[i16; FREQUENCIES]) -> Option<[i8; TAPS]> {
    let four = fourfold(u);
    let (mut g, mut wide) = ([0; TAPS], [0; TAPS]);
    let mut tap = 0;
    while tap < TAPS {
        let value = four[tap] / 4;
        if value * 4 != four[tap] || value != value as i8 as i32 {
            return None;
        }
        (g[tap], wide[tap]) = (value as i8, value as i16);
        tap += 1;
    }
    let expected = transform(wide);
    let mut frequency = 0;
    while frequency < FREQUENCIES {
        if u[frequency] != expected[frequency] {
            return None;
        }
        frequency += 1;
    }
    Some(g)
}

/// The kernel whose transform is `u`, where one is known to exist.
pub(crate) fn kernel(u: &[i16; FREQUENCIES]) -> [i8; TAPS] {
    fourfold(u).map(|four| (four >> 2) as i8)
}

/// Weight `index`, counted `[3][3][ci]`, of output channel `channel`; both in range.
pub(crate) fn weight(weights: &Weights<'_>, channel: usize, index: usize) -> i8 {
    let inputs = (weights.per_channel / TAPS).max(1);
    let (tap, input) = (index / inputs % TAPS, index % inputs);
    let kernels = kernels(weights, channel / QUAD, input / QUAD);
    kernel(&kernels[channel % QUAD][input % QUAD])[tap]
}
