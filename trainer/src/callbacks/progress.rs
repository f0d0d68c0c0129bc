//! Progress as text: plain lines, a bar, JSON lines. Standard error is for people, standard output for programs.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Callback, CallbackError, EpochLog, Plan, StepLog, live};

/// How a run shows itself on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// Nothing.
    Quiet,
    /// Lines, for logs.
    Plain,
    /// A progress bar: the terminal is too small for curves.
    Bar,
    /// Progress bar and live curves.
    Live,
}

impl Display {
    /// From the command line and from what standard error is. JSON lines on the same terminal would tear the curves apart.
    pub fn choose(quiet: bool, plain: bool, json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let shared = json && stdout().is_terminal();
        if quiet {
            Self::Quiet
        } else if plain || dumb || shared || !stderr().is_terminal() {
            Self::Plain
        } else if live::fits() {
            Self::Live
        } else {
            Self::Bar
        }
    }

    /// Shows that something without a known length is going on (reading the data); ends when the value is dropped.
    pub fn busy(self, what: &str) -> Task {
        let bar = match self {
            Self::Quiet => ProgressBar::hidden(),
            Self::Plain => {
                print(&format!("{what} ..."));
                ProgressBar::hidden()
            }
            Self::Bar | Self::Live => {
                let bar = ProgressBar::new_spinner().with_message(what.to_string());
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            }
        };
        Task(bar)
    }

    /// Shows the progress of `len` steps outside of the training (images to evaluate, to verify).
    pub fn task(self, what: &str, len: u64) -> Task {
        let bar = match self {
            Self::Quiet | Self::Plain => return self.busy(what),
            Self::Bar | Self::Live => ProgressBar::new(len).with_message(what.to_string()),
        };
        bar.set_style(style(
            "{msg} {wide_bar:.blue} {human_pos}/{human_len}  eta {eta}",
        ));
        bar.enable_steady_tick(Duration::from_millis(100));
        Task(bar)
    }
}

/// A running [`Display::busy`] or [`Display::task`].
#[derive(Debug)]
pub struct Task(ProgressBar);

impl Task {
    /// So many steps more are done.
    pub fn advance(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// So many steps are done in all.
    pub fn reach(&self, steps: usize) {
        self.0.set_position(steps as u64);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line for people. Nobody reads any more (closed pipe): no reason to stop a training.
fn print(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Learning rate: `0.001`, `7.579e-5`.
pub fn rate(rate: f32) -> String {
    if rate != 0.0 && rate.abs() < 1e-3 {
        format!("{rate:.3e}")
    } else {
        let text = format!("{rate:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    }
}

/// The line after an epoch: loss, accuracy, val_loss, val_accuracy, learning rate, iteration, time.
pub fn epoch_line(log: &EpochLog, epochs: usize) -> String {
    let width = epochs.to_string().len();
    format!(
        "epoch {:>width$}/{epochs}  loss {:.4}  accuracy {:.4}  val_loss {:.4}  val_accuracy {:.4}  lr {}  iteration {}  {:.1}s",
        log.epoch,
        log.loss,
        log.accuracy,
        log.val_loss,
        log.val_accuracy,
        rate(log.learning_rate),
        log.step,
        log.seconds,
    )
}

/// Speed of the running epoch and time left, from the samples that are done.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    epoch_started: Instant,
    /// Samples per second; 0 before the first step.
    pub samples_per_second: f64,
    /// Until the last epoch ends.
    pub left: Duration,
}

impl Pace {
    /// The clock of the first epoch starts now.
    pub fn start() -> Self {
        Self {
            epoch_started: Instant::now(),
            samples_per_second: 0.0,
            left: Duration::ZERO,
        }
    }

    /// An epoch (with its validation) is over.
    pub fn next_epoch(&mut self) {
        self.epoch_started = Instant::now();
    }

    /// After a step.
    pub fn update(&mut self, plan: &Plan, log: &StepLog) {
        let seconds = self.epoch_started.elapsed().as_secs_f64().max(1e-6);
        self.samples_per_second = log.samples as f64 / seconds;
        let done = (log.epoch.saturating_sub(1)) * plan.samples_per_epoch + log.samples;
        let left = (plan.epochs * plan.samples_per_epoch).saturating_sub(done);
        self.left = Duration::try_from_secs_f64(left as f64 / self.samples_per_second.max(1e-6))
            .unwrap_or(Duration::MAX);
    }
}

/// Plain lines: one per epoch, and within an epoch one after the first second and then every ten seconds.
#[derive(Debug)]
pub struct Plain {
    plan: Plan,
    pace: Pace,
    next: Instant,
}

impl Plain {
    /// Says what is about to happen.
    pub fn new(plan: &Plan) -> Self {
        print(&headline(plan));
        Self {
            plan: plan.clone(),
            pace: Pace::start(),
            next: Instant::now() + Duration::from_secs(1),
        }
    }
}

/// `base: epochs 1 to 5, 938 steps per epoch, 60,000 samples`.
pub fn headline(plan: &Plan) -> String {
    let first = plan.history.last().map_or(1, |log| log.epoch + 1);
    format!(
        "{}: epochs {first} to {}, {} steps per epoch, {} samples",
        plan.name,
        plan.epochs,
        HumanCount(plan.steps_per_epoch),
        HumanCount(plan.samples_per_epoch as u64),
    )
}

impl Callback for Plain {
    fn step(&mut self, log: &StepLog) -> Result<(), CallbackError> {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + Duration::from_secs(10);
            self.pace.update(&self.plan, log);
            print(&format!("  {}", status(&self.plan, log, &self.pace)));
        }
        Ok(())
    }

    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        print(&epoch_line(log, self.plan.epochs));
        self.pace.next_epoch();
        self.next = Instant::now() + Duration::from_secs(10);
        Ok(())
    }

    fn message(&mut self, text: &str) -> Result<(), CallbackError> {
        print(text);
        Ok(())
    }
}

/// `epoch 2/5  step 412/938  7,012 samples/s  eta 24s  loss 0.0612  accuracy 0.9812  lr 0.001`.
pub fn status(plan: &Plan, log: &StepLog, pace: &Pace) -> String {
    let before = log.epoch.saturating_sub(1) as u64 * plan.steps_per_epoch;
    format!(
        "epoch {}/{}  step {}/{}  {} samples/s  eta {:#}  loss {:.4}  accuracy {:.4}  lr {}",
        log.epoch,
        plan.epochs,
        log.step.saturating_sub(before),
        plan.steps_per_epoch,
        HumanCount(pace.samples_per_second.round() as u64),
        HumanDuration(pace.left),
        log.loss,
        log.accuracy,
        rate(log.learning_rate),
    )
}

/// `validation  2,500/10,000 images`.
pub fn validation_status(done: usize, images: usize) -> String {
    format!(
        "validation  {}/{} images",
        HumanCount(done as u64),
        HumanCount(images as u64)
    )
}

/// A bar for the running epoch, epoch lines above it.
#[derive(Debug)]
pub struct Bar {
    plan: Plan,
    pace: Pace,
    bar: ProgressBar,
}

impl Bar {
    /// On the screen at once.
    pub fn new(plan: &Plan) -> Self {
        let bar = ProgressBar::new(plan.samples_per_epoch as u64);
        bar.set_style(style("{bar:16.blue} {wide_msg}"));
        bar.set_message(headline(plan));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            plan: plan.clone(),
            pace: Pace::start(),
            bar,
        }
    }
}

impl Callback for Bar {
    fn step(&mut self, log: &StepLog) -> Result<(), CallbackError> {
        self.pace.update(&self.plan, log);
        self.bar.set_position(log.samples as u64);
        self.bar.set_message(status(&self.plan, log, &self.pace));
        Ok(())
    }

    fn validation(&mut self, done: usize, images: usize) -> Result<(), CallbackError> {
        self.bar.set_message(validation_status(done, images));
        Ok(())
    }

    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        self.bar.println(epoch_line(log, self.plan.epochs));
        self.bar.set_position(0);
        self.pace.next_epoch();
        Ok(())
    }

    fn message(&mut self, text: &str) -> Result<(), CallbackError> {
        self.bar.println(text);
        Ok(())
    }

    fn end(&mut self) -> Result<(), CallbackError> {
        self.bar.finish_and_clear();
        Ok(())
    }
}

/// `--json`: one object per epoch on standard output, with `"event": "epoch"` and the columns of history.csv.
#[derive(Debug)]
pub struct JsonLines;

#[derive(Serialize)]
struct EpochEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    log: &'a EpochLog,
}

