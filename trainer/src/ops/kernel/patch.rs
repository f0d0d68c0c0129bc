//! Kernel gradient of a 3x3 convolution behind 2x2 max pooling, one input channel at a time.
//!
//! The four windows under a pooling window read a patch of 4x4 inputs. Which of them a gradient is multiplied with depends on
//! the place of the maximum, which differs from output channel to output channel: a table lookup in a register.

use super::{
    Job, Level, dispatch,
    vector::{TABLE, Vector},
};

/// Rows and columns of a patch.
pub const SIDE: usize = 4;
/// Values of a patch.
const PATCH: usize = SIDE * SIDE;
/// Products of a window.
const K: usize = 9;

/// Values of the buffer for the patches of this many windows.
pub const fn buffer(windows: usize) -> usize {
    // a lookup reads 16 values from the patch's last rows on
    (windows + 1) * PATCH
}

/// Copies the patch that begins at each of `starts` out of rows of `pitch` values, its columns `step` values apart.
///
/// # Panics
/// If a patch reaches beyond `x`, or `patches` is shorter than [`buffer`].
pub fn fill(x: &[f32], starts: &[u32], pitch: usize, step: usize, patches: &mut [f32]) {
    let furthest = starts.iter().max().map_or(0, |&start| start as usize);
    assert!(furthest + (SIDE - 1) * (pitch + step) < x.len());
    assert!(patches.len() >= buffer(starts.len()));
    let patches = patches.chunks_exact_mut(PATCH);
    for (patch, &start) in patches.zip(starts) {
        for (row, out) in patch.chunks_exact_mut(SIDE).enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                let from = start as usize + row * pitch + column * step;
                // SAFETY: within x (assert above)
                *out = unsafe { *x.get_unchecked(from) };
            }
        }
    }
}

/// `kernel[i][j] += sum_w patch_w[places_w[j] + i / 3 * 4 + i % 3] * gradient_w[j]` for the 9 products `i` and all columns `j`.
/// `places` (of a maximum in its patch: 0, 1, 4 or 5) and `gradient` have `columns` values per window, a multiple of the
/// level's lanes; row `i` of `kernel` begins at `i * pitch`.
///
/// # Panics
/// If a slice is too short, `columns` is no multiple, or a place is another one.
pub fn accumulate(
    level: Level,
    patches: &[f32],
    places: &[u8],
    gradient: &[f32],
    columns: usize,
    kernel: &mut [f32],
    pitch: usize,
) {
    let windows = places.len() / columns;
    assert_eq!(places.len(), windows * columns);
    assert_eq!(gradient.len(), places.len());
    assert!(patches.len() >= buffer(windows));
    assert!(kernel.len() >= (K - 1) * pitch + columns);
    assert!(columns.is_multiple_of(level.lanes()));
    assert!(places.iter().all(|&place| (place as usize) < TABLE));
    let slices = Slices {
        patches,
        places,
        gradient,
        columns,
    };
    dispatch(level, Accumulate(slices, kernel, pitch));
}

#[derive(Clone, Copy)]
struct Slices<'a> {
    patches: &'a [f32],
    places: &'a [u8],
    gradient: &'a [f32],
    columns: usize,
}

struct Accumulate<'a>(Slices<'a>, &'a mut [f32], usize);

impl Job for Accumulate<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(slices, kernel, pitch) = self;
        let mut column = 0;
        while column < slices.columns {
            // SAFETY: the CPU has V (trait); the slices are checked in `accumulate`
            unsafe {
                let kernel = kernel.as_mut_ptr().add(column);
                // two vectors of sums for each product fit the registers of AVX-512 only
                if V::ROWS > K && slices.columns - column >= 2 * V::LANES {
                    sum::<V, 2>(slices, column, kernel, pitch);
                    column += 2 * V::LANES;
                } else {
                    sum::<V, 1>(slices, column, kernel, pitch);
                    column += V::LANES;
                }
            }
        }
    }
}

/// # Safety
/// The CPU has `V`; the conditions of [`accumulate`]; `N` vectors from `column` on are within the columns; `kernel` is valid
/// for them in `K` rows.
#[inline(always)]
unsafe fn sum<V: Vector, const N: usize>(
    slices: Slices<'_>,
    column: usize,
    kernel: *mut f32,
    pitch: usize,
) {
    // SAFETY: this function's own condition
    unsafe {
        let mut sum = [[V::splat(0.0); N]; K];
        for (i, row) in sum.iter_mut().enumerate() {
            for (n, sum) in row.iter_mut().enumerate() {
                *sum = V::load(kernel.add(i * pitch + n * V::LANES));
            }
        }
        let windows = slices.places.len() / slices.columns;
        for window in 0..windows {
            let at = window * slices.columns + column;
            let patch = slices.patches.as_ptr().add(window * PATCH);
            let mut place = [V::load_index(slices.places.as_ptr().add(at)); N];
            let mut gradient = [V::splat(0.0); N];
            for n in 0..N {
                place[n] = V::load_index(slices.places.as_ptr().add(at + n * V::LANES));
                gradient[n] = V::load(slices.gradient.as_ptr().add(at + n * V::LANES));
            }
            for (i, row) in sum.iter_mut().enumerate() {
                let table = patch.add(i / 3 * SIDE + i % 3);
                for n in 0..N {
                    row[n] = row[n].fma(V::lookup(table, place[n]), gradient[n]);
                }
            }
        }
        for (i, row) in sum.iter().enumerate() {
            for (n, sum) in row.iter().enumerate() {
                sum.store(kernel.add(i * pitch + n * V::LANES));
            }
        }
    }
}
