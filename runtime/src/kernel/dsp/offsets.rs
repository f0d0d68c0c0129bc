//! The places of a small window's values.

/// Greatest number of values.
const LIST: usize = 64;

/// Offsets of values from the first one, in pairs. Every offset is less than [`Offsets::reach`].
pub(in crate::kernel) struct Offsets {
    list: [[u16; 2]; LIST / 2],
    count: usize,
    reach: usize,
}

impl Offsets {
    /// No values.
    pub(super) const NONE: Self = Self {
        list: [[0; 2]; LIST / 2],
        count: 0,
        reach: 0,
    };

    /// `rows` runs of `run` values, `pitch` apart; an odd number of values is filled up with offset 0.
    /// None if they are too many or too far away.
    pub(super) fn new(rows: usize, run: usize, pitch: usize) -> Self {
        let mut new = Self::NONE;
        let len = rows * run;
        let last = rows.saturating_sub(1) * pitch + run;
        if len > LIST || last > usize::from(u16::MAX) {
            return new;
        }
        let offsets = (0..rows).flat_map(|row| row * pitch..row * pitch + run);
        for (place, offset) in new.list.as_flattened_mut().iter_mut().zip(offsets) {
            *place = offset as u16;
            new.reach = new.reach.max(usize::from(*place) + 1);
        }
        new.count = len.div_ceil(2);
        new
    }

    /// The offsets, in pairs.
    pub(in crate::kernel) fn pairs(&self) -> &[[u16; 2]] {
        self.list.get(..self.count).unwrap_or_default()
    }

    /// Values from the first one that the offsets need.
    pub(in crate::kernel) fn reach(&self) -> usize {
        self.reach
    }
}