impl Callback for JsonLines {
    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        let event = EpochEvent {
            event: "epoch",
            log,
        };
        let mut out = stdout().lock();
        serde_json::to_writer(&mut out, &event)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
            .and_then(|()| out.flush())
            .map_err(|source| CallbackError::File {
                path: "standard output".into(),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            name: "base".into(),
            epochs: 10,
            steps_per_epoch: 938,
            samples_per_epoch: 60_000,
            reference_accuracy: None,
            history: Vec::new(),
        }
    }

    #[test]
    fn learning_rates_as_people_write_them() {
        let text = [0.001, 0.01, 1.0, 7.579e-5, 0.0].map(rate);
        assert_eq!(text, ["0.001", "0.01", "1", "7.579e-5", "0"]);
    }

    #[test]
    fn epoch_line_has_everything_that_was_promised() {
        let log = EpochLog {
            epoch: 3,
            step: 2814,
            loss: 0.031_24,
            accuracy: 0.990_7,
            val_loss: 0.041_2,
            val_accuracy: 0.988,
            learning_rate: 7.579e-5,
            seconds: 8.44,
            samples_per_second: 7143.2,
        };
        assert_eq!(
            epoch_line(&log, 10),
            "epoch  3/10  loss 0.0312  accuracy 0.9907  val_loss 0.0412  val_accuracy 0.9880  lr 7.579e-5  iteration 2814  8.4s"
        );
    }

    #[test]
    fn pace_counts_what_is_left_of_the_whole_run() {
        let log = StepLog {
            epoch: 10,
            step: 9 * 938 + 469,
            samples: 30_000,
            loss: 0.1,
            accuracy: 0.9,
            learning_rate: 0.001,
        };
        let mut pace = Pace::start();
        pace.epoch_started -= Duration::from_secs(10);
        pace.update(&plan(), &log);
        assert!((pace.samples_per_second - 3000.0).abs() < 30.0);
        assert!((pace.left.as_secs_f64() - 10.0).abs() < 0.2);
        assert!(status(&plan(), &log, &pace).starts_with("epoch 10/10  step 469/938  "));
    }
}
