//! The recipe: everything that a run needs besides the data itself. TOML; unknown keys are errors.
//! Names and defaults are Keras's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::architecture::{Activation, Initializer, Padding, Shape};

mod check;
mod difference;
mod file;
#[cfg(test)]
mod tests;

pub use difference::Difference;
pub use file::{RecipeError, default_path};

/// A whole recipe file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run; default folder `runs/<name>`.
    pub name: String,
    pub data: Data,
    pub network: Network,
    #[serde(default)]
    pub train: Train,
    #[serde(default)]
    pub quantize: Quantize,
    #[serde(default)]
    pub export: Export,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    pub format: Format,
    /// File (npz, csv) or folder (idx, folder), relative to the recipe.
    pub path: PathBuf,
    /// CSV: `"first"`, `"last"` or a column name.
    #[serde(default)]
    pub label_column: LabelColumn,
    #[serde(default)]
    pub split: Split,
    /// Part of the training images held out for validation, in [0, 1). 0: the test images serve as validation data in the curves.
    #[serde(default)]
    pub validation: f32,
    #[serde(default)]
    pub preprocess: PreprocessMode,
    #[serde(default)]
    pub statistics: Statistics,
    #[serde(default)]
    pub augment: Augment,
    /// Train on the first so many images only (after the split and shuffle); for quick tries.
    #[serde(default)]
    pub limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Idx,
    Npz,
    Csv,
    Folder,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelColumn {
    #[default]
    First,
    Last,
    #[serde(untagged)]
    Named(String),
}

/// `official`: the format's own train/test files. `joined`: all images joined, shuffled with the seed, split again.
/// Formats without an official split (csv file, image folder without train/ and test/) are always split again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct Split {
    #[serde(default)]
    pub mode: SplitMode,
    /// Test images of a joined split: a count (>= 1) or a fraction (< 1). Default: as many as the official test part, else 0.2.
    #[serde(default)]
    pub test: Option<f64>,
    #[serde(default)]
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitMode {
    #[default]
    Official,
    Joined,
}

/// What happens to the raw pixels 0..=255 before the first layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreprocessMode {
    None,
    /// `x / 255`.
    #[default]
    Unit,
    /// `(x - mean) / std`, one mean and std for all.
    Global,
    /// `(x - mean[i]) / std[i]` for every pixel and channel; a pixel that never varies: `x - mean[i]`.
    PerPixel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    #[default]
    Train,
    All,
}

/// Random distortions of training images; all zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Largest shift, pixels.
    pub shift: f32,
    /// Largest rotation, degrees.
    pub rotate: f32,
    /// Largest change of size: 0.1 means 0.9 to 1.1.
    pub zoom: f32,
    /// Elastic distortion: displacement in pixels (alpha) ...
    pub elastic_alpha: f32,
    /// ... smoothed by a Gaussian of this many pixels.
    pub elastic_sigma: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub input: Shape,
    pub layers: Vec<LayerRecipe>,
}

