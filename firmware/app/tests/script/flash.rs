//! NOR flash with a power supply that can be cut.

use std::{cell::Cell, rc::Rc};

use app::Mapped;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};

/// Erase units of the simulated flash.
pub const UNIT: usize = 64;

/// Counts steps (erased units, and programmed words or pages) until it is cut.
#[derive(Clone)]
pub struct Power {
    left: Rc<Cell<usize>>,
    last: u32,
    pages: bool,
}

impl Power {
    /// For ever.
    pub fn on() -> Self {
        Self::cut_at(usize::MAX, 0, false)
    }

    /// Until step number `step`, counted from 1, of which only the bits `last` are done. With `pages`, all words of one
    /// write are one step, which can be half done in each of them; else every word is a step.
    pub fn cut_at(step: usize, last: u32, pages: bool) -> Self {
        Self {
            left: Rc::new(Cell::new(step)),
            last,
            pages,
        }
    }

    pub fn is_on(&self) -> bool {
        self.left.get() > 0
    }

    fn result(&self) -> Result<(), NorFlashErrorKind> {
        if self.is_on() {
            Ok(())
        } else {
            Err(NorFlashErrorKind::Other)
        }
    }

    /// Takes one step; returns which bits of it are done.
    fn step(&self) -> u32 {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        match left {
            0 => 0,
            1 => self.last,
            _ => u32::MAX,
        }
    }
}

/// A region. Programming clears bits, erasing sets those of whole units; a word that is not erased must not be programmed.
pub struct Region {
    pub words: Vec<u32>,
    pub power: Power,
    /// Bits of the first word that cannot be cleared: worn-out flash.
    pub stuck: u32,
}

impl Region {
    /// With something from an earlier life in it, and power.
    pub fn new(units: usize) -> Self {
        Self {
            words: vec![0x1234_5678; units * UNIT / 4],
            power: Power::on(),
            stuck: 0,
        }
    }
}

impl Mapped for Region {
    fn bytes(&self) -> &[u8] {
        // SAFETY: every u32 is four bytes without padding.
        let (_, bytes, _) = unsafe { self.words.align_to::<u8>() };
        bytes
    }
}

impl ErrorType for Region {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Region {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let from = offset as usize;
        bytes.copy_from_slice(&self.bytes()[from..from + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes().len()
    }
}

impl NorFlash for Region {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = UNIT;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        embedded_storage::nor_flash::check_erase(self, from, to)?;
        for unit in self.words[from as usize / 4..to as usize / 4].chunks_mut(UNIT / 4) {
            let bits = self.power.step();
            for (i, word) in unit.iter_mut().enumerate() {
                *word |= bits.rotate_left(i as u32);
            }
        }
        if self.power.is_on() {
            Ok(())
        } else {
            Err(NorFlashErrorKind::Other)
        }
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        embedded_storage::nor_flash::check_write(self, offset, bytes.len())?;
        if !self.power.is_on() {
            return Err(NorFlashErrorKind::Other);
        }
        let page = self.power.pages.then(|| self.power.step());
        let (chunks, _) = bytes.as_chunks::<4>();
        for (i, chunk) in chunks.iter().enumerate() {
            let bits =
                page.map_or_else(|| self.power.step(), |bits| bits.rotate_left(7 * i as u32));
            let at = offset as usize / 4 + i;
            let stuck = if at == 0 { self.stuck } else { 0 };
            assert!(
                bits == 0 || self.words[at] == u32::MAX,
                "word {at} is programmed twice"
            );
            self.words[at] &= u32::from_le_bytes(*chunk) | !bits | stuck;
        }
        self.power.result()
    }
}
