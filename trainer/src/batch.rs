//! Batches of one epoch. What a batch holds depends only on seed, epoch and its number: a resumed run and
//! any number of threads give the same values.

use rayon::prelude::*;

use crate::{
    augment::Augmenter,
    dataset::Labelled,
    ops::kernel::buffer,
    preprocess::Preprocess,
    random::{Purpose, generator, permutation},
    recipe::Augment,
};

/// Preprocessed images with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Number of images.
    pub n: usize,
    /// `n * h * w * c` values, NHWC.
    pub x: Vec<f32>,
    /// `n` classes.
    pub labels: Vec<u32>,
}

/// Order in which an epoch (from 0) visits `len` images.
pub fn order(len: usize, seed: u64, epoch: u64) -> Vec<u32> {
    permutation(len, seed, Purpose::Order, epoch)
}

/// The batches of one epoch; the last one may be smaller.
#[derive(Debug)]
pub struct Batches<'a> {
    data: &'a Labelled,
    preprocess: &'a Preprocess,
    /// Positions of the images; none: in order.
    order: Option<Vec<u32>>,
    size: usize,
    /// First image of the next batch.
    next: usize,
    augment: Option<Augmentation>,
}

/// Distortion of every image, with what its random numbers depend on.
#[derive(Debug)]
struct Augmentation {
    augmenter: Augmenter,
    seed: u64,
    epoch: u64,
}

impl<'a> Batches<'a> {
    /// All images in their own order.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn in_order(data: &'a Labelled, preprocess: &'a Preprocess, size: usize) -> Self {
        assert!(size > 0, "a batch has at least one image");
        Self {
            data,
            preprocess,
            order: None,
            size,
            next: 0,
            augment: None,
        }
    }

    /// All images shuffled for this epoch (from 0).
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn shuffled(
        data: &'a Labelled,
        preprocess: &'a Preprocess,
        size: usize,
        seed: u64,
        epoch: u64,
    ) -> Self {
        Self {
            order: Some(order(data.len(), seed, epoch)),
            ..Self::in_order(data, preprocess, size)
        }
    }

    /// Distorts every image; nothing happens if the recipe distorts nothing.
    pub fn augmented(self, augment: &Augment, seed: u64, epoch: u64) -> Self {
        let augmenter = Augmenter::new(augment, self.data.images.shape);
        Self {
            augment: augmenter.map(|augmenter| Augmentation {
                augmenter,
                seed,
                epoch,
            }),
            ..self
        }
    }

    /// Starts at batch `step` (from 0) of the epoch instead of at the first one.
    pub fn starting_at(self, step: usize) -> Self {
        Self {
            next: step.saturating_mul(self.size).min(self.data.len()),
            ..self
        }
    }

    /// Number of the next batch's images.
    fn next_len(&self) -> usize {
        self.size.min(self.data.len() - self.next)
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let n = self.next_len();
        if n == 0 {
            return None;
        }
        let position = |i: usize| match &self.order {
            Some(order) => order[self.next + i] as usize,
            None => self.next + i,
        };
        let len = self.data.images.shape.len();
        let images = (0..n).into_par_iter();
        let (x, _) = buffer::chunks(n * len, len, images, |i, out| {
            let image = self.data.images.get(position(i));
            match &self.augment {
                None => self.preprocess.apply(image, out),
                Some(augment) => {
                    let mut random = generator(
                        augment.seed,
                        Purpose::Augment,
                        augment.epoch,
                        position(i) as u64,
                    );
                    let distorted = augment.augmenter.apply(image, &mut random);
                    self.preprocess.apply(&distorted, out);
                }
            }
        });
        let labels = (0..n).map(|i| self.data.labels[position(i)]).collect();
        self.next += n;
        Some(Batch { n, x, labels })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.data.len() - self.next).div_ceil(self.size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batches<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{architecture::Shape, dataset::Images};

    fn data() -> Labelled {
        Labelled {
            images: Images {
                shape: Shape { h: 4, w: 4, c: 1 },
                pixels: (0..160).collect(),
            },
            labels: (0..10).collect(),
        }
    }

    const AUGMENT: Augment = Augment {
        shift: 1.0,
        rotate: 10.0,
        zoom: 0.1,
        elastic_alpha: 1.0,
        elastic_sigma: 1.0,
    };

    fn epoch(data: &Labelled, epoch: u64) -> Vec<Batch> {
        Batches::shuffled(data, &Preprocess::None, 4, 7, epoch)
            .augmented(&AUGMENT, 7, epoch)
            .collect()
    }

    #[test]
    fn an_epoch_has_every_image_once_and_the_smaller_last_batch() {
        let data = data();
        let batches = Batches::shuffled(&data, &Preprocess::None, 4, 7, 0);
        assert_eq!(batches.len(), 3);
        let batches: Vec<Batch> = batches.collect();
        assert_eq!(batches.iter().map(|b| b.n).collect::<Vec<_>>(), [4, 4, 2]);
        let mut labels: Vec<u32> = batches.iter().flat_map(|b| b.labels.clone()).collect();
        assert_ne!(labels, data.labels);
        labels.sort_unstable();
        assert_eq!(labels, data.labels);
        for batch in &batches {
            for (label, x) in batch.labels.iter().zip(batch.x.chunks(16)) {
                assert_eq!(x[0], 16.0 * *label as f32);
            }
        }
        assert_eq!(
            Batches::in_order(&data, &Preprocess::None, 10)
                .next()
                .unwrap()
                .labels,
            data.labels
        );
    }

    #[test]
    fn a_resumed_epoch_continues_with_the_same_batches() {
        let data = data();
        assert_ne!(order(100, 7, 0), order(100, 7, 1));
        let whole_labels = |epoch| -> Vec<u32> {
            let batches = Batches::shuffled(&data, &Preprocess::None, 4, 7, epoch);
            batches.flat_map(|batch| batch.labels).collect()
        };
        assert_ne!(whole_labels(0), whole_labels(1));
        let whole = epoch(&data, 2);
        assert_ne!(whole, epoch(&data, 3));
        let rest: Vec<Batch> = Batches::shuffled(&data, &Preprocess::None, 4, 7, 2)
            .augmented(&AUGMENT, 7, 2)
            .starting_at(1)
            .collect();
        assert_eq!(rest, whole[1..]);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let data = data();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| epoch(&data, 1))
        };
        assert_eq!(with(1), with(3));
    }
}
