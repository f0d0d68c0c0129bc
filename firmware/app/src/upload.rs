//! A model on its way into the spare memory.

use protocol::DeviceError;

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
    /// Forgets what was received and expects `len` bytes for a place of `max` bytes.
    pub fn begin(&mut self, len: u32, max: usize) -> Result<(), DeviceError> {
        self.progress = None;
        match usize::try_from(len) {
            Ok(len) if len <= max => {
                self.progress = Some(Progress { received: 0, len });
                Ok(())
            }
            _ => Err(DeviceError::ModelTooLarge {
                max: max as u32,
                got: len,
            }),
        }
    }

    /// Copies a chunk to its place in `memory`; returns the number of bytes received so far.
    pub fn chunk(
        &mut self,
        offset: u32,
        bytes: &[u8],
        memory: &mut [u8],
    ) -> Result<u32, DeviceError> {
        let progress = self.progress.as_mut().ok_or(DeviceError::NotLoading)?;
        let expected = progress.received as u32;
        let out_of_place = DeviceError::ChunkOffset {
            expected,
            got: offset,
        };
        if offset != expected || bytes.len() > progress.len - progress.received {
            return Err(out_of_place);
        }
        let end = progress.received + bytes.len();
        let place = memory.get_mut(progress.received..end).ok_or(out_of_place)?;
        place.copy_from_slice(bytes);
        progress.received = end;
        Ok(end as u32)
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
