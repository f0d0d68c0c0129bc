//! Cost of a training sample by threads, batch size and width, against what the matrix product alone reaches here:
//!
//!     cargo run --release -p trainer --example scaling
//!
//! A step is forward pass, loss, gradients and RMSprop update. The products counted are those that are needed: none for the
//! gradient of the image or for pixels that no pooling window reaches, and behind 2x2 max pooling one gradient in four.

use std::{collections::BTreeMap, error::Error, path::Path, time::Instant};

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use trainer::{
    architecture::{Architecture, LayerKind},
    batch::{Batch, Batches},
    dataset::{self, Dataset},
    initializer::initial_weights,
    loss,
    network::{Mode, Network},
    ops::kernel::{
        Level,
        gemm::{self, Packed},
    },
    optimizer::Optimizer,
    preprocess::Preprocess,
    recipe::Recipe,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seconds that each figure is measured for; the median of its steps counts.
const TIME: f64 = 1.0;

fn main() -> Result<(), Box<dyn Error>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mnist/recipe.toml");
    let path = Path::new(path);
    let recipe = Recipe::load(path, &[])?;
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let (input, classes) = (architecture.input, architecture.classes());
    let data = dataset::load(&recipe.data, input, classes, base)?;
    let preprocess = Preprocess::fit(recipe.data.preprocess, recipe.data.statistics, &data);
    let images =
        |data: &Dataset, batch| Batches::shuffled(&data.train, &preprocess, batch, 1, 0).next();

    println!("instructions: {:?}", Level::detect());
    let threads = [1, 2];
    let mut peak = [0.0; 2];
    for (peak, threads) in peak.iter_mut().zip(threads) {
        *peak = in_pool(threads, roofline)?;
        println!("matrix product 192x256x64 on {threads} threads: {peak:.0} GFLOP/s");
    }

    println!("\nbase network by batch\n{}", header());
    for batch in [16, 32, 64, 128, 256, 512] {
        let batch = images(&data, batch).ok_or("no images")?;
        row(&recipe, &batch, &batch.n.to_string(), threads, peak)?;
    }
    println!("\nbatch 64, three conv layers by filters\n{}", header());
    for filters in [16, 32, 64, 128, 256] {
        let conv = format!("{{ type = 'conv', filters = {filters}, activation = 'relu' }}");
        let pool = "{ type = 'max_pool' }";
        let last = "{ type = 'flatten' }, { type = 'dense', units = 10, activation = 'softmax' }";
        let layers = format!("network.layers=[{conv}, {pool}, {conv}, {pool}, {conv}, {last}]");
        let recipe = Recipe::load(path, &[layers])?;
        let batch = images(&data, 64).ok_or("no images")?;
        row(&recipe, &batch, &filters.to_string(), threads, peak)?;
    }
    Ok(())
}

fn in_pool<R: Send>(
    threads: usize,
    work: impl FnOnce() -> R + Send,
) -> Result<R, rayon::ThreadPoolBuildError> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    Ok(builder.build()?.install(work))
}

fn header() -> String {
    let head = format!("{:>8} {:>12}", "", "MFLOP/sample");
    let columns = ["us/sample", "samples/s", "of the product"];
    [1, 2].iter().fold(head, |head, threads| {
        let [a, b, c] = columns.map(|name| format!("{name} ({threads})"));
        format!("{head} {a:>14} {b:>14} {c:>20}")
    })
}

fn row(
    recipe: &Recipe,
    batch: &Batch,
    name: &str,
    threads: [usize; 2],
    peak: [f64; 2],
) -> Result<(), Box<dyn Error>> {
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)?;
    let flop = 2.0 * products(&architecture);
    let mut line = format!("{name:>8} {:>12.2}", flop / 1e6);
    for (threads, peak) in threads.into_iter().zip(peak) {
        let time = in_pool(threads, || step_time(recipe, &architecture, batch))??;
        let sample = time / batch.n as f64;
        let share = flop / sample / 1e9 / peak * 100.0;
        line += &format!(
            " {:>14.1} {:>14.0} {share:>18.0} %",
            sample * 1e6,
            1.0 / sample
        );
    }
    println!("{line}");
    Ok(())
}

/// Seconds of a step.
fn step_time(
    recipe: &Recipe,
    architecture: &Architecture,
    batch: &Batch,
) -> candle_core::Result<f64> {
    let weights = initial_weights(architecture, 1);
    let network = Network::new(architecture, &weights, &Device::Cpu)?;
    let mut optimizer: Optimizer<Tensor> =
        Optimizer::new(recipe.train.optimizer, recipe.train.clip);
    let step = |optimizer: &mut Optimizer<Tensor>| {
        let mode = Mode::Train {
            seed: 1,
            step: optimizer.iterations(),
        };
        let images = network.images(batch.x.clone())?;
        let (_, loss) =
            loss::logits_and_objective(&recipe.train.loss, &network, &images, &batch.labels, mode)?;
        let store = network.gradients(&loss)?;
        let (mut weights, mut gradients) = (BTreeMap::new(), BTreeMap::new());
        for parameter in network.parameters() {
            if let Some(gradient) = store.get(parameter.var.as_tensor()) {
                gradients.insert(parameter.name.clone(), gradient.detach());
                weights.insert(parameter.name.clone(), parameter.var.as_tensor().clone());
            }
        }
        optimizer.step(&mut weights, &gradients, 1e-3)
    };
    for _ in 0..3 {
        step(&mut optimizer)?;
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed().as_secs_f64() < TIME || times.len() < 3 {
        let start = Instant::now();
        step(&mut optimizer)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Products (multiply-accumulates) of one sample's forward and backward pass that are needed.
fn products(architecture: &Architecture) -> f64 {
    let layers = &architecture.layers;
    let mut sum = 0.0;
    for (i, layer) in layers.iter().enumerate() {
        let (k, co, pooled) = match layer.kind {
            LayerKind::Conv { window, groups, .. } => {
                let k = window.size[0] * window.size[1] * layer.input.c / groups;
                let next = layers
                    .get(i + 1)
                    .filter(|next| matches!(next.kind, LayerKind::MaxPool { .. }));
                (
                    k,
                    layer.output.c,
                    next.map(|next| next.output.h * next.output.w),
                )
            }
            LayerKind::Dense { units, .. } => (layer.input.c, units, None),
            _ => continue,
        };
        let pixels = layer.output.h * layer.output.w;
        let (forward, backward) = match pooled {
            // 2x2 windows
            Some(windows) => (windows * 4, windows),
            None => (pixels, pixels),
        };
        let gradients = if i == 0 { 1 } else { 2 };
        sum += (k * co * (forward + gradients * backward)) as f64;
    }
    sum
}

/// GFLOP/s of the matrix product with operands in the cache, on all threads of the pool.
fn roofline() -> f64 {
    const M: usize = 192;
    const K: usize = 256;
    const N: usize = 64;
    let level = Level::detect();
    let value = |i: usize| (i % 17) as f32 / 17.0;
    let a: Vec<f32> = (0..M * K).map(value).collect();
    let b: Vec<f32> = (0..K * N).map(value).collect();
    let b = Packed::new(level, &b, K, N, [N, 1]);
    let threads = rayon::current_num_threads();
    let repeat = 200;
    let mut best = 0.0f64;
    for _ in 0..10 {
        let start = Instant::now();
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            let mut c = vec![0.0; M * N];
            for _ in 0..repeat {
                gemm::gemm(level, M, &a, K, &b, &[0.0; N], &mut c);
            }
            std::hint::black_box(c);
        });
        let flop = (2 * M * K * N * threads * repeat) as f64;
        best = best.max(flop / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}
