//! Vectors of zeros that are made where they are filled.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A vector of `len` values, chunk by chunk: `work` gets each chunk of `chunk` values (the last one may be shorter) as zeros,
/// together with the item of `with` in the same place; what it answers is returned in order. The thread that fills a chunk has
/// just written its zeros, so it finds them in its cache, and no thread waits until all are zero.
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
    let mut values: Vec<MaybeUninit<f32>> = Vec::with_capacity(len);
    // SAFETY: MaybeUninit needs no initialization
    unsafe { values.set_len(len) };
    let results = values
        .par_chunks_mut(chunk)
        .zip(with)
        .map(|(chunk, item)| {
            for value in &mut *chunk {
                value.write(0.0);
            }
            // SAFETY: every value of the chunk is written; MaybeUninit<f32> has the layout of f32
            let chunk = unsafe { &mut *(&raw mut *chunk as *mut [f32]) };
            work(item, chunk)
        })
        .collect();
    let mut values = std::mem::ManuallyDrop::new(values);
    // SAFETY: every chunk, thus every value, was written; the parts are those of a Vec with the same layout
    let values =
        unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), values.len(), values.capacity()) };
    (values, results)
}
