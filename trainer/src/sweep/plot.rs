//! The picture of a sweep: for every swept key, validation accuracy over its values.

use plotters::prelude::*;
use toml::Value;

use super::{SEED, results::Setting, text as words};
use crate::{
    callbacks::curves::{self, Quantity},
    picture::{self, Area, BLUE as TRIAL, GRID, INK, MUTED, ORANGE as BEST, SCALE, text},
};

const PANEL: [u32; 2] = [560, 380];
const TOP: u32 = 76;
/// A range of positive values that is wider than this factor gets a logarithmic axis.
const WIDE: f64 = 20.0;

/// Where the values of a key lie on the axis.
#[derive(Debug, PartialEq)]
enum Axis {
    Linear,
    Log,
    /// Names, in order of appearance.
    Names(Vec<String>),
}

impl Axis {
    fn of(values: &[&Value]) -> Self {
        let numbers: Option<Vec<f64>> = values.iter().map(|value| number(value)).collect();
        let Some(numbers) = numbers else {
            let mut names: Vec<String> = Vec::new();
            for value in values {
                let name = words(value);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            return Self::Names(names);
        };
        let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low > 0.0 && high / low > WIDE {
            Self::Log
        } else {
            Self::Linear
        }
    }

    fn at(&self, value: &Value) -> f64 {
        match self {
            Self::Linear => number(value).unwrap_or(0.0),
            Self::Log => number(value).unwrap_or(1.0).log10(),
            Self::Names(names) => {
                let name = words(value);
                names.iter().position(|known| *known == name).unwrap_or(0) as f64
            }
        }
    }

    /// Text at a place of the axis; empty where none belongs.
    fn label(&self, at: f64) -> String {
        match self {
            Self::Linear => {
                let text = format!("{at:.4}");
                text.trim_end_matches('0').trim_end_matches('.').into()
            }
            Self::Log => format!("{:.1e}", 10f64.powf(at)),
            Self::Names(names) => {
                let near = at.round();
                let name = names.get(near.max(0.0) as usize);
                match name {
                    Some(name) if (at - near).abs() < 0.01 && near >= 0.0 => {
                        name.chars().take(24).collect()
                    }
                    _ => String::new(),
                }
            }
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Float(x) if x.is_finite() => Some(*x),
        _ => None,
    }
}

/// A panel per key as a PNG file: every trial a point, the chosen setting in another colour. `settings` are ranked, the best
/// one first.
///
/// # Errors
/// What the drawing library says.
pub fn draw(name: &str, keys: &[String], settings: &[Setting]) -> Result<Vec<u8>, String> {
    let keys: Vec<&String> = keys.iter().filter(|key| *key != SEED).collect();
    let columns = keys.len().clamp(1, 2) as u32;
    let rows = (keys.len().max(1) as u32).div_ceil(columns);
    let size = [PANEL[0] * columns, TOP + PANEL[1] * rows];
    let page = picture::draw(size, |root| {
        let note = "accuracy of model.fxp on validation images; orange: the best mean";
        for (line, y, style) in [(name, 16, text(24, &INK)), (note, 48, text(15, &MUTED))] {
            let place = [20, y].map(|n: u32| (n * SCALE).cast_signed());
            root.draw(&Text::new(line.to_owned(), place.into(), style))
                .map_err(|e| e.to_string())?;
        }
        let (_, below) = root.split_vertically(TOP * SCALE);
        let areas = below.split_evenly((rows as usize, columns as usize));
        let mut panels = keys.into_iter().zip(&areas);
        panels.try_for_each(|(key, area)| panel(area, key, settings))
    })?;
    picture::png(&page)
}

fn panel(area: &Area<'_>, key: &str, settings: &[Setting]) -> Result<(), String> {
    let value = |setting: &Setting| {
        let found = setting.values.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.clone())
    };
    let values: Vec<Value> = settings.iter().filter_map(value).collect();
    let axis = Axis::of(&values.iter().collect::<Vec<_>>());
    let points: Vec<(f64, f64, bool)> = settings
        .iter()
        .zip(&values)
        .enumerate()
        .flat_map(|(rank, (setting, value))| {
            let x = axis.at(value);
            setting
                .outcomes
                .iter()
                .map(move |o| (x, o.validation, rank == 0))
        })
        .collect();
    let bounds = |get: fn(&(f64, f64, bool)) -> f64| {
        let values = points.iter().map(get);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        })
    };
    let ((left, right), (low, high)) = (bounds(|p| p.0), bounds(|p| p.1));
    let pad = |from: f64, to: f64, least: f64| ((to - from) * 0.08).max(least);
    let across = pad(
        left,
        right,
        if matches!(axis, Axis::Names(_)) {
            0.5
        } else {
            1e-6
        },
    );
    let up = pad(low, high, 0.0005);
    let (low, high) = (low - up, (high + up).min(1.0));
    let marks = curves::ticks([low, high], 6);
    let mut chart = ChartBuilder::on(area)
        .margin(16 * SCALE)
        .x_label_area_size(46 * SCALE)
        .y_label_area_size(64 * SCALE)
        .build_cartesian_2d(left - across..right + across, low..high)
        .map_err(|e| e.to_string())?;
    let labels = match &axis {
        Axis::Names(names) => 2 * names.len() + 1,
        _ => 6,
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(SCALE))
        .axis_style(GRID.stroke_width(SCALE))
        .x_labels(labels)
        .y_labels(marks.len())
        .x_label_formatter(&|x| axis.label(*x))
        .y_label_formatter(&|y| curves::label(Quantity::Accuracy, *y, &marks))
        .x_desc(key)
        .label_style(text(14, &MUTED))
        .axis_desc_style(text(15, &INK))
        .draw()
        .map_err(|e| e.to_string())?;
    // The best ones last, on top of the others.
    for best in [false, true] {
        let colour = if best { BEST } else { TRIAL };
        let shown = points.iter().filter(|point| point.2 == best);
        let circles =
            shown.map(|&(x, y, _)| Circle::new((x, y), 5 * SCALE, colour.mix(0.8).filled()));
        chart.draw_series(circles).map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::sweep::results::Outcome;

    #[test]
    fn axes_fit_their_values() {
        let of = |values: &[Value]| Axis::of(&values.iter().collect::<Vec<_>>());
        let float = Value::Float;
        assert_eq!(of(&[float(1e-4), float(1e-2)]), Axis::Log);
        assert_eq!(of(&[Value::Integer(0), Value::Integer(100)]), Axis::Linear);
        let names = of(&["relu".into(), "elu".into(), "relu".into()]);
        assert_eq!(names, Axis::Names(vec!["relu".into(), "elu".into()]));
        assert_eq!(names.at(&"elu".into()), 1.0);
        assert_eq!(
            (names.label(1.0), names.label(0.5)),
            ("elu".into(), String::new())
        );
        assert_eq!(Axis::Log.label(-3.0), "1.0e-3");
        assert_eq!(Axis::Linear.label(0.25), "0.25");
    }

    #[test]
    fn every_trial_is_a_point_and_the_best_one_is_orange() {
        let setting = |rate: f64, validation: f64| Setting {
            values: vec![
                ("train.optimizer.learning_rate".into(), Value::Float(rate)),
                ("train.optimizer.type".into(), "adam".into()),
            ],
            outcomes: vec![Outcome {
                trial: "t".into(),
                dir: PathBuf::new(),
                validation,
                validation_float: validation,
                test: 0.0,
                parameters: 1,
                macs: 1,
                flash_bytes: 1,
                arena_bytes: 1,
                epochs: 1,
                seconds: 1.0,
            }],
            mean: validation,
            deviation: None,
        };
        let keys = ["train.optimizer.learning_rate", "train.optimizer.type"].map(String::from);
        let settings = [
            setting(1e-3, 0.99),
            setting(1e-2, 0.97),
            setting(1e-4, 0.98),
        ];
        let png = draw("rate", &keys, &settings).unwrap();
        let page = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(page.dimensions(), (2 * PANEL[0], TOP + PANEL[1]));
        let like = |RGBColor(r, g, b): RGBColor| {
            let close = |a: u8, b: u8| a.abs_diff(b) < 60;
            let pixels = page.pixels();
            pixels
                .filter(|p| close(p.0[0], r) && close(p.0[1], g) && close(p.0[2], b))
                .count()
        };
        assert!(
            like(BEST) > 50 && like(TRIAL) > 150,
            "{} {}",
            like(BEST),
            like(TRIAL)
        );
        assert!(draw("one point", &keys[..1], &settings[..1]).is_ok());
    }
}
