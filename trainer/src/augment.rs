//! Random distortions of training images: shift, rotation, zoom, elastic distortion.
//!
//! Every output pixel takes the value at its source position, bilinear, 0 outside the image, rounded to u8. The source
//! position of `p` is `centre + R(angle) * (p - centre) / zoom - shift + elastic(p)`, all drawn uniformly from the recipe's ranges.

use std::f32::consts::PI;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{architecture::Shape, recipe::Augment};

/// Distorts images of one shape.
#[derive(Clone, Debug)]
pub struct Augmenter {
    ranges: Augment,
    shape: Shape,
    /// Half of the Gaussian's weights, the middle one first; they sum to 1 over both halves.
    gaussian: Vec<f32>,
}

impl Augmenter {
    /// None if all ranges are 0.
    pub fn new(ranges: &Augment, shape: Shape) -> Option<Self> {
        let moves = [
            ranges.shift,
            ranges.rotate,
            ranges.zoom,
            ranges.elastic_alpha,
        ];
        if moves.iter().all(|&range| range == 0.0) {
            return None;
        }
        let sigma = ranges.elastic_sigma;
        let radius = (3.0 * sigma).ceil() as usize;
        let weight = |i: usize| match i {
            0 => 1.0,
            i => (-0.5 * (i as f32 / sigma).powi(2)).exp(),
        };
        let half: Vec<f32> = (0..=radius).map(weight).collect();
        let sum = 2.0 * half.iter().sum::<f32>() - half[0];
        Some(Self {
            ranges: *ranges,
            shape,
            gaussian: half.iter().map(|w| w / sum).collect(),
        })
    }

    /// A distorted copy of one image (NHWC).
    ///
    /// # Panics
    /// If `pixels` has another shape.
    pub fn apply(&self, pixels: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
        assert_eq!(pixels.len(), self.shape.len(), "an image of this shape");
        let mut draw = |range: f32| range * (2.0 * random.random::<f32>() - 1.0);
        let angle = draw(self.ranges.rotate) * PI / 180.0;
        let zoom = 1.0 + draw(self.ranges.zoom);
        let (shift_y, shift_x) = (draw(self.ranges.shift), draw(self.ranges.shift));
        let (sin, cos) = (angle.sin() / zoom, angle.cos() / zoom);
        let elastic = (self.ranges.elastic_alpha > 0.0)
            .then(|| [self.displacement(random), self.displacement(random)]);
        let Shape { h, w, c } = self.shape;
        let (middle_y, middle_x) = ((h - 1) as f32 / 2.0, (w - 1) as f32 / 2.0);
        let mut out = vec![0; pixels.len()];
        for (i, out) in out.chunks_exact_mut(c).enumerate() {
            let (y, x) = ((i / w) as f32 - middle_y, (i % w) as f32 - middle_x);
            let mut from_y = middle_y + cos * y - sin * x - shift_y;
            let mut from_x = middle_x + sin * y + cos * x - shift_x;
            if let Some([dy, dx]) = &elastic {
                from_y += dy[i];
                from_x += dx[i];
            }
            self.sample(pixels, from_y, from_x, out);
        }
        out
    }

    /// Bilinear value of every channel at a position.
    fn sample(&self, pixels: &[u8], y: f32, x: f32, out: &mut [u8]) {
        let Shape { h, w, c } = self.shape;
        let (top, left) = (floor(y), floor(x));
        let (fy, fx) = (y - top as f32, x - left as f32);
        let corners = [
            (top, left, (1.0 - fy) * (1.0 - fx)),
            (top, left + 1, (1.0 - fy) * fx),
            (top + 1, left, fy * (1.0 - fx)),
            (top + 1, left + 1, fy * fx),
        ];
        for (channel, out) in out.iter_mut().enumerate() {
            let mut sum = 0.5;
            for (y, x, weight) in corners {
                // A negative position becomes a huge one.
                let (y, x) = (y as usize, x as usize);
                if y < h && x < w {
                    sum += weight * f32::from(pixels[(y * w + x) * c + channel]);
                }
            }
            *out = sum as u8;
        }
    }

