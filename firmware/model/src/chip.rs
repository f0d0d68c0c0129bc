//! What the linker script of cortex-m-rt leaves free: flash behind the program, RAM for the stack.

use core::{cell::RefCell, ptr, slice};

use app::{Flash, Mapped, Stack, divide};
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

use crate::MODEL;

unsafe extern "C" {
    // Start and end of initialized data in RAM, and where their initial values end the program in flash.
    static __sdata: u32;
    static __edata: u32;
    static __sidata: u32;
    // Lowest and highest address of the stack.
    static _stack_start: u32;
    static _stack_end: u32;
}

/// What cortex-m-rt's feature `paint-stack` fills the stack with before the start.
const PAINT: u32 = 0xcccc_cccc;

/// Extent of the stack. Needs cortex-m-rt with the feature `paint-stack`.
pub fn stack() -> Stack {
    let (bottom, top) = (&raw const _stack_end, &raw const _stack_start);
    let len = top.addr() - bottom.addr();
    let words = len / size_of::<u32>();
    let mut free = 0;
    // SAFETY: words between the two symbols, which lie in RAM.
    while free < words && unsafe { ptr::read_volatile(bottom.add(free)) } == PAINT {
        free += 1;
    }
    Stack {
        used: (len - free * size_of::<u32>()) as u32,
        len: len as u32,
    }
}

/// A region of a chip's flash, whose driver it shares with the other one.
#[derive(Debug)]
pub struct Region<'f, F> {
    driver: &'f RefCell<F>,
    /// Offset of the region for the driver.
    offset: usize,
    /// Where the processor sees it.
    address: *const u8,
    len: usize,
}

/// Two places for models in the flash behind the program. `base`: where the processor sees the driver's first byte.
///
/// # Safety
/// The program must be linked with cortex-m-rt's script into this flash, which `driver` drives, and nothing but the result
/// may write to the flash behind it.
pub unsafe fn flash_places<F: NorFlash>(
    driver: &RefCell<F>,
    base: usize,
) -> [Flash<Region<'_, F>>; 2] {
    let data = (&raw const __edata).addr() - (&raw const __sdata).addr();
    let end = (&raw const __sidata).addr() + data - base;
    let capacity = driver.borrow().capacity();
    divide(end..capacity, F::ERASE_SIZE, MODEL.file().len()).map(|range| {
        Flash::new(Region {
            driver,
            offset: range.start,
            address: ptr::with_exposed_provenance(base + range.start),
            len: range.len(),
        })
    })
}

impl<F: NorFlash> Mapped for Region<'_, F> {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the caller of `flash_places` promises that this is flash, which changes only through `&mut self`.
        unsafe { slice::from_raw_parts(self.address, self.len) }
    }
}

impl<F: NorFlash> ErrorType for Region<'_, F> {
    type Error = NorFlashErrorKind;
}

impl<F: NorFlash> Region<'_, F> {
    /// Calls the driver with the region's offset.
    fn drive(
        &mut self,
        call: impl FnOnce(&mut F, u32) -> Result<(), F::Error>,
    ) -> Result<(), NorFlashErrorKind> {
        let mut driver = self
            .driver
            .try_borrow_mut()
            .map_err(|_| NorFlashErrorKind::Other)?;
        call(&mut driver, self.offset as u32).map_err(|error| error.kind())
    }

    fn check(&self, end: usize) -> Result<(), NorFlashErrorKind> {
        if end > self.len {
            return Err(NorFlashErrorKind::OutOfBounds);
        }
        Ok(())
    }
}

impl<F: NorFlash> ReadNorFlash for Region<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        self.check(offset as usize + bytes.len())?;
        self.drive(|driver, start| driver.read(start + offset, bytes))
    }

    fn capacity(&self) -> usize {
        self.len
    }
}

impl<F: NorFlash> NorFlash for Region<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        self.check(to as usize)?;
        self.drive(|driver, start| driver.erase(start + from, start + to))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        self.check(offset as usize + bytes.len())?;
        self.drive(|driver, start| driver.write(start + offset, bytes))
    }
}
