//! Sums of a few scaled rows: the gradients behind max pooling, where one value in four (2x2) or fewer is not zero.

use super::{Job, Level, dispatch, vector::Vector};

/// One scaled row: `scale * row`, the row starting at `offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Term {
    /// Where the row starts.
    pub offset: u32,
    /// Its factor.
    pub scale: f32,
}

/// Some terms and where their sum goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct List {
    /// First term.
    pub start: usize,
    /// Number of terms.
    pub len: usize,
    /// First value of the sum.
    pub target: usize,
}

/// `c[target + j] += sum_t scale_t * a[offset_t + j]` for `j` in `0..len`, for every list of terms in turn. `len` is a
/// multiple of the level's lanes.
///
/// # Panics
/// If a list, row or target reaches beyond its slice, or `len` is no multiple.
pub fn accumulate(
    level: Level,
    len: usize,
    a: &[f32],
    terms: &[Term],
    lists: &[List],
    c: &mut [f32],
) {
    struct Accumulate<'a>(usize, &'a [f32], &'a [Term], &'a [List], &'a mut [f32]);
    impl Job for Accumulate<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            // SAFETY: the CPU has V (trait)
            unsafe { every::<V>(self.0, self.1, self.2, self.3, self.4) }
        }
    }
    dispatch(level, Accumulate(len, a, terms, lists, c));
}

#[inline(always)]
unsafe fn every<V: Vector>(len: usize, a: &[f32], terms: &[Term], lists: &[List], c: &mut [f32]) {
    assert!(len.is_multiple_of(V::LANES));
    let vectors = len / V::LANES;
    for &List {
        start,
        len: count,
        target,
    } in lists
    {
        let terms = &terms[start..start + count];
        let c = &mut c[target..target + len];
        let furthest = terms.iter().map(|t| t.offset).max().unwrap_or(0) as usize;
        assert!(furthest + len <= a.len());
        let pieces = vectors.div_ceil(12);
        for piece in 0..pieces {
            let (first, last) = (piece * vectors / pieces, (piece + 1) * vectors / pieces);
            // SAFETY: vectors first..last of every row and of `c` are within the slices (asserts above)
            unsafe {
                let a = a.as_ptr().add(first * V::LANES);
                let c = c.as_mut_ptr().add(first * V::LANES);
                macro_rules! piece {
                    ($($n:literal)*) => {
                        match last - first {
                            $($n => one::<V, $n>(a, terms, c),)*
                            _ => unreachable!("a piece has 1 to 12 vectors"),
                        }
                    };
                }
                piece!(1 2 3 4 5 6 7 8 9 10 11 12);
            }
        }
    }
}

/// # Safety
/// `a` at every offset and `c`: `N` vectors.
#[inline(always)]
unsafe fn one<V: Vector, const N: usize>(a: *const f32, terms: &[Term], c: *mut f32) {
    // SAFETY: this function's own condition
    unsafe {
        let mut sum = [V::splat(0.0); N];
        for (n, sum) in sum.iter_mut().enumerate() {
            *sum = V::load(c.add(n * V::LANES));
        }
        for term in terms {
            let row = a.add(term.offset as usize);
            let scale = V::splat(term.scale);
            for (n, sum) in sum.iter_mut().enumerate() {
                *sum = sum.fma(scale, V::load(row.add(n * V::LANES)));
            }
        }
        for (n, sum) in sum.iter().enumerate() {
            sum.store(c.add(n * V::LANES));
        }
    }
}
