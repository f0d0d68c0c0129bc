//! A validated model and its run.

use crate::crc::Crc;
use crate::error::{ModelError, RunError};
use crate::format::{bytes, header, section};
use crate::kernel::{self, Kernels};
use crate::logits::Logits;
use crate::op::{Op, Tensor};
use crate::shape::{DType, OutputActivation, Shape};
use crate::validate::{Header, validate};

/// A fixed-point model, validated, read in place.
///
/// # Memory
/// The model borrows the file (flash); a run needs one arena of [`Model::arena_len`] bytes and a few hundred bytes of stack.
///
/// # Example
/// ```
/// use runtime::{Model, ModelError, RunError};
/// # use runtime::encode::*;
/// # let spec = ModelSpec {
/// #     name: "sum".into(),
/// #     recipe_hash: [0; 32],
/// #     tensors: vec![
/// #         TensorSpec { shape: Shape { h: 1, w: 1, c: 3 }, dtype: DType::U8 },
/// #         TensorSpec { shape: Shape { h: 1, w: 1, c: 2 }, dtype: DType::I32 },
/// #     ],
/// #     ops: vec![OpSpec::Dense { input: 0, output: 1, weight: vec![1, 2, 3, -1, 0, 1], bias: vec![10, 0], post: Post::default() }],
/// #     logit_exponents: vec![0, -1],
/// #     output: OutputActivation::Softmax,
/// #     golden_image: None,
/// # };
/// # let file = encode(&spec).unwrap();
/// // One dense layer, weights [[1, 2, 3], [-1, 0, 1]], biases [10, 0], exponents [0, -1].
/// let model = Model::new(&file)?;
/// let mut arena = [0; 12];
/// assert_eq!(model.arena_len(), 12);
/// let logits = model.run(&[5, 6, 7], &mut arena)?;
/// assert_eq!(logits.accumulator(0), Some(5 + 12 + 21 + 10));
/// assert_eq!(logits.value(1), Some((7 - 5) as f32 * 0.5));
/// assert_eq!(logits.argmax(), 0);
///
/// // Too short an image, and a damaged file:
/// assert_eq!(model.run(&[5, 6], &mut [0; 12]).unwrap_err(), RunError::ImageLength { needed: 3, got: 2 });
/// let mut damaged = file.clone();
/// damaged[100] ^= 1;
/// assert!(matches!(Model::new(&damaged), Err(ModelError::Checksum { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    file: &'a [u8],
    header: Header,
}

/// What the callback of [`Model::run_with`] sees after each operator.
#[derive(Clone, Copy, Debug)]
pub struct OpEvent<'r> {
    /// Index of the operator in the file.
    pub index: usize,
    /// The operator.
    pub op: Op<'r>,
    /// The output tensor: `h * w * c` values in NHWC order, one byte each, or 4 (I32, little-endian) after the last operator.
    pub bytes: &'r [u8],
}

/// The image stored with a model for a self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Golden<'a> {
    /// Raw image.
    pub image: &'a [u8],
    /// CRC-32 of its logits (i32, little-endian, in class order).
    pub logits_crc: u32,
}

/// Outcome of [`Model::self_test`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SelfTest {
    /// The logits of the golden image are those computed at export.
    Passed,
    /// They differ: this build or this core does not compute the model's arithmetic.
    Failed {
        /// CRC-32 stored in the model.
        expected: u32,
        /// CRC-32 of the logits computed here.
        got: u32,
    },
    /// The model has no golden image.
    Absent,
}

impl<'a> Model<'a> {
    /// Validates a file completely: structure, CRC-32, arena layout, shapes, shift ranges, and that no accumulator can reach 2^24.
    ///
    /// # Errors
    /// [`ModelError`] says what is wrong and where.
    pub const fn new(file: &'a [u8]) -> Result<Self, ModelError> {
        match validate(file) {
            Ok(header) => Ok(Self { file, header }),
            Err(error) => Err(error),
        }
    }

    /// Number of bytes of arena that a run needs, at least; the input is part of it.
    pub const fn arena_len(&self) -> usize {
        self.header.arena_len
    }

    /// Shape of the input image; it is u8, row-major, channels innermost.
    pub const fn input(&self) -> Shape {
        self.header.input.shape
    }

    /// Number of logits.
    pub const fn classes(&self) -> usize {
        self.header.classes as usize
    }

