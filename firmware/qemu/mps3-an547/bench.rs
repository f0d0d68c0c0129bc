//! Executed instructions of the model on Arm MPS3 with AN547; run with `-icount shift=0`.

#![no_std]
#![no_main]

use embedded_model::ARENA_LEN;
use machine::MPS3_AN547;
use runtime::Aligned;

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; ARENA_LEN]> = Aligned([0; ARENA_LEN]);
    machine::bench(&MPS3_AN547, &mut ARENA.0)
}
