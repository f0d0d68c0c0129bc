//! `trainer verify`: proves from the files of a run, and shows on its test images, that ONNX and the fixed-point
//! model give the same logits.

use std::{fmt, fs, io::ErrorKind, path::Path, time::Instant};

use serde::Serialize;
use verifier::{
    VerifyError, VerifyReport,
    backend::{Backend, BackendError},
    certificate::{self, Certificate},
    graph::Graph,
    host::Host,
    layers::{LayersReport, compare_layers},
    link::{self, target},
    tolerance::{self, Difference, LengthError},
    tract::{Batched, Mode},
};

use super::{
    output,
    timing::{self, Timing},
};
use crate::{
    architecture::Architecture,
    callbacks::progress::Display,
    cli::VerifyArgs,
    dataset::{self, Labelled},
    error::Error,
    recipe::Recipe,
    report,
    run::{self, RunError},
};

/// Difference of two f32 computations of a logit that different orders of summation explain, relative to the largest logit.
const FLOAT_TOLERANCE: f64 = 1e-4;

/// Output of model.onnx before its softmax.
const LOGITS: &str = "logits";

/// Runs the command. The last line on standard output is `mismatching logits: K of N`.
///
/// # Errors
/// Files that cannot be read or are refused, a certificate that does not hold, hashes that differ from those of
/// report.json, or a value that differs: exit code 1.
pub fn run(args: &VerifyArgs) -> Result<(), Error> {
    let display = Display::choose(false, false, args.json);
    let models = Models::read(&args.dir)?;
    let test = test_images(args)?;
    let images: Vec<&[u8]> = (0..test.len()).map(|i| test.images.get(i)).collect();
    let target = Target {
        dir: &args.dir,
        against: &args.against,
        layers: args.layers,
        timing: args.timing,
    };
    let mut verified = verify(&models, &images, &test.labels, &target, display)?;
    if let Some(certificate) = &verified.certificate {
        let report = args.dir.join(report::JSON);
        let differing = recorded(&report, certificate)?;
        verified.problems.extend(differing);
    }
    output::result(&verified, args.json)?;
    verified.conclude()
}

/// The three model files of a run folder.
#[derive(Clone, Debug)]
pub struct Models {
    /// model.onnx.
    pub float: Vec<u8>,
    /// model.int8.onnx.
    pub int8: Vec<u8>,
    /// model.fxp.
    pub fixed: Vec<u8>,
}

impl Models {
    /// Names of the files: float, int8, fixed point.
    pub const NAMES: [&str; 3] = [run::FLOAT_MODEL, run::INT8_MODEL, run::FIXED_MODEL];

    /// Reads them.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let [float, int8, fixed] = Self::NAMES;
        Ok(Self {
            float: run::read_model(dir, float)?,
            int8: run::read_model(dir, int8)?,
            fixed: run::read_model(dir, fixed)?,
        })
    }
}

/// What is compared with tract, and how closely.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The run folder, for messages and for the firmware.
    pub dir: &'a Path,
    /// `host`, `qemu:MACHINE` or `serial:PORT`.
    pub against: &'a str,
    /// Every intermediate tensor too.
    pub layers: bool,
    /// Time of every operator on the device.
    pub timing: bool,
}

/// What a verification found. As text: the last line is `mismatching logits: K of N`.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Proof from the files alone; none if it fails, see `problems`.
    pub certificate: Option<Certificate>,
    /// Comparison of the logits.
    pub report: VerifyReport,
    /// Images per second of tract and the backend, one after the other.
    pub images_per_second: f64,
    /// Seconds per image by the device's own clock; in QEMU, where that is the computer's, only with counted
    /// instructions, a nanosecond each.
    pub device_seconds: Option<f64>,
    /// Accuracy of the fixed-point model, 0 to 1.
    pub fixed_accuracy: f64,
    /// Accuracy of model.onnx in tract, 0 to 1.
    pub float_accuracy: f64,
    /// Logits of model.onnx in tract, image by image.
    #[serde(skip)]
    pub float_logits: Vec<f32>,
    /// Float against fixed-point logits.
    pub difference: Difference,
    /// model.onnx in tract against the trained network; only where the network is at hand.
    pub network: Option<Difference>,
    /// Comparison of all tensors.
    pub layers: Option<LayersReport>,
    /// Time of every operator.
    pub timing: Option<Timing>,
    /// Why the models are not verified.
    pub problems: Vec<String>,
}

