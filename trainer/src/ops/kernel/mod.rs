//! Compute routines on slices, written once over the small instruction set `Vector` and compiled for AVX-512, AVX2 + FMA
//! and portable code. The instruction set is chosen at run time, so an ordinary release build uses the whole machine.
//!
//! All `unsafe` code of the operators is in this folder. Its functions are safe: they check their slices first.
//! The portable routines are the definition; the others differ from them only by fused multiply-add.

pub mod buffer;
pub mod conv;
pub mod gemm;
pub mod patch;
pub mod scratch;
pub mod sparse;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use vector::{Portable, Vector};

/// An instruction set that this machine can run; only [`Level::available`] makes the fast ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// Plain Rust; runs everywhere.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// What this machine can run, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self(Kind::Avx2));
            }
            if is_x86_feature_detected!("avx512f") {
                levels.push(Self(Kind::Avx512));
            }
        }
        levels
    }

    /// The fastest one.
    pub fn detect() -> Self {
        static BEST: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| *Self::available().last().unwrap_or(&Self::PORTABLE))
    }

    /// Rows of a register tile.
    pub fn rows(self) -> usize {
        match self.0 {
            Kind::Portable => Portable::ROWS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::Avx2::ROWS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => x86::Avx512::ROWS,
        }
    }

    /// Values in a vector.
    pub fn lanes(self) -> usize {
        match self.0 {
            Kind::Portable => Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => x86::Avx512::LANES,
        }
    }
}

/// Work that is compiled once per instruction set. `run` is `#[inline(always)]` in every implementation, and so is all that
/// it calls with `V`: that is what compiles it for the instruction set of its caller.
trait Job {
    type Output;

    /// # Safety
    /// The CPU has `V`'s instructions.
    unsafe fn run<V: Vector>(self) -> Self::Output;
}

/// Runs the job with the level's instructions.
fn dispatch<J: Job>(level: Level, job: J) -> J::Output {
    // SAFETY: a `Level` other than PORTABLE exists only if the CPU has its instructions
    unsafe {
        match level.0 {
            Kind::Portable => job.run::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::avx2(job),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => x86::avx512(job),
        }
    }
}

/// Calls `work`, which is plain Rust, compiled for the level's instructions if the compiler inlines it; its results are the
/// same at every level.
pub fn compiled<R>(level: Level, work: impl FnOnce() -> R) -> R {
    struct Compiled<F>(F);
    impl<R, F: FnOnce() -> R> Job for Compiled<F> {
        type Output = R;
        #[inline(always)]
        unsafe fn run<V: Vector>(self) -> R {
            (self.0)()
        }
    }
    dispatch(level, Compiled(work))
}
