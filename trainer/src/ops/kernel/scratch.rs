//! Buffers that a thread keeps between calls, so that temporaries cost no page faults.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `N` buffers of the given lengths. What they hold is unspecified (values of earlier calls).
pub fn with<const N: usize, R>(lens: [usize; N], work: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    let mut buffers = lens.map(|len| {
        let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        buffer
    });
    let mut lens = lens.into_iter();
    let result = work(
        buffers
            .each_mut()
            .map(|buffer| &mut buffer[..lens.next().unwrap_or(0)]),
    );
    FREE.with_borrow_mut(|free| free.extend(buffers.into_iter().rev()));
    result
}
