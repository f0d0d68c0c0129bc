use super::*;
use crate::export::winograd::{Convolution, Form};

fn operator(op: usize, layer: &str, kind: &str, bound: i64, weights: &[i32]) -> LayerCertificate {
    LayerCertificate {
        op,
        layer: layer.into(),
        kind: kind.into(),
        bound,
        channel: 3,
        margin: (1 << 24) - bound,
        input_exponents: vec![-4],
        weight_exponents: weights.to_vec(),
        output_exponents: vec![-5],
        table: false,
    }
}

fn layer(name: &str, kind: &str, output: [usize; 3], parameters: u64, macs: u64) -> Layer {
    Layer {
        name: name.into(),
        kind: kind.into(),
        output: output.into(),
        parameters,
        macs,
        weight_bytes: (parameters > 0).then_some(parameters + 200),
        operator: None,
    }
}

/// Made up, in the shape of the base network.
fn report() -> Report {
    let classes = 10;
    let names: Vec<String> = (0..classes).map(|c| c.to_string()).collect();
    let labels: Vec<u32> = (0..10_000).map(|i| i % classes).collect();
    let wrong = |every: u32| -> Vec<u32> {
        let shift = |i: u32, label: u32| match i % every {
            0 => (label * 7 + 2) % classes,
            _ => label,
        };
        (0..).zip(&labels).map(|(i, &l)| shift(i, l)).collect()
    };
    let float = Classification::new(&names, &labels, &wrong(113)).unwrap();
    let fixed = Classification::new(&names, &labels, &wrong(109)).unwrap();
    let operators = vec![
        operator(0, "conv1", "conv", 1_221_870, &[-7, -8]),
        operator(1, "conv2", "conv", 9_812_004, &[-8, -9, -8]),
        operator(2, "dense1", "dense", 12_100_311, &[-9, -9]),
        operator(3, "dense2", "dense", 803_113, &[-7, -7]),
    ];
    let history = (1..=5usize).map(|epoch| EpochLog {
        epoch,
        step: 938 * epoch as u64,
        loss: 0.15 / epoch as f32,
        accuracy: 1.0 - 0.048 / epoch as f32,
        val_loss: 0.03 + 0.04 / epoch as f32,
        val_accuracy: 0.992 - 0.012 / epoch as f32,
        learning_rate: 0.001 / (1.0 + 0.938 * epoch as f32),
        seconds: 4.5,
        samples_per_second: 14_321.0,
    });
    let files = ["model.fxp", "model.int8.onnx", "recipe.toml"].map(|name| {
        let hash = FileHash {
            sha256: "5f".repeat(32),
            bytes: 98_808,
        };
        (name.to_string(), hash)
    });
    let form = |weight_bytes, multiplications, stack_bytes| Form {
        weight_bytes,
        multiplications,
        stack_bytes,
    };
    let direct = form(19_072, 1_843_200, 2_944);
    let winograd = form(65_536, 819_200, 3_072);
    build(Inputs {
        origin: Origin {
            name: "base".into(),
            recipe: "name = \"base\"\n".into(),
            recipe_sha256: "ab".repeat(32),
            data_sha256: "cd".repeat(32),
            seed: 1,
            versions: [("runtime", "0.1.0"), ("trainer", "0.1.0")]
                .map(|(name, version)| (name.to_string(), version.to_string()))
                .into(),
        },
        input: [28, 28, 1].into(),
        layers: vec![
            layer("conv1", "conv", [26, 26, 32], 320, 194_688),
            layer("max_pool1", "max_pool", [13, 13, 32], 0, 0),
            layer("conv2", "conv", [11, 11, 64], 18_496, 2_230_272),
            layer("flatten1", "flatten", [1, 1, 576], 0, 0),
            layer("dense1", "dense", [1, 1, 70], 40_390, 40_320),
            layer("dense2", "dense", [1, 1, 10], 710, 700),
        ],
        float,
        fixed: Some(fixed),
        validation: Some(Validation {
            images: 6_000,
            float: 0.9915,
            fixed: 0.991,
        }),
        memory: Some(Memory {
            flash_bytes: 98_808,
            arena_bytes: 7_984,
        }),
        winograd: Some(Comparison {
            layers: vec![Convolution {
                layer: "conv2".into(),
                transformed: true,
                direct,
                winograd,
            }],
            chosen: winograd,
            direct,
            winograd,
        }),
        certificate: Some(Certificate {
            onnx_sha256: "01".repeat(32),
            fxp_sha256: "02".repeat(32),
            limit: 1 << 24,
            margin: (1 << 24) - 12_100_311,
            layers: operators,
        }),
        verification: Some(Verification {
            engine: "tract-onnx 0.23.9 (optimized)".into(),
            backend: "host runtime".into(),
            images: 10_000,
            logits: 100_000,
            mismatching: 0,
            export: Some(Difference {
                images: 10_000,
                max: 2.5e-5,
                mean: 1.5e-6,
                agreement: 1.0,
            }),
            quantization: Difference {
                images: 10_000,
                max: 1.75,
                mean: 0.125,
                agreement: 0.9987,
            },
        }),
        reference_accuracy: Some(0.99),
        history: history.collect(),
        files: files.into(),
    })
}

