//! The firmware as a backend: in QEMU or on a board, over its serial protocol.

pub mod target;

mod client;
mod device;
mod qemu;
mod serial;

pub use client::{Answer, Classified, Client, LinkError, Port};
pub use device::{Device, Options, open};
pub use qemu::{Qemu, Start};
pub use serial::Serial;
