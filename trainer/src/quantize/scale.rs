//! Choice of power-of-two scales. A tensor's real value is `q * 2^exponent`.

use runtime::encode::DType;

use crate::{calibrate::Histogram, recipe};

/// Smallest and largest integer of an activation tensor.
pub fn limits(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::U8 => (0, 255),
        DType::I8 => (-128, 127),
        DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
    }
}

/// Largest magnitude that an operator may read from a tensor of this type: 255 or 128.
pub fn max_magnitude(dtype: DType) -> i64 {
    let (low, high) = limits(dtype);
    high.max(-low)
}

/// `saturate(round_half_even(value * 2^-exponent))`.
pub fn quantize_value(value: f64, exponent: i32, dtype: DType) -> i64 {
    let (low, high) = limits(dtype);
    (value * pow2(-exponent))
        .round_ties_even()
        .clamp(low as f64, high as f64) as i64
}

/// `2^exponent`.
pub fn pow2(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

/// How activation exponents are chosen from what calibration saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Nothing saturates.
    MinMax,
    /// So many percent of the values do not saturate.
    Percentile(f64),
    /// Smallest mean squared error.
    Mse,
}

impl Method {
    /// The method that a recipe asks for; of `divergence` the start.
    pub fn from_recipe(recipe: &recipe::Quantize) -> Self {
        match recipe.method {
            recipe::CalibrationMethod::MinMax => Self::MinMax,
            recipe::CalibrationMethod::Percentile => Self::Percentile(f64::from(recipe.percentile)),
            recipe::CalibrationMethod::Mse | recipe::CalibrationMethod::Divergence => Self::Mse,
        }
    }
}

/// The exponent used where calibration saw only zeros.
const EXPONENT_OF_ZEROS: i32 = -7;

/// Steps below the first exponent without saturation that the MSE search tries.
const MSE_STEPS: i32 = 8;

/// Exponent for an activation tensor. For MSE the error is measured behind `function`, which is what the next
/// operator computes from the tensor (identity, or the activation function that a table holds).
pub fn activation_exponent(
    histogram: &Histogram,
    dtype: DType,
    method: Method,
    function: impl Fn(f64) -> f64,
) -> i32 {
    let range = match method {
        Method::Percentile(percent) => histogram.central_range(percent),
        Method::MinMax | Method::Mse => histogram.range(),
    };
    let Some(largest) = exponent_of_range(range, dtype) else {
        return EXPONENT_OF_ZEROS;
    };
    if method != Method::Mse {
        return largest;
    }
    let error = |exponent: i32| -> f64 {
        histogram
            .bins()
            .map(|(value, count)| {
                let back = quantize_value(value, exponent, dtype) as f64 * pow2(exponent);
                (function(value) - function(back)).powi(2) * count as f64
            })
            .sum()
    };
    smallest_error((largest - MSE_STEPS..=largest).rev(), error)
}

/// Smallest exponent at which both ends are representable; `None` for the range `[0, 0]`.
fn exponent_of_range((min, max): (f64, f64), dtype: DType) -> Option<i32> {
    let (low, high) = limits(dtype);
    let mut needed = max / high as f64;
    if low < 0 {
        needed = needed.max(min / low as f64);
    }
    (needed > 0.0).then(|| ceil_log2(needed))
}

/// Exponent for int8 weights (|q| <= 127) with the smallest squared error; `None` if all are zero.
pub fn weight_exponent(weights: &[f64]) -> Option<i32> {
    let largest = weights.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    if largest == 0.0 {
        return None;
    }
    let first = ceil_log2(largest / 127.0);
    Some(smallest_error((first - 3..=first).rev(), |exponent| {
        weights
            .iter()
            .map(|&w| (w - f64::from(quantize_weight(w, exponent)) * pow2(exponent)).powi(2))
            .sum()
    }))
}

/// `round_half_even(weight * 2^-exponent)`, limited to -127..=127.
pub fn quantize_weight(weight: f64, exponent: i32) -> i8 {
    (weight * pow2(-exponent))
        .round_ties_even()
        .clamp(-127.0, 127.0) as i8
}

