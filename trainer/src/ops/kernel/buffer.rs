//! Vectors that live across steps: what a step has computed and nobody reads any more is memory for the next one. So a
//! running training allocates no large vectors, has no page faults, and writes no zeros that are overwritten.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

/// Values of the smallest vector that is kept: smaller ones cost little.
const LEAST: usize = 1 << 12;
/// Values that are kept in all (64 MiB); the vectors that were given back first go first.
const MOST: usize = 1 << 24;

static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

fn free() -> MutexGuard<'static, Vec<Vec<f32>>> {
    // a vector is whole whatever has panicked
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A vector of `len` values, which are unspecified (of earlier steps): write each before you read it.
pub fn take(len: usize) -> Vec<f32> {
    if len >= LEAST {
        let mut free = free();
        if let Some(i) = free.iter().rposition(|values| values.len() == len) {
            return free.remove(i);
        }
    }
    vec![0.0; len]
}

/// Keeps the vector for a later [`take`] of its length.
pub fn give_back(values: Vec<f32>) {
    if !(LEAST..=MOST).contains(&values.len()) {
        return;
    }
    let mut free = free();
    let mut kept: usize = free.iter().map(Vec::len).sum();
    let surplus = free.iter().take_while(|oldest| {
        let over = kept + values.len() > MOST;
        kept -= if over { oldest.len() } else { 0 };
        over
    });
    let surplus = surplus.count();
    free.drain(..surplus);
    free.push(values);
}

/// A vector of `len` values, chunk by chunk: `work` gets each chunk of `chunk` values (the last one may be shorter), which are
/// unspecified as in [`take`], together with the item of `with` in the same place; what it answers is returned in order.
///
/// # Panics
/// If `with` has another number of items than there are chunks.
pub fn chunks<X: Send, R: Send>(
    len: usize,
    chunk: usize,
    with: impl IndexedParallelIterator<Item = X>,
    work: impl Fn(X, &mut [f32]) -> R + Sync,
) -> (Vec<f32>, Vec<R>) {
    assert_eq!(with.len(), len.div_ceil(chunk), "one item per chunk");
    let mut values = take(len);
    let chunks = values.par_chunks_mut(chunk).zip(with);
    let results = chunks.map(|(chunk, item)| work(item, chunk)).collect();
    (values, results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_comes_back_by_its_length() {
        // lengths that no other test uses: the vectors are the process's
        let (len, other) = (LEAST + 1237, LEAST + 1238);
        assert_eq!(take(len), vec![0.0; len]);
        give_back(vec![1.0; len]);
        assert_eq!(take(other), vec![0.0; other]);
        assert_eq!(take(len), vec![1.0; len]);
        assert_eq!(take(len), vec![0.0; len]);
        give_back(vec![1.0; 5]);
        assert_eq!(take(5), [0.0; 5]);
    }
}
