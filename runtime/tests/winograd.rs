//! Convolutions whose weights are stored transformed for Winograd's algorithm: each set of kernels against the naive reference,
//! and files that no convolution has.

mod oracle;

use proptest::prelude::*;
use runtime::encode::{
    DType, ModelSpec, OpSpec, OutputActivation, PoolSpec, Post, Shape, TensorSpec, WeightOrder,
    WinogradMisfit, encode, encode_in, seal, winograd,
};
use runtime::{Kernels, Kind, Layout, Model, ModelError, OpProblem};

/// Numbers by a linear congruence (Numerical Recipes); the high bits.
fn numbers(seed: u32) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below.max(1)
    }
}

/// A 3x3 convolution over a map.
#[derive(Clone, Debug)]
struct Layer {
    input: Shape,
    signed: bool,
    channels: u16,
    pad: [u8; 2],
    /// Rows and columns before pooling.
    map: [u16; 2],
    pool: bool,
    /// The output is the logits; it has one position.
    raw: bool,
    weight: Vec<i8>,
    bias: Vec<i32>,
}

impl Layer {
    fn output(&self) -> TensorSpec {
        let [h, w] = self.map.map(|n| if self.pool { n / 2 } else { n });
        TensorSpec {
            shape: Shape {
                h,
                w,
                c: self.channels,
            },
            dtype: if self.raw { DType::I32 } else { DType::I8 },
        }
    }

    /// An image, a table that makes it signed if wanted, the convolution, and logits.
    fn model(&self) -> ModelSpec {
        let mut tensors = vec![TensorSpec {
            shape: self.input,
            dtype: DType::U8,
        }];
        let mut ops = Vec::new();
        if self.signed {
            tensors.push(TensorSpec {
                shape: self.input,
                dtype: DType::I8,
            });
            ops.push(OpSpec::Table {
                input: 0,
                output: 1,
                table: Box::new(std::array::from_fn(|i| i as u8)),
            });
        }
        let input = tensors.len() - 1;
        let y = self.output();
        ops.push(OpSpec::Conv {
            input,
            output: input + 1,
            kernel: [3, 3],
            stride: [1, 1],
            pad: self.pad,
            conv: self.map,
            groups: 1,
            weight: self.weight.clone(),
            bias: self.bias.clone(),
            pool: self.pool.then_some(PoolSpec {
                size: [2, 2],
                stride: [2, 2],
            }),
            post: if self.raw {
                Post::default()
            } else {
                Post {
                    shift: (0..self.channels).map(|c| 4 + (c % 13) as i8).collect(),
                    table: None,
                }
            },
        });
        tensors.push(y);
        let mut classes = usize::from(self.channels);
        if !self.raw {
            classes = 2;
            let inputs = y.shape.len();
            let weight = (0..2 * inputs).map(|i| if i % 3 == 0 { 1 } else { -1 });
            ops.push(OpSpec::Dense {
                input: input + 1,
                output: input + 2,
                weight: weight.collect(),
                bias: vec![0, 7],
                post: Post::default(),
            });
            tensors.push(TensorSpec {
                shape: Shape { h: 1, w: 1, c: 2 },
                dtype: DType::I32,
            });
        }
        ModelSpec {
            name: "winograd".into(),
            recipe_hash: [0; 32],
            tensors,
            ops,
            logit_exponents: vec![0; classes],
            output: OutputActivation::Linear,
            golden_image: None,
        }
    }

    /// Every tensor in the reference and on every set of kernels.
    fn check(&self, image: &[u8]) -> Result<(), TestCaseError> {
        let spec = self.model();
        let expected = oracle::run(&spec, image);
        let file = encode_in(&spec, WeightOrder::Winograd)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let model = Model::new(&file).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let layer = usize::from(self.signed);
        match model.ops().nth(layer).map(|op| op.kind) {
            Some(Kind::Conv(conv)) => {
                prop_assert_eq!(conv.weights.layout(), Layout::Winograd);
                let per = conv.weights.per_channel();
                for (i, &weight) in self.weight.iter().enumerate() {
                    prop_assert_eq!(conv.weight(i / per, i % per), Some(weight));
                }
            }
            other => prop_assert!(false, "{:?}", other),
        }
        for &kernels in Kernels::ALL {
            let mut arena = vec![0xa5; model.arena_len()];
            model.input_mut(&mut arena).unwrap().copy_from_slice(image);
            let mut got: Vec<Vec<i64>> = Vec::new();
            let logits = model
                .run_loaded_on(kernels, &mut arena, |event| {
                    got.push(event.bytes.iter().map(|&b| i64::from(b as i8)).collect());
                })
                .unwrap();
            let last: Vec<i64> = logits.accumulators().map(i64::from).collect();
            prop_assert_eq!(Some(&last), expected.last(), "{:?}", kernels);
            if !self.raw {
                prop_assert_eq!(&got[layer], &expected[layer], "{:?}", kernels);
            }
        }
        Ok(())
    }
}

