//! The 5 x 5 LEDs: one row at a time, in turn, by the SysTick interrupt.

use core::cell::RefCell;

use cortex_m::{
    interrupt::Mutex,
    peripheral::{SYST, syst::SystClkSource},
};
use embassy_nrf::gpio::Output;
use support::{Display, Glyph};

/// A row is lit for a millisecond: 200 pictures per second.
const PERIOD: u32 = nrf52::CLOCK / 1000;

/// A LED is lit while its row is high and its column low.
pub struct Matrix {
    pub rows: [Output<'static>; 5],
    pub columns: [Output<'static>; 5],
}

struct State {
    matrix: Matrix,
    glyph: Glyph,
    row: usize,
}

static STATE: Mutex<RefCell<Option<State>>> = Mutex::new(RefCell::new(None));

/// The matrix, driven by interrupts.
pub struct Screen(());

impl Screen {
    /// Starts dark.
    pub fn start(timer: &mut SYST, matrix: Matrix) -> Self {
        cortex_m::interrupt::free(|token| {
            *STATE.borrow(token).borrow_mut() = Some(State {
                matrix,
                glyph: [0; 5],
                row: 0,
            });
        });
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(PERIOD - 1);
        timer.clear_current();
        timer.enable_counter();
        timer.enable_interrupt();
        Self(())
    }
}

impl Display for Screen {
    fn show(&mut self, class: usize) {
        cortex_m::interrupt::free(|token| {
            if let Some(state) = STATE.borrow(token).borrow_mut().as_mut() {
                state.glyph = support::glyph(class);
            }
        });
    }
}

/// Lights the next row. For the SysTick interrupt.
pub fn refresh() {
    cortex_m::interrupt::free(|token| {
        let mut state = STATE.borrow(token).borrow_mut();
        let Some(State { matrix, glyph, row }) = state.as_mut() else {
            return;
        };
        let next = (*row + 1) % glyph.len();
        if let Some(pin) = matrix.rows.get_mut(*row) {
            pin.set_low();
        }
        for (i, column) in matrix.columns.iter_mut().enumerate() {
            let lit = glyph
                .get(next)
                .is_some_and(|bits| bits & (0b1_0000 >> i) != 0);
            column.set_level((!lit).into());
        }
        if let Some(pin) = matrix.rows.get_mut(next) {
            pin.set_high();
        }
        *row = next;
    });
}