#[test]
fn totals_and_operators_are_joined() {
    let report = report();
    assert_eq!(report.parameters, 320 + 18_496 + 40_390 + 710);
    assert_eq!(report.macs, 194_688 + 2_230_272 + 40_320 + 700);
    let with: Vec<&str> = report
        .layers
        .iter()
        .filter(|l| l.operator.as_ref().is_some_and(|o| o.layer == l.name))
        .map(|l| l.name.as_str())
        .collect();
    assert_eq!(with, ["conv1", "conv2", "dense1", "dense2"]);
}

#[test]
fn json_has_a_fixed_schema_and_reads_back() {
    let mut report = report();
    report.float.classes.truncate(1);
    report.fixed = None;
    assert_eq!(
        serde_json::from_str::<Report>(&json(&report).unwrap()).unwrap(),
        report
    );
    report.float.confusion.clear();
    report.layers.truncate(2);
    report.history.truncate(1);
    insta::assert_snapshot!(json(&report).unwrap());
}

#[test]
fn html_shows_the_results() {
    let html = html::render(&report()).unwrap();
    for text in [
        "99.29%",
        "99.26%",
        "mismatching logits of 100,000",
        "98,808",
        "7,984",
        "2^-9 … 2^-8",
        "folded or fused",
        "<polyline class=\"s1\"",
        "class=\"reference\"",
        "tract-onnx 0.23.9 (optimized) against host runtime",
        "<td>99.87%</td><td>0.125</td><td>1.8</td>",
        "<td>2.5e-5</td>",
        "<td>19,072</td><td>65,536</td><td>1,843,200</td><td>819,200</td><td>2,944</td><td>3,072</td>",
        "As chosen: 65,536 bytes of weights",
    ] {
        assert!(html.contains(text), "{text}");
    }
    for external in ["<script", "http:", "https:", "url("] {
        assert!(!html.contains(external), "{external}");
    }
}

#[test]
fn html_marks_a_failed_verification() {
    let mut report = report();
    if let Some(verification) = &mut report.verification {
        verification.mismatching = 3;
    }
    let html = html::render(&report).unwrap();
    assert!(html.contains("<b class=\"bad\">3</b>"));
}

#[test]
fn html_escapes_what_comes_from_outside() {
    let mut report = report();
    let attack = "<img src=x onerror=\"alert('1')\">&";
    report.origin.name = attack.into();
    report.layers[0].name = attack.into();
    for result in [Some(&mut report.float), report.fixed.as_mut()]
        .into_iter()
        .flatten()
    {
        result.classes[0].name = attack.into();
    }
    report.origin.versions.insert(attack.into(), attack.into());
    let file = report.files["model.fxp"].clone();
    report.files.insert(attack.into(), file);
    let html = html::render(&report).unwrap();
    assert!(!html.contains("<img") && html.contains("&lt;img"));
}

#[test]
fn html_without_int8_results_and_history() {
    let mut report = report();
    report.fixed = None;
    report.memory = None;
    report.certificate = None;
    report.verification = None;
    report.history.clear();
    let html = html::render(&report).unwrap();
    assert!(html.contains("Confusion matrix, float"));
    assert!(!html.contains("<svg") && !html.contains("Certificate"));
}

#[test]
fn writes_both_files_and_names_a_missing_folder() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &report()).unwrap();
    let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    assert!(json.ends_with("}\n"));
    assert!(folder.path().join("report.html").exists());
    let error = write(&folder.path().join("no"), &report()).unwrap_err();
    assert!(error.to_string().contains("report.json"), "{error}");
}
