//! The one place where NHWC becomes NCHW.
//!
//! The trainer, the quantizer and the runtime store samples as `h, w, c` and conv weights as `[co][kh][kw][ci]`; ONNX wants
//! `c, h, w` and `[co][ci][kh][kw]`. Both are the same permutation of rows of `h * w * c` values, and so are the columns of a
//! dense layer that reads a flattened map.

/// Permutes every row of `h * w * c` values from `h, w, c` to `c, h, w` order.
///
/// # Panics
/// If the length is not a multiple of `h * w * c`.
pub fn chw_from_hwc<T: Copy>(values: &[T], [h, w, c]: [usize; 3]) -> Vec<T> {
    let row_len = h * w * c;
    assert!(
        row_len > 0 && values.len().is_multiple_of(row_len),
        "whole rows"
    );
    let mut out = Vec::with_capacity(values.len());
    for row in values.chunks_exact(row_len) {
        for channel in 0..c {
            out.extend((0..h * w).map(|position| row[position * c + channel]));
        }
    }
    out
}

/// Transposes a row-major matrix with so many columns: Keras's `[.., out]` kernels become one row per output.
pub fn transpose<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    let rows = values.len() / columns;
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hwc_becomes_chw() {
        // 2 rows, 3 columns, 2 channels; the value is 100 h + 10 w + c.
        let hwc: Vec<i32> = (0..2)
            .flat_map(|h| (0..3).flat_map(move |w| (0..2).map(move |c| 100 * h + 10 * w + c)))
            .collect();
        let chw = [0, 10, 20, 100, 110, 120, 1, 11, 21, 101, 111, 121];
        assert_eq!(chw_from_hwc(&hwc, [2, 3, 2]), chw);
        let twice: Vec<i32> = hwc.iter().chain(&hwc).copied().collect();
        assert_eq!(chw_from_hwc(&twice, [2, 3, 2])[12..], chw);
    }

    #[test]
    fn rows_become_columns() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 3), [1, 4, 2, 5, 3, 6]);
    }
}
