//! The command loop on the host: a scripted board, small models made with the runtime's encoder.

use app::{Board, Memory, serve};
use proptest::prelude::*;
use protocol::{
    Decoder, DeviceError, Info, Packet, Request, Response, SelfTest, Source, UNREADABLE, encode,
};
use runtime::{
    Aligned, Model,
    encode::{DType, ModelSpec, OpSpec, OutputActivation, Post, Shape, TensorSpec},
};

type Answer<'a> = Response<'a, Vec<i32>, Vec<u32>>;

const IMAGE: [u8; 4] = [1, 2, 3, 200];

/// A dense layer on a 2 x 2 image with the given weights for each of its classes.
fn file(name: &str, weight: &[[i8; 4]], bias: &[i32]) -> Vec<u8> {
    let classes = weight.len() as u16;
    let tensor = |shape, dtype| TensorSpec { shape, dtype };
    runtime::encode::encode(&ModelSpec {
        name: name.into(),
        recipe_hash: [7; 32],
        tensors: vec![
            tensor(Shape { h: 2, w: 2, c: 1 }, DType::U8),
            tensor(
                Shape {
                    h: 1,
                    w: 1,
                    c: classes,
                },
                DType::I32,
            ),
        ],
        ops: vec![OpSpec::Dense {
            input: 0,
            output: 1,
            weight: weight.concat(),
            bias: bias.to_vec(),
            post: Post::default(),
        }],
        logit_exponents: vec![0; weight.len()],
        output: OutputActivation::Softmax,
        golden_image: Some(vec![9; 4]),
    })
    .unwrap()
}

fn built_in() -> Vec<u8> {
    file(
        "built-in",
        &[[1, 0, 0, 0], [0, 1, 0, -1], [0, 0, 1, 1]],
        &[10, 20, 30],
    )
}

/// `IMAGE` through `built_in`, by hand.
const LOGITS: [i32; 3] = [11, 20 + 2 - 200, 30 + 3 + 200];

fn other() -> Vec<u8> {
    file("other", &[[0, 0, 0, 100], [2, 2, 2, 2]], &[0, -5])
}

/// `IMAGE` through `other`, by hand.
const OTHER_LOGITS: [i32; 2] = [20_000, 2 * 206 - 5];

/// The end of the script.
struct Ended;

struct Script<I> {
    input: I,
    output: Vec<u8>,
    time: u32,
}

impl<I: Iterator<Item = u8>> Board for Script<I> {
    type End = Ended;

    fn name(&self) -> &'static str {
        "script"
    }

    fn read(&mut self) -> Result<u8, Ended> {
        self.input.next().ok_or(Ended)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    fn ticks(&mut self) -> u32 {
        self.time = self.time.wrapping_add(1 << 30);
        self.time
    }

    fn ticks_per_second(&self) -> u32 {
        1000
    }
}

/// What the device answers to a stream of bytes, with room for uploads of `upload` bytes.
fn answers(input: &[u8], upload: usize) -> Vec<u8> {
    answers_of(&built_in(), input, upload)
}

/// The same with another built-in model.
fn answers_of(file: &[u8], input: &[u8], upload: usize) -> Vec<u8> {
    let model = Model::new(file).unwrap();
    let mut board = Script {
        input: input.iter().copied(),
        output: Vec::new(),
        time: 0,
    };
    let (mut first, mut second) = (Aligned([0; 4096]), Aligned([0; 4096]));
    let memory = Memory {
        arena: &mut Aligned([0; 1024]).0,
        frame: &mut vec![0; app::frame_len(&model)],
        uploads: [&mut first.0[..upload], &mut second.0[..upload]],
    };
    let Ended = serve(&mut board, &model, memory);
    board.output
}

fn frame(sequence: u16, body: Request<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 8192];
    encode(&Packet { sequence, body }, &mut buffer)
        .unwrap()
        .to_vec()
}

