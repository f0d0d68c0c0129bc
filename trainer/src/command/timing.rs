//! `trainer verify --timing`: where a device spends its time.

use std::{fmt, time::Duration};

use runtime::Model;
use serde::Serialize;
use verifier::backend::{Backend, BackendError};

use crate::error::Error;

/// Most images whose times are averaged.
const IMAGES: usize = 10;

/// Time of every operator, by the device's own clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// Number of images; the times are means of all.
    pub images: usize,
    /// The machine is emulated and a nanosecond is an executed instruction.
    pub instructions: bool,
    /// In the order of the file.
    pub operators: Vec<Operator>,
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// What it does.
    pub kind: String,
    /// Height, width, channels.
    pub output: [u16; 3],
    /// Mean over the images.
    pub nanoseconds: u64,
}

/// Runs the first of these images once more.
///
/// # Errors
/// A device that fails, or that times another number of operators than the model has.
pub fn measure(
    backend: &mut dyn Backend,
    target: &str,
    fxp: &[u8],
    images: &[&[u8]],
) -> Result<Timing, Error> {
    let model = Model::new(fxp).map_err(Error::failed)?;
    let images = &images[..images.len().min(IMAGES)];
    let mut operators: Vec<Operator> = model
        .ops()
        .map(|op| Operator {
            kind: op.kind.name().to_owned(),
            output: [op.output.shape.h, op.output.shape.w, op.output.shape.c],
            nanoseconds: 0,
        })
        .collect();
    let mut totals = vec![Duration::ZERO; operators.len()];
    for &image in images {
        let times = backend
            .operator_times(image)
            .map_err(Error::failed)?
            .unwrap_or_default();
        if times.len() != totals.len() {
            return Err(Error::failed(BackendError::Link {
                target: target.to_owned(),
                reason: format!(
                    "times of {} operators, the model has {}",
                    times.len(),
                    totals.len()
                ),
            }));
        }
        for (total, time) in totals.iter_mut().zip(times) {
            *total += time;
        }
    }
    for (operator, total) in operators.iter_mut().zip(totals) {
        let mean = total.as_nanos() / images.len().max(1) as u128;
        operator.nanoseconds = u64::try_from(mean).unwrap_or(u64::MAX);
    }
    Ok(Timing {
        images: images.len(),
        instructions: target.starts_with("qemu:"),
        operators,
    })
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self
            .operators
            .iter()
            .map(|operator| operator.nanoseconds)
            .sum();
        let (what, unit) = if self.instructions {
            ("executed instructions", "")
        } else {
            ("time on the device", " ms")
        };
        let value = |nanoseconds: u64| {
            if self.instructions {
                nanoseconds.to_string()
            } else {
                format!("{:.3}", nanoseconds as f64 / 1e6)
            }
        };
        writeln!(f, "{what} per operator, mean of {} images", self.images)?;
        for (i, operator) in self.operators.iter().enumerate() {
            let [h, w, c] = operator.output;
            let share = 100.0 * operator.nanoseconds as f64 / total.max(1) as f64;
            writeln!(
                f,
                "  {i:>2} {:<9} {:<12} {:>12}{unit} {share:>6.1} %",
                operator.kind,
                format!("{h}x{w}x{c}"),
                value(operator.nanoseconds),
            )?;
        }
        writeln!(f, "  {:<25} {:>12}{unit}", "all", value(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(instructions: bool) -> Timing {
        let operator = |kind: &str, output, nanoseconds| Operator {
            kind: kind.into(),
            output,
            nanoseconds,
        };
        Timing {
            images: 10,
            instructions,
            operators: vec![
                operator("conv", [13, 13, 32], 1_500_000),
                operator("dense", [1, 1, 10], 500_000),
            ],
        }
    }

    #[test]
    fn a_board_shows_milliseconds_and_an_emulated_machine_instructions() {
        assert_eq!(
            timing(false).to_string(),
            "time on the device per operator, mean of 10 images\n   \
             0 conv      13x13x32            1.500 ms   75.0 %\n   \
             1 dense     1x1x10              0.500 ms   25.0 %\n  \
             all                              2.000 ms\n"
        );
        assert!(timing(true).to_string().contains(" 1500000   75.0 %\n"));
    }
}
