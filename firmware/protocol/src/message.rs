//! What host and device say to each other.

use serde::{Deserialize, Serialize};

/// From the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Who are you? Answer: [`Response::Info`].
    Info,
    /// Run the model. `image`: raw `u8` pixels, HWC, exactly the model's input length.
    /// Answer: [`Response::Classified`].
    Classify {
        /// Raw pixels.
        image: &'a [u8],
    },
    /// Run the model and time every operator. Answer: [`Response::Profiled`].
    Profile {
        /// Raw pixels.
        image: &'a [u8],
    },
    /// Start the upload of a `model.fxp` of `len` bytes; forgets an unfinished upload.
    /// Answer: [`Response::Loading`].
    LoadBegin {
        /// Bytes of the file; a multiple of 4, as of every model file.
        len: u32,
    },
    /// The next bytes of the upload; `offset` must equal the number of bytes received so far.
    /// Answer: [`Response::Loading`].
    LoadChunk {
        /// Position of `bytes` in the file.
        offset: u32,
        /// Part of the file; a multiple of 4 bytes.
        bytes: &'a [u8],
    },
    /// Validate the uploaded file, run its self-test and use it from now on; where models are kept in
    /// flash ([`Storage`]), after a reset too. The model in use stays if anything is wrong.
    /// Answer: [`Response::Loaded`].
    LoadCommit,
    /// Use the built-in model again, from now on as after [`Request::LoadCommit`].
    /// Answer: [`Response::Switching`].
    UseBuiltIn,
}

/// From the device. The host decodes it as `Response<Vec<i32>, Vec<u32>>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response<'a, Logits = &'a [i32], Ticks = &'a [u32]> {
    /// Answer to [`Request::Info`].
    #[serde(borrow)]
    Info(Info<'a>),
    /// Answer to [`Request::Classify`].
    Classified {
        /// i32 accumulators of the last operator, one per class.
        logits: Logits,
        /// Class with the largest logit; a tie goes to the lowest index.
        argmax: u16,
        /// Duration of the run in ticks of [`Info::ticks_per_second`].
        ticks: u32,
    },
    /// Answer to [`Request::Profile`].
    Profiled {
        /// Ticks of each operator, in the order of the model file.
        operators: Ticks,
    },
    /// Answer to [`Request::LoadBegin`] and [`Request::LoadChunk`].
    Loading {
        /// Bytes received so far.
        received: u32,
        /// Largest number of bytes that a chunk may have.
        max_chunk: u32,
    },
    /// Answer to [`Request::LoadCommit`]: the uploaded model is in use.
    Loaded {
        /// CRC-32 of the model.
        model_crc: u32,
    },
    /// Answer to [`Request::UseBuiltIn`].
    Switching,
    /// The request was not carried out.
    Error(DeviceError),
}

/// What runs on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info<'a> {
    /// [`VERSION`](crate::VERSION) of the device.
    pub protocol: u8,
    /// Board or emulated machine.
    pub board: &'a str,
    /// Name of the model.
    pub model: &'a str,
    /// sha256 of the recipe it was trained with.
    pub recipe_hash: [u8; 32],
    /// CRC-32 stored at the end of the model file.
    pub model_crc: u32,
    /// Bytes of the model file.
    pub model_len: u32,
    /// Built in or uploaded.
    pub source: Source,
    /// Bytes of working memory that the model uses.
    pub arena_len: u32,
    /// Height, width, channels of the image.
    pub input: [u16; 3],
    /// Number of logits.
    pub classes: u16,
    /// Name of the compute kernels.
    pub kernels: &'a str,
    /// Unit of all durations.
    pub ticks_per_second: u32,
    /// Result of the self-test.
    pub self_test: SelfTest,
    /// Where uploaded models are kept.
    pub storage: Storage,
    /// Bytes of the largest model that can be uploaded now; 0 if none.
    pub max_model_len: u32,
    /// The stack so far, where the board can tell.
    pub stack: Option<Stack>,
}

/// Where uploaded models are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Storage {
    /// Until the next reset.
    Ram,
    /// For good.
    Flash,
}

/// Memory of the stack, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Largest extent since the start.
    pub used: u32,
    /// All that there is.
    pub len: u32,
}

/// Where the model in use comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Source {
    /// Part of the firmware.
    BuiltIn,
    /// Received over the wire.
    Uploaded,
}

/// Result of running the model's embedded golden image at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SelfTest {
    /// The logits have the CRC-32 that the file states.
    Passed,
    /// They have not: the device refuses to classify.
    Failed {
        /// CRC-32 in the file.
        expected: u32,
        /// CRC-32 of the device's logits.
        got: u32,
    },
    /// The file has no golden image.
    Absent,
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DeviceError {
    /// The frame could not be read; its sequence number is unknown.
    Frame(crate::FrameError),
    /// The image has another length than the model's input.
    ImageLength {
        /// Bytes of the model's input.
        expected: u32,
        /// Bytes of the image.
        got: u32,
    },
    /// The self-test failed: this device would give wrong results.
    SelfTestFailed,
    /// The model is larger than the memory for uploads.
    ModelTooLarge {
        /// Bytes available.
        max: u32,
        /// Bytes asked for.
        got: u32,
    },
    /// A chunk or a commit without [`Request::LoadBegin`].
    NotLoading,
    /// A chunk does not continue the upload, or goes beyond its end.
    ChunkOffset {
        /// Bytes received so far.
        expected: u32,
        /// Offset of the chunk.
        got: u32,
    },
    /// The announced length, or that of a chunk, is no multiple of 4.
    Unaligned {
        /// The length.
        len: u32,
    },
    /// Commit before all bytes were received.
    Incomplete {
        /// Bytes received.
        received: u32,
        /// Bytes announced.
        len: u32,
    },
    /// The uploaded file is not a valid model.
    InvalidModel,
    /// The model needs more working memory than the device has.
    ArenaTooSmall {
        /// Bytes that the model needs.
        needed: u32,
        /// Bytes of the device's arena.
        got: u32,
    },
    /// The model's image or its logits do not fit into the device's frame buffer.
    FrameTooSmall {
        /// Bytes that the model needs.
        needed: u32,
        /// Bytes of the device's frame buffer.
        got: u32,
    },
    /// The uploaded model gives other logits than its file states; it is not used.
    UploadSelfTestFailed,
    /// The flash does not take what is written to it.
    Storage,
}
