//! A place in NOR flash that survives resets and power cuts.
//!
//! ```text
//! byte 0   mark: "IBM1", sequence, length of the file, CRC-32 of the built-in model, CRC-32 of these 16 bytes
//! byte 20  erased
//! byte 32  the model file
//! ```
//!
//! All numbers are u32, little-endian. The mark's erase unit is erased first and the mark is written last, after the file
//! was read back and proved; a power cut at any time before leaves no valid mark, and the other place untouched.
//! Between two erasures no byte is written twice, as most flash demands.

use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;
use protocol::Storage;
use runtime::crc::Crc;

use crate::{Mark, MemoryFailed, Place};

const MAGIC: u32 = u32::from_le_bytes(*b"IBM1");
/// Bytes before the file.
const HEADER_LEN: usize = 32;
/// Files come in multiples of this.
const GRANULE: usize = 4;

/// A region of flash that the processor also reads like memory. Offsets of [`NorFlash`] count from its start.
pub trait Mapped: NorFlash {
    /// Its contents, 4-byte aligned.
    fn bytes(&self) -> &[u8];
}

impl<F: Mapped> Mapped for &mut F {
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }
}

/// A region as a [`Place`].
#[derive(Debug)]
pub struct Flash<F>(F);

impl<F: Mapped> Flash<F> {
    /// A region of whole erase units; an empty one has no room for a model.
    pub fn new(region: F) -> Self {
        const { assert!(GRANULE.is_multiple_of(F::WRITE_SIZE)) };
        Self(region)
    }
}

impl<F: Mapped> Place for Flash<F> {
    const STORAGE: Storage = Storage::Flash;

    fn capacity(&self) -> usize {
        capacity(self.0.bytes().len())
    }

    fn file(&self, len: usize) -> Option<&[u8]> {
        self.0
            .bytes()
            .get(HEADER_LEN..)
            .and_then(|rest| rest.get(..len))
    }

    fn begin(&mut self) -> Result<(), MemoryFailed> {
        erase(&mut self.0, 0..F::ERASE_SIZE)
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), MemoryFailed> {
        let start = HEADER_LEN + offset;
        let end = start + bytes.len();
        if end > self.0.bytes().len() {
            return Err(MemoryFailed);
        }
        // The units that begin with these bytes; an earlier write erased the one that they continue.
        let fresh = start.next_multiple_of(F::ERASE_SIZE)..end.next_multiple_of(F::ERASE_SIZE);
        if !fresh.is_empty() {
            erase(&mut self.0, fresh)?;
        }
        self.0.write(start as u32, bytes).map_err(|_| MemoryFailed)
    }

    fn keep(&mut self, mark: Mark) -> Result<(), MemoryFailed> {
        let mut bytes = [0; 20];
        let words = [MAGIC, mark.sequence, mark.len, mark.built_in];
        let crc = words
            .iter()
            .fold(Crc::NEW, |crc, word| crc.update(&word.to_le_bytes()))
            .finish();
        let (places, _) = bytes.as_chunks_mut::<4>();
        for (place, word) in places.iter_mut().zip(words.into_iter().chain([crc])) {
            *place = word.to_le_bytes();
        }
        self.0.write(0, &bytes).map_err(|_| MemoryFailed)?;
        if self.kept() == Some(mark) {
            Ok(())
        } else {
            Err(MemoryFailed)
        }
    }

    fn kept(&self) -> Option<Mark> {
        let (words, _) = self.0.bytes().as_chunks::<4>();
        let [magic, sequence, len, built_in, crc] = words.first_chunk::<5>()?;
        let computed = [magic, sequence, len, built_in]
            .into_iter()
            .fold(Crc::NEW, |crc, word| crc.update(word))
            .finish();
        let [magic, sequence, len, built_in, crc] =
            [magic, sequence, len, built_in, crc].map(|word| u32::from_le_bytes(*word));
        (magic == MAGIC && crc == computed && len as usize <= self.capacity()).then_some(Mark {
            sequence,
            len,
            built_in,
        })
    }
}

fn erase<F: NorFlash>(flash: &mut F, range: Range<usize>) -> Result<(), MemoryFailed> {
    flash
        .erase(range.start as u32, range.end as u32)
        .map_err(|_| MemoryFailed)
}

/// Bytes of the largest file in a region of `len` bytes.
const fn capacity(len: usize) -> usize {
    let free = len.saturating_sub(HEADER_LEN);
    free - free % GRANULE
}

/// Divides free flash (offsets) into two regions of whole erase units of `unit` bytes: halves, if both hold a file of
/// `model` bytes; else one as large as possible, which can take a model only while the built-in one is in use, and one unit for
/// the mark of the built-in one. Two empty regions if there are fewer than two units.
pub const fn divide(free: Range<usize>, unit: usize, model: usize) -> [Range<usize>; 2] {
    let start = free.start.next_multiple_of(unit);
    let units = free.end.saturating_sub(start) / unit;
    if units < 2 {
        return [start..start, start..start];
    }
    let half = units / 2;
    let first = if capacity(half * unit) >= model {
        half
    } else {
        units - 1
    };
    let second = if first == half { half } else { 1 };
    let middle = start + first * unit;
    [start..middle, middle..middle + second * unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_flash_is_divided_into_whole_units() {
        assert_eq!(
            divide(0x1001..0x9000, 0x1000, 100),
            [0x2000..0x5000, 0x5000..0x8000]
        );
        assert_eq!(
            divide(0..0x8fff, 0x1000, 0x4000 - 32),
            [0..0x4000, 0x4000..0x8000]
        );
        assert_eq!(
            divide(0..0x8000, 0x1000, 0x4000),
            [0..0x7000, 0x7000..0x8000]
        );
        assert_eq!(
            divide(0x100..0x2fff, 0x1000, 100),
            [0x1000..0x1000, 0x1000..0x1000]
        );
        assert_eq!(
            divide(
                Range {
                    start: 0x9000,
                    end: 0x8000
                },
                0x1000,
                100
            ),
            [0x9000..0x9000, 0x9000..0x9000]
        );
    }
}