/// Weights and a bias per channel whose bound is as near to 2^24 as weights of 8 bits get: `style` 0 is 127 and -127 by channel,
/// 1 by weight, others any weights.
fn channels(layer: &mut Layer, style: u32, next: &mut impl FnMut(u32) -> u32) {
    let per_channel = 9 * usize::from(layer.input.c);
    let magnitude = if layer.signed { 128 } else { 255 };
    let most = (((1 << 24) - 1) / magnitude / per_channel as u32).min(127) as i32;
    for channel in 0..layer.channels {
        let mut sum = 0;
        for _ in 0..per_channel {
            let weight = match style {
                0 if channel % 2 == 0 => most,
                0 => -most,
                1 if next(2) == 0 => most,
                1 => -most,
                _ => next(2 * most as u32 + 1) as i32 - most,
            };
            layer.weight.push(weight as i8);
            sum += weight.unsigned_abs();
        }
        let room = ((1 << 24) - 1 - sum * magnitude) as i32;
        layer.bias.push(match next(3) {
            0 => room,
            1 => -room,
            _ => next(2000) as i32 - 1000,
        });
    }
}

fn layer() -> impl Strategy<Value = (Layer, Vec<u8>)> {
    (
        (1u16..8, 1u16..8, prop_oneof![1u16..20, 60u16..=64]),
        (1u16..11, any::<bool>(), any::<bool>()),
        any::<bool>(),
        [0u8..3, 0u8..3],
        any::<u32>(),
        0u32..5,
    )
        .prop_map(|((h, w, c), (co, pool, raw), signed, pad, seed, style)| {
            let mut next = numbers(seed);
            // Windows may overhang at the end as long as they begin inside.
            let most = [h + u16::from(pad[0]), w + u16::from(pad[1])];
            let map = most.map(|most| {
                if raw {
                    1
                } else {
                    most - next(u32::from(most.min(4))) as u16
                }
            });
            let mut layer = Layer {
                input: Shape { h, w, c },
                signed,
                channels: co,
                pad,
                map,
                pool: pool && map.iter().all(|&n| n > 1),
                raw,
                weight: Vec::new(),
                bias: Vec::new(),
            };
            channels(&mut layer, style, &mut next);
            let image = (0..layer.input.len()).map(|_| match next(6) {
                0 => 0,
                1 => 255,
                2 => 127,
                3 => 128,
                _ => next(256) as u8,
            });
            let image = image.collect();
            (layer, image)
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn transformed_weights_give_the_reference((layer, image) in layer()) {
        layer.check(&image)?;
    }
}

/// White and black images on weights that are all 127 or all -127: the transformed values at their extremes.
#[test]
#[cfg_attr(miri, ignore = "takes the interpreter longer than ten minutes")]
fn extremes() {
    for signed in [false, true] {
        for (pool, c) in [(true, 57), (false, 57), (true, 5)] {
            let mut layer = Layer {
                input: Shape { h: 5, w: 6, c },
                signed,
                channels: 5,
                pad: [1, 1],
                map: [5, 6],
                pool,
                raw: false,
                weight: Vec::new(),
                bias: Vec::new(),
            };
            channels(&mut layer, 0, &mut numbers(1));
            assert!(layer.weight.contains(&127) && layer.weight.contains(&-127));
            let len = layer.input.len();
            for value in [255, 0, 128, 127] {
                layer.check(&vec![value; len]).unwrap();
            }
            // Signs as the transform of the inputs has them: rows and columns 0 and 2 of a tile against each other.
            let stripes = |i: usize| match i / usize::from(c) {
                pixel if (pixel / 6 + pixel % 6 / 2).is_multiple_of(2) => 255,
                _ => 0,
            };
            layer
                .check(&(0..len).map(stripes).collect::<Vec<u8>>())
                .unwrap();
        }
    }
}

/// One input and one output channel over a 4x4 image: kernel `[[1, 2, 3], [4, 5, 6], [7, 8, -9]]`.
fn small(weight: Vec<i8>) -> ModelSpec {
    Layer {
        input: Shape { h: 4, w: 4, c: 1 },
        signed: false,
        channels: 1,
        pad: [0, 0],
        map: [2, 2],
        pool: true,
        raw: true,
        weight,
        bias: vec![100],
    }
    .model()
}

/// `G' g G'^T` by plain multiplication of matrices, with `G' = [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]`.
fn transform(g: [[i32; 3]; 3]) -> [[i32; 4]; 4] {
    const G: [[i32; 3]; 4] = [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]];
    std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            let term = |a: usize, b: usize| G[i][a] * g[a][b] * G[j][b];
            (0..9).map(|ab| term(ab / 3, ab % 3)).sum()
        })
    })
}

