//! Trains a recipe in turns, for `cargo xtask bench-train`: the real training loop (batches, step, metrics), timed from
//! outside its evaluation and files.
//!
//!     cargo run --release -p trainer --example turns -- models/mnist/recipe.toml [section.key=value]...
//!
//! Prints `ready`. Then each line of standard input is a request, answered by one line of seconds: `train N` does the next N
//! optimizer steps, `evaluate` computes loss and accuracy of the test images. The end of the input ends the program.

use std::{
    error::Error,
    io::{self, BufRead, Write},
    path::Path,
    time::{Duration, Instant},
};

use candle_core::Device;
use trainer::{
    architecture::Architecture,
    callbacks::{Callback, CallbackError, EpochLog, StepLog},
    checkpoint::Checkpoint,
    dataset,
    fit::{self, Job},
    initializer::initial_weights,
    network::Network,
    preprocess::Preprocess,
    recipe::Recipe,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("expected a recipe")?;
    let mut sets: Vec<String> = arguments.collect();
    // trained until the input ends; no files in between
    sets.push("train.epochs=100000".into());
    sets.push("train.callbacks.checkpoint.every_epochs=0".into());
    let path = Path::new(&path);
    let recipe = Recipe::load(path, &sets)?;
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let (input, classes) = (architecture.input, architecture.classes());
    let data = dataset::load(&recipe.data, input, classes, base)?;
    let preprocess = Preprocess::fit(recipe.data.preprocess, recipe.data.statistics, &data);
    let weights = initial_weights(&architecture, recipe.train.seed);
    let network = Network::new(&architecture, &weights, &Device::Cpu)?;
    let dir = tempfile::tempdir()?;
    let job = Job {
        recipe: &recipe,
        data: &data,
        preprocess: &preprocess,
        dir: dir.path(),
    };
    println!("ready");
    let mut turns = Turns {
        job: &job,
        network: &network,
        left: 0,
        time: Duration::ZERO,
        since: Instant::now(),
    };
    if !turns.next_turn()? {
        return Ok(());
    }
    let start = Checkpoint::start(recipe.to_toml(), String::new(), weights);
    match fit::fit(&job, &network, start, &mut turns, &|| false) {
        Err(fit::FitError::Callback(CallbackError::Terminal(error)))
            if error.kind() == io::ErrorKind::UnexpectedEof =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

struct Turns<'a> {
    job: &'a Job<'a>,
    network: &'a Network,
    /// Steps of this turn that are not done.
    left: usize,
    /// Seconds of this turn up to `since`.
    time: Duration,
    since: Instant,
}

impl Turns<'_> {
    /// Answers requests until one asks for steps; false at the end of the input.
    fn next_turn(&mut self) -> io::Result<bool> {
        let bad = |line: &str| {
            let text = format!("expected `train N` or `evaluate`, got `{line}`");
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        for line in io::stdin().lock().lines() {
            let line = line?;
            self.since = Instant::now();
            if line == "evaluate" {
                let Job {
                    recipe,
                    data,
                    preprocess,
                    ..
                } = *self.job;
                fit::evaluate(
                    recipe,
                    self.network,
                    &data.test,
                    preprocess,
                    &mut |_| Ok(()),
                )
                .map_err(io::Error::other)?;
                answer(self.since.elapsed())?;
                continue;
            }
            let steps = line.strip_prefix("train ").and_then(|n| n.parse().ok());
            self.left = steps.filter(|&n| n > 0).ok_or_else(|| bad(&line))?;
            self.time = Duration::ZERO;
            return Ok(true);
        }
        Ok(false)
    }
}

fn answer(time: Duration) -> io::Result<()> {
    println!("{}", time.as_secs_f64());
    io::stdout().flush()
}

impl Callback for Turns<'_> {
    fn step(&mut self, _: &StepLog) -> Result<(), CallbackError> {
        let now = Instant::now();
        self.time += now - self.since;
        self.since = now;
        self.left -= 1;
        if self.left == 0 {
            answer(self.time).map_err(CallbackError::Terminal)?;
            if !self.next_turn().map_err(CallbackError::Terminal)? {
                return Err(CallbackError::Terminal(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    /// The evaluation before this call is not part of the turn; the shuffling after it is.
    fn epoch(&mut self, _: &EpochLog) -> Result<(), CallbackError> {
        self.since = Instant::now();
        Ok(())
    }
}
