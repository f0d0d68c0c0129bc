//! Activation functions as 256-entry tables.
//!
//! `table[q as u8] = saturate(round(f(q * 2^e_in) * 2^-e_out))`, computed in f64. An engine that evaluates the function
//! in f32 gets the same entry as long as the exact value keeps a distance from every rounding boundary; tables with
//! an entry nearer than [`MARGIN`] to one are refused. An exact tie is allowed where the function is the identity:
//! f32 has no error there, and both sides round half to even.

use runtime::encode::DType;

use super::scale::{limits, pow2, quantize_value};
use crate::architecture::Activation;

/// Smallest distance of an entry to a rounding boundary, in steps of the output.
pub const MARGIN: f64 = 1.0 / 8192.0;

/// Keras's and ONNX's constants of selu, as the f32 values that engines use.
pub const SELU_ALPHA: f32 = 1.673_263_2;
/// See [`SELU_ALPHA`].
pub const SELU_GAMMA: f32 = 1.050_701;

/// The activation function in f64; softmax is the identity (it is never computed on integers).
pub fn function(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Linear | Activation::Softmax => x,
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Elu if x > 0.0 => x,
        Activation::Elu => x.exp_m1(),
        Activation::Selu if x > 0.0 => f64::from(SELU_GAMMA) * x,
        Activation::Selu => f64::from(SELU_GAMMA) * f64::from(SELU_ALPHA) * x.exp_m1(),
    }
}

/// Type of a table's output; relu keeps the type of its input.
pub fn output_dtype(activation: Activation, input: DType) -> DType {
    match activation {
        Activation::Sigmoid => DType::U8,
        Activation::Relu => input,
        _ => DType::I8,
    }
}

/// The table, or `None` if an entry is too near a rounding boundary.
pub fn table(
    activation: Activation,
    input: (DType, i32),
    output: (DType, i32),
) -> Option<Box<[u8; 256]>> {
    let mut entries = Box::new([0; 256]);
    let (first, last) = limits(input.0);
    let (low, high) = limits(output.0);
    for q in first..=last {
        let x = q as f64 * pow2(input.1);
        let y = function(activation, x);
        let steps = y * pow2(-output.1);
        let above = steps - steps.floor();
        let inside = steps > low as f64 && steps < high as f64;
        let exact = y == x || y == 0.0;
        if inside && !exact && (above - 0.5).abs() < MARGIN {
            return None;
        }
        entries[usize::from(q as u8)] = quantize_value(y, output.1, output.0) as u8;
    }
    Some(entries)
}

/// The exponents nearest to the wanted ones (input, output) that give a table, with the table. Finer scales are tried
/// last, because they may saturate.
pub fn nearest_table(
    activation: Activation,
    input: (DType, i32),
    output: (DType, i32),
    input_is_fixed: bool,
) -> Option<(i32, i32, Box<[u8; 256]>)> {
    const STEPS: [(i32, i32); 9] = [
        (0, 0),
        (1, 0),
        (0, 1),
        (1, 1),
        (2, 0),
        (0, -1),
        (-1, 0),
        (2, 1),
        (3, 0),
    ];
    STEPS
        .iter()
        .filter(|(step, _)| !input_is_fixed || *step == 0)
        .find_map(|(step_in, step_out)| {
            let (e_in, e_out) = (input.1 + step_in, output.1 + step_out);
            table(activation, (input.0, e_in), (output.0, e_out)).map(|t| (e_in, e_out, t))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_entries() {
        let sigmoid = table(Activation::Sigmoid, (DType::I8, -4), (DType::U8, -8)).unwrap();
        assert_eq!(sigmoid[0], 128); // 0.5
        assert_eq!(sigmoid[16], 187); // sigmoid(1) = 0.731059 -> 187.15
        assert_eq!(sigmoid[(-128i8) as u8 as usize], 0); // sigmoid(-8) = 0.000335 -> 0.09
        let tanh = table(Activation::Tanh, (DType::I8, -5), (DType::I8, -7)).unwrap();
        assert_eq!(tanh[32] as i8, 97); // tanh(1) = 0.761594 -> 97.48
        assert_eq!(tanh[(-32i8) as u8 as usize] as i8, -97);
        assert_eq!(tanh[127] as i8, 127); // saturates
    }

    #[test]
    fn identity_ties_are_allowed_and_round_to_even() {
        let elu = table(Activation::Elu, (DType::I8, -5), (DType::I8, -4)).unwrap();
        assert_eq!([elu[1], elu[3], elu[5]], [0, 2, 2]);
    }

    /// tanh(x) is x - x^3/3: with an output step of two input steps every odd input is almost a tie.
    #[test]
    fn entries_near_a_boundary_are_refused() {
        assert_eq!(
            table(Activation::Tanh, (DType::I8, -8), (DType::I8, -7)),
            None
        );
        let (e_in, e_out, found) =
            nearest_table(Activation::Tanh, (DType::I8, -8), (DType::I8, -7), false).unwrap();
        assert!(e_in >= e_out);
        for q in -128i64..128 {
            let steps = (q as f64 * pow2(e_in)).tanh() * pow2(-e_out);
            let boundary = (steps - 0.5).round() + 0.5;
            assert!((steps - boundary).abs() >= MARGIN || steps.abs() > 127.0);
            assert!((f64::from(found[q as u8 as usize] as i8) - steps).abs() <= 1.0);
        }
    }

    /// Every accepted table is what f32 arithmetic gives too.
    #[test]
    fn accepted_tables_agree_with_f32() {
        for e_in in -9..=0 {
            for (activation, dtype) in [
                (Activation::Sigmoid, DType::U8),
                (Activation::Elu, DType::I8),
            ] {
                for e_out in -9..=-5 {
                    let Some(entries) = table(activation, (DType::I8, e_in), (dtype, e_out)) else {
                        continue;
                    };
                    for q in -128i32..128 {
                        let x = q as f32 * 2f32.powi(e_in);
                        let y = match activation {
                            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                            _ if x > 0.0 => x,
                            _ => x.exp_m1(),
                        };
                        let (low, high) = limits(dtype);
                        let rounded = (y * 2f32.powi(-e_out)).round_ties_even();
                        let expected = rounded.clamp(low as f32, high as f32) as i64 as u8;
                        assert_eq!(
                            entries[q as u8 as usize], expected,
                            "{activation:?} {e_in} {e_out} {q}"
                        );
                    }
                }
            }
        }
    }
}
