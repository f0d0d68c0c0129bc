//! Arm's CMSDK UART, as on the MPS2 and MPS3 boards.

use crate::{Uart, register::Register};

const TRANSMIT_FULL: u32 = 1;
const RECEIVE_FULL: u32 = 2;
const ENABLE_BOTH: u32 = 3;
/// The smallest divider the hardware allows; QEMU moves a byte at once.
const DIVIDER: u32 = 16;

/// CMSDK UART without interrupts.
#[derive(Debug)]
pub struct CmsdkUart {
    data: Register,
    state: Register,
}

impl CmsdkUart {
    /// Enables sender and receiver.
    ///
    /// # Safety
    /// A CMSDK UART must be at `base`, used by nobody else.
    pub unsafe fn new(base: usize) -> Self {
        // SAFETY: the registers of the UART that the caller promises.
        let register = |offset| unsafe { Register::new(base, offset) };
        register(0x10).write(DIVIDER);
        register(0x08).write(ENABLE_BOTH);
        Self {
            data: register(0x00),
            state: register(0x04),
        }
    }
}

impl Uart for CmsdkUart {
    fn poll(&mut self) -> Option<u8> {
        (self.state.read() & RECEIVE_FULL != 0).then(|| self.data.read() as u8)
    }

    fn send(&mut self, byte: u8) {
        while self.state.read() & TRANSMIT_FULL != 0 {}
        self.data.write(byte.into());
    }
}
