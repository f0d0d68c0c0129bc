//! The rounding rule for every accumulator and every shift that a file may hold: a proof by trying all.

use std::{ops::RangeInclusive, thread};

use runtime::{
    DType,
    fixed::{ACCUMULATOR_LIMIT, SHIFT_MAX, SHIFT_MIN, requantize},
};

use crate::shell::Failure;

/// Compares [`requantize`] with exact division, half to even, in i64.
pub fn run() -> Result<(), Failure> {
    let limit = ACCUMULATOR_LIMIT as i32 - 1;
    let halves = [-limit..=0, 1..=limit];
    let tried = thread::scope(|scope| {
        let halves = halves.map(|half| scope.spawn(|| try_all(half)));
        let counts =
            halves.map(|half| half.join().unwrap_or_else(|_| Err("a thread ended".into())));
        counts.into_iter().sum::<Result<u64, String>>()
    })
    .map_err(Failure)?;
    println!("requantize: {tried} of {tried} results are exact");
    Ok(())
}

/// Results that were compared, or the first wrong one.
fn try_all(accumulators: RangeInclusive<i32>) -> Result<u64, String> {
    let mut tried = 0;
    for shift in SHIFT_MIN..=SHIFT_MAX {
        for acc in accumulators.clone() {
            let exact = round(acc.into(), shift.into());
            let got = [DType::U8, DType::I8].map(|dtype| requantize(acc, shift, dtype));
            let expected = [exact.clamp(0, 255) as u8, exact.clamp(-128, 127) as u8];
            if got != expected {
                return Err(format!(
                    "requantize({acc}, {shift}) gives {got:?} for U8 and I8, expected {expected:?}"
                ));
            }
            tried += 2;
        }
    }
    Ok(tried)
}

/// `acc / 2^shift`, rounded half to even.
fn round(acc: i64, shift: i64) -> i64 {
    if shift <= 0 {
        return acc << -shift;
    }
    let unit = 1_i64 << shift;
    let (floor, rest) = (acc.div_euclid(unit), acc.rem_euclid(unit));
    if 2 * rest > unit || (2 * rest == unit && floor % 2 != 0) {
        floor + 1
    } else {
        floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_by_hand() {
        let rounded = [(5, 1), (7, 1), (-5, 1), (-7, 2), (3, -2)].map(|(acc, s)| round(acc, s));
        assert_eq!(rounded, [2, 4, -2, -2, 12]);
        assert_eq!(try_all(-300..=300), Ok(601 * 56 * 2));
    }
}
