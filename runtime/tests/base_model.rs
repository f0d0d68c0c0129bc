//! The base network: memory, size, and all its tensors against the naive reference.

mod base;
mod oracle;

use runtime::encode::{Cost, WeightOrder, encode, saves};
use runtime::{DType, Kernels, Model};

#[test]
fn arena_and_file_of_the_base_network() {
    let file = encode(&base::base()).unwrap();
    let model = Model::new(&file).unwrap();
    // conv1's 13 * 13 * 32 and conv2's 5 * 5 * 64 values live at the same time; the image lies beside conv1's, in place.
    assert_eq!(model.arena_len(), 13 * 13 * 32 + 5 * 5 * 64);
    assert_eq!(model.ops().map(|op| op.macs()).sum::<u64>(), 2_797_756);
    // 96,604 weights, 240 biases, 784 affine parameters, 1,728 bytes of facts about the weights, and less than 1 KB of the rest.
    assert!(
        file.len() < 96_604 + 4 * 240 + 8 * 784 + 1728 + 1024,
        "{}",
        file.len()
    );
}

/// Both orders of the convolutions: bytes of weights, multiplications, bytes of buffers.
#[test]
fn costs_of_the_base_network() {
    let spec = base::base();
    let costs = |op: usize| {
        let shape = |tensor: usize| spec.tensors[tensor].shape;
        let (op, input, output) = (&spec.ops[op], shape(op), shape(op + 1));
        let cost = |order| {
            let cost = Cost::of(op, input, output, order).unwrap();
            [cost.weight_bytes, cost.multiplications, cost.buffer_bytes]
        };
        let orders = [WeightOrder::Blocked, WeightOrder::Winograd];
        (orders.map(cost), saves(op, input, output))
    };
    // 9 weights and facts of 6 bytes for each of 32 channels; 16 blocks of 20 bytes, 4 * 169 positions.
    assert_eq!(
        costs(1),
        (
            [[320 + 192, 216_320, 2_944], [4_096, 346_112, 3_072]],
            false
        )
    );
    // 64 * 288 weights; 25 tiles, 16 products for each pair of 32 and 64 channels.
    let direct = [18_432 + 640, 100 * 18_432, 2_944];
    assert_eq!(costs(2), ([direct, [65_536, 25 * 32_768, 3_072]], true));
    let direct = [36_864 + 896, 9 * 36_864, 2_944];
    assert_eq!(costs(3), ([direct, [131_072, 4 * 65_536, 3_072]], true));
    let dense = Cost::of(
        &spec.ops[4],
        spec.tensors[4].shape,
        spec.tensors[5].shape,
        WeightOrder::Winograd,
    );
    assert_eq!(dense.unwrap().multiplications, 40_320);
    assert_eq!(
        Cost::of(
            &spec.ops[0],
            spec.tensors[0].shape,
            spec.tensors[1].shape,
            WeightOrder::Blocked
        ),
        None
    );
}

#[test]
#[cfg_attr(
    miri,
    ignore = "three million multiplications are too many to interpret"
)]
fn every_tensor_of_the_base_network() {
    let spec = base::base();
    let file = encode(&spec).unwrap();
    let model = Model::new(&file).unwrap();
    let mut arena = vec![0xff; model.arena_len()];
    for image in [
        vec![0; 784],
        vec![255; 784],
        (0..784u32).map(|i| ((i * i) >> 4) as u8).collect(),
    ] {
        let expected = oracle::run(&spec, &image);
        for &kernels in Kernels::ALL {
            model.input_mut(&mut arena).unwrap().copy_from_slice(&image);
            let mut compared = 0;
            model
                .run_loaded_on(kernels, &mut arena, |event| {
                    let width = event.op.output.dtype.size();
                    let got: Vec<i64> = event
                        .bytes
                        .chunks(width)
                        .map(|b| match event.op.output.dtype {
                            DType::U8 => i64::from(b[0]),
                            DType::I8 => i64::from(b[0] as i8),
                            DType::I32 => i64::from(i32::from_le_bytes(b.try_into().unwrap())),
                        })
                        .collect();
                    assert_eq!(got, expected[event.index], "operator {}", event.index);
                    compared += 1;
                })
                .unwrap();
            assert_eq!(compared, 6);
        }
    }
}
