//! The command loop on the host: a scripted board, models in RAM.

mod script;

use app::{Event, Memory, Ram, serve};
use proptest::prelude::*;
use protocol::{
    Decoder, DeviceError, Packet, Request, Response, SelfTest, Source, Storage, UNREADABLE,
};
use runtime::{Aligned, Model};
use script::{
    Answer, Ended, IMAGE, LOGITS, OTHER_LOGITS, Script, built_in, frame, frames, other, untrue,
    with_info,
};

/// What the device answers to a stream of bytes, with room for uploads of `upload` bytes.
fn answers(input: &[u8], upload: usize) -> Vec<u8> {
    answers_of(&built_in(), input, upload)
}

/// The same with another built-in model.
fn answers_of(file: &[u8], input: &[u8], upload: usize) -> Vec<u8> {
    let model = Model::new(file).unwrap();
    let mut board = Script::new(input.iter().copied().map(Event::Byte));
    let (mut first, mut second) = (Aligned([0; 4096]), Aligned([0; 4096]));
    let memory = Memory {
        arena: &mut Aligned([0; 1024]).0,
        frame: &mut vec![0; app::frame_len(&model)],
        places: [Ram(&mut first.0[..upload]), Ram(&mut second.0[..upload])],
    };
    let Ended = serve(&mut board, &model, memory);
    board.output
}

/// Sends the requests, numbered from 1, and hands every answer to `check`.
fn converse(requests: &[Request<'_>], upload: usize, mut check: impl FnMut(usize, Answer<'_>)) {
    let mut input = Vec::new();
    for (i, &request) in requests.iter().enumerate() {
        input.extend(frame(i as u16 + 1, request));
    }
    let output = answers(&input, upload);
    let frames = frames(&output);
    assert_eq!(frames.len(), requests.len());
    for (i, mut bytes) in frames.into_iter().enumerate() {
        let packet: Packet<Answer<'_>> = protocol::decode(&mut bytes).unwrap();
        assert_eq!(packet.sequence, i as u16 + 1);
        check(i, packet.body);
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
            assert_eq!((info.storage, info.stack), (Storage::Ram, None));
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
            bytes: &[1; 4],
        },
        Request::LoadBegin { len: 5000 },
        Request::LoadBegin { len: 8 },
        Request::LoadChunk {
            offset: 4,
            bytes: &[1; 4],
        },
        Request::LoadChunk {
            offset: 0,
            bytes: &[1; 12],
        },
        Request::LoadChunk {
            offset: 0,
            bytes: &[1; 4],
        },
        Request::LoadCommit,
        Request::LoadBegin { len: 9 },
        Request::LoadBegin { len: 8 },
        Request::LoadChunk {
            offset: 0,
            bytes: &[1; 3],
        },
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
                got: 4,
            },
            5 => DeviceError::ChunkOffset {
                expected: 0,
                got: 0,
            },
            7 => DeviceError::Incomplete {
                received: 4,
                len: 8,
            },
            8 => DeviceError::Unaligned { len: 9 },
            10 => DeviceError::Unaligned { len: 3 },
            _ => return assert!(matches!(answer, Response::Loading { .. })),
        };
        assert_eq!(answer, Response::Error(error), "request {i}");
    });
}

#[test]
fn the_button_shows_the_class_of_the_golden_image() {
    let file = built_in();
    let model = Model::new(&file).unwrap();
    let classify = frame(1, Request::Classify { image: &IMAGE });
    let events = [Event::Button]
        .into_iter()
        .chain(classify.into_iter().map(Event::Byte));
    let mut board = Script::new(events);
    let memory = Memory {
        arena: &mut Aligned([0; 1024]).0,
        frame: &mut vec![0; app::frame_len(&model)],
        places: [Ram(&mut []), Ram(&mut [])],
    };
    let Ended = serve(&mut board, &model, memory);
    // The golden image is 9, 9, 9, 9: logits 19, 20, 48. `IMAGE` is of class 2 too.
    assert_eq!(board.shown, [2, 2]);
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
