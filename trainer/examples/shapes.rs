//! Draws coloured shapes as PNG files, one folder per class: training data for models/shapes/recipe.toml, and the
//! layout in which own photos are put.
//!
//!     cargo run --release -p trainer --example shapes -- models/shapes/data
//!
//! The same program gives the same files.

use std::{error::Error, fs, path::Path};

use image::{Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIDE: u32 = 32;
const CLASSES: [&str; 4] = ["circle", "cross", "square", "triangle"];

fn main() -> Result<(), Box<dyn Error>> {
    let Some(folder) = std::env::args().nth(1) else {
        return Err("expected one argument: the folder to write to".into());
    };
    for (part, count, seed) in [("train", 500, 1), ("test", 100, 2)] {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for (class, name) in CLASSES.iter().enumerate() {
            let folder = Path::new(&folder).join(part).join(name);
            fs::create_dir_all(&folder)?;
            for i in 0..count {
                draw(class, &mut random).save(folder.join(format!("{i:04}.png")))?;
            }
        }
    }
    println!(
        "wrote {folder}/train and {folder}/test: {}",
        CLASSES.join(", ")
    );
    Ok(())
}

/// One shape of random place, size, angle and colour on a background of another brightness, with noise.
fn draw(class: usize, random: &mut ChaCha8Rng) -> RgbImage {
    let mut between = |low: f32, high: f32| low + (high - low) * random.random::<f32>();
    let radius = between(6.0, 11.0);
    let (middle_x, middle_y) = (between(12.0, 20.0), between(12.0, 20.0));
    let (sin, cos) = between(-0.4, 0.4).sin_cos();
    let dark = [between(0.0, 90.0), between(0.0, 90.0), between(0.0, 90.0)];
    let bright = [
        between(130.0, 255.0),
        between(130.0, 255.0),
        between(130.0, 255.0),
    ];
    let (shape, ground) = if between(0.0, 1.0) < 0.5 {
        (bright, dark)
    } else {
        (dark, bright)
    };
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (dx, dy) = (x as f32 - middle_x, y as f32 - middle_y);
        let (u, v) = (
            (cos * dx + sin * dy) / radius,
            (cos * dy - sin * dx) / radius,
        );
        let colour = if inside(class, u, v) { shape } else { ground };
        Rgb(colour.map(|value| (value + between(-12.0, 12.0)).clamp(0.0, 255.0) as u8))
    })
}

/// Whether a point of the shape's own coordinates, [-1, 1] each way with `v` downwards, belongs to it.
fn inside(class: usize, u: f32, v: f32) -> bool {
    match CLASSES[class] {
        "circle" => u * u + v * v <= 1.0,
        "cross" => u.abs().max(v.abs()) <= 1.0 && u.abs().min(v.abs()) <= 0.3,
        "square" => u.abs().max(v.abs()) <= 0.85,
        _ => (-1.0..=0.8).contains(&v) && u.abs() <= 0.55 * (v + 1.0),
    }
}
