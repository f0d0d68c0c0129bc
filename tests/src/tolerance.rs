//! The float models: where bits may differ, how much they do.

use serde::{Deserialize, Serialize};

/// Difference of two sets of logits of the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Images compared.
    pub images: usize,
    /// Largest absolute difference of a logit.
    pub max: f64,
    /// Mean absolute difference of the logits.
    pub mean: f64,
    /// Part of the images with the same argmax (ties: lowest index), 0 to 1.
    pub agreement: f64,
}

/// Why two sets cannot be compared: lengths that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} logits of {classes} classes, got {got}")]
pub struct LengthError {
    /// Values in the first set.
    pub expected: usize,
    /// Values per image.
    pub classes: usize,
    /// Values in the second set.
    pub got: usize,
}

/// Compares logits `a` and `b`, each `images * classes` values, row by row.
///
/// # Errors
/// Lengths that differ or are no multiple of `classes`.
pub fn compare(a: &[f32], b: &[f32], classes: usize) -> Result<Difference, LengthError> {
    if a.len() != b.len() || classes == 0 || !a.len().is_multiple_of(classes) {
        return Err(LengthError {
            expected: a.len(),
            classes,
            got: b.len(),
        });
    }
    let images = a.len() / classes;
    let distance = |(x, y): (&f32, &f32)| f64::from((x - y).abs());
    let same = a
        .chunks(classes)
        .zip(b.chunks(classes))
        .filter(|(x, y)| argmax(x) == argmax(y))
        .count();
    Ok(Difference {
        images,
        // A NaN must not hide behind `max`.
        max: a
            .iter()
            .zip(b)
            .map(distance)
            .fold(0.0, |m, d| if d.is_nan() || d > m { d } else { m }),
        mean: a.iter().zip(b).map(distance).sum::<f64>() / a.len().max(1) as f64,
        agreement: if images == 0 {
            1.0
        } else {
            same as f64 / images as f64
        },
    })
}

/// Part of the images whose argmax is their label, 0 to 1.
pub fn accuracy(logits: &[f32], classes: usize, labels: &[u32]) -> f64 {
    let right = logits
        .chunks(classes)
        .zip(labels)
        .filter(|(row, label)| argmax(row) == **label as usize)
        .count();
    right as f64 / labels.len().max(1) as f64
}

/// Index of the largest value, the lowest one of equals.
pub fn argmax<T: PartialOrd>(row: &[T]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_measured_per_logit_and_per_image() {
        let d = compare(&[1.0, 2.0, 5.0, 0.0], &[1.0, 2.5, 0.0, 1.0], 2).unwrap();
        assert_eq!(
            (d.images, d.max, d.mean, d.agreement),
            (2, 5.0, 6.5 / 4.0, 0.5)
        );
        assert_eq!(accuracy(&[1.0, 2.0, 5.0, 0.0], 2, &[1, 1]), 0.5);
        assert_eq!(
            compare(&[1.0], &[1.0, 2.0], 1),
            Err(LengthError {
                expected: 1,
                classes: 1,
                got: 2
            })
        );
    }

    #[test]
    fn a_nan_is_not_hidden() {
        assert!(
            compare(&[f32::NAN, 1.0], &[0.0, 2.0], 2)
                .unwrap()
                .max
                .is_nan()
        );
    }
}