/// One layer of the recipe. `name` defaults to the kind and a number (`conv1`); `input` names the layer it reads (default: the one before).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerRecipe {
    Conv {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        filters: usize,
        #[serde(default = "three")]
        kernel: [usize; 2],
        #[serde(default = "one")]
        stride: [usize; 2],
        #[serde(default)]
        padding: Padding,
        #[serde(default = "single")]
        groups: usize,
        #[serde(default = "yes")]
        use_bias: bool,
        #[serde(default)]
        activation: Activation,
        #[serde(default)]
        l1: f32,
        #[serde(default)]
        l2: f32,
        #[serde(default)]
        initializer: Initializer,
    },
    DepthwiseConv {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "single")]
        multiplier: usize,
        #[serde(default = "three")]
        kernel: [usize; 2],
        #[serde(default = "one")]
        stride: [usize; 2],
        #[serde(default)]
        padding: Padding,
        #[serde(default = "yes")]
        use_bias: bool,
        #[serde(default)]
        activation: Activation,
        #[serde(default)]
        l1: f32,
        #[serde(default)]
        l2: f32,
        #[serde(default)]
        initializer: Initializer,
    },
    /// `stride` defaults to `size`.
    MaxPool {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "two")]
        size: [usize; 2],
        #[serde(default)]
        stride: Option<[usize; 2]>,
        #[serde(default)]
        padding: Padding,
    },
    AvgPool {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "two")]
        size: [usize; 2],
        #[serde(default)]
        stride: Option<[usize; 2]>,
        #[serde(default)]
        padding: Padding,
    },
    GlobalAvgPool {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
    },
    BatchNorm {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        #[serde(default = "bn_momentum")]
        momentum: f32,
        #[serde(default = "bn_epsilon")]
        epsilon: f32,
    },
    Dropout {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        rate: f32,
    },
    Flatten {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
    },
    Dense {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        units: usize,
        #[serde(default = "yes")]
        use_bias: bool,
        #[serde(default)]
        activation: Activation,
        #[serde(default)]
        l1: f32,
        #[serde(default)]
        l2: f32,
        #[serde(default)]
        initializer: Initializer,
    },
    Activation {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        activation: Activation,
    },
    /// Sum of this layer's input and the output of the layer called `with`.
    Add {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        input: Option<String>,
        with: String,
        #[serde(default)]
        activation: Activation,
    },
}

impl LayerRecipe {
    /// Kind (as written in `type`), given name, given input.
    pub(crate) fn names(&self) -> (&'static str, Option<&String>, Option<&String>) {
        let (kind, name, input) = match self {
            Self::Conv { name, input, .. } => ("conv", name, input),
            Self::DepthwiseConv { name, input, .. } => ("depthwise_conv", name, input),
            Self::MaxPool { name, input, .. } => ("max_pool", name, input),
            Self::AvgPool { name, input, .. } => ("avg_pool", name, input),
            Self::GlobalAvgPool { name, input } => ("global_avg_pool", name, input),
            Self::BatchNorm { name, input, .. } => ("batch_norm", name, input),
            Self::Dropout { name, input, .. } => ("dropout", name, input),
            Self::Flatten { name, input } => ("flatten", name, input),
            Self::Dense { name, input, .. } => ("dense", name, input),
            Self::Activation { name, input, .. } => ("activation", name, input),
            Self::Add { name, input, .. } => ("add", name, input),
        };
        (kind, name.as_ref(), input.as_ref())
    }
}

