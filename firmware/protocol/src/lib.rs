//! Messages between host and device, and the frames that carry them.
//!
//! The host sends a [`Request`], the device answers with one [`Response`]. A frame is
//!
//! ```text
//! COBS( postcard( Packet { sequence, body } ) ++ CRC-32 of these bytes, little-endian ) ++ 0x00
//! ```
//!
//! so a zero byte always ends a frame: after any noise, the decoder is in step again at the next zero.
//! The answer repeats the sequence number of its request; a frame that could not be read is answered
//! with sequence number [`UNREADABLE`].
//!
//! Both sides use one bounded buffer per direction ([`frame_capacity`]); nothing allocates.

#![no_std]

mod frame;
mod message;

pub use frame::{
    Decoder, EncodeError, FrameError, Packet, UNREADABLE, decode, encode, frame_capacity,
};
pub use message::{DeviceError, Info, Request, Response, SelfTest, Source, Stack, Storage};

/// Version of the messages, reported in [`Info::protocol`]. Host and device must agree on it.
pub const VERSION: u8 = 2;
