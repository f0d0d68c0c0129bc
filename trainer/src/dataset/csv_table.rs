//! Comma-separated values: one image per row, its label in the first, last or a named column.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use csv::{ReaderBuilder, StringRecord};

use super::{DatasetError, Images, Labelled, Loaded, check_labels, numbered};
use crate::{architecture::Shape, recipe::LabelColumn};

/// Rows of one file.
struct Rows {
    path: PathBuf,
    pixels: Vec<u8>,
    labels: Vec<String>,
}

/// A folder with `train.csv` and `test.csv`, or one file without a test part.
pub(super) fn load(
    path: &Path,
    column: &LabelColumn,
    input: Shape,
    classes: usize,
) -> Result<Loaded, DatasetError> {
    let (train, test) = if path.is_dir() {
        let read_part = |name| read(&path.join(name), column, input);
        (read_part("train.csv")?, Some(read_part("test.csv")?))
    } else {
        (read(path, column, input)?, None)
    };
    let numeric = train
        .labels
        .iter()
        .all(|label| label.parse::<i64>().is_ok());
    let mut names = numbered(classes);
    if !numeric {
        names = train.labels.clone();
        names.sort_unstable();
        names.dedup();
        if names.len() != classes {
            return Err(DatasetError::File {
                path: train.path,
                problem: format!(
                    "{} different labels, but the network has {classes} classes",
                    names.len()
                ),
            });
        }
    }
    let numbers: BTreeMap<&str, i64> = names.iter().map(String::as_str).zip(0..).collect();
    let number = |rows: Rows| -> Result<Labelled, DatasetError> {
        let mut labels = Vec::with_capacity(rows.labels.len());
        for (index, label) in rows.labels.iter().enumerate() {
            let number = if numeric {
                label.parse().ok()
            } else {
                numbers.get(label.as_str()).copied()
            };
            labels.push(number.ok_or_else(|| DatasetError::Image {
                path: rows.path.clone(),
                index,
                problem: format!("label `{label}` is not a class of the training part"),
            })?);
        }
        Ok(Labelled {
            labels: check_labels(&rows.path, "labels", labels, classes)?,
            images: Images {
                shape: input,
                pixels: rows.pixels,
            },
        })
    };
    Ok(Loaded {
        train: number(train)?,
        test: test.map(number).transpose()?,
        class_names: names.clone(),
    })
}

fn read(path: &Path, column: &LabelColumn, input: Shape) -> Result<Rows, DatasetError> {
    let csv_error = |error: csv::Error| DatasetError::File {
        path: path.into(),
        problem: error.to_string(),
    };
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_path(path)
        .map_err(csv_error)?;
    let mut rows = Rows {
        path: path.into(),
        pixels: Vec::new(),
        labels: Vec::new(),
    };
    let width = input.len() + 1;
    let mut label_at = match column {
        LabelColumn::First => Some(0),
        LabelColumn::Last => Some(width - 1),
        LabelColumn::Named(_) => None,
    };
    let mut record = StringRecord::new();
    let mut first = true;
    while reader.read_record(&mut record).map_err(csv_error)? {
        let row = record.position().map_or(0, csv::Position::line);
        let cell = |column: usize, problem: String| DatasetError::Cell {
            path: path.into(),
            row,
            column: column + 1,
            problem,
        };
        if record.len() != width {
            return Err(cell(
                record.len() - 1,
                format!(
                    "the row ends with {} columns, expected {width}: a label and {input} pixels",
                    record.len()
                ),
            ));
        }
        if std::mem::take(&mut first) {
            if let LabelColumn::Named(name) = column {
                let position = record.iter().position(|field| field.trim() == name);
                label_at = Some(
                    position
                        .ok_or_else(|| cell(0, format!("the header has no column `{name}`")))?,
                );
                continue;
            }
            let is_name = |(i, field): (usize, &str)| {
                Some(i) != label_at && field.trim().parse::<f64>().is_err()
            };
            if record
                .iter()
                .enumerate()
                .all(|(i, field)| Some(i) == label_at || is_name((i, field)))
            {
                continue;
            }
        }
        for (i, field) in record.iter().enumerate() {
            let field = field.trim();
            if Some(i) == label_at {
                if field.is_empty() {
                    return Err(cell(i, "empty label".into()));
                }
                rows.labels.push(field.into());
            } else {
                rows.pixels
                    .push(pixel(field).map_err(|problem| cell(i, problem))?);
            }
        }
    }
    Ok(rows)
}

/// `0` to `255`; also written as `12.0`.
fn pixel(field: &str) -> Result<u8, String> {
    if let Ok(value) = field.parse() {
        return Ok(value);
    }
    match field.parse::<f64>() {
        Ok(value) if (0.0..=255.0).contains(&value) && value.fract() == 0.0 => Ok(value as u8),
        _ => Err(format!(
            "pixel `{field}`, expected a whole number from 0 to 255"
        )),
    }
}
