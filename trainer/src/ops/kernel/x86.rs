//! AVX2 + FMA and AVX-512. Everything that needs these instructions is inlined into [`avx2`] or [`avx512`].

use std::arch::x86_64::*;

use super::{Job, vector::Vector};

/// Compiles the job for AVX2 and FMA.
///
/// # Safety
/// The CPU has them.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2<J: Job>(job: J) -> J::Output {
    // SAFETY: this function's own condition
    unsafe { job.run::<Avx2>() }
}

/// Compiles the job for AVX-512F.
///
/// # Safety
/// The CPU has it.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn avx512<J: Job>(job: J) -> J::Output {
    // SAFETY: this function's own condition
    unsafe { job.run::<Avx512>() }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256);

// SAFETY of the blocks below: the trait's conditions (instructions exist, pointers are valid)
impl Vector for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn select_gt(self, other: Self, yes: Self, no: Self) -> Self {
        unsafe {
            let greater = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0);
            Self(_mm256_blendv_ps(no.0, yes.0, greater))
        }
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8) {
        unsafe {
            let mut values = [0.0f32; 8];
            _mm256_storeu_ps(values.as_mut_ptr(), self.0);
            to.cast::<[u8; 8]>()
                .write_unaligned(values.map(|v| v as u8));
        }
    }

    type Index = __m256i;

    #[inline(always)]
    unsafe fn load_index(from: *const u8) -> __m256i {
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())) }
    }

    #[inline(always)]
    unsafe fn lookup(table: *const f32, index: __m256i) -> Self {
        unsafe { Self(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index)) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

// SAFETY of the blocks below: the trait's conditions (instructions exist, pointers are valid)
impl Vector for Avx512 {
    const LANES: usize = 16;
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn select_gt(self, other: Self, yes: Self, no: Self) -> Self {
        unsafe {
            let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0);
            Self(_mm512_mask_blend_ps(greater, no.0, yes.0))
        }
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8) {
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(self.0));
            _mm_storeu_si128(to.cast(), bytes);
        }
    }
    type Index = __m512i;

    #[inline(always)]
    unsafe fn load_index(from: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn lookup(table: *const f32, index: __m512i) -> Self {
        unsafe { Self(_mm512_permutexvar_ps(index, _mm512_loadu_ps(table))) }
    }
}