    /// From logits to probabilities.
    pub const fn activation(&self) -> OutputActivation {
        self.header.activation
    }

    /// The name given at export.
    pub fn name(&self) -> &'a str {
        section(
            self.file,
            self.header.name,
            usize::from(self.header.name_len),
        )
        .and_then(|text| core::str::from_utf8(text).ok())
        .unwrap_or("")
    }

    /// sha256 of the recipe that the model was trained with.
    pub const fn recipe_hash(&self) -> [u8; 32] {
        bytes(self.file, header::RECIPE)
    }

    /// The CRC-32 stored in the file: it identifies the model.
    pub const fn crc(&self) -> u32 {
        u32::from_le_bytes(bytes(self.file, header::CRC))
    }

    /// The whole file.
    pub const fn file(&self) -> &'a [u8] {
        self.file
    }

    /// Logit `i` is `accumulator * 2^exponent(i)`; one `i8` per class.
    pub fn logit_exponents(&self) -> &'a [u8] {
        section(self.file, self.header.exponents, self.classes()).unwrap_or(&[])
    }

    /// The golden image, if the model has one.
    pub fn golden(&self) -> Option<Golden<'a>> {
        let (offset, logits_crc) = self.header.golden?;
        let image = section(self.file, offset, self.input().len())?;
        Some(Golden { image, logits_crc })
    }

    /// Where the input image lies in the arena.
    pub const fn input_tensor(&self) -> Tensor {
        self.header.input
    }

    /// The operators in order.
    pub fn ops(&self) -> impl Iterator<Item = Op<'a>> + use<'a> {
        let file = self.file;
        (0..self.header.ops).filter_map(move |index| Op::decode(file, index).ok())
    }

    /// Runs the model on an image (u8, `h * w * c`, raw pixels). The result lies in the arena.
    ///
    /// # Errors
    /// Only for buffers of the wrong size (and [`RunError::ModelChanged`] if the validated bytes changed).
    pub fn run<'r>(&self, image: &[u8], arena: &'r mut [u8]) -> Result<Logits<'r>, RunError>
    where
        'a: 'r,
    {
        self.run_with(image, arena, |_| {})
    }

    /// Like [`Model::run`]; calls `after` after each operator, to time it or to look at its output.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_with<'r>(
        &self,
        image: &[u8],
        arena: &'r mut [u8],
        after: impl FnMut(OpEvent<'_>),
    ) -> Result<Logits<'r>, RunError>
    where
        'a: 'r,
    {
        let input = self.input_mut(arena)?;
        if image.len() != input.len() {
            return Err(RunError::ImageLength {
                needed: input.len(),
                got: image.len(),
            });
        }
        for (to, from) in input.iter_mut().zip(image) {
            *to = *from;
        }
        self.run_operators(Kernels::CHOSEN, arena, after)
    }

    /// The input's bytes in the arena, to write an image there without a second buffer; then [`Model::run_loaded`].
    /// A run may overwrite them.
    ///
    /// # Errors
    /// [`RunError::ArenaTooSmall`].
    pub fn input_mut<'r>(&self, arena: &'r mut [u8]) -> Result<&'r mut [u8], RunError> {
        let got = arena.len();
        let too_small = RunError::ArenaTooSmall {
            needed: self.arena_len(),
            got,
        };
        if got < self.arena_len() {
            return Err(too_small);
        }
        arena.get_mut(self.header.input.range()).ok_or(too_small)
    }

    /// Runs the model on the image that was written to [`Model::input_mut`].
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_loaded<'r>(
        &self,
        arena: &'r mut [u8],
        after: impl FnMut(OpEvent<'_>),
    ) -> Result<Logits<'r>, RunError>
    where
        'a: 'r,
    {
        self.input_mut(arena)?;
        self.run_operators(Kernels::CHOSEN, arena, after)
    }

    /// Like [`Model::run_loaded`] with a named set of kernels, to compare the sets.
    ///
    /// # Errors
    /// As [`Model::run`].
    #[cfg(feature = "encode")]
    pub fn run_loaded_on<'r>(
        &self,
        kernels: Kernels,
        arena: &'r mut [u8],
        after: impl FnMut(OpEvent<'_>),
    ) -> Result<Logits<'r>, RunError>
    where
        'a: 'r,
    {
        self.input_mut(arena)?;
        self.run_operators(kernels, arena, after)
    }

    /// For an arena that is large enough.
    #[inline(always)]
    fn run_operators<'r>(
        &self,
        kernels: Kernels,
        arena: &'r mut [u8],
        mut after: impl FnMut(OpEvent<'_>),
    ) -> Result<Logits<'r>, RunError>
    where
        'a: 'r,
    {
        let mut output = self.header.input;
        for index in 0..self.header.ops {
            let changed = RunError::ModelChanged { op: index };
            let Ok(op) = &Op::decode(self.file, index) else {
                return Err(changed);
            };
            kernel::run(kernels, op, arena).ok_or(changed)?;
            let bytes = arena.get(op.output.range()).ok_or(changed)?;
            after(OpEvent {
                index: usize::from(index),
                op: *op,
                bytes,
            });
            output = op.output;
        }
        let changed = RunError::ModelChanged {
            op: self.header.ops,
        };
        if output.dtype != DType::I32 {
            return Err(changed);
        }
        let bytes = arena.get(output.range()).ok_or(changed)?;
        Ok(Logits::new(bytes, self.logit_exponents()))
    }

    /// Runs the golden image and compares its logits with those computed at export.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn self_test(&self, arena: &mut [u8]) -> Result<SelfTest, RunError> {
        let Some(golden) = self.golden() else {
            return Ok(SelfTest::Absent);
        };
        let got = self.run(golden.image, arena)?.crc();
        Ok(if got == golden.logits_crc {
            SelfTest::Passed
        } else {
            SelfTest::Failed {
                expected: golden.logits_crc,
                got,
            }
        })
    }
}

