//! Where uploaded models are kept.

use protocol::Storage;

/// A place for one model file.
///
/// A file is written from its start to its end, without gaps: [`Place::begin`], [`Place::write`]..., then, once it is
/// proved, [`Place::keep`]. Two places take turns: the model in use stays in one while the other is written.
pub trait Place {
    /// Whether the place survives a reset.
    const STORAGE: Storage;

    /// Bytes of the largest file.
    fn capacity(&self) -> usize;

    /// The first `len` bytes that were written, 4-byte aligned; `None` beyond the capacity.
    fn file(&self, len: usize) -> Option<&[u8]>;

    /// Forgets what is here.
    ///
    /// # Errors
    /// The memory fails.
    fn begin(&mut self) -> Result<(), MemoryFailed>;

    /// Appends `bytes` at `offset`, where the previous write ended. Both `offset` and `bytes.len()` are multiples of 4.
    ///
    /// # Errors
    /// The memory fails, or ends before the bytes do.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), MemoryFailed>;

    /// Makes what was written count after a reset. The last step: until it is complete, [`Place::kept`] knows nothing.
    ///
    /// # Errors
    /// The memory fails.
    fn keep(&mut self, mark: Mark) -> Result<(), MemoryFailed>;

    /// What [`Place::keep`] said, if this place has been kept and survived a reset.
    fn kept(&self) -> Option<Mark>;
}

/// The memory does not take what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFailed;

/// What a place says about itself; of two places, the greater `sequence` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Greater than that of every earlier mark on this device.
    pub sequence: u32,
    /// Bytes of the model file; 0: the built-in model is to be used.
    pub len: u32,
    /// CRC-32 of the built-in model that this one replaces. A firmware with another one does not use it.
    pub built_in: u32,
}

/// A place in RAM, 4-byte aligned; empty where a board has no room for it.
#[derive(Debug)]
pub struct Ram<'m>(pub &'m mut [u8]);

impl Place for Ram<'_> {
    const STORAGE: Storage = Storage::Ram;

    fn capacity(&self) -> usize {
        self.0.len()
    }

    fn file(&self, len: usize) -> Option<&[u8]> {
        self.0.get(..len)
    }

    fn begin(&mut self) -> Result<(), MemoryFailed> {
        Ok(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), MemoryFailed> {
        let place = self
            .0
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..bytes.len()))
            .ok_or(MemoryFailed)?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    fn keep(&mut self, _: Mark) -> Result<(), MemoryFailed> {
        Ok(())
    }

    fn kept(&self) -> Option<Mark> {
        None
    }
}
