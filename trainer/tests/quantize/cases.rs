//! The networks.

use trainer::preprocess::Preprocess;

/// A multiplicative generator is random enough for weights and pixels.
pub struct Random(pub u64);

impl Random {
    pub fn uniform(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// A network as a recipe describes it, and its preprocessing for images of so many values.
pub struct Case {
    pub name: &'static str,
    pub input: &'static str,
    pub layers: &'static str,
    pub preprocess: fn(usize) -> Preprocess,
}

fn none(_: usize) -> Preprocess {
    Preprocess::None
}
pub fn unit(_: usize) -> Preprocess {
    Preprocess::Unit
}
fn global(_: usize) -> Preprocess {
    Preprocess::Global {
        mean: 33.5,
        std: 78.25,
    }
}
fn per_pixel(len: usize) -> Preprocess {
    let mut random = Random(7);
    let mean = (0..len).map(|_| 255.0 * random.uniform()).collect();
    let std = (0..len).map(|_| 40.0 + 60.0 * random.uniform()).collect();
    Preprocess::PerPixel { mean, std }
}

pub const CASES: &[Case] = &[
    Case {
        name: "base",
        input: "[14, 14, 1]",
        preprocess: unit,
        layers: r#"
        [[layers]]
        type = "conv"
        filters = 8
        activation = "relu"
        [[layers]]
        type = "max_pool"
        [[layers]]
        type = "conv"
        filters = 6
        activation = "relu"
        [[layers]]
        type = "flatten"
        [[layers]]
        type = "dense"
        units = 12
        activation = "relu"
        [[layers]]
        type = "dense"
        units = 5
    "#,
    },
    Case {
        name: "colour_per_pixel_same_padding",
        input: "[9, 7, 3]",
        preprocess: per_pixel,
        layers: r#"
        [[layers]]
        type = "conv"
        filters = 5
        kernel = [3, 5]
        stride = [2, 1]
        padding = "same"
        activation = "elu"
        [[layers]]
        type = "max_pool"
        padding = "same"
        [[layers]]
        type = "flatten"
        [[layers]]
        type = "dropout"
        rate = 0.5
        [[layers]]
        type = "dense"
        units = 4
    "#,
    },
    Case {
        name: "global_valid",
        input: "[8, 8, 2]",
        preprocess: global,
        layers: r#"
        [[layers]]
        type = "conv"
        filters = 6
        use_bias = false
        [[layers]]
        type = "batch_norm"
        [[layers]]
        type = "activation"
        activation = "tanh"
        [[layers]]
        type = "avg_pool"
        size = [3, 3]
        [[layers]]
        type = "flatten"
        [[layers]]
        type = "dense"
        units = 3
    "#,
    },
    Case {
        name: "global_padded_conv_needs_affine",
        input: "[6, 6, 1]",
        preprocess: global,
        layers: r#"
        [[layers]]
        type = "conv"
        filters = 4
        padding = "same"
        activation = "selu"
        [[layers]]
        type = "conv"
        filters = 3
        [[layers]]
        type = "global_avg_pool"
    "#,
    },
    Case {
        name: "depthwise_residual",
        input: "[8, 8, 3]",
        preprocess: unit,
        layers: r#"
        [[layers]]
        type = "conv"
        name = "stem"
        filters = 4
        padding = "same"
        activation = "relu"
        [[layers]]
        type = "depthwise_conv"
        multiplier = 2
        padding = "same"
        activation = "relu"
        [[layers]]
        type = "conv"
        filters = 4
        kernel = [1, 1]
        [[layers]]
        type = "batch_norm"
        [[layers]]
        type = "add"
        with = "stem"
        activation = "relu"
        [[layers]]
        type = "batch_norm"
        [[layers]]
        type = "activation"
        activation = "relu"
        [[layers]]
        type = "global_avg_pool"
        [[layers]]
        type = "dense"
        units = 6
    "#,
    },
    Case {
        name: "mlp_sigmoid",
        input: "[5, 4, 2]",
        preprocess: unit,
        layers: r#"
        [[layers]]
        type = "flatten"
        [[layers]]
        type = "dense"
        units = 9
        activation = "sigmoid"
        [[layers]]
        type = "dense"
        units = 3
    "#,
    },
    Case {
        name: "mlp_per_pixel_batch_norm_after_flatten",
        input: "[5, 4, 2]",
        preprocess: per_pixel,
        layers: r#"
        [[layers]]
        type = "conv"
        filters = 3
        kernel = [2, 2]
        [[layers]]
        type = "flatten"
        [[layers]]
        type = "batch_norm"
        [[layers]]
        type = "dense"
        units = 7
        activation = "tanh"
        [[layers]]
        type = "dense"
        units = 3
    "#,
    },
    Case {
        name: "pool_first_grouped_conv_logits",
        input: "[8, 8, 4]",
        preprocess: none,
        layers: r#"
        [[layers]]
        type = "max_pool"
        size = [3, 3]
        stride = [2, 2]
        [[layers]]
        type = "conv"
        filters = 8
        groups = 2
    "#,
    },
];
