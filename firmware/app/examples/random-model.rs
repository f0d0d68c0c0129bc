//! Writes a model of the size of the base CNN (28 x 28 x 1, three convolutions, 10 classes) with pseudo-random weights,
//! to try the firmware without training: `cargo run -p app --example random-model -- model.fxp`.

use runtime::encode::{
    DType, ModelSpec, OpSpec, OutputActivation, PoolSpec, Post, Shape, TensorSpec, encode,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: random-model FILE")?;
    // Xorshift: the same file in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut weights = |count: usize, limit: u64| -> Vec<i8> {
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (((state >> 32) % (2 * limit + 1)) as i64 - limit as i64) as i8
            })
            .collect()
    };
    let u8_map = |h, w, c| TensorSpec {
        shape: Shape { h, w, c },
        dtype: DType::U8,
    };
    let post = |shift| Post {
        shift: vec![shift],
        table: None,
    };
    let pool = Some(PoolSpec {
        size: [2, 2],
        stride: [2, 2],
    });
    let conv = |input, conv, weight, co: usize, pool| OpSpec::Conv {
        input,
        output: input + 1,
        kernel: [3, 3],
        stride: [1, 1],
        pad: [0, 0],
        conv: [conv, conv],
        groups: 1,
        weight,
        bias: vec![100; co],
        pool,
        post: post(9),
    };
    let ops = vec![
        conv(0, 26, weights(9 * 32, 127), 32, pool),
        conv(1, 11, weights(9 * 32 * 64, 127), 64, pool),
        conv(2, 3, weights(9 * 64 * 64, 100), 64, None),
        OpSpec::Dense {
            input: 3,
            output: 4,
            weight: weights(576 * 70, 100),
            bias: vec![0; 70],
            post: post(9),
        },
        OpSpec::Dense {
            input: 4,
            output: 5,
            weight: weights(70 * 10, 127),
            bias: vec![0; 10],
            post: Post::default(),
        },
    ];
    let spec = ModelSpec {
        name: "random".into(),
        recipe_hash: [0; 32],
        tensors: vec![
            u8_map(28, 28, 1),
            u8_map(13, 13, 32),
            u8_map(5, 5, 64),
            u8_map(3, 3, 64),
            u8_map(1, 1, 70),
            TensorSpec {
                shape: Shape { h: 1, w: 1, c: 10 },
                dtype: DType::I32,
            },
        ],
        ops,
        logit_exponents: vec![-12; 10],
        output: OutputActivation::Softmax,
        golden_image: Some((0..784_u32).map(|i| (i * 37) as u8).collect()),
    };
    std::fs::write(&path, encode(&spec).map_err(|error| format!("{error:?}"))?)?;
    Ok(())
}
