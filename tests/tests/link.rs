//! The client against a device that answers what a script says.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use protocol::{
    DeviceError, FrameError, Info, Packet, Request, Response, SelfTest, Source, Storage,
    UNREADABLE, decode, encode,
};
use verifier::link::{Client, LinkError, Port, target};

type Reaction = Box<dyn FnMut(Packet<Request<'_>>) -> Vec<u8>>;

/// Calls the reaction with every complete request and offers what it returns, in small pieces.
struct Script {
    received: Vec<u8>,
    offered: VecDeque<u8>,
    reaction: Reaction,
    alive: bool,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.offered.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let len = buffer.len().min(7).min(self.offered.len());
        for (place, byte) in buffer.iter_mut().zip(self.offered.drain(..len)) {
            *place = byte;
        }
        Ok(len)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte != 0 {
                self.received.push(byte);
            } else if !self.received.is_empty() {
                let mut frame = std::mem::take(&mut self.received);
                self.offered
                    .extend((self.reaction)(decode(&mut frame).unwrap()));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Port for Script {
    fn died(&mut self) -> Option<String> {
        (!self.alive).then(|| "the machine ended (exit status: 1)".into())
    }
}

fn client(reaction: impl FnMut(Packet<Request<'_>>) -> Vec<u8> + 'static) -> Client<Script> {
    Client::new(Script {
        received: Vec::new(),
        offered: VecDeque::new(),
        reaction: Box::new(reaction),
        alive: true,
    })
}

fn frame(sequence: u16, body: Response<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 1024];
    encode(&Packet { sequence, body }, &mut buffer)
        .unwrap()
        .to_vec()
}

const CLASSIFIED: Response<'static> = Response::Classified {
    logits: &[5, -7, 1 << 23],
    argmax: 2,
    ticks: 99,
};

fn info() -> Info<'static> {
    Info {
        protocol: protocol::VERSION,
        board: "board",
        model: "model",
        recipe_hash: [0; 32],
        model_crc: 0,
        model_len: 0,
        source: Source::BuiltIn,
        arena_len: 0,
        input: [1; 3],
        classes: 1,
        kernels: "",
        ticks_per_second: 1,
        self_test: SelfTest::Absent,
        storage: Storage::Ram,
        max_model_len: 0,
        stack: None,
    }
}

#[test]
fn an_answer_is_found_behind_noise_and_late_answers() {
    let mut client = client(|request| {
        assert_eq!(request.body, Request::Classify { image: &[1, 2, 3] });
        let mut bytes = vec![1, 2, 3, 0, 0, 200, 0];
        bytes.extend(frame(request.sequence.wrapping_sub(1), Response::Switching));
        bytes.extend(frame(
            UNREADABLE,
            Response::Error(DeviceError::Frame(FrameError::Crc)),
        ));
        bytes.extend(frame(request.sequence, CLASSIFIED));
        bytes
    });
    for _ in 0..3 {
        let classified = client.classify(&[1, 2, 3]).unwrap();
        assert_eq!(
            (classified.logits, classified.argmax),
            (vec![5, -7, 1 << 23], 2)
        );
    }
}

#[test]
fn a_refusal_is_an_error_at_once() {
    let mut client = client(|request| {
        frame(
            request.sequence,
            Response::Error(DeviceError::SelfTestFailed),
        )
    });
    let error = client.classify(&[0]).unwrap_err();
    assert!(
        matches!(error, LinkError::Refused(DeviceError::SelfTestFailed)),
        "{error}"
    );
}

#[test]
fn another_answer_than_asked_for_is_an_error() {
    let mut client = client(|request| frame(request.sequence, CLASSIFIED));
    let error = client.use_built_in().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unexpected answer: Classified"),
        "{error}"
    );
}

#[test]
fn another_protocol_version_is_named() {
    let mut client = client(|request| {
        let info = Info {
            protocol: protocol::VERSION + 1,
            ..info()
        };
        frame(request.sequence, Response::Info(info))
    });
    let error = client.info(|_| ()).unwrap_err();
    assert!(matches!(error, LinkError::Version { .. }), "{error}");
}

#[test]
fn an_upload_is_cut_into_the_devices_chunks() {
    let file: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let mut memory = Vec::new();
    let expected = file.clone();
    let mut client = client(move |request| {
        let body = match request.body {
            Request::LoadBegin { len: 1000 } => Response::Loading {
                received: 0,
                max_chunk: 300,
            },
            Request::LoadChunk { offset, bytes } => {
                assert_eq!(offset as usize, memory.len());
                assert!(bytes.len() <= 300);
                memory.extend_from_slice(bytes);
                Response::Loading {
                    received: memory.len() as u32,
                    max_chunk: 300,
                }
            }
            Request::LoadCommit => {
                assert_eq!(memory, expected);
                Response::Loaded { model_crc: 77 }
            }
            other => panic!("{other:?}"),
        };
        frame(request.sequence, body)
    });
    assert_eq!(client.upload(&file).unwrap(), 77);
}

/// The device did what it was asked, but its answer was lost, so it is asked again.
#[test]
fn an_upload_survives_lost_answers() {
    let file = vec![9; 600];
    let mut received = 0;
    let mut lost = false;
    let mut loading = true;
    let mut client = client(move |request| {
        let body = match request.body {
            Request::LoadBegin { .. } => Response::Loading {
                received: 0,
                max_chunk: 300,
            },
            Request::LoadChunk { offset, bytes } if offset == received => {
                received += bytes.len() as u32;
                lost = !lost;
                Response::Loading {
                    received,
                    max_chunk: 300,
                }
            }
            Request::LoadChunk { offset, .. } => {
                lost = false;
                Response::Error(DeviceError::ChunkOffset {
                    expected: received,
                    got: offset,
                })
            }
            Request::LoadCommit if loading => {
                loading = false;
                lost = true;
                Response::Loaded { model_crc: 77 }
            }
            Request::LoadCommit => {
                lost = false;
                Response::Error(DeviceError::NotLoading)
            }
            Request::Info => Response::Info(Info {
                model_crc: 77,
                ..info()
            }),
            other => panic!("{other:?}"),
        };
        if lost {
            // In its place something that makes the host ask again: what it sent was damaged, it seems.
            return frame(
                UNREADABLE,
                Response::Error(DeviceError::Frame(FrameError::Crc)),
            );
        }
        frame(request.sequence, body)
    });
    assert_eq!(client.upload(&file).unwrap(), 77);
}

#[test]
fn the_end_of_the_machine_is_told() {
    let mut client = client(|_| Vec::new());
    client.port().alive = false;
    let error = client.info(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the machine ended (exit status: 1)");
}

#[test]
fn a_port_that_is_not_there_is_explained() {
    let error = verifier::link::Serial::open("/dev/ttyNOSUCH").unwrap_err();
    assert!(
        error.contains("/dev/ttyNOSUCH") && error.contains("trainer devices"),
        "{error}"
    );
}

#[test]
fn a_missing_program_names_its_command() {
    let error = target::elf("no-such-board").unwrap_err();
    assert!(error.contains("known: "), "{error}");
}
