//! Every network of cases/ on every engine: the same bits, logits and all intermediate tensors.

mod case;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Mutex,
};

use case::Case;
use runtime::{DType, Kernels, Kind, Layout, Model};
use trainer::{
    export::{self, Origin, winograd::Comparison},
    quantize::Quantized,
    recipe::Winograd,
};
use verifier::{
    certificate,
    compare::{real, verify},
    graph::Graph,
    host::Host,
    layers::{LayersReport, compare_image, compare_layers},
    naive::{self, Rounding},
    tract::{Mode, Tract, Value},
};

/// Images of a case that the (slow) f64 reference runs; the engines run all.
const NAIVE_IMAGES: usize = 9;

/// All case files, by name.
fn paths() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    paths
}

struct Files {
    onnx: Vec<u8>,
    fxp: Vec<u8>,
    /// The same with every convolution transformed for Winograd's algorithm that can be.
    transformed: Vec<u8>,
    float: Vec<u8>,
}

fn export(case: &Case) -> Files {
    let quantized = case.quantize();
    let names: Vec<String> = (0..case.architecture.classes())
        .map(|c| c.to_string())
        .collect();
    let origin = Origin {
        name: &case.name,
        recipe_sha256: [7; 32],
        class_names: &names,
    };
    // Every operator set that is allowed has its turn.
    let opset = 13 + case.name.len() as u32 % 6;
    let fail = |e: export::ExportError| -> Vec<u8> { panic!("{}: {e}", case.name) };
    let image = || Some(case.images[0].clone());
    let fxp = |winograd: &Winograd| export::fixed::model(&quantized, &origin, image(), winograd);
    Files {
        onnx: export::onnx::int8(&quantized, opset, &origin).unwrap_or_else(fail),
        fxp: fxp(&Winograd::default()).unwrap_or_else(fail),
        transformed: fxp(&winograd(&quantized)).unwrap_or_else(fail),
        float: export::onnx::float(
            &case.architecture,
            &case.preprocess,
            &case.weights,
            opset,
            &origin,
        )
        .unwrap_or_else(fail),
    }
}

/// All convolutions that can be transformed.
fn winograd(quantized: &Quantized) -> Winograd {
    let all = Comparison::new(quantized, &Winograd::default());
    let layers = all.into_iter().flat_map(|all| all.layers);
    Winograd::Layers(layers.map(|layer| layer.layer).collect())
}

fn each(check: impl Fn(&Case, &Files) + Sync) {
    use rayon::prelude::*;
    let paths = paths();
    assert!(paths.len() >= 30, "{} cases", paths.len());
    paths.par_iter().for_each(|path| {
        let case = Case::load(path);
        let files = export(&case);
        check(&case, &files);
    });
}

#[test]
fn certificates_follow_from_the_files() {
    each(|case, files| {
        let certificate = certificate::compute(&files.onnx, &files.fxp)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert!(certificate.margin > 0, "{}: {certificate:?}", case.name);
    });
}

#[test]
fn the_f64_reference_and_the_runtime_agree_on_every_value() {
    each(|case, files| {
        let graph = Graph::parse(&files.onnx).unwrap();
        let report = against_naive(case, files, &graph, Rounding::HalfEven);
        assert_eq!(
            report.differing,
            0,
            "{}: {}",
            case.name,
            report.first.unwrap()
        );
        assert!(report.values > 0);
    });
}

