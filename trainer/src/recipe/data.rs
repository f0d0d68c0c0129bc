//! Section `data`: where the images are, and what is done to them before the first layer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
