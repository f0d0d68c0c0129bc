//! Activation exponents by what they cost at the network's output.
//!
//! The methods of [`super::scale`] look at one tensor at a time. That is not enough where a few values are far larger
//! than the others, as after per-pixel standardization: a squared error is then all about those, and the many small
//! values that decide the class are left with a handful of steps.

use super::{
    Adjustment, Method, NodeScale, QuantizeError, Quantized, assemble, choose_scales, graph::Graph,
};
use crate::{
    architecture::{Architecture, OutputActivation},
    calibrate::Calibration,
};

/// Divides the logits before the class probabilities are compared, as in distillation: without it almost only the few images
/// count of which the network is not sure.
const TEMPERATURE: f64 = 4.0;

/// Rounds over all exponents; the search mostly ends by itself in the second.
const ROUNDS: usize = 3;

/// Starts with `method`'s exponents and moves one at a time by one, down or up, as long as `cost` of the integer network
/// falls. A network that cannot be built at some exponents costs more than any other.
///
/// # Errors
/// The start cannot be built, or `cost` fails.
pub fn search<E: From<QuantizeError>>(
    graph: &Graph,
    architecture: &Architecture,
    calibration: &Calibration,
    method: Method,
    mut cost: impl FnMut(&Quantized) -> Result<f64, E>,
) -> Result<Vec<NodeScale>, E> {
    let mut adjustments = vec![Adjustment::default(); graph.nodes.len()];
    let scales_at = |adjustments: &[Adjustment]| {
        choose_scales(graph, architecture, calibration, method, adjustments)
    };
    let mut best = scales_at(&adjustments)?;
    let mut lowest = cost(&assemble(graph, architecture, &best)?)?;
    // The last node has no output exponent of its own.
    let exponents = 2 * graph.nodes.len().saturating_sub(1);
    for _ in 0..ROUNDS {
        let before = lowest;
        for exponent in 0..exponents {
            for direction in [-1, 1] {
                loop {
                    let mut moved = adjustments.clone();
                    let adjustment = &mut moved[exponent / 2];
                    match exponent % 2 {
                        0 => adjustment.after += direction,
                        _ => adjustment.before += direction,
                    }
                    let Ok(scales) = scales_at(&moved) else { break };
                    if scales == best {
                        break;
                    }
                    let Ok(quantized) = assemble(graph, architecture, &scales) else {
                        break;
                    };
                    let found = cost(&quantized)?;
                    if found >= lowest {
                        break;
                    }
                    (lowest, best, adjustments) = (found, scales, moved);
                }
            }
        }
        if lowest == before {
            break;
        }
    }
    Ok(best)
}

/// How far the integer logits of an image are from the float ones.
///
/// Softmax: the Kullback-Leibler divergence of the class probabilities at a temperature of 4, in nats. Sigmoid: the sum of
/// the classes' divergences at that temperature. Linear: the squared distance.
pub fn divergence(output: OutputActivation, float: &[f64], fixed: &[f64]) -> f64 {
    let cooled = |&logit: &f64| logit / TEMPERATURE;
    let pairs = || float.iter().map(cooled).zip(fixed.iter().map(cooled));
    match output {
        OutputActivation::Softmax => {
            let (a, b) = (
                log_sum_exp(pairs().map(|(x, _)| x)),
                log_sum_exp(pairs().map(|(_, y)| y)),
            );
            pairs()
                .map(|(x, y)| (x - a).exp() * ((x - a) - (y - b)))
                .sum()
        }
        OutputActivation::Sigmoid => pairs()
            .map(|(x, y)| {
                let p = log_sigmoid(x).exp();
                p * (log_sigmoid(x) - log_sigmoid(y))
                    + (1.0 - p) * (log_sigmoid(-x) - log_sigmoid(-y))
            })
            .sum(),
        OutputActivation::Linear => float.iter().zip(fixed).map(|(x, y)| (x - y).powi(2)).sum(),
    }
}

fn log_sum_exp(logits: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    max + logits.map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// `ln(1 / (1 + e^-x))`, without overflow.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities computed by hand: logits of `4 ln p` have the probabilities `p` at a temperature of 4.
    #[test]
    fn divergences_by_hand() {
        let logits = |p: [f64; 3]| p.map(|p| 4.0 * p.ln());
        let (p, q) = (logits([0.5, 0.25, 0.25]), logits([0.25, 0.25, 0.5]));
        // 0.5 ln 2 + 0 + 0.25 ln 0.5
        let expected = 0.25 * 2f64.ln();
        let found = divergence(OutputActivation::Softmax, &p, &q);
        assert!((found - expected).abs() < 1e-12, "{found}");
        // A constant added to all logits changes nothing.
        let moved = q.map(|x| x + 100.0);
        let found = divergence(OutputActivation::Softmax, &p, &moved);
        assert!((found - expected).abs() < 1e-12, "{found}");

        // sigmoid(4 ln 3 / 4) = 0.75, sigmoid(0) = 0.5
        let expected = 0.75 * (0.75f64 / 0.5).ln() + 0.25 * (0.25f64 / 0.5).ln();
        let found = divergence(OutputActivation::Sigmoid, &[4.0 * 3f64.ln()], &[0.0]);
        assert!((found - expected).abs() < 1e-12, "{found}");

        let linear = divergence(OutputActivation::Linear, &[1.0, 2.0], &[3.0, 1.0]);
        assert_eq!(linear, 5.0);
        for output in [OutputActivation::Softmax, OutputActivation::Sigmoid] {
            let far = divergence(output, &[4000.0, -4000.0], &[-4000.0, 4000.0]);
            assert!(far.is_finite() && far > 100.0, "{output:?}: {far}");
        }
    }
}