fn against_naive(case: &Case, files: &Files, graph: &Graph, rounding: Rounding) -> LayersReport {
    let images: Vec<&[u8]> = case.views().into_iter().rev().take(NAIVE_IMAGES).collect();
    let values =
        naive::run(graph, &images, rounding).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let mut records = graph.ops().unwrap();
    records.sort_by_key(|r| r.op);
    let values: Vec<Value> = records
        .iter()
        .map(|r| {
            let t = &values[&r.value];
            Value {
                shape: t.shape.clone(),
                data: t.data.iter().map(|&v| v as f32).collect(),
            }
        })
        .collect();
    let host = Host::new(&files.fxp).unwrap();
    let mut report = LayersReport {
        images: images.len(),
        values: 0,
        differing: 0,
        first: None,
    };
    for (i, image) in images.iter().enumerate() {
        let traced = host.trace(image).unwrap();
        compare_image(&mut report, &records, &values, &traced, [i, i])
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
    report
}

#[test]
fn tract_and_the_runtime_agree_on_every_logit() {
    each(|case, files| {
        let mut host = Host::new(&files.fxp).unwrap();
        let report = verify(
            &files.onnx,
            &files.fxp,
            &case.views(),
            &mut host,
            &mut |_| {},
        )
        .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(report.mismatching, 0, "{}: {:?}", case.name, report.first);
        assert_eq!(
            report.logits,
            case.images.len() * case.architecture.classes()
        );

        // One image at a time, and without tract's optimizer.
        let graph = Graph::parse(&files.onnx).unwrap();
        let exponents = graph
            .ops()
            .unwrap()
            .into_iter()
            .max_by_key(|r| r.op)
            .unwrap()
            .exponent;
        for mode in [Mode::Plain, Mode::Optimized] {
            let single = Tract::load(&files.onnx, graph.image, &[], 1, mode)
                .unwrap_or_else(|e| panic!("{}: {e}", case.name));
            for (image, accumulators) in case.views().iter().zip(logits(files, case)) {
                let values = single.run(&[image]).unwrap();
                let expected: Vec<f64> = accumulators
                    .iter()
                    .enumerate()
                    .map(|(c, &a)| real(a, exponents.at(c).unwrap()))
                    .collect();
                let got: Vec<f64> = values[0].data.iter().map(|&v| f64::from(v)).collect();
                assert_eq!(got, expected, "{} ({mode:?})", case.name);
            }
        }
    });
}

/// Transformed weights are those of the ONNX model, and every set of kernels gives the logits that tract agrees with.
#[test]
fn transformed_convolutions_give_the_same_logits() {
    let transformed = std::sync::atomic::AtomicUsize::new(0);
    each(|case, files| {
        certificate::compute(&files.onnx, &files.transformed)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let model = Model::new(&files.transformed).unwrap();
        let layouts = model.ops().filter_map(|op| match op.kind {
            Kind::Conv(conv) => Some(conv.weights.layout()),
            _ => None,
        });
        let count = layouts.filter(|&layout| layout == Layout::Winograd).count();
        transformed.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        let mut arena = vec![0; model.arena_len()];
        for (image, expected) in case.views().iter().zip(logits(files, case)) {
            for &kernels in Kernels::ALL {
                model.input_mut(&mut arena).unwrap().copy_from_slice(image);
                let logits = model.run_loaded_on(kernels, &mut arena, |_| {}).unwrap();
                let got: Vec<i32> = logits.accumulators().collect();
                assert_eq!(got, expected, "{} ({kernels:?})", case.name);
            }
        }
    });
    let transformed = transformed.into_inner();
    assert!(transformed >= 10, "only {transformed} convolutions");
}

fn logits(files: &Files, case: &Case) -> Vec<Vec<i32>> {
    use verifier::backend::Backend;
    Host::new(&files.fxp)
        .unwrap()
        .logits(&case.views())
        .unwrap()
}

#[test]
fn tract_and_the_runtime_agree_on_every_intermediate_tensor() {
    each(|case, files| {
        for mode in [Mode::Plain, Mode::Optimized] {
            let report = compare_layers(&files.onnx, &files.fxp, &case.views(), mode, &mut |_| {})
                .unwrap_or_else(|e| panic!("{}: {e}", case.name));
            assert_eq!(
                report.differing,
                0,
                "{} ({mode:?}): {}",
                case.name,
                report.first.unwrap()
            );
        }
    });
}

#[test]
fn the_float_model_computes_what_the_network_does() {
    each(|case, files| {
        let graph = Graph::parse(&files.float).unwrap();
        let images: Vec<&[u8]> = case.views().into_iter().rev().take(4).collect();
        let tract = Tract::load(
            &files.float,
            graph.image,
            &["logits".into()],
            images.len(),
            Mode::Optimized,
        )
        .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let got = &tract.run(&images).unwrap()[0].data;
        let naive = &naive::run(&graph, &images, Rounding::HalfEven)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name))["logits"];
        let expected: Vec<f64> = images
            .iter()
            .flat_map(|image| case::float::forward(case, image).1.pop().unwrap()[1].clone())
            .collect();
        let size = expected.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
        for (i, e) in expected.iter().enumerate() {
            assert!(
                (f64::from(got[i]) - e).abs() < 2e-5 * size,
                "{}: logit {i}: tract {}, expected {e}",
                case.name,
                got[i]
            );
            assert!(
                (naive.data[i] - e).abs() < 2e-5 * size,
                "{}: logit {i}: reference {}, expected {e}",
                case.name,
                naive.data[i]
            );
        }
    });
}

