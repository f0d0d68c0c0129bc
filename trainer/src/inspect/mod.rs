//! Looking into a trained network: pictures of filters, activation maps, confusions and scales, and how much two runs
//! have in common. Every sheet is a pure function from values to a PNG file.

pub mod activations;
pub mod confusion;
pub mod filters;
pub mod matching;
pub mod scales;
pub mod sheet;

/// Why a sheet could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the picture `{title}` could not be drawn: {problem}")]
pub struct DrawError {
    /// Of the sheet.
    pub title: String,
    /// What the drawing library said.
    pub problem: String,
}
