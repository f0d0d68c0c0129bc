//! A broken file and too small an arena do not compile; a good file does.

use runtime::encode::{
    DType, ModelSpec, OpSpec, OutputActivation, Post, Shape, TensorSpec, encode,
};

#[test]
#[cfg_attr(miri, ignore = "starts the compiler")]
fn models_are_checked_at_compile_time() {
    let tests = trybuild::TestCases::new();
    tests.pass("tests/ui/valid.rs");
    tests.compile_fail("tests/ui/broken_file.rs");
    tests.compile_fail("tests/ui/small_arena.rs");
}

/// The files beside the compile-fail programs are what the encoder writes, one of them with a changed byte.
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_files_of_the_programs_are_current() {
    let file = encode(&ModelSpec {
        name: "ui".into(),
        recipe_hash: [0; 32],
        tensors: vec![
            TensorSpec {
                shape: Shape { h: 1, w: 1, c: 3 },
                dtype: DType::U8,
            },
            TensorSpec {
                shape: Shape { h: 1, w: 1, c: 2 },
                dtype: DType::I32,
            },
        ],
        ops: vec![OpSpec::Dense {
            input: 0,
            output: 1,
            weight: vec![1, 2, 3, -1, 0, 1],
            bias: vec![10, 0],
            post: Post::default(),
        }],
        logit_exponents: vec![0, -1],
        output: OutputActivation::Softmax,
        golden_image: None,
    })
    .unwrap();
    let mut broken = file.clone();
    let weight = u32::from_le_bytes(file[148..152].try_into().unwrap()) as usize;
    broken[weight] ^= 0x40;
    for (name, bytes) in [("valid.fxp", file), ("broken.fxp", broken)] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/ui")
            .join(name);
        if std::env::var_os("ISOBIT_WRITE_EXPECTED").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
    }
}