/// Sends the requests, numbered from 1, and hands every answer to `check`.
fn converse(requests: &[Request<'_>], upload: usize, mut check: impl FnMut(usize, Answer<'_>)) {
    let mut input = Vec::new();
    for (i, &request) in requests.iter().enumerate() {
        input.extend(frame(i as u16 + 1, request));
    }
    let output = answers(&input, upload);
    let mut frames: Vec<Vec<u8>> = output
        .split(|&byte| byte == 0)
        .map(<[u8]>::to_vec)
        .collect();
    assert_eq!(frames.pop(), Some(Vec::new()), "the last frame is complete");
    assert_eq!(frames.len(), requests.len());
    for (i, mut bytes) in frames.into_iter().enumerate() {
        let packet: Packet<Answer<'_>> = protocol::decode(&mut bytes).unwrap();
        assert_eq!(packet.sequence, i as u16 + 1);
        check(i, packet.body);
    }
}

fn with_info(answer: Answer<'_>, check: impl FnOnce(&Info<'_>)) {
    match answer {
        Response::Info(info) => check(&info),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_says_what_runs() {
    converse(&[Request::Info], 0, |_, answer| {
        with_info(answer, |info| {
            assert_eq!((info.board, info.model), ("script", "built-in"));
            assert_eq!(
                (info.recipe_hash, info.input, info.classes),
                ([7; 32], [2, 2, 1], 3)
            );
            assert_eq!(info.model_len as usize, built_in().len());
            assert_eq!((info.source, info.max_model_len), (Source::BuiltIn, 0));
            assert_eq!(info.self_test, SelfTest::Passed);
        });
    });
}

#[test]
fn it_classifies() {
    let image = &IMAGE;
    converse(
        &[Request::Classify { image }, Request::Profile { image }],
        0,
        |i, answer| {
            let expected = if i == 0 {
                Response::Classified {
                    logits: LOGITS.to_vec(),
                    argmax: 2,
                    ticks: 1 << 30,
                }
            } else {
                Response::Profiled {
                    operators: vec![1 << 30],
                }
            };
            assert_eq!(answer, expected);
        },
    );
}

/// A valid file that states another CRC-32 of its golden image's logits (`docs/format.md`: at byte 52; the
/// file's own CRC at byte 12 covers all other bytes).
fn untrue(mut file: Vec<u8>) -> Vec<u8> {
    file[52] ^= 1;
    let crc = runtime::crc::Crc::NEW
        .update(&file[..12])
        .update(&file[16..])
        .finish();
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    file
}

#[test]
fn it_refuses_to_classify_after_a_failed_self_test() {
    let mut input = frame(1, Request::Classify { image: &IMAGE });
    input.extend(frame(2, Request::Info));
    let output = answers_of(&untrue(built_in()), &input, 0);
    let mut frames = output.split(|&byte| byte == 0).map(<[u8]>::to_vec);
    let mut refusal = frames.next().unwrap();
    let packet: Packet<Answer<'_>> = protocol::decode(&mut refusal).unwrap();
    assert_eq!(packet.body, Response::Error(DeviceError::SelfTestFailed));
    let mut info = frames.next().unwrap();
    let packet: Packet<Answer<'_>> = protocol::decode(&mut info).unwrap();
    with_info(packet.body, |info| {
        assert!(
            matches!(info.self_test, SelfTest::Failed { expected, got } if expected == got ^ 1)
        );
    });
}

#[test]
fn an_upload_that_fails_its_self_test_is_refused() {
    let file = untrue(other());
    let requests = [
        Request::LoadBegin {
            len: file.len() as u32,
        },
        Request::LoadChunk {
            offset: 0,
            bytes: &file,
        },
        Request::LoadCommit,
        Request::Classify { image: &IMAGE },
    ];
    converse(&requests, 4096, |i, answer| match i {
        2 => assert_eq!(answer, Response::Error(DeviceError::UploadSelfTestFailed)),
        3 => assert!(matches!(answer, Response::Classified { logits, .. } if logits == LOGITS)),
        _ => assert!(matches!(answer, Response::Loading { .. })),
    });
}

#[test]
fn a_wrong_image_is_refused() {
    converse(&[Request::Classify { image: &[0; 5] }], 0, |_, answer| {
        let expected = DeviceError::ImageLength {
            expected: 4,
            got: 5,
        };
        assert_eq!(answer, Response::Error(expected));
    });
}

#[test]
fn an_uploaded_model_replaces_the_one_in_use_and_a_broken_one_does_not() {
    let good = other();
    let mut broken = good.clone();
    broken[good.len() / 2] ^= 0x10;
    let upload = |file: &'static [u8]| {
        let (begin, end) = file.split_at(100);
        [
            Request::LoadBegin {
                len: file.len() as u32,
            },
            Request::LoadChunk {
                offset: 0,
                bytes: begin,
            },
            Request::LoadChunk {
                offset: 100,
                bytes: end,
            },
            Request::LoadCommit,
        ]
    };
    let classify = Request::Classify { image: &IMAGE };
    let mut requests = vec![classify];
    requests.extend(upload(good.clone().leak()));
    requests.push(classify);
    requests.extend(upload(broken.leak()));
    requests.extend([classify, Request::UseBuiltIn, classify]);
    let crc = Model::new(&good).unwrap().crc();
    converse(&requests, 4096, |i, answer| match i {
        0 | 12 => {
            assert!(matches!(answer, Response::Classified { logits, .. } if logits == LOGITS))
        }
        4 => assert_eq!(answer, Response::Loaded { model_crc: crc }),
        5 | 10 => {
            assert!(
                matches!(answer, Response::Classified { logits, .. } if logits == OTHER_LOGITS)
            );
        }
        9 => assert_eq!(answer, Response::Error(DeviceError::InvalidModel)),
        11 => assert_eq!(answer, Response::Switching),
        _ => assert!(
            matches!(answer, Response::Loading { .. }),
            "{i}: {answer:?}"
        ),
    });
}

#[test]
fn an_upload_out_of_order_is_refused() {
    let requests = [
        Request::LoadCommit,
        Request::LoadChunk {
            offset: 0,
            bytes: &[1],
        },
        Request::LoadBegin { len: 5000 },
        Request::LoadBegin { len: 8 },
        Request::LoadChunk {
            offset: 1,
            bytes: &[1],
        },
        Request::LoadChunk {
            offset: 0,
            bytes: &[1; 9],
        },
        Request::LoadChunk {
            offset: 0,
            bytes: &[1; 4],
        },
        Request::LoadCommit,
    ];
    converse(&requests, 4096, |i, answer| {
        let error = match i {
            0 | 1 => DeviceError::NotLoading,
            2 => DeviceError::ModelTooLarge {
                max: 4096,
                got: 5000,
            },
            4 => DeviceError::ChunkOffset {
                expected: 0,
                got: 1,
            },
            5 => DeviceError::ChunkOffset {
                expected: 0,
                got: 0,
            },
            7 => DeviceError::Incomplete {
                received: 4,
                len: 8,
            },
            _ => return assert!(matches!(answer, Response::Loading { .. })),
        };
        assert_eq!(answer, Response::Error(error), "request {i}");
    });
}

#[test]
fn a_megabyte_of_noise_leaves_it_responsive() {
    // Xorshift: the stream is the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut input = Vec::with_capacity(1 << 20);
    let mut questions = 0;
    while input.len() < 1 << 20 {
        for _ in 0..1000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Every byte is as likely as any other, zeros included.
            input.push((state >> 32) as u8);
        }
        input.push(0);
        questions += 1;
        input.extend(frame(questions, Request::Classify { image: &IMAGE }));
    }
    let output = answers(&input, 4096);
    let mut buffer = vec![0; 4096];
    let mut decoder = Decoder::new(&mut buffer);
    let (mut answered, mut errors) = (0, 0);
    for byte in output {
        if decoder.push(byte) {
            let packet: Packet<Answer<'_>> = decoder.packet().unwrap();
            match packet.body {
                Response::Classified { logits, .. } => {
                    assert_eq!((packet.sequence, &logits[..]), (answered + 1, &LOGITS[..]));
                    answered += 1;
                }
                Response::Error(DeviceError::Frame(_)) => {
                    assert_eq!(packet.sequence, UNREADABLE);
                    errors += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(answered, questions);
    assert!(errors > 1000, "{errors} error frames");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        answers(&bytes, 64);
    }
}