fn three() -> [usize; 2] {
    [3, 3]
}
fn two() -> [usize; 2] {
    [2, 2]
}
fn one() -> [usize; 2] {
    [1, 1]
}
fn single() -> usize {
    1
}
fn yes() -> bool {
    true
}
fn bn_momentum() -> f32 {
    0.99
}
fn bn_epsilon() -> f32 {
    1e-3
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    pub epochs: usize,
    pub batch: usize,
    pub seed: u64,
    pub loss: LossRecipe,
    pub optimizer: OptimizerRecipe,
    pub schedule: ScheduleRecipe,
    /// Gradient clipping, before the update; at most one of the three.
    pub clip: Clip,
    /// Exponential moving average of the weights, used for validation, the final weights and the export. 0: off; else its momentum, e.g. 0.999.
    pub ema: f32,
    pub callbacks: Callbacks,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch: 64,
            seed: 1,
            loss: LossRecipe::default(),
            optimizer: OptimizerRecipe::default(),
            schedule: ScheduleRecipe::default(),
            clip: Clip::default(),
            ema: 0.0,
            callbacks: Callbacks::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LossRecipe {
    CategoricalCrossentropy {
        #[serde(default)]
        label_smoothing: f32,
    },
    BinaryCrossentropy {
        #[serde(default)]
        label_smoothing: f32,
    },
    MeanSquaredError,
}
impl Default for LossRecipe {
    fn default() -> Self {
        Self::CategoricalCrossentropy {
            label_smoothing: 0.0,
        }
    }
}

/// Keras's optimizers; every field has Keras's default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerRecipe {
    Sgd {
        #[serde(default = "lr_sgd")]
        learning_rate: f32,
        #[serde(default)]
        momentum: f32,
        #[serde(default)]
        nesterov: bool,
    },
    Rmsprop {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        rho: f32,
        #[serde(default)]
        momentum: f32,
        #[serde(default = "eps")]
        epsilon: f32,
        #[serde(default)]
        centered: bool,
    },
    Adam {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
        #[serde(default)]
        amsgrad: bool,
    },
    Nadam {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
    },
    Adamax {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
    },
    Adamw {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "wd")]
        weight_decay: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p999")]
        beta_2: f32,
        #[serde(default = "eps")]
        epsilon: f32,
        #[serde(default)]
        amsgrad: bool,
    },
    Adagrad {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p1")]
        initial_accumulator_value: f32,
        #[serde(default = "eps")]
        epsilon: f32,
    },
    Lion {
        #[serde(default = "lr")]
        learning_rate: f32,
        #[serde(default = "p9")]
        beta_1: f32,
        #[serde(default = "p99")]
        beta_2: f32,
    },
}
impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self::Rmsprop {
            learning_rate: 0.001,
            rho: 0.9,
            momentum: 0.0,
            epsilon: 1e-7,
            centered: false,
        }
    }
}
fn lr() -> f32 {
    0.001
}
fn lr_sgd() -> f32 {
    0.01
}
fn wd() -> f32 {
    0.004
}
fn p1() -> f32 {
    0.1
}
fn p9() -> f32 {
    0.9
}
fn p99() -> f32 {
    0.99
}
fn p999() -> f32 {
    0.999
}
fn eps() -> f32 {
    1e-7
}

