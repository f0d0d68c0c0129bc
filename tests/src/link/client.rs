//! Questions and answers over any byte stream.

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use protocol::{
    DeviceError, Info, Packet, Request, Response, SelfTest, UNREADABLE, decode, encode,
    frame_capacity,
};
use runtime::Model;

use crate::backend::BackendError;

/// Longest time for the answer to one try; a Cortex-M0 in QEMU on a busy machine needs below a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for the answer once the device said that it could not read something.
const HURRY: Duration = Duration::from_secs(1);
/// Tries for one request: a frame that was damaged on the wire is sent again.
const TRIES: usize = 3;
/// Bytes of the largest answer that is accepted.
const LARGEST_ANSWER: usize = 64 * 1024;

/// A byte stream to a device. A read waits at most a fraction of a second and then fails with
/// `TimedOut` or `WouldBlock`.
pub trait Port: Read + Write {
    /// Why the other side cannot answer any more, if that is known (for example a QEMU that ended).
    fn died(&mut self) -> Option<String> {
        None
    }
}

/// Why a device did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The other side is gone.
    #[error("{0}")]
    Gone(String),
    /// The port failed.
    #[error("the port failed: {0}")]
    Port(#[from] io::Error),
    /// No answer.
    #[error("no answer to {} requests within {} s each; is this the right port, and Isobit's firmware behind it?", TRIES, PATIENCE.as_secs())]
    Silent,
    /// The device refuses.
    #[error("the device refuses: {0:?}")]
    Refused(DeviceError),
    /// An answer that does not belong to the request, or a damaged one.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// The message is too long for the device.
    #[error("the request does not fit into a frame of {capacity} bytes")]
    TooLong {
        /// Bytes of the frame buffer.
        capacity: usize,
    },
    /// Another protocol version.
    #[error("the device speaks protocol version {device}, this program {host}: flash it again")]
    Version {
        /// Version of the device.
        device: u8,
        /// Version of this program.
        host: u8,
    },
    /// Another model than the file.
    #[error(
        "the device runs model `{device}` (CRC-32 {device_crc:#010x}), the file is `{file}` ({file_crc:#010x}): \
         flash it again or upload the file"
    )]
    OtherModel {
        /// Name of the device's model.
        device: String,
        /// CRC-32 of the device's model.
        device_crc: u32,
        /// Name of the file's model.
        file: String,
        /// CRC-32 of the file.
        file_crc: u32,
    },
    /// The self-test failed.
    #[error(
        "the device's self-test failed: logits with CRC-32 {got:#010x}, the file states {expected:#010x}"
    )]
    SelfTest {
        /// In the file.
        expected: u32,
        /// Of the device's logits.
        got: u32,
    },
}

impl LinkError {
    /// For the verifier.
    pub fn at(self, target: &str) -> BackendError {
        BackendError::Link {
            target: target.to_owned(),
            reason: self.to_string(),
        }
    }
}

/// One classified image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// i32 accumulators, one per class.
    pub logits: Vec<i32>,
    /// Class with the largest logit.
    pub argmax: u16,
    /// Duration on the device, in its ticks.
    pub ticks: u32,
}

/// A device that is asked one thing at a time.
#[derive(Debug)]
pub struct Client<P> {
    port: P,
    sequence: u16,
    received: Vec<u8>,
}

impl<P: Port> Client<P> {
    /// Over an open port.
    pub fn new(port: P) -> Self {
        Self {
            port,
            sequence: UNREADABLE,
            received: Vec::new(),
        }
    }

    /// The port, for tests that send other things than requests.
    pub fn port(&mut self) -> &mut P {
        &mut self.port
    }

    /// The port, for another client.
    pub fn into_port(self) -> P {
        self.port
    }

