//! The file: written by hand, corrupted, cut off; and what the model reports about itself.

mod model;

use model::{every_operator, tensor};
use runtime::encode::{
    DType, EncodeError, ModelSpec, OpSpec, OutputActivation, Post, Shape, WeightOrder, encode,
    encode_in, plan, seal,
};
use runtime::{Kind, Model, ModelError, OpProblem, RunError, SelfTest};

/// 2x2x1 image -> dense, 2 classes, as docs/format.md describes it byte by byte.
#[rustfmt::skip]
const BY_HAND: [u8; 196] = [
    b'I', b'B', b'F', b'X', // magic
    1, 0,                   // version
    96, 0,                  // header length
    196, 0, 0, 0,           // file length
    0x24, 0x5a, 0xe5, 0x90, // CRC-32, computed with zlib
    2, 0, 2, 0, 1, 0,       // input 2x2x1
    2, 0,                   // classes
    12, 0, 0, 0,            // arena
    0, 0, 0, 0,             // input offset in the arena
    1, 0,                   // operators
    2,                      // linear
    1,                      // golden image
    180, 0, 0, 0,           // exponents
    184, 0, 0, 0,           // name
    4, 0,                   // bytes of the name
    0, 0,
    188, 0, 0, 0,           // golden image
    0xb2, 0x2f, 0x7a, 0x2c, // CRC-32 of its logits, computed with zlib
    0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, // recipe
    0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
    0, 0, 0, 0, 0, 0, 0, 0,
    // 96: operator 0
    3,                      // dense
    0,                      // layout
    0,                      // flags
    0x20,                   // U8 to I32
    0, 0, 0, 0,             // input in the arena
    4, 0, 0, 0,             // output in the arena
    2, 0, 2, 0, 1, 0,       // input shape
    1, 0, 1, 0, 2, 0,       // output shape
    0, 0, 0, 0, 0, 0, 0, 0, // window, stride
    0, 0, 0, 0, 0, 0, 0, 0, // map, pool
    0, 0, 0, 0, 0, 0, 0, 0, // padding, groups, scalars
    0, 0, 0, 0,             // second input
    164, 0, 0, 0,           // weights
    172, 0, 0, 0,           // biases
    0, 0, 0, 0,             // shifts
    0, 0, 0, 0,             // table
    // 164: weights, [1, 2, -3, 4] and [-127, 0, 127, 5]
    1, 2, 0xfd, 4, 0x81, 0, 127, 5,
    // 172: biases, 100 and -2
    100, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff,
    // 180: exponents, -3 and 2
    0xfd, 2, 0, 0,
    // 184: name
    b'h', b'a', b'n', b'd',
    // 188: golden image, and padding
    10, 20, 30, 255,
    0, 0, 0, 0,
];

#[test]
fn a_file_written_by_hand() {
    let model = Model::new(&BY_HAND).unwrap();
    assert_eq!(model.name(), "hand");
    assert_eq!(model.input(), Shape { h: 2, w: 2, c: 1 });
    assert_eq!((model.classes(), model.arena_len()), (2, 12));
    assert_eq!(model.recipe_hash(), [0xaa; 32]);
    assert_eq!(model.activation(), OutputActivation::Linear);
    let mut arena = [0; 12];
    let logits = model.run(&[10, 20, 30, 255], &mut arena).unwrap();
    // 10 + 40 - 90 + 1020 + 100 and -1270 + 3810 + 1275 - 2.
    let accumulators: Vec<i32> = logits.accumulators().collect();
    assert_eq!(accumulators, [1080, 3813]);
    assert_eq!(logits.values().collect::<Vec<_>>(), [135.0, 15252.0]);
    assert_eq!(model.self_test(&mut arena), Ok(SelfTest::Passed));
}