impl Model<'static> {
    /// For a `static` or `const`: validates at compile time.
    ///
    /// # Panics
    /// If the file is not valid: as a compile-time error. At run time use [`Model::new`].
    pub const fn from_static(file: &'static [u8]) -> Self {
        match Self::new(file) {
            Ok(model) => model,
            Err(error) => panic!("{}", error.message()),
        }
    }

    /// Working memory of `N` bytes for this model, for a `static` or `const`: too small an `N` does not compile.
    ///
    /// ```
    /// use runtime::{Aligned, Model, include_model};
    /// use std::sync::Mutex;
    ///
    /// static MODEL: Model = Model::from_static(include_model!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui/valid.fxp")));
    /// static ARENA: Mutex<Aligned<[u8; 12]>> = Mutex::new(MODEL.arena());
    /// assert_eq!(MODEL.run(&[5, 6, 7], &mut ARENA.lock().unwrap().0)?.argmax(), 0);
    /// # Ok::<(), runtime::RunError>(())
    /// ```
    ///
    /// # Panics
    /// If `N` is less than [`Model::arena_len`]: in a constant, as a compile-time error.
    pub const fn arena<const N: usize>(&self) -> Aligned<[u8; N]> {
        assert!(
            N >= self.arena_len(),
            "the arena is smaller than Model::arena_len"
        );
        Aligned([0; N])
    }
}

/// Bytes at a multiple of 4; made by [`include_model!`](crate::include_model).
#[derive(Debug)]
#[repr(C, align(4))]
pub struct Aligned<T: ?Sized>(pub T);

/// Includes a fixed-point file as `&'static [u8]`, 4-byte aligned. The path is relative to the source file, as in `include_bytes!`.
///
/// ```
/// use runtime::{Model, include_model};
///
/// // Checked at compile time; a damaged file does not compile.
/// static MODEL: Model = Model::from_static(include_model!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui/valid.fxp")));
/// // Sized at compile time.
/// let mut arena = [0u8; MODEL.arena_len()];
/// let logits = MODEL.run(&[5, 6, 7], &mut arena)?;
/// assert!(logits.accumulators().eq([48, 2]));
/// # Ok::<(), runtime::RunError>(())
/// ```
#[macro_export]
macro_rules! include_model {
    ($path:expr $(,)?) => {{
        static FILE: &$crate::Aligned<[u8]> = &$crate::Aligned(*include_bytes!($path));
        &FILE.0 as &'static [u8]
    }};
}

impl Logits<'_> {
    /// CRC-32 of the accumulators (i32, little-endian, in class order).
    pub fn crc(&self) -> u32 {
        self.accumulators()
            .fold(Crc::NEW, |crc, acc| crc.update(&acc.to_le_bytes()))
            .finish()
    }
}