    /// What runs on the device; `take` gets it while the answer lives.
    pub fn info<T>(&mut self, take: impl FnOnce(&Info<'_>) -> T) -> Result<T, LinkError> {
        self.ask(Request::Info, |response| match response {
            Response::Info(info) if info.protocol != protocol::VERSION => Err(LinkError::Version {
                device: info.protocol,
                host: protocol::VERSION,
            }),
            Response::Info(info) => Ok(take(&info)),
            other => Err(unexpected(&other)),
        })
    }

    /// Checks that the device runs exactly `model` and passed its self-test.
    pub fn expect_model(&mut self, model: &Model<'_>) -> Result<(), LinkError> {
        self.info(|info| {
            if (info.model_crc, info.model_len as usize) != (model.crc(), model.file().len()) {
                return Err(LinkError::OtherModel {
                    device: info.model.to_owned(),
                    device_crc: info.model_crc,
                    file: model.name().to_owned(),
                    file_crc: model.crc(),
                });
            }
            match info.self_test {
                SelfTest::Failed { expected, got } => Err(LinkError::SelfTest { expected, got }),
                SelfTest::Passed | SelfTest::Absent => Ok(()),
            }
        })?
    }

    /// Runs the model on raw pixels.
    pub fn classify(&mut self, image: &[u8]) -> Result<Classified, LinkError> {
        self.ask(Request::Classify { image }, |response| match response {
            Response::Classified {
                logits,
                argmax,
                ticks,
            } => Ok(Classified {
                logits,
                argmax,
                ticks,
            }),
            other => Err(unexpected(&other)),
        })
    }

    /// Ticks of every operator on raw pixels.
    pub fn profile(&mut self, image: &[u8]) -> Result<Vec<u32>, LinkError> {
        self.ask(Request::Profile { image }, |response| match response {
            Response::Profiled { operators } => Ok(operators),
            other => Err(unexpected(&other)),
        })
    }

    /// Sends a model file and switches to it; returns the CRC-32 that the device found.
    pub fn upload(&mut self, file: &[u8]) -> Result<u32, LinkError> {
        let mut chunk = self.loading(Request::LoadBegin {
            len: file.len() as u32,
        })?;
        let mut offset = 0;
        while offset < file.len() {
            let end = file.len().min(offset + chunk.max(4) as usize);
            let request = Request::LoadChunk {
                offset: offset as u32,
                bytes: &file[offset..end],
            };
            match self.loading(request) {
                Ok(max) => chunk = max,
                // The device has this chunk already: its answer was lost, and the chunk was sent again.
                Err(LinkError::Refused(DeviceError::ChunkOffset { expected, .. }))
                    if expected as usize == end => {}
                Err(error) => return Err(error),
            }
            offset = end;
        }
        let loaded = self.ask(Request::LoadCommit, |response| match response {
            Response::Loaded { model_crc } => Ok(model_crc),
            other => Err(unexpected(&other)),
        });
        match loaded {
            // As above: the first of two requests may have done it.
            Err(LinkError::Refused(DeviceError::NotLoading)) => self.info(|info| info.model_crc),
            loaded => loaded,
        }
    }

    /// Switches to the model that the firmware was built with.
    pub fn use_built_in(&mut self) -> Result<(), LinkError> {
        self.ask(Request::UseBuiltIn, |response| match response {
            Response::Switching => Ok(()),
            other => Err(unexpected(&other)),
        })
    }

    /// Asks and returns the largest chunk.
    fn loading(&mut self, request: Request<'_>) -> Result<u32, LinkError> {
        self.ask(request, |response| match response {
            Response::Loading { max_chunk, .. } => Ok(max_chunk),
            other => Err(unexpected(&other)),
        })
    }

    /// Sends a request and hands its answer to `take`. A refusal by the device is an error; a request
    /// that was damaged on the wire, or got no answer, is sent again.
    pub fn ask<T>(
        &mut self,
        request: Request<'_>,
        take: impl FnOnce(Answer<'_>) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let payload = match request {
            Request::Classify { image } | Request::Profile { image } => image.len(),
            Request::LoadChunk { bytes, .. } => bytes.len(),
            _ => 0,
        };
        // The zero in front ends whatever was on the wire before.
        let mut question = vec![0; 1 + frame_capacity(payload, 0, 0)];
        let capacity = question.len();
        self.sequence = self.sequence.checked_add(1).unwrap_or(UNREADABLE + 1);
        let packet = Packet {
            sequence: self.sequence,
            body: request,
        };
        let len = encode(&packet, &mut question[1..])
            .map_err(|_| LinkError::TooLong { capacity })?
            .len();
        question.truncate(1 + len);

        let mut failure = LinkError::Silent;
        for _ in 0..TRIES {
            self.port
                .write_all(&question)
                .map_err(|error| self.lost(error))?;
            self.port.flush().map_err(|error| self.lost(error))?;
            let mut deadline = Instant::now() + PATIENCE;
            while let Some(mut frame) = self.frame(deadline)? {
                match decode::<Answer<'_>>(&mut frame) {
                    Ok(Packet { sequence, body }) if sequence == self.sequence => {
                        return match body {
                            Response::Error(error) => Err(LinkError::Refused(error)),
                            body => take(body),
                        };
                    }
                    // About this request, or about noise before it, which the device answers first.
                    Ok(Packet {
                        sequence: UNREADABLE,
                        body: Response::Error(error),
                    }) => {
                        failure = LinkError::Refused(error);
                        deadline = deadline.min(Instant::now() + HURRY);
                    }
                    // A late answer to an earlier request, or noise.
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Err(failure)
    }

    /// The next non-empty frame without its final zero, or `None` at the deadline.
    fn frame(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, LinkError> {
        let mut chunk = [0; 4096];
        loop {
            while let Some(end) = self.received.iter().position(|&byte| byte == 0) {
                let rest = self.received.split_off(end + 1);
                let mut frame = std::mem::replace(&mut self.received, rest);
                frame.pop();
                if !frame.is_empty() {
                    return Ok(Some(frame));
                }
            }
            if self.received.len() > LARGEST_ANSWER {
                self.received.clear();
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            match self.port.read(&mut chunk) {
                Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(error) if is_timeout(&error) => {
                    if let Some(reason) = self.port.died() {
                        return Err(LinkError::Gone(reason));
                    }
                }
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    fn lost(&mut self, error: io::Error) -> LinkError {
        self.port
            .died()
            .map_or(LinkError::Port(error), LinkError::Gone)
    }
}

/// An answer as the host reads it.
pub type Answer<'a> = Response<'a, Vec<i32>, Vec<u32>>;

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | Interrupted)
}

fn unexpected(answer: &Answer<'_>) -> LinkError {
    LinkError::Answer(format!("{answer:?}"))
}
