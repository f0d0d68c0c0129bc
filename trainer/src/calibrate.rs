//! Ranges of the activations on a set of images: one histogram for every tensor that the quantizer may have to scale.
//!
//! A histogram covers `[-2^k, 2^k)` with `2 * HALF` equal bins. When a value does not fit, `k` grows and neighbouring
//! bins merge, so the result does not depend on how the values were split into batches.

use crate::architecture::Architecture;

/// Bins on each side of zero.
const HALF: i64 = 4096;

/// Distribution of the values of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The bins cover `[-2^log2_limit, 2^log2_limit)`.
    log2_limit: i32,
    counts: Vec<u64>,
    /// Values that are exactly zero; kept apart because relu makes many of them.
    zeros: u64,
    min: f64,
    max: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            log2_limit: -24,
            counts: vec![0; 2 * HALF as usize],
            zeros: 0,
            min: 0.0,
            max: 0.0,
        }
    }
}

impl Histogram {
    /// A histogram of these values.
    pub fn from_values(values: &[f32]) -> Self {
        let mut histogram = Self::default();
        histogram.extend(values);
        histogram
    }

    /// A uniform distribution over `[min, max]`, for calibration by known ranges.
    pub fn uniform(min: f64, max: f64) -> Self {
        let values: Vec<f32> = (0..=2 * HALF)
            .map(|i| (min + (max - min) * i as f64 / (2 * HALF) as f64) as f32)
            .collect();
        Self::from_values(&values)
    }

    /// Adds values. Values that are not finite are ignored.
    pub fn extend(&mut self, values: &[f32]) {
        for &value in values {
            let value = f64::from(value);
            if value == 0.0 {
                self.zeros += 1;
                continue;
            }
            if !value.is_finite() {
                continue;
            }
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            while value.abs() >= 2f64.powi(self.log2_limit) {
                self.double_range();
            }
            let bin = (value / self.bin_width()).floor() as i64 + HALF;
            self.counts[bin as usize] += 1;
        }
    }

    fn double_range(&mut self) {
        let mut merged = vec![0; self.counts.len()];
        for (bin, &count) in self.counts.iter().enumerate() {
            merged[((bin as i64 - HALF).div_euclid(2) + HALF) as usize] += count;
        }
        self.counts = merged;
        self.log2_limit += 1;
    }

    fn bin_width(&self) -> f64 {
        2f64.powi(self.log2_limit) / HALF as f64
    }

    /// Smallest and largest value seen; both 0 without values. Zero is always inside.
    pub fn range(&self) -> (f64, f64) {
        (self.min, self.max)
    }

    /// Number of values.
    pub fn len(&self) -> u64 {
        self.zeros + self.counts.iter().sum::<u64>()
    }

    /// True without values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Non-empty bins in ascending order: centre (clamped to the values seen) and count.
    pub fn bins(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let width = self.bin_width();
        let of_bins = move |from: i64, to: i64| {
            (from..to).filter_map(move |bin| {
                let count = self.counts[bin as usize];
                let centre = ((bin - HALF) as f64 + 0.5) * width;
                (count > 0).then(|| (centre.clamp(self.min, self.max), count))
            })
        };
        let zero = (self.zeros > 0).then_some((0.0, self.zeros));
        of_bins(0, HALF).chain(zero).chain(of_bins(HALF, 2 * HALF))
    }

    /// The central range that holds `percent` of the values, the rest being cut off at both ends in equal parts.
    pub fn central_range(&self, percent: f64) -> (f64, f64) {
        let len = self.len();
        let tail = (len as f64 * (1.0 - percent / 100.0) / 2.0).floor() as u64;
        if tail == 0 {
            return self.range();
        }
        let value_at = |rank: u64| {
            let mut seen = 0;
            let bin = self.bins().find(|(_, count)| {
                seen += count;
                seen > rank
            });
            bin.map_or(0.0, |(value, _)| value)
        };
        (
            f64::min(value_at(tail), 0.0),
            f64::max(value_at(len - 1 - tail), 0.0),
        )
    }
}

