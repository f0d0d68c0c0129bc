//! Random models whose every accumulator bound is 2^24 - 1, on the images that come nearest to it: no overflow (CI runs this
//! with overflow checks, too) and the values of the reference, which computes in i64.

mod oracle;
mod random;

use proptest::prelude::*;
use random::Random;
use runtime::encode::{
    AffineParam, DType, ModelSpec, OpSpec, OutputActivation, PoolSpec, Post, Shape, TensorSpec,
    WeightOrder, encode_in,
};
use runtime::{Kernels, Model};

/// The greatest bound that a file may have.
const MOST: i64 = (1 << 24) - 1;

/// Largest magnitude of a stored value.
fn magnitude(dtype: DType) -> i64 {
    if dtype == DType::U8 { 255 } else { 128 }
}

/// A channel's weights and the bias that fills its bound up to [`MOST`].
fn channel(random: &mut Random, count: usize, dtype: DType) -> (Vec<i8>, i32) {
    let most = (MOST / magnitude(dtype) / count as i64).min(127) as i32;
    let signs = random.range(0, 2);
    let weights: Vec<i8> = (0..count)
        .map(|_| {
            let size = if random.chance(3) {
                random.range(0, most.into()) as i32
            } else {
                most
            };
            let negative = match signs {
                0 => false,
                1 => true,
                _ => random.chance(2),
            };
            (if negative { -size } else { size }) as i8
        })
        .collect();
    let sum: i64 = weights.iter().map(|&w| i64::from(w).abs()).sum();
    let room = (MOST - sum * magnitude(dtype)) as i32;
    (weights, if random.chance(2) { room } else { -room })
}

fn channels(random: &mut Random, channels: u16, count: usize, dtype: DType) -> (Vec<i8>, Vec<i32>) {
    let all: Vec<_> = (0..channels)
        .map(|_| channel(random, count, dtype))
        .collect();
    let bias = all.iter().map(|(_, bias)| *bias).collect();
    (
        all.into_iter().flat_map(|(weight, _)| weight).collect(),
        bias,
    )
}

/// Shifts around those that bring 24 bits to 8.
fn post(random: &mut Random, channels: u16) -> Post {
    Post {
        shift: (0..channels).map(|_| random.range(12, 19) as i8).collect(),
        table: None,
    }
}

/// An operator of this kind on tensor `input`, its output.
fn operator(random: &mut Random, kind: u32, input: usize, x: TensorSpec) -> (OpSpec, TensorSpec) {
    let output = input + 1;
    let Shape { h, w, c } = x.shape;
    let y = |h, w, c, dtype| TensorSpec {
        shape: Shape { h, w, c },
        dtype,
    };
    let dtype = if random.chance(2) {
        DType::U8
    } else {
        DType::I8
    };
    match kind {
        // Any number of channels, or depthwise; with and without a pool.
        0 | 1 => {
            let (groups, co) = if kind == 0 {
                (1, random.range(1, 9) as u16)
            } else {
                (c, c)
            };
            let kernel = [h.min(3) as u8, w.min(3) as u8];
            let map = [h + 1 - u16::from(kernel[0]), w + 1 - u16::from(kernel[1])];
            let count = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(c / groups);
            let (weight, bias) = channels(random, co, count, x.dtype);
            let pool = (random.chance(2) && map[0] > 1 && map[1] > 1).then_some(PoolSpec {
                size: [2, 2],
                stride: [2, 2],
            });
            let [oh, ow] = map.map(|n| if pool.is_some() { n / 2 } else { n });
            let op = OpSpec::Conv {
                input,
                output,
                kernel,
                stride: [1, 1],
                pad: [0, 0],
                conv: map,
                groups,
                weight,
                bias,
                pool,
                post: post(random, co),
            };
            (op, y(oh, ow, co, dtype))
        }
        2 => {
            let co = random.range(1, 9) as u16;
            let (weight, bias) = channels(random, co, x.shape.len(), x.dtype);
            let op = OpSpec::Dense {
                input,
                output,
                weight,
                bias,
                post: post(random, co),
            };
            (op, y(1, 1, co, dtype))
        }
        3 => {
            let params = (0..c)
                .map(|_| {
                    let mul = random.range(-32_768, 32_767) as i16;
                    let room = MOST - i64::from(mul).abs() * magnitude(x.dtype);
                    let add = if random.chance(2) { room } else { -room } as i32;
                    AffineParam {
                        mul,
                        add,
                        shift: random.range(12, 31) as u8,
                    }
                })
                .collect();
            let op = OpSpec::Affine {
                input,
                output,
                params,
            };
            (op, y(h, w, c, dtype))
        }
        4 => {
            let multiplier = (MOST / (i64::from(h) * i64::from(w) * magnitude(x.dtype))).min(127);
            let op = OpSpec::AvgPool {
                input,
                output,
                size: [h, w],
                stride: [1, 1],
                multiplier: if random.chance(2) {
                    multiplier as i8
                } else {
                    -multiplier as i8
                },
                post: post(random, c),
            };
            (op, y(1, 1, c, dtype))
        }
        // 255 << 16 plus 255 << 8 is 255 below 2^24; 128 << 16 plus 128 << 15 likewise.
        5 => {
            let shift_b = if x.dtype == DType::U8 { 8 } else { 15 };
            let op = OpSpec::Add {
                a: input,
                b: input,
                output,
                shift_a: 16,
                shift_b,
                post: post(random, c),
            };
            (op, y(h, w, c, dtype))
        }
        _ => {
            let op = OpSpec::Table {
                input,
                output,
                table: Box::new(std::array::from_fn(|i| i as u8)),
            };
            (op, y(h, w, c, DType::I8))
        }
    }
}

