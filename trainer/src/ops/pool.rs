//! Max and average pooling on the CPU, parallel over the samples.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{geometry::Geometry, storage};

/// Maximum over each window, padding ignored; a tie's gradient goes to the first maximum in row-major order. Of `x` `[n, ..]`
/// with the geometry's input values per sample; result `[n, oh, ow, c]`.
pub fn max_operator(geometry: Geometry) -> impl CustomOp1 + Send + Sync + 'static {
    MaxPool {
        geometry,
        places: OnceLock::new(),
    }
}

/// Mean over each window; padding is not counted. Shapes as for [`max_operator`].
pub fn avg_operator(geometry: Geometry) -> impl CustomOp1 + Send + Sync + 'static {
    AvgPool(geometry)
}

/// For every window of a sample, in order: calls `work(window, rows, columns)` with the part of the input that it covers.
fn for_each_window(
    g: &Geometry,
    mut work: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let covered = |index: usize, axis: usize, n: usize| {
        let start = index * g.stride[axis];
        let end = (start + g.size[axis]).saturating_sub(g.before[axis]).min(n);
        start.saturating_sub(g.before[axis])..end
    };
    for y in 0..g.output[0] {
        for x in 0..g.output[1] {
            let rows = covered(y, 0, g.input.h);
            work(y * g.output[1] + x, rows, covered(x, 1, g.input.w));
        }
    }
}

fn output_shape(layout: &Layout, g: &Geometry, values: usize) -> Result<Shape> {
    let n = layout.dims()[0];
    if values != n * g.input.len() {
        bail!("pooling: {g:?} does not fit {:?}", layout.dims());
    }
    Ok(Shape::from((n, g.output[0], g.output[1], g.input.c)))
}

struct MaxPool {
    geometry: Geometry,
    /// Where in its sample each maximum was.
    places: OnceLock<Vec<u32>>,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = storage::values(x, layout)?;
        let g = &self.geometry;
        let shape = output_shape(layout, g, x.len())?;
        let (c, len) = (g.input.c, g.output[0] * g.output[1] * g.input.c);
        let mut out = vec![0.0; shape.elem_count()];
        let mut places = vec![0u32; out.len()];
        x.par_chunks_exact(g.input.len())
            .zip(out.par_chunks_exact_mut(len))
            .zip(places.par_chunks_exact_mut(len))
            .for_each(|((x, out), places)| {
                for_each_window(g, |window, rows, columns| {
                    let out = &mut out[window * c..][..c];
                    let places = &mut places[window * c..][..c];
                    let mut first = true;
                    for row in rows {
                        for column in columns.clone() {
                            let from = (row * g.input.w + column) * c;
                            let values = &x[from..from + c];
                            for (i, ((out, place), &value)) in out
                                .iter_mut()
                                .zip(places.iter_mut())
                                .zip(values)
                                .enumerate()
                            {
                                if first || value > *out {
                                    (*out, *place) = (value, (from + i) as u32);
                                }
                            }
                            first = false;
                        }
                    }
                });
            });
        if self.places.set(places).is_err() {
            bail!("max-pool: an operator computes once");
        }
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (gradient_storage, layout) = gradient.storage_and_layout();
        let gradient = storage::on_cpu(&gradient_storage, layout)?;
        let Some(places) = self.places.get() else {
            bail!("max-pool: gradient before the value");
        };
        let g = &self.geometry;
        let len = g.output[0] * g.output[1] * g.input.c;
        let mut dx = vec![0.0; x.elem_count()];
        dx.par_chunks_exact_mut(g.input.len())
            .zip(gradient.par_chunks_exact(len))
            .zip(places.par_chunks_exact(len))
            .for_each(|((dx, gradient), places)| {
                for (&place, &value) in places.iter().zip(gradient) {
                    dx[place as usize] += value;
                }
            });
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

struct AvgPool(Geometry);

impl CustomOp1 for AvgPool {
    fn name(&self) -> &'static str {
        "avg-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = storage::values(x, layout)?;
        let g = &self.0;
        let shape = output_shape(layout, g, x.len())?;
        let (c, len) = (g.input.c, g.output[0] * g.output[1] * g.input.c);
        let mut out = vec![0.0; shape.elem_count()];
        x.par_chunks_exact(g.input.len())
            .zip(out.par_chunks_exact_mut(len))
            .for_each(|(x, out)| {
                for_each_window(g, |window, rows, columns| {
                    let out = &mut out[window * c..][..c];
                    let count = (rows.len() * columns.len()) as f32;
                    for row in rows {
                        for column in columns.clone() {
                            super::add(out, &x[(row * g.input.w + column) * c..][..c]);
                        }
                    }
                    out.iter_mut().for_each(|v| *v /= count);
                });
            });
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (gradient_storage, layout) = gradient.storage_and_layout();
        let gradient = storage::on_cpu(&gradient_storage, layout)?;
        let g = &self.0;
        let (c, len) = (g.input.c, g.output[0] * g.output[1] * g.input.c);
        let mut dx = vec![0.0; x.elem_count()];
        dx.par_chunks_exact_mut(g.input.len())
            .zip(gradient.par_chunks_exact(len))
            .for_each(|(dx, gradient)| {
                for_each_window(g, |window, rows, columns| {
                    let gradient = &gradient[window * c..][..c];
                    let count = (rows.len() * columns.len()) as f32;
                    for row in rows {
                        for column in columns.clone() {
                            let dx = &mut dx[(row * g.input.w + column) * c..][..c];
                            for (dx, value) in dx.iter_mut().zip(gradient) {
                                *dx += value / count;
                            }
                        }
                    }
                });
            });
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}
