//! Random numbers without state to save: a generator is made from what it is for, so that step N of
//! epoch M draws the same numbers whether or not the run was interrupted, and in any number of threads.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// What the numbers are for; two purposes never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Train/test split of joined data.
    Split = 1,
    /// Choice of the validation images.
    Validation = 2,
    /// Choice of the images kept by `data.limit`.
    Limit = 3,
    /// Order of the images in an epoch.
    Order = 4,
    /// Distortion of one image in one epoch.
    Augment = 5,
    /// Initial weights.
    Initializer = 6,
    /// Dropout mask of one layer in one step.
    Dropout = 7,
    /// Choice of the calibration images.
    Calibration = 8,
    /// Order of the weights in a comparison with chance.
    Chance = 9,
    /// Values of a random search.
    Sweep = 10,
}

/// ChaCha8 with the key `seed, purpose, a, b` (little-endian u64 each). `a` and `b` are for example epoch and image.
pub fn generator(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A uniformly random order of `0..len`.
pub fn permutation(len: usize, seed: u64, purpose: Purpose, a: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    order.shuffle(&mut generator(seed, purpose, a, 0));
    order
}
