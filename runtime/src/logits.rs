//! Logits and what is computed from them.

use heapless::Vec;

/// The logits of one image: i32 accumulators with a power-of-two scale per class. Logit `i` is `accumulator(i) * 2^exponent(i)`.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'r> {
    accumulators: &'r [[u8; 4]],
    exponents: &'r [u8],
}

/// A class with its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ranked {
    /// Class index.
    pub class: usize,
    /// Logit.
    pub value: f32,
}

/// `acc * 2^exponent`; exact for `|acc| < 2^24` and an exponent that keeps it a normal number.
fn scaled(acc: i32, exponent: i8) -> f32 {
    // Two factors, because 2^-128 alone is subnormal and 2^127 the last power.
    let half = i32::from(exponent) / 2;
    let rest = i32::from(exponent) - half;
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    acc as f32 * power(half) * power(rest)
}

impl<'r> Logits<'r> {
    pub(crate) fn new(bytes: &'r [u8], exponents: &'r [u8]) -> Self {
        Self {
            accumulators: bytes.as_chunks::<4>().0,
            exponents,
        }
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.accumulators.len()
    }

    /// True if there are no classes, which no model has.
    pub fn is_empty(&self) -> bool {
        self.accumulators.is_empty()
    }

    /// The i32 accumulators, in class order. These are what two machines compare.
    pub fn accumulators(&self) -> impl ExactSizeIterator<Item = i32> + use<'r> {
        self.accumulators.iter().map(|b| i32::from_le_bytes(*b))
    }

    /// The accumulator of a class.
    pub fn accumulator(&self, class: usize) -> Option<i32> {
        self.accumulators.get(class).map(|b| i32::from_le_bytes(*b))
    }

    /// The logit of a class, exact in f32 (for exponents from -102 to 103).
    pub fn value(&self, class: usize) -> Option<f32> {
        let exponent = *self.exponents.get(class)? as i8;
        Some(scaled(self.accumulator(class)?, exponent))
    }

    /// The logits, in class order.
    pub fn values(&self) -> impl Iterator<Item = f32> + use<'r> {
        self.accumulators()
            .zip(self.exponents)
            .map(|(acc, &exponent)| scaled(acc, exponent as i8))
    }

    /// The class with the greatest logit; of equal ones the lowest. Integer arithmetic only.
    ///
    /// Compares `acc_a * 2^e_a` with `acc_b * 2^e_b` exactly.
    pub fn argmax(&self) -> usize {
        let mut best = (0, i32::MIN, 0);
        for (class, (acc, &exponent)) in self.accumulators().zip(self.exponents).enumerate() {
            let exponent = exponent as i8;
            if class == 0 || greater((acc, exponent), (best.1, best.2)) {
                best = (class, acc, exponent);
            }
        }
        best.0
    }

    /// The `K` greatest logits in descending order, of equal ones the lowest class first; fewer if there are fewer classes.
    pub fn top_k<const K: usize>(&self) -> Vec<Ranked, K> {
        let mut ranked: Vec<Ranked, K> = Vec::new();
        for (class, value) in self.values().enumerate() {
            let at = ranked
                .iter()
                .position(|r| value > r.value)
                .unwrap_or(ranked.len());
            if at < K {
                if ranked.len() == K {
                    ranked.pop();
                }
                // There is room now, and `at` is at most the length.
                let _ = ranked.insert(at, Ranked { class, value });
            }
        }
        ranked
    }

    /// Probabilities of a softmax output, in f32: `exp(v - max) / sum`. Writes one value per class; extra room in `out` is left alone.
    /// Not part of the exact arithmetic: compare accumulators, not probabilities.
    ///
    /// Error: a few units in the last place of f32.
    pub fn softmax(&self, out: &mut [f32]) {
        let max = self.values().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (out, value) in out.iter_mut().zip(self.values()) {
            *out = libm::expf(value - max);
            sum += *out;
        }
        let scale = 1.0 / sum;
        for out in out.iter_mut().take(self.len()) {
            *out *= scale;
        }
    }

    /// Probabilities of independent classes, in f32: `1 / (1 + exp(-v))`. Writes one value per class.
    pub fn sigmoid(&self, out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(self.values()) {
            *out = 1.0 / (1.0 + libm::expf(-value));
        }
    }
}

/// `a.0 * 2^a.1 > b.0 * 2^b.1`, exactly.
fn greater(a: (i32, i8), b: (i32, i8)) -> bool {
    if a.0.signum() != b.0.signum() || a.0 == 0 {
        return a.0 > b.0;
    }
    let apart = i32::from(a.1) - i32::from(b.1);
    // Same sign, neither 0. Beyond 32 binary places the exponent alone decides.
    let shift = apart.unsigned_abs().min(32);
    let (x, y) = (i64::from(a.0), i64::from(b.0));
    if apart >= 0 {
        x << shift > y
    } else {
        x > y << shift
    }
}
