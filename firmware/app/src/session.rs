//! Requests and answers while one model is in use.

use heapless::Vec;
use protocol::{
    Decoder, DeviceError, Info, Packet, Request, Response, SelfTest, Source, UNREADABLE, encode,
    frame_capacity,
};
use runtime::{Logits, Model};
use serde::{Serialize, Serializer};

use crate::{
    Board, Event, Mark, Place, log,
    upload::{Upload, storage},
};

/// Largest number of operators that a profile reports; those after it are not timed.
const MAX_OPERATORS: usize = 32;

/// An answer whose logits still lie in the arena.
type Answer<'a> = Response<'a, Accumulators<'a>, &'a [u32]>;

/// The i32 accumulators, read from the arena while they are sent.
#[derive(Clone, Copy)]
struct Accumulators<'a>(Logits<'a>);

impl Serialize for Accumulators<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.accumulators())
    }
}

/// Bytes of a chunk's frame besides the chunk: sequence, tag, offset, length, CRC and COBS.
const CHUNK_OVERHEAD: usize = frame_capacity(1024, 0, 0) - 1024;

/// Why a session ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Switch {
    /// Back to the built-in model.
    BuiltIn,
    /// To the model of `len` bytes in the spare place.
    Uploaded { len: usize },
}

/// One model in use.
pub(crate) struct Session<'s, 'd, B, P> {
    board: &'s mut B,
    model: &'s Model<'s>,
    source: Source,
    self_test: SelfTest,
    arena: &'s mut [u8],
    decoder: &'s mut Decoder<'d>,
    spare: &'s mut P,
    /// For the spare place; its `len` is filled in.
    next: Mark,
    upload: Upload,
}

impl<'s, 'd, B: Board, P: Place> Session<'s, 'd, B, P> {
    /// Runs the self-test and logs what is in use.
    pub fn new(
        board: &'s mut B,
        model: &'s Model<'s>,
        source: Source,
        arena: &'s mut [u8],
        decoder: &'s mut Decoder<'d>,
        spare: &'s mut P,
        next: Mark,
    ) -> Self {
        let self_test = self_test(model, arena);
        let upload = Upload::default();
        let session = Self {
            board,
            model,
            source,
            self_test,
            arena,
            decoder,
            spare,
            next,
            upload,
        };
        log::model(&session.info());
        session
    }

    /// Answers until the model changes.
    pub fn run(mut self) -> Result<Switch, B::End> {
        loop {
            match self.board.wait()? {
                Event::Byte(byte) => {
                    if self.decoder.push(byte)
                        && let Some(switch) = self.answer()
                    {
                        return Ok(switch);
                    }
                }
                Event::Button => self.show_golden(),
            }
        }
    }

    /// Classifies the model's golden image and shows its class.
    fn show_golden(&mut self) {
        if let Some(golden) = self.model.golden()
            && let Ok(Response::Classified { argmax, .. }) = classify(
                self.board,
                self.model,
                self.self_test,
                self.arena,
                golden.image,
            )
        {
            self.board.show(argmax.into());
        }
    }

    /// Reads the complete frame, carries the request out and sends the answer.
    fn answer(&mut self) -> Option<Switch> {
        let capacity = self.decoder.capacity();
        let info = self.info();
        let mut ticks = Vec::new();
        let mut switch = None;
        let mut class = None;
        let (sequence, result) = match self.decoder.packet() {
            Err(error) => (UNREADABLE, Err(DeviceError::Frame(error))),
            Ok(Packet { sequence, body }) => {
                let result = match body {
                    Request::Info => Ok(Response::Info(info)),
                    Request::Classify { image } => {
                        classify(self.board, self.model, self.self_test, self.arena, image)
                    }
                    Request::Profile { image } => profile(
                        self.board,
                        self.model,
                        self.self_test,
                        self.arena,
                        image,
                        &mut ticks,
                    ),
                    Request::LoadBegin { len } => self
                        .upload
                        .begin(len, self.spare)
                        .map(|()| loading(0, capacity)),
                    Request::LoadChunk { offset, bytes } => self
                        .upload
                        .chunk(offset, bytes, self.spare)
                        .map(|received| loading(received, capacity)),
                    Request::LoadCommit => self.upload.finish().and_then(|len| {
                        let crc = accept(self.spare, len, self.arena, capacity)?;
                        let mark = Mark {
                            len: len as u32,
                            ..self.next
                        };
                        self.spare.keep(mark).map_err(storage)?;
                        switch = Some(Switch::Uploaded { len });
                        Ok(Response::Loaded { model_crc: crc })
                    }),
                    Request::UseBuiltIn => match self.source {
                        Source::BuiltIn => Ok(Response::Switching),
                        Source::Uploaded => self
                            .spare
                            .begin()
                            .and_then(|()| self.spare.keep(self.next))
                            .map_err(storage)
                            .map(|()| {
                                switch = Some(Switch::BuiltIn);
                                Response::Switching
                            }),
                    },
                };
                (sequence, result)
            }
        };
        let body = result.unwrap_or_else(|error| {
            log::refused(error);
            Response::Error(error)
        });
        if let Response::Classified { argmax, .. } = body {
            class = Some(usize::from(argmax));
        }
        // A frame of `frame_capacity` bytes holds every answer; `accept` sees to it for uploaded models.
        if let Ok(frame) = encode(&Packet { sequence, body }, self.decoder.buffer()) {
            self.board.write(frame);
        }
        if let Some(class) = class {
            self.board.show(class);
        }
        switch
    }

