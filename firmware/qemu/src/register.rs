//! Memory-mapped registers.

/// One 32-bit register of a peripheral of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Register(*mut u32);

impl Register {
    /// The register at `offset` bytes from `base`.
    ///
    /// # Safety
    /// A readable and writable 32-bit device register must be there, and reading or writing it must
    /// not touch memory.
    pub const unsafe fn new(base: usize, offset: usize) -> Self {
        Self((base + offset) as *mut u32)
    }

    pub fn read(self) -> u32 {
        // SAFETY: promised by the caller of `new`.
        unsafe { self.0.read_volatile() }
    }

    pub fn write(self, value: u32) {
        // SAFETY: promised by the caller of `new`.
        unsafe { self.0.write_volatile(value) }
    }
}