#[test]
fn the_encoder_writes_the_same_model() {
    let spec = ModelSpec {
        name: "hand".into(),
        recipe_hash: [0xaa; 32],
        tensors: vec![tensor(2, 2, 1, DType::U8), tensor(1, 1, 2, DType::I32)],
        ops: vec![OpSpec::Dense {
            input: 0,
            output: 1,
            weight: vec![1, 2, -3, 4, -127, 0, 127, 5],
            bias: vec![100, -2],
            post: Post::default(),
        }],
        logit_exponents: vec![-3, 2],
        output: OutputActivation::Linear,
        golden_image: Some(vec![10, 20, 30, 255]),
    };
    let file = encode(&spec).unwrap();
    let model = Model::new(&file).unwrap();
    let by_hand = Model::new(&BY_HAND).unwrap();
    assert_eq!(model.golden(), by_hand.golden());
    let mut arenas = [[0; 12]; 2];
    let [a, b] = &mut arenas;
    let image = [1, 2, 3, 4];
    let a = model.run(&image, a).unwrap();
    let b = by_hand.run(&image, b).unwrap();
    assert!(a.accumulators().eq(b.accumulators()) && a.values().eq(b.values()));
    assert_eq!(
        spec.golden_image.as_deref(),
        model.golden().map(|g| g.image)
    );
}

/// The model of `BY_HAND` with three inputs, in blocks of two channels (layout 2): rows `[1, 2, -3]` and `[-127, 0, 127]`
/// alternate, and two bytes fill the last word.
#[test]
fn blocks_written_by_hand() {
    let mut file = BY_HAND;
    file[18..22].copy_from_slice(&[3, 0, 1, 0]); // image 1x3x1
    file[16] = 1;
    file[97] = 2; // layout
    file[108..114].copy_from_slice(&[1, 0, 3, 0, 1, 0]);
    file[164..172].copy_from_slice(&[1, 0x81, 2, 0, 0xfd, 127, 0, 0]);
    seal(&mut file);
    let model = Model::new(&file).unwrap();
    let mut arena = [0; 12];
    let logits = model.run(&[10, 20, 30], &mut arena).unwrap();
    // 10 + 40 - 90 + 100 and -1270 + 3810 - 2.
    assert!(logits.accumulators().eq([60, 2538]));
    for padding in [170, 171] {
        let mut changed = file;
        changed[padding] = 1;
        seal(&mut changed);
        assert_eq!(
            Model::new(&changed).unwrap_err(),
            ModelError::Op {
                op: 0,
                problem: OpProblem::Padding { channel: 0 }
            }
        );
    }
}

const ORDERS: [WeightOrder; 3] = [
    WeightOrder::Blocked,
    WeightOrder::Plain,
    WeightOrder::Winograd,
];

/// The order of the weights changes the file, not the results.
#[test]
fn every_order_of_the_weights_gives_the_same_logits() {
    let spec = every_operator();
    let image = spec.golden_image.clone().unwrap();
    let files = ORDERS.map(|order| encode_in(&spec, order).unwrap());
    assert!(files[0] != files[1] && files[0] != files[2]);
    let logits = files.map(|file| {
        let model = Model::new(&file).unwrap();
        let mut arena = vec![0; model.arena_len()];
        let logits = model.run(&image, &mut arena).unwrap();
        logits.accumulators().collect::<Vec<_>>()
    });
    assert!(logits[0] == logits[1] && logits[0] == logits[2]);
}

#[test]
fn every_truncation_is_refused() {
    let file = encode(&every_operator()).unwrap();
    for len in 0..file.len() {
        let error = Model::new(&file[..len]).unwrap_err();
        let expected = if len < 96 {
            ModelError::Truncated {
                needed: 96,
                got: len as u32,
            }
        } else {
            ModelError::Length {
                stated: file.len() as u32,
                got: len as u32,
            }
        };
        assert_eq!(error, expected);
    }
    let mut longer = file.clone();
    longer.extend([0; 4]);
    assert!(matches!(
        Model::new(&longer),
        Err(ModelError::Length { .. })
    ));
}

