//! candle tensors as slices.

use candle_core::{CpuStorage, Layout, Result, Storage, bail};

/// The values of an operator's argument.
///
/// # Errors
/// If it is not f32 or not contiguous.
pub fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("the operator needs a contiguous tensor, got {layout:?}"),
    }
}

/// The values of a tensor on the CPU, for gradients.
///
/// # Errors
/// If it is not on the CPU, not f32 or not contiguous.
pub fn on_cpu<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => values(storage, layout),
        _ => bail!("the operator computes on the CPU only"),
    }
}
