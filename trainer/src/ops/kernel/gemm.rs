//! Matrix products with a packed right side, and sums of outer products, in register tiles.

use rayon::prelude::*;

use super::{Job, Level, buffer, dispatch, vector::Vector};

/// Values that one task packs at least.
const PACK_TASK: usize = 1 << 13;

/// A matrix `[k, n]` in panels of two vectors of columns (the last panel one vector if the number is odd), each panel
/// `[k][columns]`. Columns beyond `n` are 0.
#[derive(Clone, Debug)]
pub struct Packed {
    data: Vec<f32>,
    k: usize,
    padded: usize,
    lanes: usize,
}

impl Packed {
    /// Packs the matrix whose element `(row, column)` is `values[row * stride[0] + column * stride[1]]`.
    pub fn new(level: Level, values: &[f32], k: usize, n: usize, stride: [usize; 2]) -> Self {
        let lanes = level.lanes();
        let padded = n.next_multiple_of(lanes);
        let mut data = buffer::take(k * padded);
        let panel = k * 2 * lanes;
        data.par_chunks_mut(panel.max(1))
            .with_min_len(PACK_TASK.div_ceil(panel.max(1)))
            .enumerate()
            .for_each(|(i, panel)| {
                let first = i * 2 * lanes;
                let width = (2 * lanes).min(padded - first);
                let used = width.min(n - first);
                if used < width {
                    panel.fill(0.0);
                }
                if stride[1] == 1 {
                    for (row, out) in panel.chunks_exact_mut(width).enumerate() {
                        let start = row * stride[0] + first;
                        out[..used].copy_from_slice(&values[start..start + used]);
                    }
                    return;
                }
                for column in 0..used {
                    let start = (first + column) * stride[1];
                    let values = values[start..].iter().step_by(stride[0]);
                    for (row, value) in panel.chunks_exact_mut(width).zip(values) {
                        row[column] = *value;
                    }
                }
            });
        Self {
            data,
            k,
            padded,
            lanes,
        }
    }

    /// Rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The panel that begins at this column.
    pub(super) fn panel(&self, column: usize) -> *const f32 {
        self.data[column * self.k..].as_ptr()
    }

    /// Columns, rounded up to whole vectors.
    pub fn padded(&self) -> usize {
        self.padded
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        buffer::give_back(std::mem::take(&mut self.data));
    }
}

/// `c[i][j] = bias[j] + sum_k a[i][k] * b[k][j]` for `m` rows. `a` has `lda` values per row; `c` and `bias` have
/// `b.padded()` columns.
///
/// # Panics
/// If a slice is too short, or `b` was packed for another level.
pub fn gemm(
    level: Level,
    m: usize,
    a: &[f32],
    lda: usize,
    b: &Packed,
    bias: &[f32],
    c: &mut [f32],
) {
    struct Gemm<'a>(
        usize,
        &'a [f32],
        usize,
        &'a Packed,
        &'a [f32],
        &'a mut [f32],
    );
    impl Job for Gemm<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            // SAFETY: the CPU has V (trait)
            unsafe { rows::<V>(self.0, self.1, self.2, self.3, self.4, self.5) }
        }
    }
    assert_eq!(b.lanes, level.lanes());
    dispatch(level, Gemm(m, a, lda, b, bias, c));
}

/// [`gemm`] with the instructions `V`.
///
/// # Safety
/// The CPU has `V`.
#[inline(always)]
pub(super) unsafe fn rows<V: Vector>(
    m: usize,
    a: &[f32],
    lda: usize,
    b: &Packed,
    bias: &[f32],
    c: &mut [f32],
) {
    if m == 0 {
        return;
    }
    assert!(a.len() >= (m - 1) * lda + b.k && bias.len() >= b.padded && c.len() >= m * b.padded);
    assert_eq!(b.lanes, V::LANES);
    let blocks = m.div_ceil(V::ROWS);
    for block in 0..blocks {
        let (first, end) = (block * m / blocks, (block + 1) * m / blocks);
        // SAFETY: rows first..end of `a` and `c` are within the slices (assert above)
        unsafe {
            let a = a.as_ptr().add(first * lda);
            let c = c.as_mut_ptr().add(first * b.padded);
            macro_rules! block {
                ($($p:literal)*) => {
                    match end - first {
                        $($p if $p <= V::ROWS => panels::<V, $p>(a, lda, b, bias.as_ptr(), c),)*
                        _ => unreachable!("a block has 1 to ROWS rows"),
                    }
                };
            }
            block!(1 2 3 4 5 6 7 8 9 10 11 12);
        }
    }
}

/// `P` rows times all panels.
///
/// # Safety
/// `a`: `P` rows of `b.k` values, `lda` apart; `bias` and each of the `P` rows of `c`: `b.padded` values.
#[inline(always)]
unsafe fn panels<V: Vector, const P: usize>(
    a: *const f32,
    lda: usize,
    b: &Packed,
    bias: *const f32,
    c: *mut f32,
) {
    let mut panel = b.data.as_ptr();
    let mut first = 0;
    while first < b.padded {
        // SAFETY: the panel's `b.k * width` values, and its columns of bias and c, are within (above)
        unsafe {
            if b.padded - first >= 2 * V::LANES {
                tile::<V, P, 2>(a, lda, panel, b.k, bias.add(first), c.add(first), b.padded);
                panel = panel.add(b.k * 2 * V::LANES);
                first += 2 * V::LANES;
            } else {
                tile::<V, P, 1>(a, lda, panel, b.k, bias.add(first), c.add(first), b.padded);
                first += V::LANES;
            }
        }
    }
}

