//! Frames: postcard, CRC-32 and COBS over one buffer.

use crc::{CRC_32_ISO_HDLC, Crc};
use postcard::ser_flavors::{Cobs, Flavor, Slice, crc::CrcModifier};
use serde::{Deserialize, Serialize};

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Sequence number of the answer to a frame that could not be read; requests use other numbers.
pub const UNREADABLE: u16 = 0;

/// A message with the number that pairs question and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet<T> {
    /// Chosen by the host, repeated by the device.
    pub sequence: u16,
    /// The message.
    pub body: T,
}

/// Bytes of a buffer that holds every frame for a model with images of `image_len` bytes, `classes`
/// logits and `operators` operators, in both directions. Never below 512, so that every other
/// message fits and an upload has reasonable chunks.
pub const fn frame_capacity(image_len: usize, classes: usize, operators: usize) -> usize {
    // Longest varint of an i32 or u32: 5 bytes. Sequence, tags, lengths and CRC: below 40 bytes.
    let mut payload = image_len;
    if 5 * classes > payload {
        payload = 5 * classes;
    }
    if 5 * operators > payload {
        payload = 5 * operators;
    }
    payload += 40;
    let encoded = payload + payload / 254 + 2;
    if encoded < 512 { 512 } else { encoded }
}

/// The buffer is too small for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// Bytes of the buffer.
    pub capacity: usize,
}

/// Writes a whole frame, with the final zero, to the start of `buffer` and returns it.
///
/// # Errors
/// [`EncodeError`] if the frame is longer than `buffer`.
pub fn encode<'b, T: Serialize>(
    packet: &Packet<T>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], EncodeError> {
    let capacity = buffer.len();
    let frame = Cobs::try_new(Slice::new(buffer))
        .and_then(|cobs| {
            let mut serializer = postcard::Serializer {
                output: CrcModifier::new(cobs, CRC32.digest()),
            };
            packet.serialize(&mut serializer)?;
            serializer.output.finalize()
        })
        .map_err(|_| EncodeError { capacity })?;
    Ok(frame)
}

/// Why a frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FrameError {
    /// More bytes than the buffer before the final zero.
    TooLong {
        /// Bytes of the buffer.
        capacity: u32,
    },
    /// Not COBS.
    Encoding,
    /// The CRC-32 is not the one of the bytes.
    Crc,
    /// Not a known message, or bytes left over.
    Message,
}

/// Reads a frame, in place, given without its final zero.
///
/// # Errors
/// [`FrameError`], for any sequence of bytes.
pub fn decode<'a, T: Deserialize<'a>>(frame: &'a mut [u8]) -> Result<Packet<T>, FrameError> {
    let len = cobs::decode_in_place(frame).map_err(|_| FrameError::Encoding)?;
    let decoded = frame.get(..len).ok_or(FrameError::Encoding)?;
    let (message, stated) = decoded.split_last_chunk::<4>().ok_or(FrameError::Crc)?;
    if CRC32.checksum(message) != u32::from_le_bytes(*stated) {
        return Err(FrameError::Crc);
    }
    match postcard::take_from_bytes(message) {
        Ok((packet, [])) => Ok(packet),
        _ => Err(FrameError::Message),
    }
}

/// Collects bytes until a frame is complete. Memory: the caller's buffer; it bounds the frame.
#[derive(Debug)]
pub struct Decoder<'b> {
    buffer: &'b mut [u8],
    len: usize,
    too_long: bool,
}

impl<'b> Decoder<'b> {
    /// A frame, as sent, may have at most `buffer.len() + 1` bytes with its final zero.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            len: 0,
            too_long: false,
        }
    }

    /// Takes the next byte. `true`: a frame is complete, [`Decoder::packet`] reads it.
    /// Empty frames (zero after zero) are skipped: a sender may start with a zero to end any noise.
    #[must_use]
    pub fn push(&mut self, byte: u8) -> bool {
        if byte == 0 {
            return self.len > 0 || self.too_long;
        }
        match self.buffer.get_mut(self.len) {
            Some(place) => {
                *place = byte;
                self.len += 1;
            }
            None => self.too_long = true,
        }
        false
    }

    /// Reads the complete frame; the next byte pushed starts a new one.
    ///
    /// # Errors
    /// [`FrameError`], for any sequence of bytes; nothing is kept of a broken frame.
    pub fn packet<'a, T: Deserialize<'a>>(&'a mut self) -> Result<Packet<T>, FrameError> {
        let (len, too_long) = (self.len, self.too_long);
        (self.len, self.too_long) = (0, false);
        if too_long {
            return Err(FrameError::TooLong {
                capacity: self.buffer.len() as u32,
            });
        }
        decode(self.buffer.get_mut(..len).ok_or(FrameError::Encoding)?)
    }

    /// The buffer, free to be overwritten: between a request and the next one it holds the answer.
    pub fn buffer(&mut self) -> &mut [u8] {
        (self.len, self.too_long) = (0, false);
        self.buffer
    }

    /// Bytes of the buffer.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }
}
