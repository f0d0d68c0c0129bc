//! Frames: postcard, CRC-32 and COBS over one buffer.

use cobs::{DecodeResult, DecoderState, EncoderState, PushResult};
use crc::{CRC_32_ISO_HDLC, Crc};
use postcard::ser_flavors::{Flavor, crc::CrcModifier};
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
    let mut serializer = postcard::Serializer {
        output: CrcModifier::new(Stuffed::new(buffer), CRC32.digest()),
    };
    packet
        .serialize(&mut serializer)
        .and_then(|()| serializer.output.finalize())
        .map_err(|_| EncodeError { capacity })
}

/// COBS into a buffer, with the final zero. The bytes are those of postcard's `Cobs` over a `Slice`, whose indices leave a panic in
/// the firmware that no compiler excludes.
struct Stuffed<'b> {
    buffer: &'b mut [u8],
    len: usize,
    state: EncoderState,
}

impl<'b> Stuffed<'b> {
    fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            len: 1, // the first code's place
            state: EncoderState::default(),
        }
    }

    fn put(&mut self, at: usize, byte: u8) -> postcard::Result<()> {
        let place = self.buffer.get_mut(at);
        *place.ok_or(postcard::Error::SerializeBufferFull)? = byte;
        Ok(())
    }

    fn append(&mut self, byte: u8) -> postcard::Result<()> {
        self.put(self.len, byte)?;
        self.len += 1;
        Ok(())
    }
}

impl<'b> Flavor for Stuffed<'b> {
    type Output = &'b [u8];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.state.push(byte) {
            PushResult::AddSingle(byte) => self.append(byte),
            PushResult::ModifyFromStartAndSkip((at, code)) => {
                self.put(at, code)?;
                self.append(0)
            }
            PushResult::ModifyFromStartAndPushAndSkip((at, code, byte)) => {
                self.put(at, code)?;
                self.append(byte)?;
                self.append(0)
            }
        }
    }

    fn finalize(mut self) -> postcard::Result<&'b [u8]> {
        let (at, code) = self.state.clone().finalize();
        self.put(at, code)?;
        self.append(0)?;
        let Self { buffer, len, .. } = self;
        let frame: &[u8] = buffer;
        frame.get(..len).ok_or(postcard::Error::SerializeBufferFull)
    }
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
    let decoded = unstuff(frame).ok_or(FrameError::Encoding)?;
    let (message, stated) = decoded.split_last_chunk::<4>().ok_or(FrameError::Crc)?;
    if CRC32.checksum(message) != u32::from_le_bytes(*stated) {
        return Err(FrameError::Crc);
    }
    match postcard::take_from_bytes(message) {
        Ok((packet, [])) => Ok(packet),
        _ => Err(FrameError::Message),
    }
}

/// Decodes COBS in place, up to its first zero or to the end. `None` if it is no COBS.
fn unstuff(frame: &mut [u8]) -> Option<&[u8]> {
    let mut state = DecoderState::Idle;
    let mut len = 0;
    for at in 0..=frame.len() {
        let byte = frame.get(at).copied().unwrap_or(0);
        match state.feed(byte).ok()? {
            DecodeResult::NoData => {}
            DecodeResult::DataContinue(byte) => {
                *frame.get_mut(len)? = byte;
                len += 1;
            }
            DecodeResult::DataComplete => return frame.get(..len),
        }
    }
    None
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