    fn info(&self) -> Info<'s> {
        let model = self.model;
        let shape = model.input();
        Info {
            protocol: protocol::VERSION,
            board: self.board.name(),
            model: model.name(),
            recipe_hash: model.recipe_hash(),
            model_crc: model.crc(),
            model_len: model.file().len() as u32,
            source: self.source,
            arena_len: model.arena_len() as u32,
            input: [shape.h, shape.w, shape.c],
            classes: model.classes() as u16,
            kernels: runtime::KERNELS,
            ticks_per_second: self.board.ticks_per_second(),
            self_test: self.self_test,
            storage: P::STORAGE,
            max_model_len: self.spare.capacity() as u32,
            stack: self.board.stack(),
        }
    }
}

/// Bytes of a frame for every message about `model`.
pub const fn frame_len(model: &Model<'_>) -> usize {
    frame_capacity(model.input().len(), model.classes(), MAX_OPERATORS)
}

fn loading<'a>(received: u32, capacity: usize) -> Answer<'a> {
    Response::Loading {
        received,
        max_chunk: (capacity.saturating_sub(CHUNK_OVERHEAD) & !3) as u32,
    }
}

/// Runs the model's golden image. A model that cannot run at all in `arena` has failed.
fn self_test(model: &Model<'_>, arena: &mut [u8]) -> SelfTest {
    match model.self_test(arena) {
        Ok(runtime::SelfTest::Passed) => SelfTest::Passed,
        Ok(runtime::SelfTest::Absent) => SelfTest::Absent,
        Ok(runtime::SelfTest::Failed { expected, got }) => SelfTest::Failed { expected, got },
        Err(_) => SelfTest::Failed {
            expected: model.golden().map_or(0, |golden| golden.logits_crc),
            got: 0,
        },
    }
}

/// Refuses an image that the model may not run on.
fn admit(model: &Model<'_>, self_test: SelfTest, image: &[u8]) -> Result<(), DeviceError> {
    let expected = model.input().len();
    if image.len() != expected {
        return Err(DeviceError::ImageLength {
            expected: expected as u32,
            got: image.len() as u32,
        });
    }
    match self_test {
        SelfTest::Failed { .. } => Err(DeviceError::SelfTestFailed),
        SelfTest::Passed | SelfTest::Absent => Ok(()),
    }
}

fn arena_too_small(model: &Model<'_>, got: usize) -> DeviceError {
    DeviceError::ArenaTooSmall {
        needed: model.arena_len() as u32,
        got: got as u32,
    }
}

fn classify<'a, B: Board>(
    board: &mut B,
    model: &Model<'a>,
    self_test: SelfTest,
    arena: &'a mut [u8],
    image: &[u8],
) -> Result<Answer<'a>, DeviceError> {
    admit(model, self_test, image)?;
    let error = arena_too_small(model, arena.len());
    let start = board.ticks();
    let logits = model.run(image, arena).map_err(|_| error)?;
    let ticks = board.ticks().wrapping_sub(start);
    Ok(Response::Classified {
        argmax: logits.argmax() as u16,
        logits: Accumulators(logits),
        ticks,
    })
}

fn profile<'a, B: Board>(
    board: &mut B,
    model: &Model<'_>,
    self_test: SelfTest,
    arena: &mut [u8],
    image: &[u8],
    operators: &'a mut Vec<u32, MAX_OPERATORS>,
) -> Result<Answer<'a>, DeviceError> {
    admit(model, self_test, image)?;
    let error = arena_too_small(model, arena.len());
    let mut last = board.ticks();
    model
        .run_with(image, arena, |_| {
            let now = board.ticks();
            // Never full: a model has at most MAX_OPERATORS operators.
            let _ = operators.push(now.wrapping_sub(last));
            last = board.ticks();
        })
        .map_err(|_| error)?;
    Ok(Response::Profiled { operators })
}

/// Validates an uploaded file, as it is read back, and proves it on this device; returns its CRC-32.
pub(crate) fn accept<P: Place>(
    place: &P,
    len: usize,
    arena: &mut [u8],
    capacity: usize,
) -> Result<u32, DeviceError> {
    let file = place.file(len).ok_or(DeviceError::InvalidModel)?;
    let model = Model::new(file).map_err(|_| DeviceError::InvalidModel)?;
    if model.arena_len() > arena.len() {
        return Err(arena_too_small(&model, arena.len()));
    }
    let needed = frame_len(&model);
    if needed > capacity {
        return Err(DeviceError::FrameTooSmall {
            needed: needed as u32,
            got: capacity as u32,
        });
    }
    match self_test(&model, arena) {
        SelfTest::Failed { .. } => Err(DeviceError::UploadSelfTestFailed),
        SelfTest::Passed | SelfTest::Absent => Ok(model.crc()),
    }
}
