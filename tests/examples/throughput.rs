//! Images per second on this machine, one thread: the fixed-point runtime, tract and onnxruntime, in turn, in one run.
//!
//! usage: cargo run --release -p verifier --example throughput -- DIR [IMAGES]
//!
//! DIR holds model.int8.onnx and model.fxp. The engines run the same random images, one at a time and, where the engine has
//! batches, 64 at a time; the best of three rounds counts. ISOBIT_PYTHON names the Python that has onnxruntime.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use runtime::Model;
use verifier::{
    graph::Graph,
    tract::{BATCH, Mode, Tract},
};

/// Rounds over all engines.
const ROUNDS: usize = 3;

/// Images if the command line does not say.
const IMAGES: usize = 2048;

/// One engine: its name, and a run over all images.
type Engine<'a> = (String, Box<dyn FnMut() -> Result<(), Box<dyn Error>> + 'a>);

fn measure(dir: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (onnx, fxp) = (read("model.int8.onnx")?, read("model.fxp")?);
    let model = Model::new(&fxp)?;
    let shape = Graph::parse(&onnx)?.image;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let images: Vec<Vec<u8>> = (0..count)
        .map(|_| {
            (0..model.input().len())
                .map(|_| random.random_range(0..=255))
                .collect()
        })
        .collect();
    let views: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let mut arena = vec![0; model.arena_len()];
    let views = &views;
    let mut engines: Vec<Engine<'_>> = vec![(
        format!("runtime ({})", runtime::KERNELS),
        Box::new(move || {
            for image in views {
                model.run(image, &mut arena)?;
            }
            Ok(())
        }),
    )];
    for batch in [1, BATCH] {
        let tract = Tract::load(&onnx, shape, &[], batch, Mode::Optimized)?;
        engines.push((
            format!("tract, batches of {batch}"),
            Box::new(move || {
                for batch in views.chunks_exact(batch) {
                    tract.run(batch)?;
                }
                Ok(())
            }),
        ));
    }
    let mut best = vec![f64::INFINITY; engines.len()];
    for _ in 0..ROUNDS {
        for ((_, run), best) in engines.iter_mut().zip(&mut best) {
            let start = Instant::now();
            run()?;
            *best = start.elapsed().as_secs_f64().min(*best);
        }
    }
    println!("{}: {count} images, one thread", dir.display());
    for ((name, _), seconds) in engines.iter().zip(best) {
        println!("{name:<28}{:>10.0} images/s", count as f64 / seconds);
    }
    onnxruntime(dir, &images.concat())
}

/// The same images in onnxruntime, which Python runs.
fn onnxruntime(dir: &Path, images: &[u8]) -> Result<(), Box<dyn Error>> {
    let file = std::env::temp_dir().join(format!("isobit-throughput-{}", std::process::id()));
    fs::write(&file, images)?;
    let python = std::env::var("ISOBIT_PYTHON").unwrap_or("python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/throughput.py");
    let status = Command::new(&python)
        .arg(script)
        .arg(dir.join("model.int8.onnx"))
        .arg(&file)
        .arg(ROUNDS.to_string())
        .status();
    fs::remove_file(&file)?;
    if status
        .map_err(|error| format!("{python} does not start: {error}"))?
        .success()
    {
        return Ok(());
    }
    Err(format!("{python} has no onnxruntime, or the model does not run in it").into())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map(PathBuf::from);
    let count = match arguments.next().as_deref() {
        None => Some(IMAGES),
        Some(text) => text.parse().ok().filter(|&n| n >= BATCH),
    };
    let (Some(dir), Some(count), None) = (dir, count, arguments.next()) else {
        eprintln!("usage: throughput DIR [IMAGES, at least {BATCH}]");
        return ExitCode::from(2);
    };
    match measure(&dir, count / BATCH * BATCH) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}
