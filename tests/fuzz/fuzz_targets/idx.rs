#![no_main]

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, fuzz::MEMORY);

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::host::idx(data));