#[test]
fn every_corrupted_byte_is_refused() {
    let file = encode(&every_operator()).unwrap();
    let flips: &[u8] = if cfg!(miri) {
        &[0x80]
    } else {
        &[1, 2, 4, 8, 16, 32, 64, 128, 255]
    };
    for at in (0..file.len()).step_by(if cfg!(miri) { 97 } else { 1 }) {
        for flip in flips {
            let mut damaged = file.clone();
            damaged[at] ^= flip;
            let error = Model::new(&damaged).unwrap_err();
            let expected = match at {
                0..4 => matches!(error, ModelError::Magic { .. }),
                4..6 => matches!(error, ModelError::Version { supported: 1, .. }),
                8..12 => matches!(error, ModelError::Length { .. }),
                _ => matches!(error, ModelError::Checksum { .. }),
            };
            assert!(expected, "byte {at}: {error:?}");
        }
    }
}

/// With the CRC fixed up a changed byte is refused, or is a valid model that runs without a panic (this build has overflow
/// checks): other weights, another shift.
#[test]
fn every_resealed_byte_is_refused_or_runs() {
    for order in [WeightOrder::Blocked, WeightOrder::Winograd] {
        let spec = every_operator();
        let file = encode_in(&spec, order).unwrap();
        resealed(&file, &spec.golden_image.unwrap());
    }
}

