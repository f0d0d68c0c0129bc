//! Images per second of the base network on this machine, one thread, and the share of each operator.
//! `cargo run --release -p runtime --features encode --example throughput`

#[path = "../tests/base/mod.rs"]
mod base;

use std::time::{Duration, Instant};

use runtime::{Model, encode::encode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let images = 10_000;
    let file = encode(&base::base())?;
    let model = Model::new(&file)?;
    let mut arena = vec![0; model.arena_len()];
    let mut image = vec![0u8; model.input().len()];
    let mut spent = vec![Duration::ZERO; model.ops().count()];
    let start = Instant::now();
    let mut classes = vec![0u32; model.classes()];
    for n in 0..images {
        for (i, pixel) in image.iter_mut().enumerate() {
            *pixel = ((i * (n + 3)) >> 3) as u8;
        }
        let mut last = Instant::now();
        let logits = model.run_with(&image, &mut arena, |event| {
            let now = Instant::now();
            spent[event.index] += now - last;
            last = now;
        })?;
        classes[logits.argmax()] += 1;
    }
    let total = start.elapsed();
    for (op, spent) in model.ops().zip(&spent) {
        let per_image = spent.as_secs_f64() * 1e6 / f64::from(images as u32);
        println!(
            "{:<8} {:>12} {per_image:>9.2} us",
            op.kind.name(),
            op.output.shape.to_string()
        );
    }
    println!(
        "{images} images in {:.2} s: {:.0} images/s; classes {classes:?}",
        total.as_secs_f64(),
        f64::from(images as u32) / total.as_secs_f64()
    );
    Ok(())
}
