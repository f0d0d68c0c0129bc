//! The convolution of a batch.

use rayon::prelude::*;

use crate::ops::kernel::{
    Level, buffer,
    conv::{Forward, Plan, pad},
    scratch,
};

/// All samples: the result, and the position of every maximum in its pooling window.
pub(crate) fn convolve(
    level: Level,
    plan: &Plan,
    x: &[f32],
    kernel: &[f32],
    bias: &[f32],
) -> (Vec<f32>, Vec<u8>) {
    let (input, len) = (plan.geometry.input.len(), plan.output_len());
    let n = x.len() / input;
    let mut taps = vec![0u8; if plan.pool.is_some() { n * len } else { 0 }];
    let forward = Forward::new(level, plan, kernel, bias);
    let one = |x: &[f32], out: &mut [f32], taps: &mut [u8]| {
        with_padding(plan, x, |x| forward.sample(x, out, taps));
    };
    let x = x.par_chunks_exact(input);
    let out = if plan.pool.is_some() {
        let with = x.zip(taps.par_chunks_exact_mut(len));
        buffer::chunks(n * len, len, with, |(x, taps), out| one(x, out, taps)).0
    } else {
        buffer::chunks(n * len, len, x, |x, out| one(x, out, &mut [])).0
    };
    (out, taps)
}

/// Calls `work` with the sample in its zero padding, or as it is if it has none.
pub(super) fn with_padding(plan: &Plan, x: &[f32], work: impl FnOnce(&[f32])) {
    if plan.geometry.is_padded() {
        scratch::with([plan.padded_len()], |[padded]| {
            pad(plan, x, padded);
            work(padded);
        });
    } else {
        work(x);
    }
}
