//! The trained models of models/: files, reports and the table of models/README.md belong together, the certificates
//! hold, and the accuracies are those of the files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use indicatif::HumanCount;
use runtime::Model;
use trainer::{
    evaluate,
    recipe::Recipe,
    report::{self, Report},
    run::{self, Run},
};
use verifier::{certificate, compare::sha256};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// Folders with a report, by name.
fn reports() -> Vec<(String, Report)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let folder = entry.unwrap().path();
        if let Ok(file) = fs::read(folder.join(report::JSON)) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            found.push((name, serde_json::from_slice(&file).unwrap()));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn files_have_the_hashes_of_their_report() {
    for (name, report) in reports() {
        let folder = root().join(&name);
        for file in [
            run::RECIPE,
            run::FLOAT_MODEL,
            run::INT8_MODEL,
            run::FIXED_MODEL,
        ] {
            assert!(folder.join(file).is_file(), "{name}/{file}");
        }
        for (file, hash) in &report.files {
            // Recipes keep their comments here, and the history is inside of the report.
            if file == run::RECIPE || !folder.join(file).is_file() {
                continue;
            }
            let bytes = fs::read(folder.join(file)).unwrap();
            assert_eq!(sha256(&bytes), hash.sha256, "{name}/{file}");
        }
        let recipe = Recipe::load(&folder.join(run::RECIPE), &[]).unwrap();
        assert_eq!(
            recipe.hash(),
            report.origin.recipe_sha256,
            "{name}: the recipe has changed"
        );
    }
}

#[test]
fn certificates_hold() {
    for (name, report) in reports() {
        let read = |file: &str| fs::read(root().join(&name).join(file)).unwrap();
        let certificate = certificate::compute(&read(run::INT8_MODEL), &read(run::FIXED_MODEL));
        assert_eq!(certificate.ok(), report.certificate, "{name}");
        assert_eq!(
            report.verification.map(|found| found.mismatching),
            Some(0),
            "{name}"
        );
    }
}

/// Where the data is in the repository.
#[test]
fn accuracies_are_those_of_the_files() {
    for (name, report) in reports() {
        let folder = root().join(&name);
        let Ok(run) = Run::open(&folder) else {
            continue;
        };
        if !folder.join(&run.recipe.data.path).exists() {
            continue;
        }
        let file = fs::read(folder.join(run::FIXED_MODEL)).unwrap();
        let model = Model::new(&file).unwrap();
        let test = run.load_test(None).unwrap();
        let classes = evaluate::fixed(&model, &test).unwrap();
        let right = classes
            .iter()
            .zip(&test.labels)
            .filter(|(a, b)| a == b)
            .count();
        assert_eq!(right, report.fixed.unwrap().correct, "{name}");
    }
}

#[test]
fn the_table_shows_the_reports() {
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    let mut rows = 0;
    for (name, report) in reports() {
        let start = format!("| [`{name}`]");
        let Some(row) = page.lines().find(|line| line.starts_with(&start)) else {
            continue;
        };
        let (memory, fixed) = (report.memory.unwrap(), report.fixed.unwrap());
        let cells = [
            HumanCount(report.parameters).to_string(),
            HumanCount(report.macs).to_string(),
            format!("{:.2} %", 100.0 * fixed.accuracy),
            HumanCount(memory.flash_bytes).to_string(),
            HumanCount(memory.arena_bytes).to_string(),
            format!("`{}`", report.files[run::FIXED_MODEL].sha256),
        ];
        let expected = format!("| {} |", cells.join(" | "));
        assert!(
            row.ends_with(&expected),
            "{name}: expected {expected}, found {row}"
        );
        rows += 1;
    }
    assert!(rows > 0);
}
