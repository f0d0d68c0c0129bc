//! TensorBoard event files: one scalar series per value, step = optimizer step.
//!
//! Format: TFRecord framing (`u64` length, masked CRC-32C of the length, bytes, masked CRC-32C of the bytes; little-endian)
//! around protobuf `Event` messages. Source: `tensorflow/core/lib/io/record_writer.h`, `tensorflow/core/util/event.proto`.

use std::{
    fs::{File, create_dir_all},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Callback, CallbackError, EpochLog};

/// Its name in the run folder.
pub const FOLDER: &str = "tensorboard";

/// Appends to `<folder>/train` and `<folder>/validation`, so that TensorBoard draws both runs into the same chart.
#[derive(Debug)]
pub struct TensorBoard {
    train: EventFile,
    validation: EventFile,
}

impl TensorBoard {
    /// Starts new event files; those of an earlier part of the run stay (TensorBoard joins them, and what it finds after
    /// `first_step` in them is replaced).
    pub fn new(folder: &Path, first_step: u64) -> Result<Self, CallbackError> {
        Ok(Self {
            train: EventFile::create(&folder.join("train"), first_step)?,
            validation: EventFile::create(&folder.join("validation"), first_step)?,
        })
    }
}

impl Callback for TensorBoard {
    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        let time = now();
        self.train.append(&scalars(
            time,
            log.step,
            &[
                ("epoch_loss", log.loss),
                ("epoch_accuracy", log.accuracy),
                ("epoch_learning_rate", log.learning_rate),
                ("samples_per_second", log.samples_per_second as f32),
            ],
        ))?;
        self.validation.append(&scalars(
            time,
            log.step,
            &[
                ("epoch_loss", log.val_loss),
                ("epoch_accuracy", log.val_accuracy),
            ],
        ))
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

#[derive(Debug)]
struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    fn create(folder: &Path, first_step: u64) -> Result<Self, CallbackError> {
        let time = now();
        let path = folder.join(format!(
            "events.out.tfevents.{:.0}.isobit.{}.{first_step}",
            time.floor(),
            std::process::id()
        ));
        let file = create_dir_all(folder)
            .and_then(|()| File::create(&path))
            .map_err(|source| CallbackError::File {
                path: path.clone(),
                source,
            })?;
        let mut file = Self { path, file };
        file.append(&file_version(time))?;
        if first_step > 0 {
            file.append(&session_start(time, first_step))?;
        }
        Ok(file)
    }

    fn append(&mut self, event: &[u8]) -> Result<(), CallbackError> {
        self.file
            .write_all(&record(event))
            .map_err(|source| CallbackError::File {
                path: self.path.clone(),
                source,
            })
    }
}

/// One TFRecord.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
    out
}

/// CRC-32C, rotated right by 15 bits, plus a constant, modulo 2^32.
fn masked_crc(data: &[u8]) -> u32 {
    const CRC_32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    CRC_32C
        .checksum(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// `Event { wall_time = 1: double, file_version = 3: string }`.
fn file_version(time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, time);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time, step, session_log = 7: SessionLog { status = 1: START } }`: what an earlier file holds from this step on is obsolete.
fn session_start(time: f64, step: u64) -> Vec<u8> {
    const START: u64 = 1;
    let mut log = Vec::new();
    tag(&mut log, 1, 0);
    varint(&mut log, START);
    let mut event = Vec::new();
    double(&mut event, 1, time);
    tag(&mut event, 2, 0);
    varint(&mut event, step);
    bytes(&mut event, 7, &log);
    event
}

/// `Event { wall_time = 1: double, step = 2: int64, summary = 5: Summary { value = 1: Value { tag = 1: string, simple_value = 2: float } } }`.
fn scalars(time: f64, step: u64, values: &[(&str, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, value) in values {
        let mut item = Vec::new();
        bytes(&mut item, 1, name.as_bytes());
        tag(&mut item, 2, 5);
        item.extend(value.to_le_bytes());
        bytes(&mut summary, 1, &item);
    }
    let mut event = Vec::new();
    double(&mut event, 1, time);
    tag(&mut event, 2, 0);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

/// Protobuf wire types: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
fn tag(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    tag(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    tag(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C check value of RFC 3720 (32 bytes of zero: 0x8a9136aa), then TensorFlow's mask.
    #[test]
    fn masked_crc_of_a_published_vector() {
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
    }

    /// Assembled by hand from the field numbers of event.proto and summary.proto.
    #[test]
    fn scalar_event_byte_by_byte() {
        let event = scalars(1.0, 300, &[("ab", 0.5)]);
        #[rustfmt::skip]
        let expected = [
            0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // wall_time = 1.0
            0x10, 0xac, 0x02,                   // step = 300
            0x2a, 0x0b,                         // summary, 11 bytes
            0x0a, 0x09,                         // value, 9 bytes
            0x0a, 0x02, b'a', b'b',             // tag
            0x15, 0, 0, 0, 0x3f,                // simple_value = 0.5
        ];
        assert_eq!(event, expected);
    }

    #[test]
    fn record_framing() {
        let bytes = record(b"xyz");
        assert_eq!(bytes.len(), 8 + 4 + 3 + 4);
        assert_eq!(bytes[..8], 3u64.to_le_bytes());
        assert_eq!(&bytes[12..15], b"xyz");
        assert_eq!(bytes[15..], masked_crc(b"xyz").to_le_bytes());
    }
}