/// The bytes of the convolution's weights in the file.
fn weights(file: &[u8]) -> std::ops::Range<usize> {
    let model = Model::new(file).unwrap();
    let Some(Kind::Conv(conv)) = model.ops().next().map(|op| op.kind) else {
        panic!("the first operator is a convolution");
    };
    let at = conv.weights.bytes().as_ptr() as usize - file.as_ptr() as usize;
    at..at + conv.weights.bytes().len()
}

/// What docs/format.md says, by hand: 16 frequencies of 32 bytes, of which the first channel's first input has two.
#[test]
fn a_transform_by_hand() {
    let spec = small(vec![1, 2, 3, 4, 5, 6, 7, 8, -9]);
    let file = encode_in(&spec, WeightOrder::Winograd).unwrap();
    let bytes = &file[weights(&file)];
    assert_eq!(bytes.len(), 16 * 32);
    let u = transform([[1, 2, 3], [4, 5, 6], [7, 8, -9]]);
    assert_eq!(u[0], [4, 12, 4, 12]);
    assert_eq!(u[1], [24, 27, -3, 0]);
    for (frequency, row) in bytes.chunks(32).enumerate() {
        let value = i16::from_le_bytes([row[0], row[1]]);
        assert_eq!(i32::from(value), u[frequency / 4][frequency % 4]);
        assert_eq!(row[2..], [0; 30]);
    }
    let model = Model::new(&file).unwrap();
    let mut arena = vec![0; model.arena_len()];
    // A single 1 in the middle of the image meets the weights 9, 8, 6 and 5 in the four windows.
    let mut image = [0; 16];
    image[5] = 1;
    let logits = model.run(&image, &mut arena).unwrap();
    assert_eq!(logits.accumulator(0), Some(105));
}

/// Whatever byte of the transformed weights is changed, they are no longer those of a kernel.
#[test]
fn a_broken_transform_is_refused() {
    let file = encode_in(
        &small(vec![1, 2, 3, 4, 5, 6, 7, 8, -9]),
        WeightOrder::Winograd,
    )
    .unwrap();
    let range = weights(&file);
    let flips: &[u8] = if cfg!(miri) {
        &[4]
    } else {
        &[1, 2, 4, 8, 0x80]
    };
    for at in range.clone().step_by(if cfg!(miri) { 31 } else { 1 }) {
        for flip in flips {
            let mut changed = file.clone();
            changed[at] ^= flip;
            seal(&mut changed);
            let error = Model::new(&changed).unwrap_err();
            let problem = if (at - range.start) % 32 < 2 {
                OpProblem::Transform { channel: 0 }
            } else {
                OpProblem::Padding { channel: 0 }
            };
            assert_eq!(error, ModelError::Op { op: 0, problem }, "byte {at}");
        }
    }
    let mut changed = file.clone();
    changed[range.start] ^= 1;
    seal(&mut changed);
    assert_eq!(
        Model::new(&changed).unwrap_err().to_string(),
        "operator 0: malformed operator: not the transform of 3x3 weights, channel 0"
    );
    // Transforms of kernels with a weight that a file may not have, and with one that is none.
    for (weight, problem) in [
        (-128, OpProblem::Weight { channel: 0 }),
        (128, OpProblem::Transform { channel: 0 }),
        (-129, OpProblem::Transform { channel: 0 }),
    ] {
        let mut changed = file.clone();
        let u = transform([[1, 2, 3], [4, weight, 6], [7, 8, 9]]);
        for (i, u) in u.as_flattened().iter().enumerate() {
            changed[range.start + 32 * i..][..2].copy_from_slice(&(*u as i16).to_le_bytes());
        }
        seal(&mut changed);
        assert_eq!(
            Model::new(&changed).unwrap_err(),
            ModelError::Op { op: 0, problem }
        );
    }
}

