//! Executed instructions, under QEMU's `-icount shift=0`: one instruction takes one nanosecond of
//! virtual time, so SysTick counts instructions in steps of 10^9 / clock rate.

use core::{arch::asm, hint::black_box};

use cortex_m_semihosting::{debug, hprintln};
use embedded_model::MODEL;
use heapless::Vec;
use runtime::SelfTest;

use crate::{Machine, stack};

/// Turns of the loop that validates the method, two instructions each.
const TURNS: u32 = 500_000;

/// Times a loop of known length, every operator and the whole model on its golden image, measures the
/// stack, prints one `key value...` line per result and ends QEMU. A model without golden image is
/// timed on a black one.
pub fn bench(machine: &Machine, arena: &mut [u8]) -> ! {
    let mut clock = machine.start_clock();
    let rate = u64::from(clock.ticks_per_second());
    let instructions = |ticks: u32| u64::from(ticks) * 1_000_000_000 / rate;
    hprintln!("machine {}", machine.name);
    hprintln!("kernels {}", runtime::KERNELS);
    hprintln!("model {}", MODEL.name());
    hprintln!("resolution {}", 1_000_000_000_u64.div_ceil(rate));

    let start = clock.ticks();
    known_loop();
    let ticks = clock.ticks().wrapping_sub(start);
    hprintln!("loop {} {}", 2 * TURNS, instructions(ticks));

    let image = MODEL
        .golden()
        .map_or(&[0; MODEL.input().len()][..], |golden| golden.image);
    if let Ok(SelfTest::Failed { .. }) | Err(_) = MODEL.self_test(arena) {
        hprintln!("error the logits of the golden image are not those of the host");
        crate::fail()
    }
    let mut operators: Vec<u32, 32> = Vec::new();
    let mut last = clock.ticks();
    let profiled = MODEL.run_with(image, arena, |_| {
        let _ = operators.push(clock.ticks().wrapping_sub(last));
        last = clock.ticks();
    });
    if profiled.is_err() {
        hprintln!("error the arena is too small");
        crate::fail()
    }
    for (operator, &ticks) in MODEL.ops().zip(&operators) {
        let shape = operator.output.shape;
        hprintln!(
            "operator {} {}x{}x{} {} {}",
            operator.kind.name(),
            shape.h,
            shape.w,
            shape.c,
            instructions(ticks),
            operator.macs()
        );
    }

    let start = clock.ticks();
    let _ = black_box(MODEL.run(image, arena));
    let ticks = clock.ticks().wrapping_sub(start);
    hprintln!("total {}", instructions(ticks));

    let used = stack::measure(|| {
        let _ = black_box(MODEL.run(image, arena));
    });
    hprintln!("stack {}", used);
    hprintln!("arena {}", MODEL.arena_len());
    debug::exit(debug::EXIT_SUCCESS);
    crate::fail()
}

/// `2 * TURNS` instructions, and a handful around them.
#[inline(never)]
fn known_loop() {
    // SAFETY: counts a register down.
    unsafe {
        asm!("2:", "subs {turns}, #1", "bne 2b", turns = inout(reg) TURNS => _);
    }
}
