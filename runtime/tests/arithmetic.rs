//! Every operator against the naive reference, value by value, over random shapes, parameters and images.

mod oracle;
mod random;
mod random_model;

use proptest::prelude::*;
use random::Random;
use random_model::{random_model, random_sum, shape};
use runtime::encode::{
    DType, ModelSpec, OpSpec, OutputActivation, Post, Shape, TensorSpec, WeightOrder, encode,
    encode_in,
};
use runtime::{Kernels, Model, fixed};

/// Every tensor of every operator, in the runtime, for every order of the weights, and in the reference.
fn check(model: &ModelSpec, seed: u64) -> Result<(), TestCaseError> {
    let mut random = Random(seed);
    let image: Vec<u8> = (0..model.tensors[0].shape.len())
        .map(|_| random.byte())
        .collect();
    let expected = oracle::run(model, &image);
    for order in [WeightOrder::Blocked, WeightOrder::Plain] {
        check_order(model, order, &image, &expected)?;
    }
    Ok(())
}

fn check_order(
    model: &ModelSpec,
    order: WeightOrder,
    image: &[u8],
    expected: &[oracle::Values],
) -> Result<(), TestCaseError> {
    let file = encode_in(model, order).map_err(|e| TestCaseError::fail(format!("{e}")))?;
    let loaded = Model::new(&file).map_err(|e| TestCaseError::fail(format!("{e}")))?;
    // What is read back is what was written.
    let read = ModelSpec::read(&loaded).map(|spec| encode_in(&spec, order));
    prop_assert!(read == Some(Ok(file.clone())));
    for &kernels in Kernels::ALL {
        check_kernels(&loaded, kernels, image, expected)?;
    }
    Ok(())
}

fn check_kernels(
    loaded: &Model<'_>,
    kernels: Kernels,
    image: &[u8],
    expected: &[oracle::Values],
) -> Result<(), TestCaseError> {
    // A dirty arena: no operator may rely on zeros.
    let mut arena = vec![0xa5; loaded.arena_len()];
    let mut got: Vec<Vec<i64>> = Vec::new();
    loaded.input_mut(&mut arena).unwrap().copy_from_slice(image);
    let logits = loaded
        .run_loaded_on(kernels, &mut arena, |event| {
            got.push(match event.op.output.dtype {
                DType::U8 => event.bytes.iter().map(|&b| i64::from(b)).collect(),
                DType::I8 => event.bytes.iter().map(|&b| i64::from(b as i8)).collect(),
                DType::I32 => event
                    .bytes
                    .chunks(4)
                    .map(|b| i64::from(i32::from_le_bytes(b.try_into().unwrap())))
                    .collect(),
            });
        })
        .map_err(|e| TestCaseError::fail(format!("{e}")))?;
    let last: Vec<i64> = logits.accumulators().map(i64::from).collect();
    prop_assert_eq!(Some(&last), expected.last());
    prop_assert_eq!(&got[..], expected);
    Ok(())
}

/// Miri interprets: a few cases there, many elsewhere. No files are written for failures.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

macro_rules! operator {
    ($($name:ident = $kind:literal;)*) => {
        proptest! {
            #![proptest_config(config())]
            $(
                #[test]
                fn $name(seed: u64, signed: bool, h in 1u16..8, w in 1u16..8, c in 1u16..20) {
                    // A table in front makes the operator's input signed.
                    let kinds: &[usize] = if signed { &[6, $kind] } else { &[$kind] };
                    check(&random_model(seed, Shape { h, w, c }, kinds), seed ^ 1)?;
                }
            )*

            #[test]
            fn chain(seed: u64, kinds in proptest::collection::vec(0usize..7, 1..6), h in 1u16..7, w in 1u16..7, c in 1u16..5) {
                check(&random_model(seed, Shape { h, w, c }, &kinds), seed ^ 1)?;
            }

            #[test]
            fn depthwise(seed: u64, signed: bool, h in 1u16..8, w in 1u16..8, c in 1u16..70) {
                let kinds: &[usize] = if signed { &[6, 7] } else { &[7] };
                check(&random_model(seed, Shape { h, w, c }, kinds), seed ^ 1)?;
            }

            #[test]
            fn sum(seed: u64, in_place: bool, h in 1u16..6, w in 1u16..6, c in 1u16..20) {
                check(&random_sum(seed, Shape { h, w, c }, in_place), seed ^ 1)?;
            }

            #[test]
            fn rounding(acc in -(1i32 << 24) + 1..1 << 24, shift in -24i8..=31) {
                let exact = oracle::round(i64::from(acc), i64::from(shift));
                prop_assert_eq!(i64::from(fixed::requantize(acc, shift, DType::U8)), exact.clamp(0, 255));
                prop_assert_eq!(i64::from(fixed::requantize(acc, shift, DType::I8) as i8), exact.clamp(-128, 127));
            }
        }
    };
}

operator! {
    affine = 0;
    conv = 1;
    dense = 2;
    max_pool = 3;
    avg_pool = 4;
    add = 5;
    table = 6;
}

/// Every accumulator near every tie and every limit of saturation.
#[test]
fn rounding_at_ties_and_limits() {
    let wide = if cfg!(miri) { 4 } else { 1200 };
    for shift in -24i8..=31 {
        for dtype in [DType::U8, DType::I8] {
            for centre in [0i64, 127, -128, 255, 256, -129] {
                let unit = 1i64 << shift.max(0);
                for half in [0, unit / 2] {
                    let middle = centre * unit + half;
                    for acc in middle - wide..=middle + wide {
                        if acc.abs() >= 1 << 24 {
                            continue;
                        }
                        let exact = oracle::round(acc, i64::from(shift));
                        let got = fixed::requantize(acc as i32, shift, dtype);
                        let (got, exact) = match dtype {
                            DType::U8 => (i64::from(got), exact.clamp(0, 255)),
                            _ => (i64::from(got as i8), exact.clamp(-128, 127)),
                        };
                        assert_eq!(got, exact, "acc {acc}, shift {shift}, {dtype:?}");
                    }
                }
            }
        }
    }
}

/// The accumulator at its bound, with weights of 127 and a saturated image: no overflow, exact logits.
#[test]
fn accumulators_at_the_limit() {
    // 127 * 255 * 518 = 16,775,430; the bias fills up to 2^24 - 1.
    let count = 518u16;
    let bias = (1 << 24) - 1 - 127 * 255 * i32::from(count);
    let model = |bias: i32| ModelSpec {
        name: String::new(),
        recipe_hash: [0; 32],
        tensors: vec![
            TensorSpec {
                shape: shape(1, 1, count),
                dtype: DType::U8,
            },
            TensorSpec {
                shape: shape(1, 1, 2),
                dtype: DType::I32,
            },
        ],
        ops: vec![OpSpec::Dense {
            input: 0,
            output: 1,
            weight: [[127; 518], [-127; 518]].concat(),
            bias: vec![bias, -bias],
            post: Post::default(),
        }],
        logit_exponents: vec![0, 0],
        output: OutputActivation::Softmax,
        golden_image: None,
    };
    let file = encode(&model(bias)).unwrap();
    let loaded = Model::new(&file).unwrap();
    let mut arena = vec![0; loaded.arena_len()];
    let logits = loaded.run(&[255; 518], &mut arena).unwrap();
    let got: Vec<i32> = logits.accumulators().collect();
    assert_eq!(got, [(1 << 24) - 1, 1 - (1 << 24)]);
    let refused = encode(&model(bias + 1)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the model is not valid: operator 0: malformed operator: an accumulator could reach 2^24, channel 0, bound 16777216"
    );
}
