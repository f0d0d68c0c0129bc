//! Ctrl-C (and a request to terminate): the first one during a training ends it after the running step, with a
//! checkpoint; a second one, or one outside of a training, ends the process at once.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

use crate::callbacks::live;

/// Exit code of an interrupted command: 128 + SIGINT, as shells expect it.
pub const EXIT_CODE: u8 = 130;

static TRAINING: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);

/// A training that can be interrupted, until it is dropped.
#[derive(Debug)]
pub struct Guard(());

/// From now on an interruption is remembered for [`Guard::asked`].
///
/// # Errors
/// The system does not let the process handle signals.
pub fn guard() -> Result<Guard, ctrlc::Error> {
    static HANDLER: Once = Once::new();
    let mut installed = Ok(());
    HANDLER.call_once(|| {
        installed = ctrlc::set_handler(|| {
            if !TRAINING.load(Ordering::SeqCst) || ASKED.swap(true, Ordering::SeqCst) {
                live::restore();
                std::process::exit(EXIT_CODE.into());
            }
        });
    });
    TRAINING.store(true, Ordering::SeqCst);
    installed.map(|()| Guard(()))
}

impl Guard {
    /// True after an interruption.
    pub fn asked(&self) -> bool {
        ASKED.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TRAINING.store(false, Ordering::SeqCst);
    }
}
