//! Executed instructions of the model on Arm MPS2 with AN385; run with `-icount shift=0`.

#![no_std]
#![no_main]

use embedded_model::ARENA_LEN;
use machine::MPS2_AN385;
use runtime::Aligned;

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; ARENA_LEN]> = Aligned([0; ARENA_LEN]);
    machine::bench(&MPS2_AN385, &mut ARENA.0)
}
