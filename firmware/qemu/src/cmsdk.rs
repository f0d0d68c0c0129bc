//! Arm's CMSDK UART, as on the MPS2 and MPS3 boards.

use crate::{Uart, register::Register};

const TRANSMIT_FULL: u32 = 1;
const RECEIVE_FULL: u32 = 2;
/// Sender, receiver, and the receiver's interrupt.
const ENABLE: u32 = 0b1011;
/// The receiver's bit of the interrupt register.
const RECEIVED: u32 = 2;
/// The smallest divider the hardware allows; QEMU moves a byte at once.
const DIVIDER: u32 = 16;

/// CMSDK UART without interrupts.
#[derive(Debug)]
pub struct CmsdkUart {
    data: Register,
    state: Register,
    clear: Register,
    interrupt: u16,
}

impl CmsdkUart {
    /// Enables sender and receiver; `interrupt`: the receiver's number.
    ///
    /// # Safety
    /// A CMSDK UART must be at `base`, used by nobody else.
    pub unsafe fn new(base: usize, interrupt: u16) -> Self {
        // SAFETY: the registers of the UART that the caller promises.
        let register = |offset| unsafe { Register::new(base, offset) };
        register(0x10).write(DIVIDER);
        register(0x08).write(ENABLE);
        Self {
            data: register(0x00),
            state: register(0x04),
            clear: register(0x0c),
            interrupt,
        }
    }
}

impl Uart for CmsdkUart {
    fn poll(&mut self) -> Option<u8> {
        if self.state.read() & RECEIVE_FULL == 0 {
            return None;
        }
        let byte = self.data.read() as u8;
        self.clear.write(RECEIVED);
        Some(byte)
    }

    fn send(&mut self, byte: u8) {
        while self.state.read() & TRANSMIT_FULL != 0 {}
        self.data.write(byte.into());
    }

    fn interrupt(&self) -> u16 {
        self.interrupt
    }
}
