//! A scripted board, and small models made with the runtime's encoder.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod flash;

use app::{Board, Event};
use protocol::{Info, Packet, Request, Response, encode};
use runtime::encode::{DType, ModelSpec, OpSpec, OutputActivation, Post, Shape, TensorSpec};

pub type Answer<'a> = Response<'a, Vec<i32>, Vec<u32>>;

pub const IMAGE: [u8; 4] = [1, 2, 3, 200];

/// A dense layer on a 2 x 2 image with the given weights for each of its classes.
pub fn file(name: &str, weight: &[[i8; 4]], bias: &[i32]) -> Vec<u8> {
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

pub fn built_in() -> Vec<u8> {
    file(
        "built-in",
        &[[1, 0, 0, 0], [0, 1, 0, -1], [0, 0, 1, 1]],
        &[10, 20, 30],
    )
}

/// `IMAGE` through `built_in`, by hand.
pub const LOGITS: [i32; 3] = [11, 20 + 2 - 200, 30 + 3 + 200];

pub fn other() -> Vec<u8> {
    file("other", &[[0, 0, 0, 100], [2, 2, 2, 2]], &[0, -5])
}

/// `IMAGE` through `other`, by hand.
pub const OTHER_LOGITS: [i32; 2] = [20_000, 2 * 206 - 5];

/// The end of the script.
pub struct Ended;

pub struct Script<I> {
    pub input: I,
    pub output: Vec<u8>,
    pub shown: Vec<usize>,
    time: u32,
}

impl<I: Iterator<Item = Event>> Script<I> {
    pub fn new(input: I) -> Self {
        Self {
            input,
            output: Vec::new(),
            shown: Vec::new(),
            time: 0,
        }
    }
}

impl<I: Iterator<Item = Event>> Board for Script<I> {
    type End = Ended;

    fn name(&self) -> &'static str {
        "script"
    }

    fn wait(&mut self) -> Result<Event, Ended> {
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

    fn show(&mut self, class: usize) {
        self.shown.push(class);
    }
}

pub fn frame(sequence: u16, body: Request<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 8192];
    encode(&Packet { sequence, body }, &mut buffer)
        .unwrap()
        .to_vec()
}

pub fn with_info(answer: Answer<'_>, check: impl FnOnce(&Info<'_>)) {
    match answer {
        Response::Info(info) => check(&info),
        other => panic!("{other:?}"),
    }
}

/// The frames of an output, without their zeros.
pub fn frames(output: &[u8]) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = output
        .split(|&byte| byte == 0)
        .map(<[u8]>::to_vec)
        .collect();
    assert_eq!(frames.pop(), Some(Vec::new()), "the last frame is complete");
    frames
}

/// A valid file that states another CRC-32 of its golden image's logits (`docs/format.md`: at byte 52; the
/// file's own CRC at byte 12 covers all other bytes).
pub fn untrue(mut file: Vec<u8>) -> Vec<u8> {
    file[52] ^= 1;
    let crc = runtime::crc::Crc::NEW
        .update(&file[..12])
        .update(&file[16..])
        .finish();
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    file
}
