//! The kernel's gradient by lookups in patches of the input.

use super::backward::{Backward, Partial};
use crate::ops::kernel::{
    conv::Plan,
    patch::{self, SIDE},
    scratch,
};

/// Input channels up to which lookups are faster than products over all pixels.
const CHANNELS: usize = 4;

pub(super) struct Patches {
    /// Where the patch of every pooling window begins in the padded input.
    starts: Vec<u32>,
}

impl Patches {
    /// If the plan is a 3x3 convolution of few channels behind 2x2 max pooling.
    pub(super) fn new(plan: &Plan) -> Option<Self> {
        let g = &plan.geometry;
        let starts = plan.pooled_starts()?.into_iter().step_by(4).collect();
        (g.size == [3, 3] && g.stride == [1, 1] && g.input.c <= CHANNELS).then_some(Self { starts })
    }

    /// Adds the kernel's and the bias's gradient; `x`: the padded sample.
    pub(super) fn sample(
        &self,
        backward: &Backward<'_>,
        sample: usize,
        x: &[f32],
        partial: &mut Partial,
    ) {
        let (plan, columns) = (backward.plan, backward.columns);
        let (windows, ci) = (self.starts.len(), plan.geometry.input.c);
        // a maximum's place in its patch
        let mut places = vec![0; windows * columns];
        let rows = places.chunks_exact_mut(columns);
        for (places, taps) in rows.zip(backward.taps(sample).chunks_exact(plan.co)) {
            for (place, tap) in places.iter_mut().zip(taps) {
                *place = tap / 2 * SIDE as u8 + tap % 2;
            }
        }
        let lens = [windows * columns, patch::buffer(windows)];
        scratch::with(lens, |[gradient, patches]| {
            backward.before_activation(sample, columns, gradient, &mut partial.bias);
            for channel in 0..ci {
                patch::fill(&x[channel..], &self.starts, plan.pitch(), ci, patches);
                patch::accumulate(
                    backward.level,
                    patches,
                    &places,
                    gradient,
                    columns,
                    &mut partial.kernel[channel * columns..],
                    ci * columns,
                );
            }
        });
    }
}
