//! The base network (96,844 parameters of its layers) with fixed pseudorandom weights.

use runtime::encode::{
    AffineParam, DType, ModelSpec, OpSpec, OutputActivation, PoolSpec, Post, Shape, TensorSpec,
};

/// 28x28x1 with per-pixel affine input; conv 32, pool, conv 64, pool, conv 64, dense 70, dense 10;
/// 3x3 valid convolutions with relu, 2x2 pools fused.
pub fn base() -> ModelSpec {
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let tensor = |h, w, c, dtype| TensorSpec {
        shape: Shape { h, w, c },
        dtype,
    };
    let mut weights =
        move |n: usize| -> Vec<i8> { (0..n).map(|_| (next() % 101) as i8 - 50).collect() };
    let relu = |shift| Post {
        shift: vec![shift],
        table: None,
    };
    let pool = Some(PoolSpec {
        size: [2, 2],
        stride: [2, 2],
    });
    let mut conv = |input, ci: usize, co: usize, map, pool, shift| OpSpec::Conv {
        input,
        output: input + 1,
        kernel: [3, 3],
        stride: [1, 1],
        pad: [0, 0],
        conv: map,
        groups: 1,
        weight: weights(9 * ci * co),
        bias: (0..co as i32).map(|o| o * 31 - 400).collect(),
        pool,
        post: relu(shift),
    };
    let convs = [
        conv(1, 1, 32, [26, 26], pool, 6),
        conv(2, 32, 64, [11, 11], pool, 8),
        conv(3, 64, 64, [3, 3], None, 8),
    ];
    let [conv1, conv2, conv3] = convs;
    ModelSpec {
        name: "base".into(),
        recipe_hash: [0; 32],
        tensors: vec![
            tensor(28, 28, 1, DType::U8),
            tensor(28, 28, 1, DType::I8),
            tensor(13, 13, 32, DType::U8),
            tensor(5, 5, 64, DType::U8),
            tensor(3, 3, 64, DType::U8),
            tensor(1, 1, 70, DType::U8),
            tensor(1, 1, 10, DType::I32),
        ],
        ops: vec![
            OpSpec::Affine {
                input: 0,
                output: 1,
                params: (0..784)
                    .map(|i| AffineParam {
                        mul: 200 + i % 90,
                        add: -9000 + i32::from(i),
                        shift: 8,
                    })
                    .collect(),
            },
            conv1,
            conv2,
            conv3,
            OpSpec::Dense {
                input: 4,
                output: 5,
                weight: weights(576 * 70),
                bias: vec![100; 70],
                post: relu(8),
            },
            OpSpec::Dense {
                input: 5,
                output: 6,
                weight: weights(700),
                bias: vec![-20; 10],
                post: Post::default(),
            },
        ],
        logit_exponents: vec![-8; 10],
        output: OutputActivation::Softmax,
        golden_image: None,
    }
}
