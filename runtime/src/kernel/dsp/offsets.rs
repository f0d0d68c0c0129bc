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

    /// Lists `rows` runs of `run` values, `pitch` apart; an odd number of values is filled up with offset 0.
    /// None if they are too many or too far away.
    pub(super) fn list(&mut self, rows: usize, run: usize, pitch: usize) {
        let len = rows * run;
        if len > LIST || rows * pitch > usize::from(u16::MAX) {
            return;
        }
        let (mut row, mut column) = (0, 0);
        for place in self.list.as_flattened_mut().iter_mut().take(len) {
            let offset = (row + column) as u16;
            *place = offset;
            self.reach = usize::from(offset) + 1;
            column += 1;
            if column == run {
                (row, column) = (row + pitch, 0);
            }
        }
        self.count = len.div_ceil(2);
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
