//! Seeks an image for which the int8 ONNX model (tract) and the fixed-point runtime differ.
//!
//! usage: cargo run --release -p verifier --example search -- DIR [--inferences N] [--seed N]
//!
//! DIR holds model.int8.onnx and model.fxp. A quarter of the images each: random, constant or saturated, sparse, and
//! adversarial. The adversarial ones start from the images whose two best logits are nearest to a tie, and
//! change single pixels by one step for as long as that brings them nearer. Prints `mismatching logits: K of N` last;
//! exit code 0 only if K = 0.

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use verifier::{certificate, graph::Graph, host::Host, verify};

/// Images per round.
const ROUND: usize = 4096;

struct Options {
    dir: PathBuf,
    inferences: usize,
    seed: u64,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        dir: PathBuf::new(),
        inferences: 1_000_000,
        seed: 1,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = |name: &str| {
            let text = arguments
                .next()
                .ok_or(format!("{name}: a number is missing"))?;
            text.parse::<u64>()
                .map_err(|_| format!("{name} {text}: expected a number"))
        };
        match argument.as_str() {
            "--inferences" => options.inferences = number("--inferences")? as usize,
            "--seed" => options.seed = number("--seed")?,
            _ => options.dir = argument.into(),
        }
    }
    if options.dir.as_os_str().is_empty() {
        return Err("usage: search DIR [--inferences N] [--seed N]".into());
    }
    Ok(options)
}

fn draw(kind: usize, len: usize, random: &mut impl Rng) -> Vec<u8> {
    match kind {
        0 => (0..len).map(|_| random.random_range(0..=255)).collect(),
        1 => match random.random_range(0..3) {
            0 => vec![random.random_range(0..=255); len],
            1 => (0..len)
                .map(|_| {
                    if random.random_range(0..2) == 0 {
                        0
                    } else {
                        255
                    }
                })
                .collect(),
            _ => {
                let period = random.random_range(1..60);
                (0..len)
                    .map(|i| if i / period % 2 == 0 { 255 } else { 0 })
                    .collect()
            }
        },
        _ => (0..len)
            .map(|_| {
                if random.random_range(0..8) == 0 {
                    random.random_range(0..=255)
                } else {
                    0
                }
            })
            .collect(),
    }
}

/// Difference of the two largest values: 0 is a tie.
fn distance(logits: &[f32]) -> f32 {
    let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &v in logits {
        if v > best {
            (best, second) = (v, best);
        } else if v > second {
            second = v;
        }
    }
    best - second
}

fn search() -> Result<bool, Box<dyn Error>> {
    let options = options()?;
    let read = |name: &str| {
        let path = options.dir.join(name);
        fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let (onnx, fxp) = (read("model.int8.onnx")?, read("model.fxp")?);
    let certificate = certificate::compute(&onnx, &fxp)?;
    println!("certificate holds, smallest margin {}", certificate.margin);
    let len: usize = Graph::parse(&onnx)?.image.iter().product();
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut host = Host::new(&fxp)?;
    let (mut done, mut logits, mut mismatching) = (0, 0, 0);
    // Images near a tie, with their distance.
    let mut near: Vec<(f32, Vec<u8>)> = Vec::new();
    while done < options.inferences {
        let images: Vec<Vec<u8>> = (0..ROUND.min(options.inferences - done))
            .map(|i| match near.get(i / 4) {
                Some((_, image)) if i % 4 == 3 => {
                    let mut image = image.clone();
                    for _ in 0..random.random_range(1..4) {
                        let pixel = random.random_range(0..len);
                        image[pixel] =
                            image[pixel].saturating_add_signed(if random.random_range(0..2) == 0 {
                                1
                            } else {
                                -1
                            });
                    }
                    image
                }
                _ => draw(i % 4, len, &mut random),
            })
            .collect();
        let views: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let report = verify(&onnx, &fxp, &views, &mut host, &mut |_| {})?;
        if let Some(first) = &report.first {
            println!("{first:?}\nimage: {:?}", images[first.image]);
        }
        done += images.len();
        logits += report.logits;
        mismatching += report.mismatching;
        let classes = report.logits / images.len();
        near.extend(report.values.chunks(classes).map(distance).zip(images));
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        near.truncate(ROUND / 4);
        eprintln!(
            "{done} images, {mismatching} mismatching logits, nearest tie {}",
            near[0].0
        );
    }
    println!("mismatching logits: {mismatching} of {logits}");
    Ok(mismatching == 0)
}

fn main() -> ExitCode {
    match search() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
