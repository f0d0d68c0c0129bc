//! How well predictions fit labels: accuracy, confusion matrix, per-class metrics.

use serde::{Deserialize, Serialize};

/// Result over a set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Images counted.
    pub images: usize,
    /// Images whose prediction is the label.
    pub correct: usize,
    /// `correct / images`, 0 to 1; 0 without images.
    pub accuracy: f64,
    /// `confusion[label][prediction]`: images.
    pub confusion: Vec<Vec<usize>>,
    /// One entry per class.
    pub classes: Vec<ClassMetrics>,
}

/// Metrics of one class, 0 to 1. A quotient without cases (0 / 0) is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// Name of the class.
    pub name: String,
    /// Images with this label.
    pub images: usize,
    /// Share of the images predicted as this class that have this label.
    pub precision: f64,
    /// Share of the images with this label that are predicted as this class.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

/// The two lists do not fit each other or the classes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassificationError {
    /// One prediction per label.
    #[error("expected {labels} predictions (one per label), got {predictions}")]
    Length {
        /// How many labels.
        labels: usize,
        /// How many predictions.
        predictions: usize,
    },
    /// A class that does not exist.
    #[error("image {image}: {what} {class} is not below the number of classes ({classes})")]
    Class {
        /// Position of the image.
        image: usize,
        /// `label` or `prediction`.
        what: &'static str,
        /// What was found.
        class: u32,
        /// How many classes there are.
        classes: usize,
    },
}

impl Classification {
    /// Counts.
    ///
    /// # Errors
    /// Lists of different lengths; a label or prediction that is no class.
    pub fn new(
        class_names: &[String],
        labels: &[u32],
        predictions: &[u32],
    ) -> Result<Self, ClassificationError> {
        if labels.len() != predictions.len() {
            return Err(ClassificationError::Length {
                labels: labels.len(),
                predictions: predictions.len(),
            });
        }
        let classes = class_names.len();
        let index = |image, what, class: u32| {
            usize::try_from(class)
                .ok()
                .filter(|c| *c < classes)
                .ok_or(ClassificationError::Class {
                    image,
                    what,
                    class,
                    classes,
                })
        };
        let mut confusion = vec![vec![0; classes]; classes];
        for (image, (&label, &prediction)) in labels.iter().zip(predictions).enumerate() {
            let label = index(image, "label", label)?;
            let prediction = index(image, "prediction", prediction)?;
            confusion[label][prediction] += 1;
        }
        let correct = (0..classes).map(|c| confusion[c][c]).sum();
        let metrics = class_names.iter().enumerate().map(|(c, name)| {
            let images: usize = confusion[c].iter().sum();
            let predicted: usize = confusion.iter().map(|row| row[c]).sum();
            ClassMetrics {
                name: name.clone(),
                images,
                precision: share(confusion[c][c], predicted),
                recall: share(confusion[c][c], images),
                f1: share(2 * confusion[c][c], predicted + images),
            }
        });
        Ok(Self {
            images: labels.len(),
            correct,
            accuracy: share(correct, labels.len()),
            classes: metrics.collect(),
            confusion,
        })
    }
}

fn share(part: usize, all: usize) -> f64 {
    if all == 0 {
        0.0
    } else {
        part as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(String::from).to_vec()
    }

    /// Checked by hand: class a has 2 of 3 right, b 1 of 1 (predicted twice), c none of 0.
    #[test]
    fn counts_by_hand() {
        let result = Classification::new(&names(), &[0, 0, 0, 1], &[0, 0, 1, 1]).unwrap();
        assert_eq!(
            (result.images, result.correct, result.accuracy),
            (4, 3, 0.75)
        );
        assert_eq!(result.confusion, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
        let a = &result.classes[0];
        assert_eq!(
            (a.images, a.precision, a.recall, a.f1),
            (3, 1.0, 2.0 / 3.0, 0.8)
        );
        let b = &result.classes[1];
        assert_eq!(
            (b.images, b.precision, b.recall, b.f1),
            (1, 0.5, 1.0, 2.0 / 3.0)
        );
        let c = &result.classes[2];
        assert_eq!((c.images, c.precision, c.recall, c.f1), (0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let error = Classification::new(&names(), &[0, 1], &[0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected 2 predictions (one per label), got 1"
        );
        let error = Classification::new(&names(), &[0, 1], &[0, 3]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image 1: prediction 3 is not below the number of classes (3)"
        );
        assert!(Classification::new(&[], &[], &[]).is_ok());
    }
}