    /// Uniform noise in [-1, 1], smoothed along rows and columns, times alpha. One value per pixel.
    fn displacement(&self, random: &mut ChaCha8Rng) -> Vec<f32> {
        let Shape { h, w, .. } = self.shape;
        let alpha = self.ranges.elastic_alpha;
        let noise: Vec<f32> = (0..h * w)
            .map(|_| alpha * (2.0 * random.random::<f32>() - 1.0))
            .collect();
        let rows = self.smooth(&noise, h, w, w, 1);
        self.smooth(&rows, w, h, 1, w)
    }

    /// Gaussian along `n` values `step` apart, in each of `lines` lines `line_step` apart; 0 outside.
    fn smooth(
        &self,
        values: &[f32],
        lines: usize,
        n: usize,
        line_step: usize,
        step: usize,
    ) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        for line in 0..lines {
            for i in 0..n {
                let at = |j: usize| values[line * line_step + j * step];
                let mut sum = self.gaussian[0] * at(i);
                for (d, weight) in self.gaussian.iter().enumerate().skip(1) {
                    let before = if i >= d { at(i - d) } else { 0.0 };
                    let after = if i + d < n { at(i + d) } else { 0.0 };
                    sum += weight * (before + after);
                }
                out[line * line_step + i * step] = sum;
            }
        }
        out
    }
}

/// Largest integer that is not above `x`. Baseline x86-64 has no instruction for `f32::floor`.
fn floor(x: f32) -> i64 {
    let towards_zero = x as i32;
    i64::from(towards_zero) - i64::from(towards_zero as f32 > x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, generator};

    const SHAPE: Shape = Shape { h: 9, w: 7, c: 2 };

    fn distort(ranges: Augment, image: &[u8], seed: u64) -> Vec<u8> {
        let augmenter = Augmenter::new(&ranges, SHAPE).expect("something to do");
        augmenter.apply(image, &mut generator(seed, Purpose::Augment, 0, 0))
    }

    #[test]
    fn nothing_to_do() {
        assert!(Augmenter::new(&Augment::default(), SHAPE).is_none());
    }

    #[test]
    fn a_vanishing_distortion_changes_nothing() {
        let image: Vec<u8> = (0..126).collect();
        let ranges = Augment {
            shift: 1e-6,
            rotate: 1e-6,
            zoom: 1e-7,
            elastic_alpha: 1e-6,
            elastic_sigma: 2.0,
        };
        // Positions outside by rounding alone lose at most the border's last bit.
        for (got, expected) in distort(ranges, &image, 1).iter().zip(&image) {
            assert!(got.abs_diff(*expected) <= 1, "{got} {expected}");
        }
    }

    #[test]
    fn a_shift_moves_the_centre_of_mass_by_what_was_drawn() {
        let mut image = vec![0; SHAPE.len()];
        image[(4 * 7 + 3) * 2] = 255;
        let ranges = Augment {
            shift: 2.0,
            ..Augment::default()
        };
        for seed in 0..20 {
            let mut random = generator(seed, Purpose::Augment, 0, 0);
            let mut draw = || 2.0 * random.random::<f32>() - 1.0;
            let (_, _, y, x) = (draw(), draw(), 2.0 * draw(), 2.0 * draw());
            let out = distort(ranges, &image, seed);
            let (mut sum, mut sum_y, mut sum_x) = (0.0, 0.0, 0.0);
            for (i, pixel) in out.chunks(2).enumerate() {
                let value = f32::from(pixel[0]);
                sum += value;
                sum_y += value * (i / 7) as f32;
                sum_x += value * (i % 7) as f32;
                assert_eq!(pixel[1], 0, "channels do not mix");
            }
            assert!((sum_y / sum - 4.0 - y).abs() < 0.03, "seed {seed}");
            assert!((sum_x / sum - 3.0 - x).abs() < 0.03, "seed {seed}");
        }
    }

    #[test]
    fn an_even_image_stays_even_away_from_the_border() {
        let ranges = Augment {
            rotate: 10.0,
            elastic_alpha: 1.0,
            elastic_sigma: 1.5,
            ..Augment::default()
        };
        let out = distort(ranges, &vec![200; SHAPE.len()], 3);
        assert_eq!(out[(4 * 7 + 3) * 2..][..2], [200, 200]);
    }
}
