//! Where the windows of a conv or pooling layer lie.

use crate::architecture::{Padding, Shape, Window};

/// A window that slides over rows and columns, with its padding resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// One sample before; `c` channels.
    pub input: Shape,
    /// Rows and columns of the output.
    pub output: [usize; 2],
    /// Rows and columns of the window.
    pub size: [usize; 2],
    /// Step in rows and columns.
    pub stride: [usize; 2],
    /// Padding rows above and columns left of the input. What is missing below and right is padding too.
    pub before: [usize; 2],
}

impl Geometry {
    /// Keras's rule. `Valid`: output `(n - k) / s + 1`, 0 if the window does not fit; `Same`: `ceil(n / s)`, and of an
    /// odd padding the larger half goes after.
    pub fn new(input: Shape, window: Window) -> Self {
        let side = |n: usize, axis: usize| {
            let (k, s) = (window.size[axis], window.stride[axis]);
            match window.padding {
                Padding::Valid => (n + s).saturating_sub(k) / s,
                Padding::Same => n.div_ceil(s),
            }
        };
        let output = Shape {
            h: side(input.h, 0),
            w: side(input.w, 1),
            c: input.c,
        };
        Self {
            input,
            output: [output.h, output.w],
            size: window.size,
            stride: window.stride,
            before: window.overhang(input, output).map(|total| total / 2),
        }
    }

    /// Rows (axis 0) or columns (axis 1) that the windows span, padding included; at most one stride less than the padded input.
    pub fn span(&self, axis: usize) -> usize {
        (self.output[axis] - 1) * self.stride[axis] + self.size[axis]
    }

    /// True if some window reaches beyond the input.
    pub fn is_padded(&self) -> bool {
        self.before != [0, 0] || self.span(0) > self.input.h || self.span(1) > self.input.w
    }

    /// True if no two windows share a value.
    pub fn is_disjoint(&self) -> bool {
        self.stride[0] >= self.size[0] && self.stride[1] >= self.size[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(n: usize, k: usize, s: usize, padding: Padding) -> (usize, usize, usize) {
        let geometry = Geometry::new(
            Shape { h: n, w: n, c: 1 },
            Window {
                size: [k, k],
                stride: [s, s],
                padding,
            },
        );
        (geometry.output[0], geometry.before[0], geometry.span(0))
    }

    #[test]
    fn sizes_and_padding() {
        assert_eq!(geometry(28, 3, 1, Padding::Valid), (26, 0, 28));
        assert_eq!(geometry(11, 2, 2, Padding::Valid), (5, 0, 10));
        assert_eq!(geometry(7, 3, 1, Padding::Same), (7, 1, 9));
        assert_eq!(geometry(6, 3, 2, Padding::Same), (3, 0, 7));
        assert_eq!(geometry(7, 3, 2, Padding::Same), (4, 1, 9));
        assert_eq!(geometry(7, 1, 2, Padding::Same), (4, 0, 7));
        assert_eq!(geometry(2, 3, 1, Padding::Valid).0, 0);
    }
}
