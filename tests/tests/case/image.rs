//! Raw images that provoke rounding, saturation and ties.

use rand::{Rng, RngExt};
use trainer::architecture::Shape;

/// Constant, saturated, striped, sparse and random images.
pub fn all(shape: Shape, random: &mut impl Rng) -> Vec<Vec<u8>> {
    let len = shape.len();
    let mut images: Vec<Vec<u8>> = [0, 1, 127, 128, 254, 255].map(|v| vec![v; len]).into();
    images.push(
        (0..len)
            .map(|i| {
                if (i / shape.c).is_multiple_of(2) {
                    255
                } else {
                    0
                }
            })
            .collect(),
    );
    images.push((0..len).map(|i| (i * 255 / len) as u8).collect());
    images.push(
        (0..len)
            .map(|i| if i % shape.c == 0 { 255 } else { 0 })
            .collect(),
    );
    for _ in 0..3 {
        images.push(
            (0..len)
                .map(|_| {
                    if random.random_range(0..2) == 0 {
                        0
                    } else {
                        255
                    }
                })
                .collect(),
        );
        images.push(
            (0..len)
                .map(|_| {
                    if random.random_range(0..10) == 0 {
                        random.random_range(0..=255)
                    } else {
                        0
                    }
                })
                .collect(),
        );
        images.push((0..len).map(|_| random.random_range(0..=255)).collect());
        images.push((0..len).map(|_| random.random_range(0..4)).collect());
    }
    images
}