/// A file may lie anywhere: where its weights are not aligned, kernels that cannot read them give the work to others.
#[test]
fn an_unaligned_file_gives_the_same_logits() {
    let spec = small(vec![1, 2, 3, 4, 5, 6, 7, 8, -9]);
    let file = encode_in(&spec, WeightOrder::Winograd).unwrap();
    let image: Vec<u8> = (0..16).map(|i| i * 17).collect();
    for shift in 0..4 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(&file);
        let model = Model::new(&bytes[shift..]).unwrap();
        for &kernels in Kernels::ALL {
            let mut arena = vec![0; model.arena_len()];
            model.input_mut(&mut arena).unwrap().copy_from_slice(&image);
            let logits = model.run_loaded_on(kernels, &mut arena, |_| {}).unwrap();
            let got: Vec<i64> = logits.accumulators().map(i64::from).collect();
            assert_eq!(Some(&got), oracle::run(&spec, &image).last());
        }
    }
}

/// The bound of an accumulator is that of the weights that the transforms stand for.
#[test]
fn a_bound_that_is_reached_is_refused() {
    let bias = (1 << 24) - 1 - 9 * 127 * 255;
    let at = |bias: i32| {
        let mut spec = small(vec![-127; 9]);
        if let OpSpec::Conv { bias: b, .. } = &mut spec.ops[0] {
            *b = vec![bias];
        }
        encode_in(&spec, WeightOrder::Winograd)
    };
    at(-bias).unwrap();
    assert_eq!(
        at(-bias - 1).unwrap_err().to_string(),
        "the model is not valid: operator 0: malformed operator: an accumulator could reach 2^24, channel 0, bound 16777216"
    );
}

/// Layers that have no such transform keep their order; a file that says otherwise is refused as unsupported.
#[test]
fn layers_that_it_does_not_fit() {
    let conv = |kernel, stride, groups, pool: Option<[u8; 4]>| OpSpec::Conv {
        input: 0,
        output: 1,
        kernel,
        stride,
        pad: [0, 0],
        conv: [2, 2],
        groups,
        weight: Vec::new(),
        bias: Vec::new(),
        pool: pool.map(|[a, b, c, d]| PoolSpec {
            size: [a, b],
            stride: [c, d],
        }),
        post: Post::default(),
    };
    let shape = |c| Shape { h: 8, w: 8, c };
    let three = || conv([3, 3], [1, 1], 1, None);
    assert_eq!(winograd(&three(), shape(64)), Ok(()));
    assert_eq!(
        winograd(&conv([3, 3], [1, 1], 1, Some([2, 2, 2, 2])), shape(1)),
        Ok(())
    );
    for (op, channels, misfit, text) in [
        (
            conv([3, 5], [1, 1], 1, None),
            4,
            WinogradMisfit::Kernel { got: [3, 5] },
            "its kernel is 3x5, expected 3x3",
        ),
        (
            conv([3, 3], [2, 1], 1, None),
            4,
            WinogradMisfit::Stride { got: [2, 1] },
            "its stride is 2x1, expected 1x1",
        ),
        (
            conv([3, 3], [1, 1], 4, None),
            4,
            WinogradMisfit::Groups { got: 4 },
            "it has 4 groups, expected 1",
        ),
        (
            three(),
            65,
            WinogradMisfit::Inputs { most: 64, got: 65 },
            "it has 65 input channels, expected at most 64",
        ),
        (
            conv([3, 3], [1, 1], 1, Some([3, 3, 2, 2])),
            4,
            WinogradMisfit::Pool {
                size: [3, 3],
                stride: [2, 2],
            },
            "its fused pooling is 3x3 with stride 2x2, expected 2x2 with stride 2x2",
        ),
        (
            OpSpec::Table {
                input: 0,
                output: 1,
                table: Box::new([0; 256]),
            },
            4,
            WinogradMisfit::Kind,
            "it is no convolution",
        ),
    ] {
        assert_eq!(winograd(&op, shape(channels)), Err(misfit));
        assert_eq!(misfit.to_string(), text);
    }
    let mut spec = small(vec![1; 9]);
    if let OpSpec::Conv { pool, conv, .. } = &mut spec.ops[0] {
        *pool = Some(PoolSpec {
            size: [2, 2],
            stride: [1, 1],
        });
        *conv = [2, 2];
    }
    let mut file = encode_in(&spec, WeightOrder::Winograd).unwrap();
    assert_eq!(file, encode(&spec).unwrap());
    file[97] = 3;
    seal(&mut file);
    assert_eq!(
        Model::new(&file).unwrap_err(),
        ModelError::Op {
            op: 0,
            problem: OpProblem::Layout { got: 3 }
        }
    );
}