/// The first candidate with the smallest error.
fn smallest_error(candidates: impl Iterator<Item = i32>, error: impl Fn(i32) -> f64) -> i32 {
    candidates
        .map(|exponent| (error(exponent), exponent))
        .reduce(|best, next| if next.0 < best.0 { next } else { best })
        .expect("at least one candidate")
        .1
}

/// Smallest `e` with `2^e >= value`, for `value > 0`.
fn ceil_log2(value: f64) -> i32 {
    let mut exponent = value.log2().ceil() as i32;
    while pow2(exponent) < value {
        exponent += 1;
    }
    while pow2(exponent - 1) >= value {
        exponent -= 1;
    }
    exponent
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against all exponents in a wide range and the values themselves.
        #[test]
        fn weight_exponent_is_optimal(weights in prop::collection::vec(-3.0f64..3.0, 1..40)) {
            let error = |e: i32| -> f64 {
                weights.iter().map(|w| {
                    let q = (w / 2f64.powi(e)).round_ties_even().clamp(-127.0, 127.0);
                    (w - q * 2f64.powi(e)).powi(2)
                }).sum()
            };
            if let Some(chosen) = weight_exponent(&weights) {
                let best = (-30..10).map(error).fold(f64::INFINITY, f64::min);
                prop_assert!(error(chosen) <= best * (1.0 + 1e-12) + 1e-30);
            } else {
                prop_assert!(weights.iter().all(|w| *w == 0.0));
            }
        }

        #[test]
        fn activation_exponent_is_optimal(values in prop::collection::vec(-50.0f32..200.0, 20..300), signed: bool) {
            let dtype = if signed { DType::I8 } else { DType::U8 };
            let histogram = Histogram::from_values(&values);
            let chosen = activation_exponent(&histogram, dtype, Method::Mse, |x| x);
            let error = |e: i32| -> f64 {
                values.iter().map(|&x| {
                    let (lo, hi) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
                    let q = (f64::from(x) / 2f64.powi(e)).round_ties_even().clamp(lo, hi);
                    (f64::from(x) - q * 2f64.powi(e)).powi(2)
                }).sum()
            };
            let best = (-12..8).map(error).fold(f64::INFINITY, f64::min);
            // The histogram knows the values to half a bin (1/64 of a step at worst).
            prop_assert!(error(chosen) <= best * 1.1 + 1e-6 * values.len() as f64);
        }

        #[test]
        fn min_max_never_saturates(min in -1e4f64..0.0, max in 0.0f64..1e4) {
            let histogram = Histogram::from_values(&[min as f32, max as f32]);
            let e = activation_exponent(&histogram, DType::I8, Method::MinMax, |x| x);
            prop_assert!(min as f32 as f64 >= -128.0 * pow2(e) && max as f32 as f64 <= 127.0 * pow2(e));
            prop_assert!((min as f32 as f64) < -128.0 * pow2(e - 1) || max as f32 as f64 > 127.0 * pow2(e - 1));
        }
    }

    #[test]
    fn ties_go_to_even_and_ends_saturate() {
        let q = |v| quantize_value(v, 0, DType::I8);
        assert_eq!([q(0.5), q(1.5), q(-0.5), q(-1.5), q(2.5)], [0, 2, 0, -2, 2]);
        assert_eq!([q(127.6), q(-128.6), q(1e9)], [127, -128, 127]);
        assert_eq!(quantize_value(-3.0, 0, DType::U8), 0);
        assert_eq!(quantize_value(63.75, -2, DType::U8), 255);
        assert_eq!(
            [quantize_weight(127.5, 0), quantize_weight(-128.0, 0)],
            [127, -127]
        );
        assert_eq!([quantize_weight(2.5, 0), quantize_weight(-3.5, 0)], [2, -4]);
    }

    #[test]
    fn zeros_have_an_exponent() {
        assert_eq!(
            activation_exponent(&Histogram::default(), DType::I8, Method::Mse, |x| x),
            -7
        );
        assert_eq!(weight_exponent(&[0.0, 0.0]), None);
    }
}