/// Proves the certificate, and compares the models on these raw images.
///
/// # Errors
/// Files that are refused, a backend that fails. A certificate that does not hold and values that differ are
/// [`Verified::problems`].
pub fn verify(
    models: &Models,
    images: &[&[u8]],
    labels: &[u32],
    target: &Target<'_>,
    display: Display,
) -> Result<Verified, Error> {
    let dir = target.dir.display();
    let mut problems = Vec::new();
    let certificate = match certificate::compute(&models.int8, &models.fixed) {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            problems.push(format!("{dir}: certificate: {error}"));
            None
        }
    };
    // A certificate that does not hold often says why the models cannot be compared.
    let failed = |problems: &[String], error: VerifyError| {
        let error = in_file(target.dir, run::INT8_MODEL, error);
        Error::Failed([problems, &[error]].concat().join("\nerror: "))
    };
    let path = target.dir.join(run::FIXED_MODEL);
    let mut backend = open(target, &path, &models.fixed)?;
    let task = display.task("verifying", images.len() as u64);
    let start = Instant::now();
    let report = verifier::verify(
        &models.int8,
        &models.fixed,
        images,
        backend.as_mut(),
        &mut |done| task.reach(done),
    )
    .map_err(|error| failed(&problems, error))?;
    drop(task);
    let images_per_second = images.len() as f64 / start.elapsed().as_secs_f64();
    let device_seconds = backend
        .device_time()
        .map(|time| time.as_secs_f64() / images.len() as f64);
    let classes = report.logits / images.len().max(1);
    let task = display.busy("evaluating model.onnx");
    let (float_logits, difference) = float(&models.float, images, classes, &report)
        .map_err(|error| Error::Failed(in_file(target.dir, run::FLOAT_MODEL, error)))?;
    drop(task);
    let layers = if target.layers {
        let task = display.task("verifying every tensor", images.len() as u64);
        let mut done = |done| task.reach(done);
        let layers = compare_layers(
            &models.int8,
            &models.fixed,
            images,
            Mode::Optimized,
            &mut done,
        );
        Some(layers.map_err(|error| failed(&problems, error))?)
    } else {
        None
    };
    let timing = if target.timing {
        Some(timing::measure(
            backend.as_mut(),
            target.against,
            &models.fixed,
            images,
        )?)
    } else {
        None
    };
    let first_tensor = layers.as_ref().and_then(|layers| layers.first.as_ref());
    problems.extend(first_tensor.map(ToString::to_string));
    if let Some(first) = &report.first {
        problems.push(format!(
            "image {}, class {}: {} gives {}, {} gives {} ({} steps)",
            first.image,
            first.class,
            report.engine,
            first.onnx,
            report.backend,
            first.fixed,
            first.accumulator
        ));
    }
    Ok(Verified {
        certificate,
        images_per_second,
        device_seconds,
        fixed_accuracy: tolerance::accuracy(&report.values, classes, labels),
        float_accuracy: tolerance::accuracy(&float_logits, classes, labels),
        float_logits,
        difference,
        network: None,
        layers,
        timing,
        problems,
        report,
    })
}

impl Verified {
    /// Compares model.onnx with the network that it was exported from. Both compute in f32, each in its own order; logits further
    /// apart than that explains are a problem.
    ///
    /// # Errors
    /// Logits of other images.
    pub fn compare_network(&mut self, logits: &[f32]) -> Result<(), LengthError> {
        let classes = self.report.logits / self.report.images.max(1);
        let difference = tolerance::compare(&self.float_logits, logits, classes)?;
        let largest = logits.iter().fold(1.0f32, |m, logit| m.max(logit.abs()));
        if difference.max.is_nan() || difference.max > FLOAT_TOLERANCE * f64::from(largest) {
            self.problems.push(format!(
                "{}: logits differ by up to {} from the trained network's, expected at most {FLOAT_TOLERANCE} of the largest ({largest})",
                run::FLOAT_MODEL,
                difference.max
            ));
        }
        self.network = Some(difference);
        Ok(())
    }

    /// Success if there is no problem.
    ///
    /// # Errors
    /// All problems.
    pub fn conclude(&self) -> Result<(), Error> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Error::Failed(self.problems.join("\nerror: ")))
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(certificate) = &self.certificate {
            summarize(certificate, f)?;
        }
        let report = &self.report;
        writeln!(
            f,
            "{} against {}: {:.1} images/s",
            report.engine, report.backend, self.images_per_second
        )?;
        if let Some(seconds) = self.device_seconds {
            if self
                .timing
                .as_ref()
                .is_some_and(|timing| timing.instructions)
            {
                let instructions = 1e9 * seconds;
                writeln!(f, "executed instructions: {instructions:.0} per image")?;
            } else {
                let milliseconds = 1000.0 * seconds;
                writeln!(
                    f,
                    "time on the device, by its own clock: {milliseconds:.3} ms per image"
                )?;
            }
        }
        writeln!(
            f,
            "accuracy (fixed point): {:.2} %",
            100.0 * self.fixed_accuracy
        )?;
        writeln!(
            f,
            "accuracy (float):       {:.2} %",
            100.0 * self.float_accuracy
        )?;
        let difference = &self.difference;
        writeln!(
            f,
            "float against fixed point: same class for {:.2} % of the images, logits differ by {:.4} on average, {:.4} at most",
            100.0 * difference.agreement,
            difference.mean,
            difference.max
        )?;
        if let Some(network) = &self.network {
            writeln!(
                f,
                "model.onnx against the network: same class for {:.2} % of the images, logits differ by {:.1e} on average, {:.1e} at most",
                100.0 * network.agreement,
                network.mean,
                network.max
            )?;
        }
        if let Some(layers) = &self.layers {
            let (differing, values) = (layers.differing, layers.values);
            writeln!(
                f,
                "mismatching values of all tensors: {differing} of {values}"
            )?;
        }
        if let Some(timing) = &self.timing {
            write!(f, "{timing}")?;
        }
        writeln!(
            f,
            "mismatching logits: {} of {}",
            report.mismatching, report.logits
        )
    }
}