/// Learning rate as a function of the step (0 before the first update). The optimizer's `learning_rate` is Keras's
/// `initial_learning_rate`. Steps are updates, not epochs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleRecipe {
    #[default]
    Constant,
    InverseTime {
        #[serde(default = "one_f")]
        decay_steps: f32,
        decay_rate: f32,
        #[serde(default)]
        staircase: bool,
    },
    Exponential {
        #[serde(default = "one_f")]
        decay_steps: f32,
        decay_rate: f32,
        #[serde(default)]
        staircase: bool,
    },
    /// `step <= boundaries[i]` keeps `values[i]`; one value more than boundaries; the optimizer's rate is not used.
    Piecewise {
        boundaries: Vec<u64>,
        values: Vec<f32>,
    },
    Polynomial {
        decay_steps: f32,
        #[serde(default = "end_lr")]
        end_learning_rate: f32,
        #[serde(default = "one_f")]
        power: f32,
        #[serde(default)]
        cycle: bool,
    },
    /// With `warmup_target`: linear from the optimizer's rate to it in `warmup_steps`, then cosine. `decay_steps` defaults to the rest of the run.
    Cosine {
        #[serde(default)]
        decay_steps: Option<u64>,
        #[serde(default)]
        alpha: f32,
        #[serde(default)]
        warmup_target: Option<f32>,
        #[serde(default)]
        warmup_steps: u64,
    },
    CosineRestarts {
        first_decay_steps: u64,
        #[serde(default = "two_f")]
        t_mul: f32,
        #[serde(default = "one_f")]
        m_mul: f32,
        #[serde(default)]
        alpha: f32,
    },
    /// PyTorch's OneCycleLR (cosine): from `max / div_factor` up to `max` (the optimizer's rate) in `pct_start` of the run, down to `max / div_factor / final_div_factor`.
    OneCycle {
        #[serde(default = "pct")]
        pct_start: f32,
        #[serde(default = "div")]
        div_factor: f32,
        #[serde(default = "final_div")]
        final_div_factor: f32,
        #[serde(default)]
        total_steps: Option<u64>,
    },
}
fn one_f() -> f32 {
    1.0
}
fn two_f() -> f32 {
    2.0
}
fn end_lr() -> f32 {
    1e-4
}
fn pct() -> f32 {
    0.3
}
fn div() -> f32 {
    25.0
}
fn final_div() -> f32 {
    1e4
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clip {
    pub norm: Option<f32>,
    pub global_norm: Option<f32>,
    pub value: Option<f32>,
}

/// What happens around the steps. An absent table switches the callback off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Callbacks {
    pub early_stopping: Option<EarlyStopping>,
    pub reduce_on_plateau: Option<ReduceOnPlateau>,
    pub checkpoint: CheckpointRecipe,
    /// Dashed reference line in the curves at this accuracy (0..1).
    pub reference_accuracy: Option<f32>,
    /// Write TensorBoard event files to `tensorboard` in the run folder.
    pub tensorboard: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    #[serde(default)]
    pub monitor: Monitor,
    #[serde(default)]
    pub patience: usize,
    #[serde(default)]
    pub min_delta: f32,
    #[serde(default)]
    pub restore_best: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReduceOnPlateau {
    #[serde(default)]
    pub monitor: Monitor,
    #[serde(default = "p1")]
    pub factor: f32,
    #[serde(default = "ten")]
    pub patience: usize,
    #[serde(default = "end_lr")]
    pub min_delta: f32,
    #[serde(default)]
    pub cooldown: usize,
    #[serde(default)]
    pub min_lr: f32,
}
fn ten() -> usize {
    10
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    Loss,
    Accuracy,
    #[default]
    ValLoss,
    ValAccuracy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRecipe {
    /// Every so many epochs.
    pub every_epochs: usize,
    /// Also every so many steps; 0: only at epoch ends.
    pub every_steps: u64,
    /// Keep `best.safetensors`, the best weights by `monitor`.
    pub best: bool,
    pub monitor: Monitor,
}
impl Default for CheckpointRecipe {
    fn default() -> Self {
        Self {
            every_epochs: 1,
            every_steps: 0,
            best: true,
            monitor: Monitor::ValAccuracy,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantize {
    /// Training images used to calibrate activation ranges.
    pub calibration_images: usize,
    pub method: CalibrationMethod,
    /// For `percentile`: the part of the values that must not saturate, in percent.
    pub percentile: f32,
    /// Epochs of quantization-aware fine-tuning after the calibration; 0: none.
    pub qat_epochs: usize,
    /// Learning rate of the fine-tuning (Adam, cosine to 0).
    pub qat_learning_rate: f32,
}
impl Default for Quantize {
    fn default() -> Self {
        Self {
            calibration_images: 2000,
            method: CalibrationMethod::Divergence,
            percentile: 99.99,
            qat_epochs: 0,
            qat_learning_rate: 1e-4,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationMethod {
    /// No value seen in calibration saturates.
    MinMax,
    /// [`Quantize::percentile`] percent of them do not.
    Percentile,
    /// Smallest squared error of every tensor for itself.
    Mse,
    /// From `mse` on, exponents move as long as the class probabilities of the integer network come nearer to the float
    /// network's.
    #[default]
    Divergence,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// ONNX operator set, 13 to 18.
    pub opset: u32,
    /// Embed a golden image in model.fxp for the device's self-test.
    pub golden_image: bool,
}
impl Default for Export {
    fn default() -> Self {
        Self {
            opset: 17,
            golden_image: true,
        }
    }
}

impl OptimizerRecipe {
    /// The learning rate, whichever the optimizer.
    pub fn learning_rate(&self) -> f32 {
        match *self {
            Self::Sgd { learning_rate, .. }
            | Self::Rmsprop { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::Nadam { learning_rate, .. }
            | Self::Adamax { learning_rate, .. }
            | Self::Adamw { learning_rate, .. }
            | Self::Adagrad { learning_rate, .. }
            | Self::Lion { learning_rate, .. } => learning_rate,
        }
    }
}