/// The operators one after another, then dense logits.
fn model(seed: u64, input: Shape, kinds: &[u32]) -> ModelSpec {
    let mut random = Random(seed);
    let mut tensors = vec![TensorSpec {
        shape: input,
        dtype: DType::U8,
    }];
    let mut ops = Vec::new();
    for &kind in kinds {
        let at = tensors.len() - 1;
        let (op, y) = operator(&mut random, kind, at, tensors[at]);
        ops.push(op);
        tensors.push(y);
    }
    let at = tensors.len() - 1;
    let classes = random.range(1, 5) as u16;
    let x = tensors[at];
    let (weight, bias) = channels(&mut random, classes, x.shape.len(), x.dtype);
    ops.push(OpSpec::Dense {
        input: at,
        output: at + 1,
        weight,
        bias,
        post: Post::default(),
    });
    tensors.push(TensorSpec {
        shape: Shape {
            h: 1,
            w: 1,
            c: classes,
        },
        dtype: DType::I32,
    });
    ModelSpec {
        name: "limit".into(),
        recipe_hash: [0; 32],
        tensors,
        ops,
        logit_exponents: vec![0; usize::from(classes)],
        output: OutputActivation::Linear,
        golden_image: None,
    }
}

/// White, black, and images of extremes: among the latter those that drive a channel to its bound.
fn images(spec: &ModelSpec, seed: u64) -> Vec<Vec<u8>> {
    let len = spec.tensors[0].shape.len();
    let mut random = Random(!seed);
    let mut images = vec![vec![255; len], vec![0; len], vec![128; len]];
    if let OpSpec::Dense { weight, .. } = &spec.ops[0] {
        for row in weight.chunks(len) {
            images.push(row.iter().map(|&w| if w > 0 { 255 } else { 0 }).collect());
            images.push(row.iter().map(|&w| if w < 0 { 255 } else { 0 }).collect());
        }
    }
    images.push(
        (0..len)
            .map(|_| if random.chance(2) { 0 } else { 255 })
            .collect(),
    );
    images
}

/// Every tensor of every operator as the reference has it, with the weights as they are and transformed; the greatest
/// magnitude of a logit.
fn check(spec: &ModelSpec, seed: u64) -> Result<u32, TestCaseError> {
    check_in(spec, seed, WeightOrder::Winograd, Kernels::Dsp)?;
    check_in(spec, seed, WeightOrder::Blocked, Kernels::CHOSEN)
}

fn check_in(
    spec: &ModelSpec,
    seed: u64,
    order: WeightOrder,
    kernels: Kernels,
) -> Result<u32, TestCaseError> {
    let file = encode_in(spec, order).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let model = Model::new(&file).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let mut arena = vec![0xa5; model.arena_len()];
    let mut greatest = 0;
    for image in images(spec, seed) {
        let expected = oracle::run(spec, &image);
        let mut at = 0;
        let mut same = true;
        model.input_mut(&mut arena).unwrap().copy_from_slice(&image);
        let logits = model
            .run_loaded_on(kernels, &mut arena, |event| {
                let got: Vec<i64> = match event.op.output.dtype {
                    DType::U8 => event.bytes.iter().map(|&b| b.into()).collect(),
                    DType::I8 => event.bytes.iter().map(|&b| (b as i8).into()).collect(),
                    DType::I32 => expected[at].clone(),
                };
                same &= got == expected[at];
                at += 1;
            })
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(same);
        let got: Vec<i64> = logits.accumulators().map(Into::into).collect();
        prop_assert_eq!(Some(&got), expected.last());
        let magnitudes = logits.accumulators().map(i32::unsigned_abs);
        greatest = greatest.max(magnitudes.max().unwrap_or(0));
    }
    Ok(greatest)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn chains_at_the_limit(
        seed: u64,
        kinds in proptest::collection::vec(0u32..7, 1..5),
        h in 1u16..7,
        w in 1u16..7,
        c in 1u16..6,
    ) {
        check(&model(seed, Shape { h, w, c }, &kinds), seed)?;
    }

    /// One dense layer on the image: its worst image is among those tried.
    #[test]
    fn logits_reach_the_limit(seed: u64, h in 1u16..20, w in 1u16..20) {
        let spec = model(seed, Shape { h, w, c: 1 }, &[]);
        let greatest = check(&spec, seed)?;
        prop_assert!(i64::from(greatest) > MOST / 4 && i64::from(greatest) <= MOST, "{}", greatest);
    }
}
