//! Gradients behind max pooling as sums over the few values that are not zero.

use std::cell::RefCell;

use rayon::prelude::*;

use super::backward::{Backward, Partial};
use crate::ops::kernel::{
    conv::Plan,
    scratch,
    sparse::{self, List, Row, Term},
};

pub(super) struct Sparse {
    /// For the input's gradient: `[kh][co][kw * ci]`.
    rows: Vec<f32>,
    /// Window start of every position in every pooling window.
    starts: Vec<u32>,
    /// Positions of a pooling window.
    taps: usize,
}

/// One sample's terms, by output channel (for the kernel) and by pixel (for the input).
#[derive(Default)]
struct Work {
    channels: Vec<usize>,
    pixels: Vec<usize>,
    by_channel: Vec<Term>,
    by_pixel: Vec<Term>,
    lists: Vec<List>,
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::default();
}

impl Sparse {
    pub(super) fn new(plan: &Plan, kernel: &[f32], input_gradient: bool) -> Self {
        let (run, co) = (plan.run(), plan.co);
        let mut rows = vec![0.0; if input_gradient { kernel.len() } else { 0 }];
        rows.par_chunks_exact_mut(run)
            .with_min_len(64)
            .enumerate()
            .for_each(|(i, out)| {
                let (ky, c) = (i / co, i % co);
                for (j, out) in out.iter_mut().enumerate() {
                    *out = kernel[(ky * run + j) * co + c];
                }
            });
        let Some(pool) = &plan.pool else {
            return Self {
                rows,
                starts: Vec::new(),
                taps: 0,
            };
        };
        let taps = pool.size[0] * pool.size[1];
        let windows = pool.output[0] * pool.output[1];
        let starts = (0..windows * taps).map(|i| {
            let (window, tap) = (i / taps, i % taps);
            let y = window / pool.output[1] * pool.stride[0] + tap / pool.size[1];
            let x = window % pool.output[1] * pool.stride[1] + tap % pool.size[1];
            // a position in the padding is never the maximum
            let y = y.wrapping_sub(pool.before[0]).min(plan.area().h - 1);
            let x = x.wrapping_sub(pool.before[1]).min(plan.area().w - 1);
            plan.start(y, x) as u32
        });
        Self {
            rows,
            starts: starts.collect(),
            taps,
        }
    }

    /// Adds the kernel's and the bias's gradient, and the input's if `dx` is not empty. `x` and `dx`: padded.
    pub(super) fn sample(
        &self,
        backward: &Backward<'_>,
        sample: usize,
        x: &[f32],
        dx: &mut [f32],
        partial: &mut Partial,
    ) {
        let (plan, level) = (backward.plan, backward.level);
        let (co, run, pitch) = (plan.co, plan.run(), plan.pitch());
        let windows = self.starts.len() / self.taps;
        WORK.with_borrow_mut(|work| {
            scratch::with([plan.output_len()], |[gradient]| {
                backward.before_activation(sample, co, gradient, &mut partial.bias);
                self.collect(plan, gradient, backward.taps(sample), work);
            });
            let Work {
                channels,
                pixels,
                by_channel,
                by_pixel,
                lists,
            } = work;
            lists.clear();
            lists.extend(channels.iter().enumerate().map(|(c, &len)| List {
                start: c * windows,
                len,
                target: c * plan.k(),
            }));
            let row = Row {
                count: plan.geometry.size[0],
                len: run,
                from_pitch: pitch,
                to_pitch: run,
            };
            sparse::accumulate(level, row, x, by_channel, lists, &mut partial.kernel);
            if dx.is_empty() {
                return;
            }
            lists.clear();
            lists.extend(pixels.iter().enumerate().map(|(i, &len)| List {
                start: i * co,
                len,
                target: self.starts[i] as usize,
            }));
            // one kernel row after the other, so that its rows stay in the first cache
            for ky in 0..plan.geometry.size[0] {
                let row = Row { count: 1, ..row };
                let rows = &self.rows[ky * co * run..][..co * run];
                sparse::accumulate(level, row, rows, by_pixel, lists, &mut dx[ky * pitch..]);
            }
        });
    }

    /// Sorts a sample's values into lists.
    fn collect(&self, plan: &Plan, gradient: &[f32], taps: &[u8], work: &mut Work) {
        let (co, run, positions) = (plan.co, plan.run() as u32, self.taps);
        let windows = self.starts.len() / positions;
        work.channels.clear();
        work.channels.resize(co, 0);
        work.pixels.clear();
        work.pixels.resize(self.starts.len(), 0);
        // one more, because a term that is not kept is written too
        work.by_channel.resize(windows * co + 1, Term::default());
        work.by_pixel
            .resize(self.starts.len() * co + 1, Term::default());
        let values = gradient.chunks_exact(co).zip(taps.chunks_exact(co));
        for (window, (gradient, taps)) in values.enumerate() {
            let starts = &self.starts[window * positions..][..positions];
            let pixels = &mut work.pixels[window * positions..][..positions];
            let by_pixel = &mut work.by_pixel[window * positions * co..];
            let channels = &mut work.channels[..co];
            for (c, ((&scale, &tap), channel)) in
                gradient.iter().zip(taps).zip(channels).enumerate()
            {
                let (tap, keep) = (tap as usize, usize::from(scale != 0.0));
                work.by_channel[c * windows + *channel] = Term {
                    offset: starts[tap],
                    scale,
                };
                *channel += keep;
                let pixel = &mut pixels[tap];
                by_pixel[tap * co + *pixel] = Term {
                    offset: c as u32 * run,
                    scale,
                };
                *pixel += keep;
            }
        }
    }
}
