//! The flash of the nRF51 and its controller (NVMC).

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

use crate::register::Register;

const BASE: usize = 0x4001_e000;
const READ_ONLY: u32 = 0;
const WRITABLE: u32 = 1;
const ERASABLE: u32 = 2;
/// Bytes of the nRF51822's flash, which begins at address 0.
const LEN: usize = 256 * 1024;
const PAGE: usize = 1024;

/// The whole flash. The processor waits while it is written.
#[derive(Debug)]
pub struct NrfFlash {
    ready: Register,
    mode: Register,
    erase_page: Register,
}

impl NrfFlash {
    /// The controller at its fixed address.
    ///
    /// # Safety
    /// The chip must be an nRF51 and nobody else may use its flash controller.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of the chip that the caller promises.
        let register = |offset| unsafe { Register::new(BASE, offset) };
        Self {
            ready: register(0x400),
            mode: register(0x504),
            erase_page: register(0x508),
        }
    }

    fn wait(&self) {
        while self.ready.read() == 0 {}
    }
}

impl ErrorType for NrfFlash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for NrfFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        for (byte, address) in bytes.iter_mut().zip(offset as usize..) {
            let place: *const u8 = core::ptr::with_exposed_provenance(address);
            // SAFETY: inside the flash, as checked.
            *byte = unsafe { place.read_volatile() };
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        LEN
    }
}

impl NorFlash for NrfFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        self.mode.write(ERASABLE);
        for page in (from..to).step_by(PAGE) {
            self.erase_page.write(page);
            self.wait();
        }
        self.mode.write(READ_ONLY);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        self.mode.write(WRITABLE);
        for (word, address) in bytes
            .as_chunks::<4>()
            .0
            .iter()
            .zip((offset as usize..).step_by(4))
        {
            let place: *mut u32 = core::ptr::with_exposed_provenance_mut(address);
            // SAFETY: an aligned word inside the flash, as checked; the caller of the region's constructor promises
            // that nothing lies there.
            unsafe { place.write_volatile(u32::from_le_bytes(*word)) };
            self.wait();
        }
        self.mode.write(READ_ONLY);
        Ok(())
    }
}