#[test]
fn the_cases_saturate_and_round() {
    // A suite that never rounds a tie cannot tell half to even from half up.
    let ties = std::sync::atomic::AtomicUsize::new(0);
    each(|case, files| {
        let graph = Graph::parse(&files.onnx).unwrap();
        let report = against_naive(case, files, &graph, Rounding::HalfUp);
        if report.differing > 0 {
            ties.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let ties = ties.into_inner();
    assert!(ties >= 10, "rounding half up changes only {ties} cases");
}

/// Runs a Python script of tests/python on `folder`. `None`: the packages are missing and nothing requires them.
fn python(script: &str, folder: &Path) -> Option<Output> {
    let python = std::env::var("ISOBIT_PYTHON").unwrap_or("python3".into());
    let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    let probe = Command::new(&python)
        .args(["-c", "import numpy, onnx, onnxruntime"])
        .output();
    if !probe.as_ref().is_ok_and(|o| o.status.success()) {
        let message = format!(
            "{python} has no numpy, onnx and onnxruntime; install them with `{python} -m pip install onnx onnxruntime`, \
             or set ISOBIT_PYTHON to a Python that has them"
        );
        assert!(
            !required("CI", "true") && !required("ISOBIT_REQUIRE_PYTHON", "1"),
            "{message}"
        );
        eprintln!("NOT CHECKED against onnxruntime: {message}");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(script);
    Some(
        Command::new(&python)
            .arg(script)
            .arg(folder)
            .output()
            .unwrap(),
    )
}

fn assert_success(output: Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    eprint!("{}", text(&output.stdout));
}

#[test]
fn onnxruntime_and_the_runtime_agree_on_every_logit() {
    let folder = tempfile::tempdir().unwrap();
    each(|case, files| {
        let at = |extension: &str| folder.path().join(format!("{}.{extension}", case.name));
        fs::write(at("onnx"), &files.onnx).unwrap();
        let graph = Graph::parse(&files.onnx).unwrap();
        let pixels = naive::nchw(graph.image, &case.views());
        fs::write(
            at("images"),
            pixels.data.iter().map(|&p| p as u8).collect::<Vec<_>>(),
        )
        .unwrap();
        let exponents = graph
            .ops()
            .unwrap()
            .into_iter()
            .max_by_key(|r| r.op)
            .unwrap()
            .exponent;
        let expected = logits(files, case).into_iter().flat_map(|row| {
            let row: Vec<f32> = row
                .iter()
                .enumerate()
                .map(|(c, &a)| real(a, exponents.at(c).unwrap()) as f32)
                .collect();
            row.into_iter()
                .flat_map(f32::to_le_bytes)
                .collect::<Vec<_>>()
        });
        fs::write(at("logits"), expected.collect::<Vec<_>>()).unwrap();
    });
    if let Some(output) = python("run_onnxruntime.py", folder.path()) {
        assert_success(output);
    }
}

#[test]
fn the_onnx_checker_accepts_every_file() {
    let folder = tempfile::tempdir().unwrap();
    each(|case, files| {
        fs::write(
            folder.path().join(format!("{}.int8.onnx", case.name)),
            &files.onnx,
        )
        .unwrap();
        fs::write(
            folder.path().join(format!("{}.onnx", case.name)),
            &files.float,
        )
        .unwrap();
    });
    if let Some(output) = python("check_onnx.py", folder.path()) {
        assert_success(output);
    }
}

#[test]
fn the_cases_cover_every_operator_and_form() {
    let seen = Mutex::new(BTreeSet::new());
    each(|_, files| {
        let model = Model::new(&files.fxp).unwrap();
        let mut found = BTreeSet::new();
        for op in model.ops() {
            let dtype = |d: DType| format!("{d:?}").to_lowercase();
            found.insert(op.kind.name().to_string());
            found.insert(format!(
                "{} {} to {}",
                op.kind.name(),
                dtype(op.input.dtype),
                dtype(op.output.dtype)
            ));
            match op.kind {
                Kind::Conv(conv) => {
                    let (channels, groups) = (op.input.shape.c, conv.groups.get());
                    found.extend((groups == channels && groups > 1).then(|| "depthwise".into()));
                    found.extend((groups > 1 && groups < channels).then(|| "grouped".into()));
                    found.extend((conv.window.pad != [0, 0]).then(|| "conv padded before".into()));
                    found.extend(conv.pool.map(|_| "fused pool".into()));
                    found.extend(conv.post.table.map(|_| "conv with table".into()));
                    found.extend(
                        (conv.window.stride[0] != conv.window.stride[1])
                            .then(|| "uneven stride".into()),
                    );
                }
                Kind::Dense(dense) => {
                    found.extend(dense.post.table.map(|_| "dense with table".into()))
                }
                Kind::Add(add) => {
                    found.extend(add.post.table.map(|_| "add with table".into()));
                    found.extend((add.shift_a != add.shift_b).then(|| "add of two scales".into()));
                }
                Kind::Affine(affine) => {
                    found.insert(
                        if affine.per_channel {
                            "affine per channel"
                        } else {
                            "affine per value"
                        }
                        .into(),
                    );
                }
                Kind::MaxPool(window) => {
                    found.extend((window.pad != [0, 0]).then(|| "max_pool padded before".into()))
                }
                _ => {}
            }
        }
        seen.lock().unwrap().extend(found);
    });
    let seen = seen.into_inner().unwrap();
    let wanted = [
        "add",
        "add of two scales",
        "add with table",
        "affine per channel",
        "affine per value",
        "avg_pool i8 to i8",
        "avg_pool u8 to u8",
        "conv i8 to i8",
        "conv i8 to u8",
        "conv padded before",
        "conv u8 to i32",
        "conv u8 to i8",
        "conv u8 to u8",
        "conv with table",
        "dense i8 to i32",
        "dense u8 to i32",
        "dense u8 to u8",
        "dense with table",
        "depthwise",
        "fused pool",
        "grouped",
        "max_pool i8 to i8",
        "max_pool padded before",
        "max_pool u8 to u8",
        "table i8 to i8",
        "uneven stride",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|w| !seen.contains(*w)).collect();
    assert!(
        missing.is_empty(),
        "no case has {missing:?}; there are {seen:?}"
    );
}