fn resealed(file: &[u8], image: &[u8]) {
    let (mut refused, mut ran) = (0, 0);
    for at in (0..file.len()).step_by(if cfg!(miri) { 1009 } else { 1 }) {
        for value in [0, 1, 128, 255, file[at] ^ 0x20] {
            let mut changed = file.to_vec();
            changed[at] = value;
            seal(&mut changed);
            match Model::new(&changed) {
                Err(ModelError::Checksum { .. }) => {
                    // The field of the CRC is not part of the CRC: sealing restores it.
                    panic!("byte {at}: sealed, but refused for its checksum");
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
                Ok(model) => {
                    let mut arena = vec![0x5a; model.arena_len()];
                    let image: Vec<u8> = image
                        .iter()
                        .cycle()
                        .take(model.input().len())
                        .copied()
                        .collect();
                    let logits = model.run(&image, &mut arena).unwrap();
                    assert!(logits.accumulators().all(|acc| acc.abs() < 1 << 24));
                    let _ = (logits.argmax(), logits.top_k::<2>(), model.name().len());
                    ran += 1;
                }
            }
        }
    }
    assert!(refused > 0 && ran > 0, "{refused} refused, {ran} ran");
}

/// What a changed field is refused for: (byte, value, what the message says).
#[test]
fn malformed_and_unsupported_are_told_apart() {
    let file = encode(&every_operator()).unwrap();
    let record = |op: usize, at: usize| 96 + 68 * op + at;
    let problem = |at: usize, value: u8| {
        let mut changed = file.clone();
        changed[at] = value;
        seal(&mut changed);
        match Model::new(&changed) {
            Err(ModelError::Op { op, problem }) => (op, problem),
            other => panic!("byte {at} = {value}: {other:?}"),
        }
    };
    assert_eq!(problem(record(2, 0), 99), (2, OpProblem::Kind { got: 99 }));
    assert_eq!(problem(record(1, 1), 7), (1, OpProblem::Layout { got: 7 }));
    assert_eq!(problem(record(1, 1), 1), (1, OpProblem::Layout { got: 1 }));
    assert_eq!(problem(record(5, 2), 1), (5, OpProblem::Flags { got: 1 }));
    assert_eq!(
        problem(record(0, 24), 1),
        (0, OpProblem::Reserved { offset: 24 })
    );
    assert_eq!(problem(record(1, 42), 3), (1, OpProblem::Groups { got: 3 }));
    assert!(matches!(
        problem(record(1, 4), 4),
        (1, OpProblem::Source { offset: 4 })
    ));
    assert!(matches!(
        problem(record(1, 28), 0),
        (1, OpProblem::Window { offset: 28, got: 0 })
    ));
    assert!(matches!(
        problem(record(1, 40), 3),
        (1, OpProblem::Window { offset: 40, got: 3 })
    ));
    assert!(matches!(
        problem(record(3, 44), 25),
        (3, OpProblem::Shift { got: 25, .. })
    ));
    assert!(matches!(
        problem(record(3, 44), 24),
        (3, OpProblem::Bound { .. })
    ));
    assert!(matches!(
        problem(record(7, 55), 1),
        (7, OpProblem::Section { .. })
    ));
    assert!(matches!(
        problem(record(7, 11), 1),
        (7, OpProblem::Arena { .. })
    ));
    assert!(matches!(
        problem(record(7, 3), 0x10),
        (7, OpProblem::DType { got: [0, 1] })
    ));
    // Weight -128 in every channel of the dense layer: blocks of two channels, 8 bytes each, the third channel alone.
    let weights = u32::from_le_bytes(file[record(7, 52)..][..4].try_into().unwrap()) as usize;
    for (at, channel) in [(0, 0), (1, 1), (7, 1), (8, 2), (14, 2)] {
        assert_eq!(
            problem(weights + at, 128),
            (7, OpProblem::Weight { channel })
        );
    }
    // The place of a fourth channel.
    assert_eq!(
        problem(weights + 9, 1),
        (7, OpProblem::Padding { channel: 2 })
    );
    // Layouts that a dense layer cannot have.
    assert_eq!(problem(record(7, 1), 1), (7, OpProblem::Layout { got: 1 }));
    assert_eq!(problem(record(7, 1), 3), (7, OpProblem::Layout { got: 3 }));
}

#[test]
fn an_output_over_its_input_is_refused() {
    // conv 1 reads tensor 1, which lies where the image was; its output is moved there.
    let file = encode(&every_operator()).unwrap();
    let mut changed = file.clone();
    let at = 96 + 68;
    let input: [u8; 4] = changed[at + 4..at + 8].try_into().unwrap();
    changed[at + 8..at + 12].copy_from_slice(&input);
    seal(&mut changed);
    assert!(matches!(
        Model::new(&changed),
        Err(ModelError::Op {
            op: 1,
            problem: OpProblem::Overlap { .. }
        })
    ));
}

#[test]
fn the_decoder_reads_what_the_encoder_was_given() {
    for order in ORDERS {
        decoded_as_given(&every_operator(), order);
    }
}

fn decoded_as_given(spec: &ModelSpec, order: WeightOrder) {
    let file = encode_in(spec, order).unwrap();
    let model = Model::new(&file).unwrap();
    assert_eq!(model.name(), spec.name);
    assert_eq!(model.logit_exponents(), [0xfc; 3]);
    let ops: Vec<_> = model.ops().collect();
    assert_eq!(ops.len(), spec.ops.len());
    for (op, spec_op) in ops.iter().zip(&spec.ops) {
        assert_eq!(op.output.shape, spec.tensors[spec_op.output()].shape);
        assert_eq!(op.output.dtype, spec.tensors[spec_op.output()].dtype);
        match (&op.kind, spec_op) {
            (
                Kind::Conv(conv),
                OpSpec::Conv {
                    weight,
                    bias,
                    post,
                    groups,
                    ..
                },
            ) => {
                let per = conv.weights.per_channel();
                let read: Vec<i8> = (0..weight.len())
                    .map(|i| conv.weight(i / per, i % per).unwrap())
                    .collect();
                assert_eq!(&read, weight);
                assert_eq!(conv.weight(bias.len(), 0), None);
                assert_eq!(conv.weight(0, per), None);
                assert!(conv.biases().eq(bias.iter().copied()));
                assert_eq!(conv.groups.get(), *groups);
                let shifts: Vec<i8> = (0..4).map(|c| conv.post.shift(c)).collect();
                let expected: Vec<i8> = (0..4)
                    .map(|c| post.shift[c.min(post.shift.len() - 1)])
                    .collect();
                assert_eq!(shifts, expected);
            }
            (Kind::Affine(affine), OpSpec::Affine { params, .. }) => {
                assert!(affine.params().eq(params.iter().copied()));
            }
            (Kind::Dense(dense), OpSpec::Dense { weight, bias, .. }) => {
                let per = dense.weights.per_channel();
                let read: Vec<i8> = (0..weight.len())
                    .map(|i| dense.weight(i / per, i % per).unwrap())
                    .collect();
                assert_eq!(&read, weight);
                assert_eq!(dense.weight(bias.len(), 0), None);
                assert_eq!(dense.weight(0, per), None);
                assert!(dense.biases().eq(bias.iter().copied()));
            }
            (Kind::Table(read), OpSpec::Table { table, .. }) => assert_eq!(*read, &**table),
            (Kind::Add(read), OpSpec::Add { shift_a, .. }) => assert_eq!(read.shift_a, *shift_a),
            (Kind::MaxPool(_), OpSpec::MaxPool { .. }) => {}
            (Kind::AvgPool(read), OpSpec::AvgPool { multiplier, .. }) => {
                assert_eq!(read.multiplier, *multiplier);
            }
            other => panic!("another kind: {other:?}"),
        }
    }
    assert_eq!(ops[1].macs(), 36 * 72);
}

#[test]
fn buffers_of_the_wrong_size_are_errors() {
    let model = Model::new(&BY_HAND).unwrap();
    assert_eq!(
        model.run(&[0; 4], &mut [0; 11]).unwrap_err(),
        RunError::ArenaTooSmall {
            needed: 12,
            got: 11
        }
    );
    assert_eq!(
        model.run(&[0; 5], &mut [0; 12]).unwrap_err(),
        RunError::ImageLength { needed: 4, got: 5 }
    );
    // A larger arena is fine, and what lies behind is left alone.
    let mut arena = [9; 20];
    assert_eq!(model.run(&[0; 4], &mut arena).unwrap().argmax(), 0);
    assert_eq!(arena[12..], [9; 8]);
}

#[test]
fn a_failed_self_test_shows_both_checksums() {
    let mut file = BY_HAND;
    file[164] = 2;
    seal(&mut file);
    let model = Model::new(&file).unwrap();
    let result = model.self_test(&mut [0; 12]).unwrap();
    assert!(
        matches!(result, SelfTest::Failed { expected: 0x2c7a_2fb2, got } if got != 0x2c7a_2fb2)
    );
}

#[test]
fn descriptions_that_cannot_be_encoded() {
    let mut spec = every_operator();
    if let OpSpec::Dense { weight, .. } = &mut spec.ops[7] {
        weight.pop();
    }
    assert_eq!(
        encode(&spec).unwrap_err().to_string(),
        "operator 7: weights: expected 12, got 11"
    );
    let mut spec = every_operator();
    if let OpSpec::Add { b, .. } = &mut spec.ops[3] {
        *b = 7;
    }
    assert_eq!(
        encode(&spec),
        Err(EncodeError::Undefined { op: 3, tensor: 7 })
    );
    let mut spec = every_operator();
    spec.logit_exponents.pop();
    assert!(matches!(encode(&spec), Err(EncodeError::Length { .. })));
    let mut spec = every_operator();
    spec.tensors[6].shape.h = 1;
    assert!(matches!(encode(&spec), Err(EncodeError::Refused(_))));
    let mut spec = every_operator();
    spec.golden_image = Some(vec![0; 71]);
    assert!(matches!(encode(&spec), Err(EncodeError::Length { .. })));
}

/// Two tensors that are alive at the same time never share bytes.
#[test]
fn the_plan_keeps_living_tensors_apart() {
    let spec = every_operator();
    let plan = plan(&spec).unwrap();
    // Image 72 and affine in place; conv 36 more; then everything fits below.
    assert_eq!(plan.offsets[1], plan.offsets[0]);
    assert_eq!(plan.len, 72 + 36);
}
