//! Command line: what a script may rely on. Exit codes: 0 done, 1 the work failed or did not verify, 2 usage or
//! recipe error, 130 a training was interrupted (Ctrl-C).

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// Train a small CNN, flash it to a microcontroller, get the same bits everywhere.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train, quantize, export and verify; writes a run folder
    ///
    /// A folder that holds another run, or an unfinished one, is left alone unless --resume or --reset-weights says what to do
    /// with it. A finished run of the same recipe is not trained again; only its models are written and verified again.
    ///
    /// Ctrl-C ends a training after the running step, with a checkpoint: --resume continues it with the same bits as if it had
    /// never stopped. Exit codes: 0 done, 1 the work failed or did not verify, 2 usage or recipe error, 130 interrupted.
    Fit(FitArgs),
    /// Train many variants of a recipe and compare them on validation images
    ///
    /// Every trial is an ordinary run in a folder of its own. The sweep chooses by the accuracy of model.fxp on the validation
    /// images, as the mean over train.seed where that is swept; test images play no part. Finished trials are not repeated and
    /// interrupted ones go on, so the same command continues a sweep. It writes results.csv and results.png.
    ///
    /// On many machines: run the lines of --print-commands there, then make the table with --collect.
    Sweep(SweepArgs),
    /// Layers, output shapes, parameters, MACs; int8 flash and arena bytes
    Summary(SummaryArgs),
    /// Accuracy, per-class metrics and confusion matrix: float and fixed point
    Evaluate(EvaluateArgs),
    /// Calibrate and quantize a trained run again
    Quantize(QuantizeArgs),
    /// Write model.onnx, model.int8.onnx and model.fxp of a trained run again
    Export(ExportArgs),
    /// Prove that ONNX and runtime give the same logits
    Verify(VerifyArgs),
    /// Classify image files with model.fxp, as the device does
    Predict(PredictArgs),
    /// Pictures of filters, activations, confusions and scales; or what two runs have in common
    Inspect(InspectArgs),
    /// Build the firmware with a run's model and flash it to a board
    Flash(FlashArgs),
    /// List serial ports and known boards
    Devices(DevicesArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer fit
      train the MNIST recipe; everything goes to runs/mnist
  trainer fit my.toml --out runs/first --set train.batch=128 --set data.augment.shift=2
      another recipe, with some of its values changed
  trainer fit --resume --epochs 10
      continue runs/mnist after an interruption or a crash; up to 10 epochs
  trainer fit --epochs 30 --json > epochs.jsonl
      one JSON object per epoch and one at the end, for scripts")]
pub struct FitArgs {
    /// Recipe file [default: the MNIST recipe in models/; with --resume and --reset-weights the one in the run folder]
    pub recipe: Option<PathBuf>,
    /// Run folder [default: runs/RECIPE_NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Change a value of the recipe, for example train.batch=128; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Same as --set train.epochs=N
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Same as --set train.seed=N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Threads of the CPU kernels; the results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    #[command(flatten)]
    pub start: StartArgs,
    /// Only warnings and errors
    #[arg(long, conflicts_with = "plain")]
    pub quiet: bool,
    /// Plain lines instead of a progress bar and live curves
    #[arg(long)]
    pub plain: bool,
    /// One JSON object per epoch and one at the end on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct StartArgs {
    /// Continue exactly where the last checkpoint of the run folder was written; of the recipe only train.epochs, quantize and
    /// export may change
    #[arg(long)]
    pub resume: bool,
    /// Take the weights of another run; schedule and optimizer start at step 0
    #[arg(long, value_name = "DIR")]
    pub warm_start: Option<PathBuf>,
    /// Train again from the run folder's saved initial weights, and replace its other files
    #[arg(long)]
    pub reset_weights: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A sweep file:
  recipe = \"recipe.toml\"          # relative to this file
  [set]                           # the same in every trial
  \"data.validation\" = 0.1
  [grid]                          # every combination
  \"train.seed\" = [1, 2, 3]
  [random]                        # drawn `trials` times; a range or a list
  \"train.optimizer.learning_rate\" = { from = 1e-4, to = 1e-2, log = true }

Examples:
  trainer sweep rate.toml
  trainer sweep rate.toml --jobs 4 --out runs/rate
  trainer sweep rate.toml --print-commands > commands.txt
      one line per trial, for GNU parallel (parallel -j 4 < commands.txt) or a Slurm array
      (sed -n \"${SLURM_ARRAY_TASK_ID}p\" commands.txt | sh)
  trainer sweep rate.toml --collect --also other-machine/runs/rate
      the table of what is finished, from two folders")]
pub struct SweepArgs {
    /// Sweep file
    pub sweep: PathBuf,
    /// Folder of the run folders [default: runs/SWEEP_NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Trials at the same time; the cores are divided among them
    #[arg(long, value_name = "N", default_value = "1")]
    pub jobs: NonZeroUsize,
    /// Run nothing; print a command for every trial, in a fixed order
    #[arg(long, conflicts_with_all = ["collect", "jobs", "json"])]
    pub print_commands: bool,
    /// Run nothing; make the table and the plot of the finished trials
    #[arg(long, conflicts_with = "jobs")]
    pub collect: bool,
    /// Take results from this folder too, where a trial is not finished in the sweep's own; may be repeated
    #[arg(long, value_name = "DIR")]
    pub also: Vec<PathBuf>,
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer summary
  trainer summary my.toml --set network.layers.0.filters=16")]
pub struct SummaryArgs {
    /// Recipe file [default: the MNIST recipe in models/]
    pub recipe: Option<PathBuf>,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer export runs/mnist
  trainer export runs/mnist --winograd conv2
      more flash and fewer instructions for a 3x3 convolution, on cores with DSP instructions; the same bits")]
pub struct ExportArgs {
    /// Run folder
    pub dir: PathBuf,
    /// Convolutions that model.fxp holds transformed for Winograd's algorithm: names of layers, auto or none [default: the recipe's]
    #[arg(long, value_name = "LAYER", value_delimiter = ',')]
    pub winograd: Vec<String>,
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer evaluate runs/mnist
  trainer evaluate runs/signs --data new-photos --json")]
pub struct EvaluateArgs {
    /// Run folder
    pub dir: PathBuf,
    /// Other data than the recipe's, in the recipe's format: its test part, or all of it if it has none
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  trainer quantize runs/mnist --qat-epochs 2")]
pub struct QuantizeArgs {
    /// Run folder
    pub dir: PathBuf,
    /// Epochs of quantization-aware fine-tuning [default: the recipe's]
    #[arg(long, value_name = "N")]
    pub qat_epochs: Option<usize>,
    /// Learning rate at its begin [default: the recipe's]
    #[arg(long, value_name = "RATE")]
    pub qat_learning_rate: Option<f32>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer verify runs/mnist --layers
  trainer verify runs/mnist --against qemu:mps2-an386 --limit 100 --timing
  trainer verify runs/mnist --against serial:/dev/ttyACM0")]
pub struct VerifyArgs {
    /// Run folder
    pub dir: PathBuf,
    /// Other data than the recipe's, in the recipe's format: its test part, or all of it if it has none
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Only the first N test images
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// host, qemu:MACHINE or serial:PORT
    #[arg(long, default_value = "host", value_name = "TARGET")]
    pub against: String,
    /// Compare every intermediate tensor too
    #[arg(long)]
    pub layers: bool,
    /// Time every operator on the device; in QEMU, count executed instructions
    #[arg(long)]
    pub timing: bool,
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer predict runs/mnist digit.png
  trainer predict runs/mnist scans/*.png --top 1 --json")]
pub struct PredictArgs {
    /// Run folder
    pub dir: PathBuf,
    /// Image files (PNG, JPEG, BMP)
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Show the N most probable classes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer inspect runs/mnist
      sheets of all filters, the activations of the first test image, the most confused classes, the scales
  trainer inspect runs/mnist digit.png
      the activations of an image file
  trainer inspect runs/mnist --index 1247
      the activations of a test image
  trainer inspect runs/mnist --compare runs/other
      which filters of two runs are the same")]
pub struct InspectArgs {
    /// Run folder
    pub dir: PathBuf,
    /// Image file (PNG, JPEG, BMP) whose activations are shown [default: the first test image]
    pub image: Option<PathBuf>,
    /// Test image whose activations are shown, by its position from 0
    #[arg(long, value_name = "N", conflicts_with = "image")]
    pub index: Option<usize>,
    /// Compare the filters with those of another run, and do nothing else
    #[arg(long, value_name = "DIR", conflicts_with_all = ["image", "index", "pairs"])]
    pub compare: Option<PathBuf>,
    /// Show the N most confused pairs of classes
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub pairs: usize,
    /// Folder of the pictures [default: DIR/inspect]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer flash runs/mnist --board nrf52840-dk
  trainer flash runs/mnist --board raspberry-pi-pico --probe 2e8a:000c --dry-run")]
pub struct FlashArgs {
    /// Run folder
    pub dir: PathBuf,
    /// Board name, see `trainer devices`
    #[arg(long)]
    pub board: String,
    /// Which probe, if several are connected, as `probe-rs list` names it
    #[arg(long, value_name = "VID:PID[:SERIAL]")]
    pub probe: Option<String>,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Machine-readable result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example (bash):
  trainer completions bash > ~/.local/share/bash-completion/completions/trainer")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  trainer man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Folder for trainer.1 and one page per command; made if it is missing
    pub dir: PathBuf,
}
