//! Training speed beside PyTorch and Keras: all train the base network on the same data, in turns, in one run.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum};

use crate::{
    python,
    shell::{self, Failure},
};

/// Samples of a step: the recipe's batch, also in turns.py.
const BATCH: usize = 64;
/// Steps before the first turn, and time of rest before each turn, in which the others' threads stop spinning.
const WARM_UP: usize = 60;
const REST: Duration = Duration::from_millis(400);
const FOLDER: &str = "xtask/bench_train";
const RECIPE: &str = "models/mnist/recipe.toml";
const DATA: &str = "models/mnist/data";

#[derive(Args)]
pub struct Options {
    /// Peers to train beside it; each one's packages are installed from PyPI into target/ on first use
    #[arg(long, value_delimiter = ',', default_value = "torch")]
    against: Vec<Peer>,
    /// Turns of each competitor
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Optimizer steps of a turn
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// Threads of each competitor [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// PyTorch, eager, f32
    Torch,
    /// PyTorch, eager, with bf16 autocast
    TorchBf16,
    /// Keras on TensorFlow, f32
    Keras,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Torch => "torch f32",
            Self::TorchBf16 => "torch bf16 autocast",
            Self::Keras => "Keras, TensorFlow f32",
        }
    }

    /// Installs it.
    fn command(self, threads: &str) -> Result<Command, Failure> {
        let (package, precision) = match self {
            Self::Torch => ("torch", Some("f32")),
            Self::TorchBf16 => ("torch", Some("bf16")),
            Self::Keras => ("keras", None),
        };
        let requirements = format!("{FOLDER}/{package}-requirements.txt");
        let python = python::install(
            &format!("venv-{package}"),
            &["--requirement", &requirements],
        )?;
        let mut command = Command::new(python);
        command
            .arg(format!("{FOLDER}/{package}_turns.py"))
            .args([DATA, threads])
            .args(precision);
        Ok(command)
    }
}

/// A running program that answers requests (see turns.py).
struct Competitor {
    name: &'static str,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    training: Vec<f64>,
    evaluation: Vec<f64>,
}

impl Competitor {
    fn start(name: &'static str, command: &mut Command) -> Result<Self, Failure> {
        let failure = |what: &str| Failure(format!("{name}: {what}"));
        let mut child = command
            .current_dir(shell::root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failure(&format!("does not start: {error}")))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failure("has no standard input and output"));
        };
        let mut competitor = Self {
            name,
            child,
            requests,
            answers: BufReader::new(answers),
            training: Vec::new(),
            evaluation: Vec::new(),
        };
        match competitor.line()?.as_str() {
            "ready" => Ok(competitor),
            other => Err(failure(&format!("expected `ready`, got `{other}`"))),
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(Failure(format!("{}: ended early", self.name))),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(Failure(format!("{}: {error}", self.name))),
        }
    }

    /// Seconds that the request took.
    fn ask(&mut self, request: &str) -> Result<f64, Failure> {
        thread::sleep(REST);
        writeln!(self.requests, "{request}")
            .and_then(|()| self.requests.flush())
            .map_err(|error| Failure(format!("{}: {error}", self.name)))?;
        let answer = self.line()?;
        answer
            .parse()
            .map_err(|_| Failure(format!("{}: expected seconds, got `{answer}`", self.name)))
    }

    /// Largest resident memory so far in MiB, where the system tells it.
    fn peak_memory(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1024.0)
    }
}

impl Drop for Competitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the turns and prints the table.
pub fn run(options: &Options) -> Result<(), Failure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).to_string();
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "trainer",
        "--example",
        "turns",
    ]))?;
    let mut own = Command::new(shell::root().join("target/release/examples/turns"));
    own.arg(RECIPE).env("RAYON_NUM_THREADS", &threads);
    let mut competitors = vec![Competitor::start("isobit f32", &mut own)?];
    for peer in &options.against {
        let mut command = peer.command(&threads)?;
        competitors.push(Competitor::start(peer.name(), &mut command)?);
    }
    for competitor in &mut competitors {
        competitor.ask(&format!("train {WARM_UP}"))?;
        competitor.ask("evaluate")?;
    }
    for turn in 1..=options.turns {
        println!("turn {turn} of {}", options.turns);
        for competitor in &mut competitors {
            let time = competitor.ask(&format!("train {}", options.steps))?;
            competitor.training.push(time);
            let time = competitor.ask("evaluate")?;
            competitor.evaluation.push(time);
        }
    }
    print(options, &threads, &competitors);
    Ok(())
}

fn print(options: &Options, threads: &str, competitors: &[Competitor]) {
    let samples = (options.steps * BATCH) as f64;
    let rate = |competitor: &Competitor| samples / median(&competitor.training);
    let reference = competitors
        .iter()
        .find(|competitor| competitor.name == Peer::Torch.name());
    println!(
        "\nbase network, MNIST, batch {BATCH}, RMSprop, {threads} threads; median (range) of {} turns of {} steps",
        options.turns, options.steps
    );
    println!("{}\n", processor());
    println!(
        "{:<22} {:>12} {:>24} {:>12} {:>16} {:>14}",
        "", "s per 60,000", "samples/s", "to torch f32", "test images (s)", "peak RSS (MiB)"
    );
    for competitor in competitors {
        let rates = competitor.training.iter().map(|time| samples / time);
        let lowest = rates.clone().fold(f64::INFINITY, f64::min);
        let highest = rates.fold(0.0, f64::max);
        let cell = |value: Option<f64>, digits| {
            value.map_or("-".into(), |value| format!("{value:.digits$}"))
        };
        println!(
            "{:<22} {:>12.2} {:>24} {:>12} {:>16.3} {:>14}",
            competitor.name,
            60_000.0 / rate(competitor),
            format!("{:.0} ({lowest:.0}-{highest:.0})", rate(competitor)),
            cell(reference.map(|torch| rate(competitor) / rate(torch)), 2),
            median(&competitor.evaluation),
            cell(competitor.peak_memory(), 0),
        );
    }
}

/// The lower one of the two in the middle, if the number is even.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// What the system calls the processor.
fn processor() -> String {
    let text = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = name.map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':']));
    format!("processor: {name}")
}
