//! SysTick as a free-running clock.

use cortex_m::peripheral::{SYST, syst::SystClkSource};

const PERIOD: u32 = 1 << 24;

/// Counts processor clocks. One wrap of the 24-bit timer between two calls of [`Clock::ticks`] is
/// counted, more are lost: durations below 2^24 ticks are exact.
pub struct Clock {
    timer: SYST,
    ticks_per_second: u32,
    wraps: u32,
}

impl Clock {
    /// Starts the timer. `ticks_per_second`: the processor clock.
    pub fn start(mut timer: SYST, ticks_per_second: u32) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(PERIOD - 1);
        timer.clear_current();
        timer.enable_counter();
        Self {
            timer,
            ticks_per_second,
            wraps: 0,
        }
    }

    /// Ticks since the start, modulo 2^32.
    pub fn ticks(&mut self) -> u32 {
        let mut down = SYST::get_current();
        if self.timer.has_wrapped() {
            self.wraps = self.wraps.wrapping_add(1);
            down = SYST::get_current();
        }
        self.wraps
            .wrapping_mul(PERIOD)
            .wrapping_add(PERIOD - 1 - down)
    }

    /// The processor clock.
    pub fn ticks_per_second(&self) -> u32 {
        self.ticks_per_second
    }
}
