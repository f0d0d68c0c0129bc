//! The UART of the nRF51.

use crate::{Uart, register::Register};

/// The receiver's bit of the interrupt enable register.
const RECEIVED: u32 = 1 << 2;
const INTERRUPT: u16 = 2;
const BASE: usize = 0x4000_2000;
const ENABLED: u32 = 4;
/// 115,200 baud.
const BAUD: u32 = 0x01d7_e000;
/// The micro:bit's pins to its USB interface.
const TRANSMIT_PIN: u32 = 24;
const RECEIVE_PIN: u32 = 25;

/// nRF51 UART without interrupts.
#[derive(Debug)]
pub struct NrfUart {
    received: Register,
    transmitted: Register,
    receive: Register,
    transmit: Register,
    busy: bool,
}

impl NrfUart {
    /// Enables sender and receiver on the pins of the micro:bit.
    ///
    /// # Safety
    /// The chip must be an nRF51 and nobody else may use its UART.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of the chip that the caller promises.
        let register = |offset| unsafe { Register::new(BASE, offset) };
        let (start_receiver, start_transmitter) = (register(0x000), register(0x008));
        register(0x50c).write(TRANSMIT_PIN);
        register(0x514).write(RECEIVE_PIN);
        register(0x524).write(BAUD);
        register(0x500).write(ENABLED);
        register(0x304).write(RECEIVED);
        start_receiver.write(1);
        start_transmitter.write(1);
        Self {
            received: register(0x108),
            transmitted: register(0x11c),
            receive: register(0x518),
            transmit: register(0x51c),
            busy: false,
        }
    }
}

impl Uart for NrfUart {
    fn poll(&mut self) -> Option<u8> {
        if self.received.read() == 0 {
            return None;
        }
        self.received.write(0);
        Some(self.receive.read() as u8)
    }

    fn send(&mut self, byte: u8) {
        if self.busy {
            while self.transmitted.read() == 0 {}
        }
        self.transmitted.write(0);
        self.transmit.write(byte.into());
        self.busy = true;
    }

    fn interrupt(&self) -> u16 {
        INTERRUPT
    }
}
