//! Windows that move over a map.

use crate::op::Window;
use crate::shape::Shape;

/// The first row and column of a window in the map; negative where the window begins before it.
pub(super) type Corner = [isize; 2];

/// The windows of a map's positions, row by row.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    at: Corner,
    step: Corner,
    /// Column of the first position of a row.
    left: isize,
    /// Positions in a row, and those that remain in this one.
    columns: usize,
    rest: usize,
}

impl Walk {
    fn new(at: Corner, step: Corner, columns: usize) -> Self {
        Self {
            at,
            step,
            left: at[1],
            columns,
            rest: columns,
        }
    }

    /// All windows of an operator.
    #[inline(never)]
    pub(super) fn over(window: &Window, columns: u16) -> Self {
        let ([down, right], [above, before]) = (window.stride, window.pad);
        Self::new(
            [-isize::from(above), -isize::from(before)],
            [down as isize, right as isize],
            columns.into(),
        )
    }

    /// From the same position on with longer steps, as those of a pooling window; `columns` >= 1 of them in a row.
    #[inline(never)]
    pub(super) fn scaled(&self, stride: [u16; 2], columns: u16) -> Self {
        let [down, right] = self.step;
        let step = [down * stride[0] as isize, right * stride[1] as isize];
        Self::new(self.at, step, columns.into())
    }

    /// Begins again, from another position on.
    pub(super) fn restart(&mut self, at: Corner) {
        *self = Self::new(at, self.step, self.columns);
    }

    /// The next `count` windows, as far as there is room; those beyond repeat the last one.
    #[cfg(any(feature = "encode", not(kernels = "portable")))]
    #[inline(never)]
    pub(super) fn take(&mut self, windows: &mut [Corner], count: usize) {
        let mut last = [0; 2];
        for (i, window) in windows.iter_mut().enumerate() {
            if i < count {
                last = self.next();
            }
            *window = last;
        }
    }

    /// The window here; goes on.
    #[inline(never)]
    pub(super) fn next(&mut self) -> Corner {
        let now = self.at;
        self.at[1] += self.step[1];
        self.rest = self.rest.wrapping_sub(1);
        if self.rest == 0 {
            self.at = [now[0] + self.step[0], self.left];
            self.rest = self.columns;
        }
        now
    }
}

/// The part of a window along one axis that lies in the map.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// First row or column of the map.
    pub(super) start: usize,
    /// First row or column of the window.
    pub(super) skip: usize,
    /// Number of rows or columns.
    pub(super) len: usize,
}

impl Span {
    /// Rows or columns `begin..begin + size` over a map of `limit`.
    #[inline(always)]
    fn new(begin: isize, size: u16, limit: u16) -> Self {
        let start = begin.max(0);
        let end = (begin + size as isize).min(limit as isize);
        Self {
            start: start as usize,
            skip: (start - begin) as usize,
            len: (end - start).max(0) as usize,
        }
    }
}

/// Rows and columns of a window of `size` that lie in the map.
#[inline(never)]
pub(super) fn clip(at: Corner, size: [u16; 2], map: Shape) -> [Span; 2] {
    [
        Span::new(at[0], size[0], map.h),
        Span::new(at[1], size[1], map.w),
    ]
}
