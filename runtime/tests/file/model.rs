//! A model to damage.

use runtime::encode::{
    DType, ModelSpec, OpSpec, OutputActivation, PoolSpec, Post, Shape, TensorSpec,
};

/// A tensor of this shape.
pub fn tensor(h: u16, w: u16, c: u16, dtype: DType) -> TensorSpec {
    TensorSpec {
        shape: Shape { h, w, c },
        dtype,
    }
}

/// No table.
pub fn post(shift: &[i8]) -> Post {
    Post {
        shift: shift.to_vec(),
        table: None,
    }
}

/// Every operator kind once, small.
pub fn every_operator() -> ModelSpec {
    let param = runtime::AffineParam {
        mul: 3,
        add: -100,
        shift: 2,
    };
    let weights = |n: usize| {
        (0..n)
            .map(|i| (i * 37 % 255) as i32 as u8 as i8)
            .map(|w| w.max(-127))
    };
    ModelSpec {
        name: "all".into(),
        recipe_hash: [1; 32],
        tensors: vec![
            tensor(6, 6, 2, DType::U8),
            tensor(6, 6, 2, DType::I8),
            tensor(3, 3, 4, DType::U8),
            tensor(3, 3, 4, DType::U8),
            tensor(3, 3, 4, DType::I8),
            tensor(3, 3, 4, DType::I8),
            tensor(2, 2, 4, DType::I8),
            tensor(1, 1, 4, DType::U8),
            tensor(1, 1, 3, DType::I32),
        ],
        ops: vec![
            OpSpec::Affine {
                input: 0,
                output: 1,
                params: vec![param; 72],
            },
            OpSpec::Conv {
                input: 1,
                output: 2,
                kernel: [3, 3],
                stride: [1, 1],
                pad: [1, 1],
                conv: [6, 6],
                groups: 1,
                weight: weights(72).collect(),
                bias: vec![5, -7, 0, 900],
                pool: Some(PoolSpec {
                    size: [2, 2],
                    stride: [2, 2],
                }),
                post: post(&[3, 4, 5, 6]),
            },
            OpSpec::Conv {
                input: 2,
                output: 3,
                kernel: [3, 3],
                stride: [1, 1],
                pad: [1, 1],
                conv: [3, 3],
                groups: 4,
                weight: weights(36).collect(),
                bias: vec![1, 2, 3, 4],
                pool: None,
                post: post(&[7]),
            },
            OpSpec::Add {
                a: 3,
                b: 2,
                output: 4,
                shift_a: 1,
                shift_b: 0,
                post: post(&[2]),
            },
            OpSpec::Table {
                input: 4,
                output: 5,
                table: Box::new(std::array::from_fn(|i| (i * 7) as u8)),
            },
            OpSpec::MaxPool {
                input: 5,
                output: 6,
                size: [2, 2],
                stride: [2, 2],
                pad: [0, 0],
            },
            OpSpec::AvgPool {
                input: 6,
                output: 7,
                size: [2, 2],
                stride: [1, 1],
                multiplier: 64,
                post: post(&[8]),
            },
            OpSpec::Dense {
                input: 7,
                output: 8,
                weight: weights(12).collect(),
                bias: vec![0; 3],
                post: Post::default(),
            },
        ],
        logit_exponents: vec![-4; 3],
        output: OutputActivation::Softmax,
        golden_image: Some((0..72).map(|i| (i * 11) as u8).collect()),
    }
}
