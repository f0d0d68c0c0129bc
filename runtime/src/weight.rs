//! The weights of a layer, in any order that a file may store them in.

pub(crate) mod winograd;

use crate::format::layout;

/// The order of a layer's weights in the file. `co` output channels with `k = kh * kw * ci / groups` weights each;
/// for a dense layer `k` is the number of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Layout {
    /// `[co][kh][kw][ci / groups]`, without gaps.
    Ohwi,
    /// `[kh][kw][co]`: depthwise with one output channel per input channel.
    Hwo,
    /// `[co / 2][kh][kw][ci][2]`: the two channels of a block alternate, so that sign-extending bytes 0 and 2 of a word
    /// (`SXTB16`) gives two consecutive weights of the first channel, and bytes 1 and 3 those of the second.
    /// A block fills whole words, and an odd last channel has a block of its own; what remains is 0. Without groups.
    Ohwi2o,
    /// Not the weights but what Winograd's F(2x2, 3x3) multiplies with: i16 numbers `U = G' g G'^T` for each 3x3 kernel `g`, in
    /// blocks of four output channels (docs/format.md). [`Weights::get`] gives the weights. Only convolutions; only with feature
    /// `winograd` (which `encode` includes).
    Winograd,
}

impl Layout {
    /// Bytes of one block of [`Layout::Ohwi2o`].
    pub(crate) const fn block(per_channel: usize) -> usize {
        per_channel.saturating_mul(2).saturating_add(3) & !3
    }

    /// Bytes that a layer's weights take in the file.
    ///
    /// ```
    /// use runtime::Layout;
    /// assert_eq!(Layout::Ohwi.bytes(3, 9), 27);
    /// assert_eq!(Layout::Ohwi2o.bytes(3, 9), 2 * 20); // two blocks of 18 bytes, each filled to whole words
    /// ```
    pub const fn bytes(self, channels: usize, per_channel: usize) -> usize {
        match self {
            Self::Ohwi2o => channels
                .div_ceil(2)
                .saturating_mul(Self::block(per_channel)),
            Self::Winograd if winograd::ENABLED => winograd::len(channels, per_channel),
            _ => channels.saturating_mul(per_channel),
        }
    }

    /// Position of a weight in the file's section, in a layout that holds the weights themselves.
    pub(crate) const fn position(
        self,
        channels: usize,
        per_channel: usize,
        channel: usize,
        index: usize,
    ) -> usize {
        match self {
            Self::Hwo => index * channels + channel,
            Self::Ohwi2o => channel / 2 * Self::block(per_channel) + 2 * index + channel % 2,
            Self::Ohwi | Self::Winograd => channel * per_channel + index,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            layout::OHWI => Some(Self::Ohwi),
            layout::HWO => Some(Self::Hwo),
            layout::OHWI2O => Some(Self::Ohwi2o),
            layout::WINOGRAD => Some(Self::Winograd),
            _ => None,
        }
    }

    #[cfg(feature = "encode")]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ohwi => layout::OHWI,
            Self::Hwo => layout::HWO,
            Self::Ohwi2o => layout::OHWI2O,
            Self::Winograd => layout::WINOGRAD,
        }
    }
}

/// Taps whose products are summed in 16 bits.
const HALF_GROUP: usize = 4;
/// Taps that have one bit in [`Facts::splits`].
const GROUP: usize = 8;
/// Taps that have one word of bits.
pub(crate) const SECTION: usize = 128;
/// Greatest sum of the magnitudes of [`HALF_GROUP`] weights whose products with values of -128..=127 stay below 2^15 together.
const LIGHT: u32 = 255;

/// What follows from the weights of a convolution in blocks of two channels, kept in the file so that kernels for small cores
/// need not find it out in every run.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `[co]` sums as i32, then `[sections][co]` splits as u16.
    pub(crate) bytes: &'a [u8],
    pub(crate) channels: usize,
}

impl<'a> Facts<'a> {
    /// Bytes that they take in the file.
    pub(crate) const fn bytes(channels: usize, per_channel: usize) -> usize {
        let sections = per_channel.div_ceil(SECTION);
        channels.saturating_mul(sections.saturating_mul(2).saturating_add(4))
    }

    /// The sum of a channel's weights; 0 for one that only fills up a block.
    pub const fn sum(&self, channel: usize) -> i32 {
        if channel < self.channels {
            i32::from_le_bytes(crate::format::bytes(self.bytes, 4 * channel))
        } else {
            0
        }
    }

    /// Little-endian words for the channels from `first` on: bit `i` is set if of the taps from `128 * section + 8 * i` on the
    /// magnitudes of the first or of the last four weights sum to more than 255.
    pub fn splits(&self, section: usize, first: usize) -> &'a [u8] {
        let at = 4 * self.channels + 2 * (section * self.channels + first);
        self.bytes.get(at..).unwrap_or_default()
    }
}

/// The facts of one channel as its weights go by.
#[derive(Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) sum: i32,
    pub(crate) split: u16,
    taps: usize,
    magnitude: u32,
}

impl Tally {
    pub(crate) const NEW: Self = Self {
        sum: 0,
        split: 0,
        taps: 0,
        magnitude: 0,
    };

    /// Takes one more weight; true at the end of a section, when `split` is complete.
    pub(crate) const fn add(&mut self, weight: i8) -> bool {
        if self.taps.is_multiple_of(SECTION) {
            self.split = 0;
        }
        if self.taps.is_multiple_of(HALF_GROUP) {
            self.magnitude = 0;
        }
        self.sum += weight as i32;
        self.magnitude += weight.unsigned_abs() as u32;
        if self.magnitude > LIGHT {
            self.split |= 1 << (self.taps % SECTION / GROUP);
        }
        self.taps += 1;
        self.taps.is_multiple_of(SECTION)
    }
}

/// The weights of a convolution or dense layer, as a view over the file.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) layout: Layout,
    pub(crate) channels: usize,
    pub(crate) per_channel: usize,
}

impl<'a> Weights<'a> {
    /// Their bytes in the file, in the order of [`Weights::layout`], which also says what a byte is.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Their order in the file.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Output channels.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Weights per output channel: `kh * kw * ci / groups`, or the inputs of a dense layer.
    pub const fn per_channel(&self) -> usize {
        self.per_channel
    }

    /// Number of weights, without what fills up blocks.
    pub const fn count(&self) -> usize {
        self.channels.saturating_mul(self.per_channel)
    }

    /// Weight `index` of output channel `channel`, where `index` counts `[kh][kw][ci / groups]`, in any layout.
    /// `None` outside of the weights.
    #[inline(never)] // It is called where speed does not matter.
    pub fn get(&self, channel: usize, index: usize) -> Option<i8> {
        if index >= self.per_channel || channel >= self.channels {
            return None;
        }
        if self.transformed() {
            return Some(winograd::weight(self, channel, index));
        }
        let at = self
            .layout
            .position(self.channels, self.per_channel, channel, index);
        self.bytes.get(at).map(|&w| w as i8)
    }

    /// True for [`Layout::Winograd`]: the file does not hold the weights themselves.
    pub(crate) const fn transformed(&self) -> bool {
        winograd::ENABLED && matches!(self.layout, Layout::Winograd)
    }

    /// The blocks of [`Layout::Ohwi2o`]: two channels each, in order.
    #[cfg(any(feature = "encode", kernels = "portable", kernels = "lanes"))]
    pub(crate) fn blocks(&self) -> core::slice::ChunksExact<'a, u8> {
        self.bytes
            .chunks_exact(Layout::block(self.per_channel).max(4))
    }
}
