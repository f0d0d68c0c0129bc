//! Validation and inference of a model that the compiler knows nothing about. The panic handler calls a
//! function that does not exist: if a panic is reachable from `Model::new`, `Model::run` or the
//! self-test, the program does not link. It is never run.

#![no_std]
#![no_main]

mod port;

use port::{receive, send};
use runtime::{Aligned, Model, SelfTest};

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; 64 * 1024]> = Aligned([0; 64 * 1024]);
    loop {
        let file = Aligned(receive::<{ 128 * 1024 }>());
        let Ok(model) = Model::new(&file.0) else {
            continue;
        };
        let image = receive::<4096>();
        if let Some(image) = image.get(..model.input().len())
            && let Ok(logits) = model.run(image, &mut ARENA.0)
        {
            send(logits.argmax() as u32);
        }
        send((model.self_test(&mut ARENA.0) == Ok(SelfTest::Passed)).into());
    }
}
