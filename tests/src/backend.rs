//! What runs a fixed-point model: the host, an emulated or a real microcontroller.

use std::time::Duration;

/// Computes the logits of raw images with a fixed-point model.
pub trait Backend {
    /// Names the engine and where it runs, for reports: `host runtime, 2 threads`, `qemu mps2-an386 (Cortex-M4)`.
    fn describe(&self) -> String;

    /// The i32 logits (accumulators) of every image, in the order of `images`.
    ///
    /// # Shapes
    /// An image is `h * w * c` raw pixels, NHWC; a result has one value per class.
    ///
    /// # Errors
    /// An image of the wrong length, or an engine or link that failed.
    fn logits(&mut self, images: &[&[u8]]) -> Result<Vec<Vec<i32>>, BackendError>;

    /// Time that a device spent on all images so far, by its own clock; `None` on the host.
    fn device_time(&self) -> Option<Duration> {
        None
    }

    /// Time that a device spends in each operator of the model, in the order of the file, on one image and by its own
    /// clock; `None` on the host.
    ///
    /// # Errors
    /// As [`Backend::logits`].
    fn operator_times(&mut self, image: &[u8]) -> Result<Option<Vec<Duration>>, BackendError> {
        let _ = image;
        Ok(None)
    }
}

/// Why a backend gave no logits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The model file is refused.
    #[error("model.fxp: {0}")]
    Model(String),
    /// One image could not be computed.
    #[error("image {image}: {reason}")]
    Image {
        /// Position in the call's `images`.
        image: usize,
        /// What the engine said.
        reason: String,
    },
    /// The target cannot be reached, or does not answer as it should.
    #[error("{target}: {reason}")]
    Link {
        /// `qemu:MACHINE` or `serial:PORT`.
        target: String,
        /// What happened and what was expected.
        reason: String,
    },
}