/// # Safety
/// As [`panels`], for one panel of `N` vectors.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const P: usize, const N: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    k: usize,
    bias: *const f32,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: this function's own condition
    unsafe {
        let mut sum = [[V::splat(0.0); N]; P];
        for n in 0..N {
            let start = V::load(bias.add(n * V::LANES));
            for row in &mut sum {
                row[n] = start;
            }
        }
        for i in 0..k {
            let mut weight = [V::splat(0.0); N];
            for (n, weight) in weight.iter_mut().enumerate() {
                *weight = V::load(b.add((i * N + n) * V::LANES));
            }
            for (p, row) in sum.iter_mut().enumerate() {
                let value = V::splat(*a.add(p * lda + i));
                for n in 0..N {
                    row[n] = row[n].fma(value, weight[n]);
                }
            }
        }
        for (p, row) in sum.iter().enumerate() {
            for (n, sum) in row.iter().enumerate() {
                sum.store(c.add(p * ldc + n * V::LANES));
            }
        }
    }
}

/// `c[r][j] += sum_p a[offsets[p] + r] * d[p][j]` for `r` in `0..rows`. `d` and `c` have `columns` values per row, a multiple
/// of the level's lanes.
///
/// # Panics
/// If a slice is too short or `columns` is no multiple.
pub fn outer(
    level: Level,
    rows: usize,
    a: &[f32],
    offsets: &[usize],
    d: &[f32],
    columns: usize,
    c: &mut [f32],
) {
    struct Outer<'a>(
        usize,
        &'a [f32],
        &'a [usize],
        &'a [f32],
        usize,
        &'a mut [f32],
    );
    impl Job for Outer<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            // SAFETY: the CPU has V (trait)
            unsafe { outer_rows::<V>(self.0, self.1, self.2, self.3, self.4, self.5) }
        }
    }
    dispatch(level, Outer(rows, a, offsets, d, columns, c));
}

#[inline(always)]
unsafe fn outer_rows<V: Vector>(
    m: usize,
    a: &[f32],
    offsets: &[usize],
    d: &[f32],
    columns: usize,
    c: &mut [f32],
) {
    let furthest = offsets.iter().copied().max().unwrap_or(0);
    assert!(a.len() >= furthest + m && c.len() >= m * columns);
    assert!(d.len() >= offsets.len() * columns && columns.is_multiple_of(V::LANES));
    let blocks = m.div_ceil(V::ROWS);
    for block in 0..blocks {
        let (first, end) = (block * m / blocks, (block + 1) * m / blocks);
        let mut column = 0;
        while column < columns {
            let width = if columns - column >= 2 * V::LANES {
                2
            } else {
                1
            };
            // SAFETY: rows first..end and `width` vectors of columns are within the slices (asserts above)
            unsafe {
                let a = a.as_ptr().add(first);
                let d = d.as_ptr().add(column);
                let c = c.as_mut_ptr().add(first * columns + column);
                macro_rules! block {
                    ($($r:literal)*) => {
                        match (end - first, width) {
                            $(
                                ($r, 2) if $r <= V::ROWS => outer_tile::<V, $r, 2>(a, offsets, d, columns, c),
                                ($r, _) if $r <= V::ROWS => outer_tile::<V, $r, 1>(a, offsets, d, columns, c),
                            )*
                            _ => unreachable!("a block has 1 to ROWS rows"),
                        }
                    };
                }
                block!(1 2 3 4 5 6 7 8 9 10 11 12);
            }
            column += width * V::LANES;
        }
    }
}

/// # Safety
/// `a`: `R` values at every offset; `d`: `N` vectors in every row; `c`: `R` rows of `N` vectors.
#[inline(always)]
unsafe fn outer_tile<V: Vector, const R: usize, const N: usize>(
    a: *const f32,
    offsets: &[usize],
    d: *const f32,
    columns: usize,
    c: *mut f32,
) {
    // SAFETY: this function's own condition
    unsafe {
        let mut sum = [[V::splat(0.0); N]; R];
        for (r, row) in sum.iter_mut().enumerate() {
            for (n, sum) in row.iter_mut().enumerate() {
                *sum = V::load(c.add(r * columns + n * V::LANES));
            }
        }
        let mut d = d;
        for &offset in offsets {
            let a = a.add(offset);
            let mut right = [V::splat(0.0); N];
            for (n, right) in right.iter_mut().enumerate() {
                *right = V::load(d.add(n * V::LANES));
            }
            for (r, row) in sum.iter_mut().enumerate() {
                let value = V::splat(*a.add(r));
                for n in 0..N {
                    row[n] = row[n].fma(value, right[n]);
                }
            }
            d = d.wrapping_add(columns);
        }
        for (r, row) in sum.iter().enumerate() {
            for (n, sum) in row.iter().enumerate() {
                sum.store(c.add(r * columns + n * V::LANES));
            }
        }
    }
}
