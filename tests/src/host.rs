//! The fixed-point model on this machine, images in parallel.

use rayon::prelude::*;
use runtime::Model;

use crate::backend::{Backend, BackendError};

/// The integer runtime on the host.
#[derive(Clone, Debug)]
pub struct Host<'a> {
    model: Model<'a>,
}

impl<'a> Host<'a> {
    /// Validates model.fxp.
    ///
    /// # Errors
    /// A file that the runtime refuses.
    pub fn new(fxp: &'a [u8]) -> Result<Self, BackendError> {
        let model = Model::new(fxp).map_err(|e| BackendError::Model(e.to_string()))?;
        Ok(Self { model })
    }

    /// The validated model.
    pub fn model(&self) -> Model<'a> {
        self.model
    }

    /// The output of every operator for one image: `h * w * c` stored values (NHWC), widened to i32.
    ///
    /// # Errors
    /// An image of the wrong length.
    pub fn trace(&self, image: &[u8]) -> Result<Vec<Vec<i32>>, BackendError> {
        let mut arena = vec![0; self.model.arena_len()];
        let mut outputs = Vec::new();
        self.model
            .run_with(image, &mut arena, |event| {
                outputs.push(match event.op.output.dtype {
                    runtime::DType::U8 => event.bytes.iter().map(|&b| i32::from(b)).collect(),
                    runtime::DType::I8 => event.bytes.iter().map(|&b| i32::from(b as i8)).collect(),
                    runtime::DType::I32 => event
                        .bytes
                        .as_chunks()
                        .0
                        .iter()
                        .map(|b| i32::from_le_bytes(*b))
                        .collect(),
                });
            })
            .map_err(|e| BackendError::Image {
                image: 0,
                reason: e.to_string(),
            })?;
        Ok(outputs)
    }
}

impl Backend for Host<'_> {
    fn describe(&self) -> String {
        match rayon::current_num_threads() {
            1 => "runtime on the host, 1 thread".into(),
            threads => format!("runtime on the host, {threads} threads"),
        }
    }

    fn logits(&mut self, images: &[&[u8]]) -> Result<Vec<Vec<i32>>, BackendError> {
        let arena = || vec![0; self.model.arena_len()];
        images
            .par_iter()
            .enumerate()
            .map_init(arena, |arena, (i, image)| {
                match self.model.run(image, arena) {
                    Ok(logits) => Ok(logits.accumulators().collect()),
                    Err(e) => Err(BackendError::Image {
                        image: i,
                        reason: e.to_string(),
                    }),
                }
            })
            .collect()
    }
}
