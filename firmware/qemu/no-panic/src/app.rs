//! The command loop with a model and a flash that the compiler knows nothing about. The panic handler calls a function
//! that does not exist: if a panic is reachable from `app::serve`, the program does not link. It is never run.

#![no_std]
#![no_main]

mod port;

use core::{convert::Infallible, slice};

use app::{Board, Event, Flash, Mapped, Memory};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use runtime::{Aligned, Model};

struct Port;

impl Board for Port {
    type End = Infallible;

    fn name(&self) -> &'static str {
        "no-panic"
    }

    fn wait(&mut self) -> Result<Event, Infallible> {
        let [byte] = port::receive();
        Ok(match byte {
            0 => Event::Button,
            byte => Event::Byte(byte ^ 1),
        })
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            port::send(byte.into());
        }
    }

    fn ticks(&mut self) -> u32 {
        u32::from_le_bytes(port::receive())
    }

    fn ticks_per_second(&self) -> u32 {
        1
    }

    fn show(&mut self, class: usize) {
        port::send(class as u32);
    }
}

/// Memory of unknown place and length.
struct Unknown {
    start: usize,
    len: usize,
}

impl Unknown {
    fn new() -> Self {
        Self {
            start: u32::from_le_bytes(port::receive()) as usize,
            len: u32::from_le_bytes(port::receive()) as usize,
        }
    }
}

fn outcome() -> Result<(), NorFlashErrorKind> {
    match port::receive() {
        [0] => Ok(()),
        _ => Err(NorFlashErrorKind::Other),
    }
}

impl Mapped for Unknown {
    fn bytes(&self) -> &[u8] {
        // SAFETY: never run.
        unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(self.start), self.len) }
    }
}

impl ErrorType for Unknown {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Unknown {
    const READ_SIZE: usize = 1;

    fn read(&mut self, _: u32, _: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        outcome()
    }

    fn capacity(&self) -> usize {
        self.len
    }
}

impl NorFlash for Unknown {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        port::send(from);
        port::send(to);
        outcome()
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        port::send(offset);
        for &byte in bytes {
            port::send(byte.into());
        }
        outcome()
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; 64 * 1024]> = Aligned([0; 64 * 1024]);
    static mut FRAME: [u8; 4096] = [0; 4096];
    loop {
        let file = Aligned(port::receive::<{ 128 * 1024 }>());
        let Ok(model) = Model::new(&file.0) else {
            continue;
        };
        let memory = Memory {
            arena: &mut ARENA.0,
            frame: FRAME,
            places: [Flash::new(Unknown::new()), Flash::new(Unknown::new())],
        };
        match app::serve(&mut Port, &model, memory) {}
    }
}
