//! report.html: one file without scripts or external resources. Numbers are prepared here, the template only places them.

use indicatif::HumanCount;
use minijinja::{Environment, context, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;

use super::Report;
use crate::{
    callbacks::{
        curves::{Quantity, label, ticks},
        progress::rate,
    },
    classification::Classification,
};

const TEMPLATE: &str = include_str!("report.html.jinja");

/// The page. Everything from outside (class names, layer names, versions) is escaped by the template engine.
pub fn render(report: &Report) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.add_filter("percent", |value: f64| format!("{:.2}%", value * 100.0));
    environment.add_filter("thousands", |value: u64| HumanCount(value).to_string());
    environment.add_filter("bits", |value: f64| format!("{:.2}", value.log2()));
    environment.add_filter("rate", |value: f64| rate(value as f32));
    environment.add_filter("decimals", |value: f64| format!("{value:.4}"));
    environment.add_filter("distance", distance);
    environment.add_filter("exponents", exponents);
    environment.add_template("report.html", TEMPLATE)?;
    let charts = if report.history.is_empty() {
        Vec::new()
    } else {
        vec![
            Chart::new("Accuracy", Quantity::Accuracy, report),
            Chart::new("Loss", Quantity::Loss, report),
        ]
    };
    let tested = report.fixed.as_ref().unwrap_or(&report.float);
    environment.get_template("report.html")?.render(context! {
        report => Serde(report),
        charts => Serde(&charts),
        heat => Serde(heat(tested)),
        tested => Serde(tested),
        css => include_str!("report.css"),
    })
}

/// A difference with two digits: `1.8`, `0.13`, `2.5e-5`.
fn distance(value: f64) -> String {
    if value != 0.0 && value < 0.001 {
        format!("{value:.1e}")
    } else if value < 1.0 {
        format!("{value:.3}")
    } else {
        format!("{value:.1}")
    }
}

/// Exponents of a tensor: `2^-7`, or the range `2^-9 … 2^-7` if they differ by channel.
fn exponents(values: Vec<i64>) -> String {
    match (values.iter().min(), values.iter().max()) {
        (Some(low), Some(high)) if low == high => format!("2^{low}"),
        (Some(low), Some(high)) => format!("2^{low} … 2^{high}"),
        _ => "–".into(),
    }
}

/// A cell of the confusion matrix.
#[derive(Debug, Serialize)]
struct Cell {
    images: usize,
    /// Strength of the colour, percent.
    strength: usize,
    right: bool,
}

/// Right answers by their share of the label's images; errors by their share of the most frequent error, so that they
/// show although they are rare.
fn heat(result: &Classification) -> Vec<Vec<Cell>> {
    let errors = result.confusion.iter().enumerate();
    let most = errors
        .flat_map(|(i, row)| row.iter().enumerate().filter(move |(j, _)| *j != i))
        .map(|(_, &images)| images)
        .max()
        .unwrap_or(0)
        .max(1);
    let row = |(i, row): (usize, &Vec<usize>)| {
        let all = row.iter().sum::<usize>().max(1);
        let cell = |(j, &images): (usize, &usize)| Cell {
            images,
            right: i == j,
            strength: match images {
                0 => 0,
                _ if i == j => 10 + 45 * images / all,
                _ => 12 + 60 * images / most,
            },
        };
        row.iter().enumerate().map(cell).collect()
    };
    result.confusion.iter().enumerate().map(row).collect()
}

/// Coordinates of one panel, in units of the view box.
#[derive(Debug, Serialize)]
struct Chart {
    title: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    rows: Vec<Tick>,
    columns: Vec<Tick>,
    reference: Option<Tick>,
    series: Vec<Series>,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Debug, Serialize)]
struct Series {
    name: &'static str,
    /// `x,y x,y ...`
    line: String,
    points: Vec<[f64; 2]>,
    last: String,
}

impl Chart {
    fn new(title: &'static str, quantity: Quantity, report: &Report) -> Self {
        let (width, height) = (560.0, 300.0);
        let (left, right, top, bottom) = (54.0, width - 12.0, 12.0, height - 40.0);
        let history = &report.history;
        let reference = report
            .reference_accuracy
            .filter(|_| quantity == Quantity::Accuracy);
        let [low, high] = quantity.range(history, reference);
        let first = history.first().map_or(1, |log| log.epoch) as f64;
        let last = (history.last().map_or(1, |log| log.epoch) as f64).max(first + 1.0);
        let round = |v: f64| (v * 10.0).round() / 10.0;
        let x = |epoch: f64| {
            round(left + 10.0 + (epoch - first) / (last - first) * (right - left - 20.0))
        };
        let y = |value: f64| round(bottom - (value - low) / (high - low) * (bottom - top));
        let marks = ticks([low, high], 5);
        let series = |(i, name): (usize, &'static str)| {
            let curve = quantity.curve(history, i, [low, high]);
            let line = curve
                .iter()
                .map(|&(epoch, value)| format!("{},{}", x(epoch), y(value)));
            let line: Vec<String> = line.collect();
            let epochs = curve.iter().filter(|(epoch, _)| epoch.fract() == 0.0);
            let points: Vec<[f64; 2]> =
                epochs.map(|&(epoch, value)| [x(epoch), y(value)]).collect();
            let last = history.last().map_or(0.0, |log| quantity.values(log)[i]);
            Series {
                name,
                line: line.join(" "),
                last: match quantity {
                    Quantity::Accuracy => format!("{:.2}%", last * 100.0),
                    Quantity::Loss => format!("{last:.4}"),
                },
                points: if points.len() <= 40 {
                    points
                } else {
                    Vec::new()
                },
            }
        };
        Self {
            title,
            width,
            height,
            left,
            right,
            top,
            bottom,
            rows: marks
                .iter()
                .map(|&value| Tick {
                    at: y(value),
                    label: label(quantity, value, &marks),
                })
                .collect(),
            columns: ticks([first, last], 8)
                .into_iter()
                .filter(|epoch| epoch.fract() == 0.0)
                .map(|epoch| Tick {
                    at: x(epoch),
                    label: format!("{epoch}"),
                })
                .collect(),
            reference: reference.map(|value| Tick {
                at: y(f64::from(value)),
                label: format!("{:.2}%", value * 100.0),
            }),
            series: ["training", "validation"]
                .into_iter()
                .enumerate()
                .map(series)
                .collect(),
        }
    }
}