/// What calibration saw of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerStatistics {
    /// Before the layer's activation function.
    pub pre_activation: Histogram,
    /// The layer's output.
    pub output: Histogram,
}

/// What calibration saw of a network: the preprocessed input and every layer, in the order of [`Architecture::layers`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// The image after preprocessing.
    pub input: Histogram,
    /// One entry per layer.
    pub layers: Vec<LayerStatistics>,
}

impl Calibration {
    /// No values yet, with the right number of layers.
    pub fn new(architecture: &Architecture) -> Self {
        Self {
            input: Histogram::default(),
            layers: vec![LayerStatistics::default(); architecture.layers.len()],
        }
    }

    /// Adds one batch: the preprocessed images, and of every layer in order the values before its activation and its
    /// output, as inference computes them.
    ///
    /// # Errors
    /// The number of layers that was found, if it is not the network's; nothing is added then.
    pub fn extend<'a>(
        &mut self,
        input: &[f32],
        layers: impl ExactSizeIterator<Item = (&'a [f32], &'a [f32])>,
    ) -> Result<(), usize> {
        if layers.len() != self.layers.len() {
            return Err(layers.len());
        }
        self.input.extend(input);
        for (statistics, (pre_activation, output)) in self.layers.iter_mut().zip(layers) {
            statistics.pre_activation.extend(pre_activation);
            statistics.output.extend(output);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_do_not_matter() {
        let values: Vec<f32> = (0..5000)
            .map(|i| ((i * 7919) % 5003) as f32 * 0.01 - 20.0)
            .collect();
        let whole = Histogram::from_values(&values);
        let mut parts = Histogram::default();
        for part in values.chunks(37) {
            parts.extend(part);
        }
        assert_eq!(whole, parts);
        assert_eq!(whole.len(), 5000);
    }

    #[test]
    fn bins_are_near_the_values() {
        let histogram = Histogram::from_values(&[0.0, 0.0, -3.0, 1.5, 100.0]);
        let bins: Vec<_> = histogram.bins().collect();
        assert_eq!(bins.len(), 4);
        assert_eq!(bins[1], (0.0, 2));
        for ((centre, _), value) in bins.iter().zip([-3.0, 0.0, 1.5, 100.0]) {
            assert!((centre - value).abs() <= 128.0 / 4096.0 / 2.0 + 1e-9);
        }
        assert_eq!(histogram.range(), (-3.0, 100.0));
    }

    #[test]
    fn percentile_cuts_the_tails() {
        let mut values: Vec<f32> = (0..10_000).map(|i| i as f32 / 10_000.0).collect();
        values.push(1000.0);
        values.push(-500.0);
        let (low, high) = Histogram::from_values(&values).central_range(99.0);
        // Half a bin is 1024 / 4096 / 2.
        assert!(low == 0.0 && (high - 0.995).abs() <= 0.125, "{low} {high}");
    }

    #[test]
    fn a_trace_of_another_network_is_refused() {
        let mut calibration = Calibration {
            input: Histogram::default(),
            layers: vec![LayerStatistics::default(); 2],
        };
        let before = calibration.clone();
        assert_eq!(
            calibration.extend(&[1.0], [(&[1.0f32][..], &[2.0f32][..])].into_iter()),
            Err(1)
        );
        assert_eq!(calibration, before);
        let trace = [(&[-4.0f32][..], &[0.0f32][..]), (&[3.0], &[3.0])];
        assert_eq!(calibration.extend(&[1.0], trace.into_iter()), Ok(()));
        assert_eq!(calibration.layers[0].pre_activation.range(), (-4.0, 0.0));
        assert_eq!(calibration.layers[1].output.range(), (0.0, 3.0));
    }
}
