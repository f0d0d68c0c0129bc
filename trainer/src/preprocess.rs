//! From raw pixels 0..=255 to the values that the first layer sees.

use serde::{Deserialize, Serialize};

use crate::{
    dataset::{Dataset, Images},
    ops::kernel::{self, Level},
    recipe::{PreprocessMode, Statistics},
};

/// Preprocessing with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preprocess {
    /// `x`.
    None,
    /// `x / 255`.
    Unit,
    /// `(x - mean) / std`.
    Global { mean: f32, std: f32 },
    /// `(x - mean[i]) / std[i]`, `i` in the order of [`Images::get`]; std is 1 for a pixel that never varies.
    PerPixel { mean: Vec<f32>, std: Vec<f32> },
}

impl Preprocess {
    /// Takes mean and (population) standard deviation from the training part, or from all parts.
    ///
    /// Rounding: the sums are exact integers; mean and std are computed in f64 and rounded once to f32. So the
    /// result does not depend on any order.
    pub fn fit(mode: PreprocessMode, statistics: Statistics, data: &Dataset) -> Self {
        let mut parts = vec![&data.train.images];
        if statistics == Statistics::All {
            parts.extend(data.validation.as_ref().map(|part| &part.images));
            parts.push(&data.test.images);
        }
        match mode {
            PreprocessMode::None => Self::None,
            PreprocessMode::Unit => Self::Unit,
            PreprocessMode::Global => {
                let mut moments = Moments::default();
                for moment in moments_per_pixel(&parts) {
                    moments.n += moment.n;
                    moments.sum += moment.sum;
                    moments.squares += moment.squares;
                }
                let (mean, std) = moments.mean_and_std();
                Self::Global { mean, std }
            }
            PreprocessMode::PerPixel => {
                let moments = moments_per_pixel(&parts);
                let (mean, std) = moments.iter().map(Moments::mean_and_std).unzip();
                Self::PerPixel { mean, std }
            }
        }
    }

    /// Writes the preprocessed values of one image into `out`.
    ///
    /// # Panics
    /// If `out` has another length than `pixels`, or the statistics are of another shape.
    pub fn apply(&self, pixels: &[u8], out: &mut [f32]) {
        assert_eq!(pixels.len(), out.len(), "one output per pixel");
        match self {
            Self::None => map(pixels, out, f32::from),
            // in f64 the product rounds to the same f32 as the quotient, for all 256 pixels, and takes less time
            Self::Unit => map(pixels, out, |x| (f64::from(x) * (1.0 / 255.0)) as f32),
            Self::Global { mean, std } => map(pixels, out, |x| (f32::from(x) - mean) / std),
            Self::PerPixel { mean, std } => {
                assert_eq!(pixels.len(), mean.len(), "statistics of this shape");
                kernel::compiled(
                    Level::detect(),
                    #[inline(always)]
                    || {
                        let pairs = out.iter_mut().zip(pixels).zip(mean).zip(std);
                        for (((y, &x), mean), std) in pairs {
                            *y = (f32::from(x) - mean) / std;
                        }
                    },
                );
            }
        }
    }
}

/// `out[i] = f(pixels[i])`, compiled for this machine.
#[inline(always)]
fn map(pixels: &[u8], out: &mut [f32], f: impl Fn(u8) -> f32) {
    kernel::compiled(
        Level::detect(),
        #[inline(always)]
        || {
            for (y, &x) in out.iter_mut().zip(pixels) {
                *y = f(x);
            }
        },
    );
}

/// Exact sums of integers.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    n: u64,
    sum: u64,
    squares: u64,
}

impl Moments {
    /// Variance is `(n * sum x^2 - (sum x)^2) / n^2`, exact up to the division.
    fn mean_and_std(&self) -> (f32, f32) {
        let n = u128::from(self.n.max(1));
        let sum = u128::from(self.sum);
        let spread = n * u128::from(self.squares) - sum * sum;
        let mean = sum as f64 / n as f64;
        let std = (spread as f64).sqrt() / n as f64;
        (mean as f32, if spread == 0 { 1.0 } else { std as f32 })
    }
}

fn moments_per_pixel(parts: &[&Images]) -> Vec<Moments> {
    let len = parts.first().map_or(0, |images| images.shape.len());
    let mut moments = vec![Moments::default(); len];
    for images in parts {
        for image in images.pixels.chunks_exact(len) {
            for (moment, &x) in moments.iter_mut().zip(image) {
                moment.sum += u64::from(x);
                moment.squares += u64::from(x) * u64::from(x);
            }
        }
        for moment in &mut moments {
            moment.n += images.len() as u64;
        }
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{architecture::Shape, dataset::Labelled};

    fn part(pixels: &[u8]) -> Labelled {
        let shape = Shape { h: 1, w: 2, c: 1 };
        Labelled {
            labels: vec![0; pixels.len() / 2],
            images: Images {
                shape,
                pixels: pixels.to_vec(),
            },
        }
    }

    fn fit(mode: PreprocessMode, statistics: Statistics) -> Preprocess {
        let data = Dataset {
            train: part(&[0, 7, 10, 7]),
            validation: None,
            test: part(&[20, 9]),
            class_names: vec!["a".into()],
        };
        Preprocess::fit(mode, statistics, &data)
    }

    #[test]
    fn unit_is_the_rounded_quotient() {
        let pixels: Vec<u8> = (0..=255).collect();
        let mut out = [0.0; 256];
        Preprocess::Unit.apply(&pixels, &mut out);
        for (x, y) in pixels.iter().zip(out) {
            assert_eq!(y, f32::from(*x) / 255.0, "{x}");
        }
    }

    #[test]
    fn statistics_by_hand() {
        let per_pixel = fit(PreprocessMode::PerPixel, Statistics::Train);
        let expected = Preprocess::PerPixel {
            mean: vec![5.0, 7.0],
            std: vec![5.0, 1.0],
        };
        assert_eq!(per_pixel, expected);
        let mut out = [0.0; 2];
        per_pixel.apply(&[20, 9], &mut out);
        assert_eq!(out, [3.0, 2.0]);
        let Preprocess::PerPixel { mean, std } = fit(PreprocessMode::PerPixel, Statistics::All)
        else {
            panic!("per pixel")
        };
        assert_eq!(mean, [10.0, 23.0 / 3.0]);
        assert!((std[0] - (200.0_f32 / 3.0).sqrt()).abs() < 1e-6);
        let Preprocess::Global { mean, std } = fit(PreprocessMode::Global, Statistics::Train)
        else {
            panic!("global")
        };
        assert_eq!((mean, std), (6.0, (13.5_f32).sqrt()));
    }
}
