//! candle tensors as slices.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use super::kernel::buffer;

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

/// Takes the values out of a tensor that nobody reads any more, for a later step ([`buffer`]). Clones of the tensor lose them too. On another
/// device nothing happens.
///
/// # Errors
/// Those of the tensor's lock.
pub fn recycle(tensor: &Tensor) -> Result<()> {
    if !tensor.device().is_cpu() {
        return Ok(());
    }
    tensor.inplace_op1(&Recycle)
}

struct Recycle;

impl InplaceOp1 for Recycle {
    fn name(&self) -> &'static str {
        "recycle"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        if let CpuStorage::F32(values) = storage {
            buffer::give_back(std::mem::take(values));
        }
        Ok(())
    }
}

/// What [`change`] calls.
type Work<'a> = dyn FnMut(Vec<&mut [f32]>) + 'a;

/// Calls `work` with the values of tensors on the CPU, to be changed in place. No two of the tensors share values.
///
/// # Errors
/// If one is not on the CPU, not f32 or not contiguous.
pub fn change(tensors: &[&Tensor], work: &mut Work<'_>) -> Result<()> {
    open(tensors, Vec::new(), work)
}

fn open(tensors: &[&Tensor], opened: Vec<&mut [f32]>, work: &mut Work<'_>) -> Result<()> {
    let Some((tensor, rest)) = tensors.split_first() else {
        work(opened);
        return Ok(());
    };
    tensor.inplace_op1(&Open(RefCell::new(Some((rest, opened, work)))))
}

/// Opens one tensor, then the rest of them.
struct Open<'a, 'w>(RefCell<Option<Opening<'a, 'w>>>);

type Opening<'a, 'w> = (&'a [&'a Tensor], Vec<&'a mut [f32]>, &'a mut Work<'w>);

impl InplaceOp1 for Open<'_, '_> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((rest, opened, work)) = self.0.take() else {
            bail!("change: an operator computes once");
        };
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("only contiguous tensors of f32 change in place, got {layout:?}");
        };
        // a vector of shorter borrows
        let mut opened: Vec<&mut [f32]> = opened;
        opened.push(&mut values[start..end]);
        open(rest, opened, work)
    }
}
