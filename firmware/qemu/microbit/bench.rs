//! Executed instructions of the model on BBC micro:bit; run with `-icount shift=0`.

#![no_std]
#![no_main]

use embedded_model::ARENA_LEN;
use machine::MICROBIT;
use runtime::Aligned;

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; ARENA_LEN]> = Aligned([0; ARENA_LEN]);
    machine::bench(&MICROBIT, &mut ARENA.0)
}
