//! Rounding to the grid of an integer type, with the straight-through estimator as its gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage;

/// Values that one task computes.
const TASK: usize = 1 << 13;

/// The numbers that an integer tensor can stand for: `q * 2^exponent` with `low <= q <= high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    step: f32,
    low: f32,
    high: f32,
}

impl Grid {
    /// A grid with at most 2^22 numbers on each side of zero.
    pub fn new(exponent: i32, (low, high): (i64, i64)) -> Self {
        let step = 2f32.powi(exponent);
        Self {
            step,
            low: low as f32 * step,
            high: high as f32 * step,
        }
    }

    /// Replaces every value by the nearest number of the grid; ties to even.
    pub fn apply(self, values: &mut [f32]) {
        for x in values {
            let nearest = (*x / self.step).round_ties_even() * self.step;
            *x = nearest.max(self.low).min(self.high);
        }
    }
}

/// Nearest grid values; the gradient is 1 where the input is within the grid's range, else 0.
pub fn operator(grid: Grid) -> impl CustomOp1 + Send + Sync + 'static {
    FakeQuantize(grid)
}

/// The same from candle's own operators, for any device.
pub fn composed(x: &Tensor, grid: Grid) -> Result<Tensor> {
    // Adding 1.5 * 2^23 leaves no bits behind the point: the sum is rounded half to even.
    const ROUND: f64 = 12_582_912.0;
    let inside = x.clamp(grid.low, grid.high)?;
    let step = f64::from(grid.step);
    let rounded = inside
        .detach()
        .affine(1.0 / step, ROUND)?
        .affine(1.0, -ROUND)?
        .affine(step, 0.0)?;
    let error = (rounded - inside.detach())?;
    inside + error
}

struct FakeQuantize(Grid);

impl CustomOp1 for FakeQuantize {
    fn name(&self) -> &'static str {
        "fake quantize"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = storage::values(x, layout)?.to_vec();
        y.par_chunks_mut(TASK).for_each(|y| self.0.apply(y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let x = storage::on_cpu(&x_storage, x_layout)?;
        let mut out = storage::on_cpu(&gradient_storage, gradient_layout)?.to_vec();
        let Grid { low, high, .. } = self.0;
        out.par_chunks_mut(TASK)
            .zip(x.par_chunks(TASK))
            .for_each(|(out, x)| {
                for (out, &x) in out.iter_mut().zip(x) {
                    *out = if (low..=high).contains(&x) { *out } else { 0.0 };
                }
            });
        Tensor::from_vec(out, gradient.shape(), gradient.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// Expected numbers by hand: steps of 0.5, -1 to 1.5.
    #[test]
    fn rounds_half_to_even_saturates_and_passes_the_gradient() -> Result<()> {
        let grid = Grid::new(-1, (-2, 3));
        let x = [0.25f32, 0.75, -0.25, 0.3, 1.4, 1.6, -0.9, -1.1, 9.0];
        let rounded = [0.0, 1.0, 0.0, 0.5, 1.5, 1.5, -1.0, -1.0, 1.5];
        let passed = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0];
        let weights = Tensor::arange(1f32, 10.0, &Device::Cpu)?;
        for fused in [true, false] {
            let var = Var::new(&x, &Device::Cpu)?;
            let y = if fused {
                var.apply_op1(operator(grid))?
            } else {
                composed(&var, grid)?
            };
            assert_eq!(y.to_vec1::<f32>()?, rounded, "fused {fused}");
            let store = (&y * &weights)?.sum_all()?.backward()?;
            let found = store.get(&var).map(|g| g.to_vec1::<f32>()).transpose()?;
            let expected = passed.iter().zip(1..).map(|(p, w)| p * w as f32);
            assert_eq!(found, Some(expected.collect()), "fused {fused}");
        }
        Ok(())
    }
}
