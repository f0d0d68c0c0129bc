//! Trains a small CNN, quantizes it and exports it so that every target computes the same bits.
pub mod architecture;
pub mod batch;
pub mod calibrate;
pub mod callbacks;
pub mod classification;
pub mod cli;
pub mod command;
pub mod dataset;
pub mod error;
pub mod file;
pub mod preprocess;
pub mod quantize;
pub mod random;
pub mod recipe;
pub mod report;
pub mod weights;
