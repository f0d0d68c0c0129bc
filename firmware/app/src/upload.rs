//! A model on its way into the spare place.

use protocol::DeviceError;

use crate::{MemoryFailed, Place};

/// Bytes received so far of an announced file. Chunks arrive in order, without gaps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Upload {
    progress: Option<Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    received: usize,
    len: usize,
}

impl Upload {
    /// Forgets what was received, and what is in `place`, and expects `len` bytes for it.
    pub fn begin(&mut self, len: u32, place: &mut impl Place) -> Result<(), DeviceError> {
        self.progress = None;
        if !len.is_multiple_of(4) {
            return Err(DeviceError::Unaligned { len });
        }
        if len as usize > place.capacity() {
            return Err(DeviceError::ModelTooLarge {
                max: place.capacity() as u32,
                got: len,
            });
        }
        place.begin().map_err(storage)?;
        self.progress = Some(Progress {
            received: 0,
            len: len as usize,
        });
        Ok(())
    }

    /// Writes a chunk; returns the number of bytes received so far.
    pub fn chunk(
        &mut self,
        offset: u32,
        bytes: &[u8],
        place: &mut impl Place,
    ) -> Result<u32, DeviceError> {
        let Progress { received, len } = self.progress.ok_or(DeviceError::NotLoading)?;
        let expected = received as u32;
        if offset != expected || bytes.len() > len - received {
            return Err(DeviceError::ChunkOffset {
                expected,
                got: offset,
            });
        }
        if !bytes.len().is_multiple_of(4) {
            return Err(DeviceError::Unaligned {
                len: bytes.len() as u32,
            });
        }
        // What failed half-way cannot be written again without erasing: the upload is over.
        self.progress = None;
        place.write(received, bytes).map_err(storage)?;
        let received = received + bytes.len();
        self.progress = Some(Progress { received, len });
        Ok(received as u32)
    }

    /// Length of the file, once it is complete. Ends the upload.
    pub fn finish(&mut self) -> Result<usize, DeviceError> {
        match self.progress.take() {
            None => Err(DeviceError::NotLoading),
            Some(Progress { received, len }) if received < len => Err(DeviceError::Incomplete {
                received: received as u32,
                len: len as u32,
            }),
            Some(Progress { len, .. }) => Ok(len),
        }
    }
}

/// Why a request to a place failed.
pub(crate) fn storage(_: MemoryFailed) -> DeviceError {
    DeviceError::Storage
}
