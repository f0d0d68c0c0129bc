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

/// What a row is: `count` pieces of `len` values each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Pieces.
    pub count: usize,
    /// Values of a piece, a multiple of the level's lanes.
    pub len: usize,
    /// From one piece to the next in the rows that are added.
    pub from_pitch: usize,
    /// The same in the sums.
    pub to_pitch: usize,
}

/// Most pieces that are summed at the same time.
const PIECES: usize = 3;

/// `c[target + p * to_pitch + j] += sum_t scale_t * a[offset_t + p * from_pitch + j]` for every piece `p` of a row and `j` in
/// `0..len`, for every list of terms in turn.
///
/// # Panics
/// If a list, row or target reaches beyond its slice, or `len` is no multiple.
pub fn accumulate(
    level: Level,
    row: Row,
    a: &[f32],
    terms: &[Term],
    lists: &[List],
    c: &mut [f32],
) {
    assert!(row.len.is_multiple_of(level.lanes()));
    for first in (0..row.count).step_by(PIECES) {
        let row = Row {
            count: PIECES.min(row.count - first),
            ..row
        };
        let a = &a[first * row.from_pitch..];
        let c = &mut c[first * row.to_pitch..];
        dispatch(level, Accumulate(row, a, terms, lists, c));
    }
}

struct Accumulate<'a>(Row, &'a [f32], &'a [Term], &'a [List], &'a mut [f32]);

impl Job for Accumulate<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(row, a, terms, lists, c) = self;
        let vectors = row.len / V::LANES;
        // sums that fit the registers
        let together = 2 * V::ROWS / PIECES;
        let reach = (row.count - 1) * row.from_pitch + row.len;
        let target_reach = (row.count - 1) * row.to_pitch + row.len;
        for list in lists {
            let terms = &terms[list.start..list.start + list.len];
            let c = &mut c[list.target..list.target + target_reach];
            let furthest = terms.iter().map(|t| t.offset).max().unwrap_or(0) as usize;
            assert!(furthest + reach <= a.len());
            let parts = vectors.div_ceil(together);
            for part in 0..parts {
                let (first, last) = (part * vectors / parts, (part + 1) * vectors / parts);
                // SAFETY: the CPU has V (trait); vectors first..last of every piece of every row and of `c` are within
                // the slices (asserts above)
                unsafe {
                    let a = a.as_ptr().add(first * V::LANES);
                    let c = c.as_mut_ptr().add(first * V::LANES);
                    macro_rules! part {
                        ($($n:literal)*) => {
                            match (row.count, last - first) {
                                $(
                                    (1, $n) => sum::<V, 1, $n>(row, a, terms, c),
                                    (2, $n) if 3 * $n <= 2 * V::ROWS => sum::<V, 2, $n>(row, a, terms, c),
                                    (3, $n) if 3 * $n <= 2 * V::ROWS => sum::<V, 3, $n>(row, a, terms, c),
                                )*
                                _ => unreachable!("a part has at most 3 x 8 vectors"),
                            }
                        };
                    }
                    part!(1 2 3 4 5 6 7 8);
                }
            }
        }
    }
}

/// # Safety
/// The CPU has `V`. `a` at every offset and `c`: `N` vectors in each of `P` pieces.
#[inline(always)]
unsafe fn sum<V: Vector, const P: usize, const N: usize>(
    row: Row,
    a: *const f32,
    terms: &[Term],
    c: *mut f32,
) {
    // SAFETY: this function's own condition
    unsafe {
        let mut sum = [[V::splat(0.0); N]; P];
        for (p, piece) in sum.iter_mut().enumerate() {
            for (n, sum) in piece.iter_mut().enumerate() {
                *sum = V::load(c.add(p * row.to_pitch + n * V::LANES));
            }
        }
        for term in terms {
            let a = a.add(term.offset as usize);
            let scale = V::splat(term.scale);
            for (p, piece) in sum.iter_mut().enumerate() {
                let a = a.add(p * row.from_pitch);
                for (n, sum) in piece.iter_mut().enumerate() {
                    *sum = sum.fma(scale, V::load(a.add(n * V::LANES)));
                }
            }
        }
        for (p, piece) in sum.iter().enumerate() {
            for (n, sum) in piece.iter().enumerate() {
                sum.store(c.add(p * row.to_pitch + n * V::LANES));
            }
        }
    }
}
