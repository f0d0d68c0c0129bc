//! `trainer verify`: proves from the files of a run, and shows on its test images, that ONNX and the fixed-point
//! model give the same logits.

use std::{fs, io::ErrorKind, path::Path, time::Instant};

use verifier::{
    VerifyReport,
    backend::Backend,
    certificate::{self, Certificate},
    graph::Graph,
    host::Host,
    layers::{LayersReport, compare_layers},
    tolerance,
    tract::{Batched, Mode},
};

use crate::{
    architecture::Architecture, callbacks::progress::Display, cli::VerifyArgs, dataset,
    error::Error, recipe::Recipe,
};

/// Output of model.onnx before its softmax.
const LOGITS: &str = "logits";

/// Runs the command. The last line on standard output is `mismatching logits: K of N`.
///
/// # Errors
/// Files that cannot be read or are refused, a certificate that does not hold, hashes that differ from those of
/// report.json, or a value that differs: exit code 1.
pub fn run(args: &VerifyArgs) -> Result<(), Error> {
    let display = Display::choose(false, false, false);
    let paths = ["model.int8.onnx", "model.fxp", "model.onnx"].map(|name| args.dir.join(name));
    let [onnx, fxp] = [read(&paths[0])?, read(&paths[1])?];
    let (pixels, labels) = test_images(args)?;
    let images: Vec<&[u8]> = pixels.iter().map(Vec::as_slice).collect();
    let mut problems = Vec::new();

    match certificate::compute(&onnx, &fxp) {
        Ok(certificate) => {
            summarize(&certificate);
            problems.extend(recorded(&args.dir.join("report.json"), &certificate)?);
        }
        Err(error) => problems.push(format!("{}: certificate: {error}", args.dir.display())),
    }

    let failed =
        |error: verifier::VerifyError| Error::Failed(format!("{}: {error}", args.dir.display()));
    let mut backend = open(&args.against, &paths[1], &fxp)?;
    let task = display.task("verifying", images.len() as u64);
    let start = Instant::now();
    let report = verifier::verify(&onnx, &fxp, &images, backend.as_mut(), &mut advance(&task))
        .map_err(failed)?;
    drop(task);
    println!(
        "{} against {}: {:.1} images/s",
        report.engine,
        report.backend,
        images.len() as f64 / start.elapsed().as_secs_f64()
    );
    if let Some(time) = backend.device_time() {
        println!(
            "time on the device, by its own clock: {:.3} ms per image",
            1000.0 * time.as_secs_f64() / images.len() as f64
        );
    }
    let classes = report.logits / images.len().max(1);
    println!(
        "accuracy (fixed point): {:.2} %",
        100.0 * tolerance::accuracy(&report.values, classes, &labels)
    );
    float(&paths[2], &images, &labels, classes, &report)?;
    if args.layers {
        let task = display.task("verifying every tensor", images.len() as u64);
        let layers = compare_layers(&onnx, &fxp, &images, Mode::Optimized, &mut advance(&task))
            .map_err(failed)?;
        drop(task);
        problems.extend(describe_layers(&layers));
    }
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
    println!(
        "mismatching logits: {} of {}",
        report.mismatching, report.logits
    );
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Failed(problems.join("\nerror: ")))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::Failed(format!("{}: {error}", path.display())))
}

/// Turns "so many are done" into steps of a progress bar.
fn advance(task: &crate::callbacks::progress::Task) -> impl FnMut(usize) {
    let mut before = 0;
    move |done| {
        task.advance((done - before) as u64);
        before = done;
    }
}

/// Raw test images and their labels.
fn test_images(args: &VerifyArgs) -> Result<(Vec<Vec<u8>>, Vec<u32>), Error> {
    let path = args.dir.join("recipe.toml");
    let failed =
        |error: &dyn std::fmt::Display| Error::Failed(format!("{}: {error}", path.display()));
    let mut recipe = Recipe::load(&path, &[]).map_err(|error| Error::Usage(error.to_string()))?;
    let mut base = args.dir.clone();
    if let Some(data) = &args.data {
        recipe.data.path = data.clone();
        base = std::env::current_dir()
            .map_err(|error| Error::Failed(format!("current folder: {error}")))?;
    }
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)
        .map_err(|error| failed(&error))?;
    let data = dataset::load(
        &recipe.data,
        architecture.input,
        architecture.classes(),
        &base,
    )
    .map_err(|error| Error::Failed(error.to_string()))?;
    let count = args.limit.unwrap_or(usize::MAX).min(data.test.labels.len());
    if count == 0 {
        return Err(Error::Usage(
            "--limit: there is nothing to verify with 0 images".into(),
        ));
    }
    let images = (0..count)
        .map(|i| data.test.images.get(i).to_vec())
        .collect();
    Ok((images, data.test.labels[..count].to_vec()))
}

fn open<'a>(target: &str, path: &Path, fxp: &'a [u8]) -> Result<Box<dyn Backend + 'a>, Error> {
    let failed = |error: verifier::backend::BackendError| {
        Error::Failed(format!("{}: {error}", path.display()))
    };
    match target.split_once(':') {
        None if target == "host" => Ok(Box::new(Host::new(fxp).map_err(failed)?)),
        Some(("qemu" | "serial", _)) => {
            verifier::link::open(target, path).map_err(|error| Error::Failed(error.to_string()))
        }
        _ => Err(Error::Usage(format!(
            "--against {target}: expected host, qemu:MACHINE or serial:PORT"
        ))),
    }
}

fn summarize(certificate: &Certificate) {
    println!(
        "certificate: {} operators, every sum below 2^24, smallest margin {}",
        certificate.layers.len(),
        certificate.margin
    );
    for layer in &certificate.layers {
        let table = if layer.table {
            ", table proved for 256 inputs"
        } else {
            ""
        };
        println!(
            "  {:<12} {:<9} bound {:>9}  margin {:>9}{table}",
            layer.layer, layer.kind, layer.bound, layer.margin
        );
    }
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
        ("onnx_sha256", "model.int8.onnx", &certificate.onnx_sha256),
        ("fxp_sha256", "model.fxp", &certificate.fxp_sha256),
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

/// model.onnx in tract against the fixed-point logits: no proof, but a measure of the quantization.
fn float(
    path: &Path,
    images: &[&[u8]],
    labels: &[u32],
    classes: usize,
    report: &VerifyReport,
) -> Result<(), Error> {
    let onnx = read(path)?;
    let failed =
        |error: &dyn std::fmt::Display| Error::Failed(format!("{}: {error}", path.display()));
    let graph = Graph::parse(&onnx).map_err(|error| failed(&error))?;
    let logits = Batched::load(&onnx, graph.image, &[LOGITS.into()], images.len())
        .and_then(|tract| tract.run(images))
        .map_err(|error| failed(&error))?;
    let difference =
        tolerance::compare(&logits, &report.values, classes).map_err(|error| failed(&error))?;
    println!(
        "accuracy (float):       {:.2} %",
        100.0 * tolerance::accuracy(&logits, classes, labels)
    );
    println!(
        "float against fixed point: same class for {:.2} % of the images, logits differ by {:.4} on average, {:.4} at most",
        100.0 * difference.agreement,
        difference.mean,
        difference.max
    );
    Ok(())
}

fn describe_layers(layers: &LayersReport) -> Option<String> {
    println!(
        "mismatching values of all tensors: {} of {}",
        layers.differing, layers.values
    );
    layers.first.as_ref().map(ToString::to_string)
}
