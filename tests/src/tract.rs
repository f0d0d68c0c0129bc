//! The ONNX model in tract: one compiled plan per batch size.

use std::sync::Arc;

use rayon::prelude::*;
use tract_onnx::prelude::{
    Datum, Framework, Graph, InferenceFact, InferenceModelExt, IntoRunnable, RunnableModel,
    TractResult, TypedFact, TypedOp, tvec,
};

/// How far tract rewrites the graph before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Node by node, as the file has them.
    Plain,
    /// Decluttered, fused and compiled to its kernels.
    Optimized,
}

/// Why tract gave no values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TractError {
    /// The file is refused.
    #[error("tract refuses the model ({mode:?}, batch {batch}): {reason}")]
    Load {
        /// Plan that was asked for.
        mode: Mode,
        /// Images per run.
        batch: usize,
        /// The chain of tract's messages.
        reason: String,
    },
    /// The run failed.
    #[error("tract fails: {0}")]
    Run(String),
}

type Plan = Arc<RunnableModel<TypedFact, Box<dyn TypedOp>>>;

/// A model for one batch size.
#[derive(Debug, Clone)]
pub struct Tract {
    plan: Plan,
    names: Vec<String>,
    image: [usize; 3],
    batch: usize,
}

impl Tract {
    /// Loads an ONNX file for `batch` images per run.
    ///
    /// `outputs`: names of the wanted values, also intermediate ones; empty for the graph's own outputs.
    /// `image` is `[C, H, W]`.
    ///
    /// # Errors
    /// A file or operator that tract refuses, or a name that is not in the graph.
    pub fn load(
        onnx: &[u8],
        image: [usize; 3],
        outputs: &[String],
        batch: usize,
        mode: Mode,
    ) -> Result<Self, TractError> {
        let plan = || -> TractResult<(Plan, Vec<String>)> {
            let [c, h, w] = image;
            let mut model = tract_onnx::onnx().model_for_read(&mut &onnx[..])?;
            if !outputs.is_empty() {
                model.select_outputs_by_name(outputs)?;
            }
            let names = model
                .output_outlets()?
                .iter()
                .map(|&o| {
                    model
                        .outlet_label(o)
                        .unwrap_or(&model.node(o.node).name)
                        .to_string()
                })
                .collect();
            // The declared facts of the outputs carry the symbolic batch.
            for i in 0..model.output_outlets()?.len() {
                model.set_output_fact(i, InferenceFact::default())?;
            }
            let fact = InferenceFact::dt_shape(u8::datum_type(), [batch, c, h, w]);
            let model = model.with_input_fact(0, fact)?;
            let model: Graph<_, _> = match mode {
                Mode::Plain => model.into_typed()?,
                Mode::Optimized => model.into_optimized()?,
            };
            Ok((model.into_runnable()?, names))
        };
        let (plan, names) = plan().map_err(|e| TractError::Load {
            mode,
            batch,
            reason: format!("{e:#}"),
        })?;
        Ok(Self {
            plan,
            names,
            image,
            batch,
        })
    }

    /// Names of the values that [`Tract::run`] gives, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The wanted values of one batch: each `[n, ...]` in ONNX's layout, flat.
    ///
    /// # Errors
    /// Another number of images than the plan's batch, or a failure inside tract.
    pub fn run(&self, images: &[&[u8]]) -> Result<Vec<Value>, TractError> {
        if images.len() != self.batch {
            return Err(TractError::Run(format!(
                "{} images for a plan of {}",
                images.len(),
                self.batch
            )));
        }
        let [c, h, w] = self.image;
        let mut pixels: Vec<u8> = Vec::with_capacity(images.len() * c * h * w);
        for image in images {
            if image.len() != c * h * w {
                return Err(TractError::Run(format!(
                    "an image of {} bytes, expected {h} x {w} x {c}",
                    image.len()
                )));
            }
            for channel in 0..c {
                pixels.extend(image.iter().skip(channel).step_by(c));
            }
        }
        let run = || -> TractResult<Vec<Value>> {
            let input = tract_onnx::prelude::Tensor::from_shape(&[self.batch, c, h, w], &pixels)?;
            let outputs = self.plan.run(tvec!(input.into()))?;
            outputs
                .iter()
                .map(|t| {
                    let shape = t.shape().to_vec();
                    let t = t.cast_to::<f32>()?;
                    Ok(Value {
                        shape,
                        data: t.to_plain_array_view::<f32>()?.iter().copied().collect(),
                    })
                })
                .collect()
        };
        run().map_err(|e| TractError::Run(format!("{e:#}")))
    }
}

/// Images per run of [`Batched`].
pub const BATCH: usize = 64;

/// One output of a model for many images: optimized plans, batches of [`BATCH`] on all threads.
#[derive(Debug, Clone)]
pub struct Batched {
    full: Option<Tract>,
    rest: Option<Tract>,
}

impl Batched {
    /// Plans for `images` images in all, or for any part of them that ends at a multiple of [`BATCH`].
    ///
    /// # Errors
    /// As [`Tract::load`].
    pub fn load(
        onnx: &[u8],
        image: [usize; 3],
        output: &[String],
        images: usize,
    ) -> Result<Self, TractError> {
        let plan = |n: usize| {
            (n > 0)
                .then(|| Tract::load(onnx, image, output, n, Mode::Optimized))
                .transpose()
        };
        Ok(Self {
            full: plan(if images < BATCH { 0 } else { BATCH })?,
            rest: plan(images % BATCH)?,
        })
    }

    /// The first wanted value of all images, one after the other.
    ///
    /// # Errors
    /// A number of images that no plan was made for, or a failure inside tract.
    pub fn run(&self, images: &[&[u8]]) -> Result<Vec<f32>, TractError> {
        let batches = images.par_chunks(BATCH).map(|batch| {
            let plan = if batch.len() == BATCH {
                &self.full
            } else {
                &self.rest
            };
            let plan = plan
                .as_ref()
                .ok_or_else(|| TractError::Run(format!("no plan for {} images", batch.len())))?;
            Ok(plan
                .run(batch)?
                .into_iter()
                .next()
                .map(|v| v.data)
                .unwrap_or_default())
        });
        Ok(batches.collect::<Result<Vec<_>, TractError>>()?.concat())
    }
}

/// A dense f32 value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}
