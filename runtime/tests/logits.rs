//! Argmax, ranking and probabilities.

use runtime::encode::{
    DType, ModelSpec, OpSpec, OutputActivation, Post, Shape, TensorSpec, encode,
};
use runtime::{Logits, Model};

/// Logits `accumulators[i] * 2^exponents[i]`, through a model whose biases they are.
fn with<T>(accumulators: &[i32], exponents: &[i8], look: impl FnOnce(Logits<'_>) -> T) -> T {
    let classes = accumulators.len() as u16;
    let tensor = |c, dtype| TensorSpec {
        shape: Shape { h: 1, w: 1, c },
        dtype,
    };
    let file = encode(&ModelSpec {
        name: "biases".into(),
        recipe_hash: [0; 32],
        tensors: vec![tensor(1, DType::U8), tensor(classes, DType::I32)],
        ops: vec![OpSpec::Dense {
            input: 0,
            output: 1,
            weight: vec![0; accumulators.len()],
            bias: accumulators.to_vec(),
            post: Post::default(),
        }],
        logit_exponents: exponents.to_vec(),
        output: OutputActivation::Softmax,
        golden_image: None,
    })
    .unwrap();
    let model = Model::new(&file).unwrap();
    let mut arena = vec![0; model.arena_len()];
    look(model.run(&[1], &mut arena).unwrap())
}

const MOST: i32 = (1 << 24) - 1;

#[test]
fn argmax_compares_scaled_values_exactly() {
    for (accumulators, exponents, expected) in [
        (vec![1, 5, 5, 2], vec![0; 4], 1), // a tie goes to the lowest index
        (vec![-3, -2, -9], vec![0; 3], 1),
        (vec![0, 0], vec![-8, 9], 0),
        (vec![4, 1], vec![0, 2], 0),   // 4 and 4
        (vec![4, 1], vec![0, 3], 1),   // 4 and 8
        (vec![-4, -1], vec![0, 3], 0), // -4 and -8
        (vec![MOST, 1], vec![-128, 127], 1),
        (vec![-MOST, -1], vec![-128, 127], 0),
        (vec![-1, 0], vec![127, -128], 1),
        (vec![0, -1], vec![127, -128], 0),
        // Neighbours that an f32 of 2^24 * 2^8 could not tell apart by a sum, but a comparison can.
        (vec![MOST - 1, MOST], vec![100, 100], 1),
    ] {
        let got = with(&accumulators, &exponents, |logits| logits.argmax());
        assert_eq!(got, expected, "{accumulators:?} {exponents:?}");
    }
}

#[test]
fn ranking_is_stable_and_bounded() {
    with(&[3, 9, -1, 9, 4], &[0; 5], |logits| {
        let classes =
            |ranked: &[runtime::Ranked]| ranked.iter().map(|r| r.class).collect::<Vec<_>>();
        assert_eq!(classes(&logits.top_k::<3>()), [1, 3, 4]);
        assert_eq!(classes(&logits.top_k::<1>()), [logits.argmax()]);
        assert_eq!(classes(&logits.top_k::<8>()), [1, 3, 4, 0, 2]);
        assert!(logits.top_k::<0>().is_empty());
        assert_eq!(logits.top_k::<1>()[0].value, 9.0);
    });
}

#[test]
fn values_are_exact() {
    with(&[MOST, -MOST, 3], &[-102, 103, -2], |logits| {
        assert_eq!(logits.len(), 3);
        assert!(!logits.is_empty());
        // `powi` may round; a power of two by its exponent field does not.
        let exact = |acc: i32, e: i32| f64::from(acc) * f64::from_bits(((1023 + e) as u64) << 52);
        let values: Vec<f64> = logits.values().map(f64::from).collect();
        assert_eq!(values, [exact(MOST, -102), exact(-MOST, 103), 0.75]);
        assert_eq!(logits.value(2), Some(0.75));
        assert_eq!((logits.value(3), logits.accumulator(3)), (None, None));
    });
}

#[test]
fn probabilities_agree_with_f64() {
    let accumulators = [-700, 0, 513, 512, 20_000];
    let exponents = [-6, 0, -8, -8, -11];
    let values: Vec<f64> = accumulators
        .iter()
        .zip(&exponents)
        .map(|(&acc, &e)| f64::from(acc) * 2f64.powi(e))
        .collect();
    let sum: f64 = values.iter().map(|v| v.exp()).sum();
    with(&accumulators, &exponents.map(|e| e as i8), |logits| {
        let (mut softmax, mut sigmoid) = ([9.0f32; 6], [9.0f32; 6]);
        logits.softmax(&mut softmax);
        logits.sigmoid(&mut sigmoid);
        for (i, value) in values.iter().enumerate() {
            let close = |got: f32, want: f64| (f64::from(got) - want).abs() <= 1e-6 * want;
            assert!(close(softmax[i], value.exp() / sum), "softmax {i}");
            assert!(
                close(sigmoid[i], 1.0 / (1.0 + (-value).exp())),
                "sigmoid {i}"
            );
        }
        assert_eq!((softmax[5], sigmoid[5]), (9.0, 9.0));
    });
    // Values far apart: no infinity, no NaN.
    with(&[MOST, -MOST], &[20, 20], |logits| {
        let mut softmax = [0.0; 2];
        logits.softmax(&mut softmax);
        assert_eq!(softmax, [1.0, 0.0]);
    });
}