impl From<&Verified> for report::Verification {
    fn from(verified: &Verified) -> Self {
        let report = &verified.report;
        Self {
            engine: report.engine.clone(),
            backend: report.backend.clone(),
            images: report.images,
            logits: report.logits,
            mismatching: report.mismatching,
            export: verified.network,
            quantization: verified.difference,
        }
    }
}

/// The test images of the run's data or of `--data`, at most `--limit` images of it.
fn test_images(args: &VerifyArgs) -> Result<Labelled, Error> {
    let path = args.dir.join(run::RECIPE);
    let recipe = Recipe::load(&path, &[])?;
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)
        .map_err(|source| RunError::Architecture { path, source })?;
    let (input, classes) = (architecture.input, architecture.classes());
    let mut wanted = recipe.data;
    let mut test = match &args.data {
        None => dataset::load_own_test(&wanted, input, classes, &args.dir)?.0,
        Some(path) => {
            wanted.path = path.clone();
            dataset::load_test(&wanted, input, classes, Path::new(""))?.0
        }
    };
    let count = args.limit.unwrap_or(usize::MAX).min(test.len());
    if count == 0 {
        return Err(Error::Usage(
            "--limit: there is nothing to verify with 0 images".into(),
        ));
    }
    test.labels.truncate(count);
    test.images.pixels.truncate(count * input.len());
    Ok(test)
}

fn open<'a>(
    Target {
        against, timing, ..
    }: &Target<'_>,
    path: &Path,
    fxp: &'a [u8],
) -> Result<Box<dyn Backend + 'a>, Error> {
    let failed = |error: BackendError| match error {
        BackendError::Model(reason) => Error::in_file(path, reason),
        error => Error::failed(error),
    };
    match against.split_once(':') {
        None if *against == "host" && *timing => Err(Error::Usage(
            "--timing needs a device: --against qemu:MACHINE or serial:PORT".into(),
        )),
        None if *against == "host" => Ok(Box::new(Host::new(fxp).map_err(failed)?)),
        Some(("qemu", name)) if target::machine(name).is_err() => {
            let known = target::machine(name).err().unwrap_or_default();
            Err(Error::Usage(format!("--against {against}: {known}")))
        }
        Some(("qemu" | "serial", name)) if !name.is_empty() => {
            let options = link::Options { count: *timing };
            link::open(against, path, options).map_err(failed)
        }
        _ => Err(Error::Usage(format!(
            "--against {against}: expected host, qemu:MACHINE or serial:PORT"
        ))),
    }
}

/// The error with the path of the file that it is about: for a graph the file `onnx`, else the folder.
fn in_file(dir: &Path, onnx: &str, error: VerifyError) -> String {
    match error {
        VerifyError::Graph(error) => format!("{}: {error}", dir.join(onnx).display()),
        VerifyError::Tract(error) => format!("{}: {error}", dir.join(onnx).display()),
        error => format!("{}: {error}", dir.display()),
    }
}

fn summarize(certificate: &Certificate, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "certificate: {} operators, every sum below 2^24, smallest margin {}",
        certificate.layers.len(),
        certificate.margin
    )?;
    for layer in &certificate.layers {
        let table = if layer.table {
            ", table proved for 256 inputs"
        } else {
            ""
        };
        writeln!(
            f,
            "  {:<12} {:<9} bound {:>9}  margin {:>9}{table}",
            layer.layer, layer.kind, layer.bound, layer.margin
        )?;
    }
    Ok(())
}

/// Compares the hashes of report.json, if there is one, with those of the files.
fn recorded(path: &Path, certificate: &Certificate) -> Result<Vec<String>, Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::Failed(format!("{}: {error}", path.display()))),
    };
    let report: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    let files = [
        ("onnx_sha256", run::INT8_MODEL, &certificate.onnx_sha256),
        ("fxp_sha256", run::FIXED_MODEL, &certificate.fxp_sha256),
    ];
    Ok(files
        .into_iter()
        .filter_map(|(key, file, found)| {
            let expected = report.get("certificate")?.get(key)?.as_str()?;
            (expected != found).then(|| {
                format!(
                    "{}: {file} has the sha256 {expected} there, the file has {found}",
                    path.display()
                )
            })
        })
        .collect())
}

/// Logits of model.onnx in tract, and their difference to the fixed-point ones. No proof, but a measure of the
/// quantization.
fn float(
    onnx: &[u8],
    images: &[&[u8]],
    classes: usize,
    report: &VerifyReport,
) -> Result<(Vec<f32>, Difference), VerifyError> {
    let image = Graph::parse(onnx)?.image;
    let logits = Batched::load(onnx, image, &[LOGITS.into()], images.len())?.run(images)?;
    let difference = tolerance::compare(&logits, &report.values, classes)
        .map_err(|error| VerifyError::Pair(error.to_string()))?;
    Ok((logits, difference))
}
