//! One training step (forward, loss, gradients) and one evaluation batch, in samples per second, for the shipped recipes,
//! batch sizes and thread counts: `cargo bench -p trainer --bench step`.

use candle_core::{Device, Tensor};
use divan::{Bencher, counter::ItemsCount};
use rayon::ThreadPoolBuilder;
use trainer::{
    architecture::Architecture,
    initializer::initial_weights,
    network::{Mode, Network},
    recipe::Recipe,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

struct Case {
    network: Network,
    x: Tensor,
    labels: Tensor,
}

fn case(recipe: &str, batch: usize) -> Case {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mnist/");
    let recipe = Recipe::load(format!("{path}{recipe}.toml").as_ref(), &[]).expect("a recipe");
    let architecture =
        Architecture::resolve(&recipe.network, &recipe.train.loss).expect("an architecture");
    let weights = initial_weights(&architecture, 1);
    let network = Network::new(&architecture, &weights, &Device::Cpu).expect("a network");
    let input = architecture.input;
    // a blob in the middle, 0 elsewhere: sparse like digits
    let x: Vec<f32> = (0..batch * input.len())
        .map(|i| {
            let value = (i.wrapping_mul(2_654_435_761) >> 7) % 1000;
            if value < 250 {
                value as f32 / 100.0
            } else {
                -0.4
            }
        })
        .collect();
    let x = Tensor::from_vec(x, (batch, input.h, input.w, input.c), &Device::Cpu).expect("x");
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
    let labels = Tensor::from_vec(labels, batch, &Device::Cpu).expect("labels");
    Case { network, x, labels }
}

impl Case {
    fn step(&self) {
        let mode = Mode::Train { seed: 1, step: 0 };
        let logits = self.network.forward(&self.x, mode).expect("logits");
        let loss = candle_nn::loss::cross_entropy(&logits, &self.labels).expect("a loss");
        divan::black_box(self.network.gradients(&loss).expect("gradients"));
    }
}

fn threads(bencher: Bencher, threads: usize, items: usize, work: impl Fn() + Sync) {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads");
    bencher
        .counter(ItemsCount::new(items))
        .bench_local(|| pool.install(&work));
}

#[divan::bench(args = [1, 2], min_time = 2)]
fn base_batch_64(bencher: Bencher, n: usize) {
    let case = case("recipe", 64);
    threads(bencher, n, 64, || case.step());
}

#[divan::bench(args = [16, 32, 128, 256, 512], min_time = 1)]
fn base_2_threads(bencher: Bencher, batch: usize) {
    let case = case("recipe", batch);
    threads(bencher, 2, batch, || case.step());
}

#[divan::bench(args = ["wide-a", "wide-c"], min_time = 1)]
fn wide_2_threads(bencher: Bencher, recipe: &str) {
    let case = case(recipe, 64);
    threads(bencher, 2, 64, || case.step());
}

#[divan::bench(args = [1, 2], min_time = 1)]
fn mlp_batch_500(bencher: Bencher, n: usize) {
    let case = case("mlp", 500);
    threads(bencher, n, 500, || case.step());
}

#[divan::bench(args = [1, 2], min_time = 1)]
fn base_evaluation_500(bencher: Bencher, n: usize) {
    let case = case("recipe", 500);
    threads(bencher, n, 500, || {
        divan::black_box(case.network.forward(&case.x, Mode::Infer).expect("logits"));
    });
}
