//! curves.png: accuracy and loss of training and validation over the epochs, with a dashed reference line.
//! The ranges and ticks serve the curves in the terminal and in report.html too.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use plotters::{element::DashedPathElement, prelude::*, series::DashedLineSeries};

use super::{Callback, CallbackError, EpochLog, Plan};
use crate::{
    file::write_atomic,
    picture::{
        self, Area, BLUE as TRAINING, GRID, INK, MUTED, ORANGE as VALIDATION, SCALE as OVERSAMPLE,
        text,
    },
};

/// One of the two panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Share of right answers.
    Accuracy,
    /// Mean loss.
    Loss,
}

impl Quantity {
    /// Values of an epoch: training, validation.
    pub fn values(self, log: &EpochLog) -> [f32; 2] {
        match self {
            Self::Accuracy => [log.accuracy, log.val_accuracy],
            Self::Loss => [log.loss, log.val_loss],
        }
    }

    /// Range of the vertical axis: contains every finite value after the first tenth of the epochs, and the reference; accuracy
    /// ends at 1 at most, loss starts at 0. The curves of a long training would be flat if its first steps had to fit in.
    pub fn range(self, epochs: &[EpochLog], reference: Option<f32>) -> [f64; 2] {
        let values = epochs
            .iter()
            .skip(epochs.len() / 10)
            .flat_map(|log| self.values(log))
            .chain(reference.filter(|_| self == Self::Accuracy))
            .map(f64::from)
            .filter(|v| v.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
        if low > high {
            return [0.0, 1.0];
        }
        match self {
            Self::Accuracy => {
                let margin = ((high - low) * 0.08).max(0.002);
                [(low - margin).max(0.0), (high + margin).min(1.0)]
            }
            Self::Loss => [0.0, if high > 0.0 { high * 1.08 } else { 1.0 }],
        }
    }

    /// The curve of training (`series` 0) or validation (1), as (epoch, value), without values that are not finite. It begins
    /// where it enters the range of [`Quantity::range`], and stays in it.
    pub fn curve(
        self,
        epochs: &[EpochLog],
        series: usize,
        [low, high]: [f64; 2],
    ) -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = epochs
            .iter()
            .map(|log| (log.epoch as f64, f64::from(self.values(log)[series])))
            .filter(|(_, value)| value.is_finite())
            .collect();
        let inside = points.iter().position(|(_, y)| (low..=high).contains(y));
        if let Some(inside @ 1..) = inside {
            let ((x0, y0), (x1, y1)) = (points[inside - 1], points[inside]);
            let edge = y0.clamp(low, high);
            points[inside - 1] = (x0 + (x1 - x0) * (edge - y0) / (y1 - y0), edge);
            points.drain(..inside - 1);
        }
        for (_, value) in &mut points {
            *value = value.clamp(low, high);
        }
        points
    }
}

/// About `count` round numbers (1, 2 or 5 times a power of ten apart) in the range, ends included where they are round.
pub fn ticks([low, high]: [f64; 2], count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    if rough <= 0.0 || !rough.is_finite() {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|s| *s >= rough * 0.999)
        .unwrap_or(power * 10.0);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Axis label: percent for an accuracy, a plain number for a loss; as many digits as the distance of two ticks needs.
pub fn label(quantity: Quantity, value: f64, ticks: &[f64]) -> String {
    let (value, scale, unit) = match quantity {
        Quantity::Accuracy => (value * 100.0, 100.0, "%"),
        Quantity::Loss => (value, 1.0, ""),
    };
    let step = match ticks {
        [a, b, ..] => (b - a) * scale,
        _ => 0.01,
    };
    let digits = (-(step * 1.0001).log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}{unit}")
}

/// Of the training's time, the part that drawing may take: 1 in so many.
const SHARE: u32 = 20;

/// Rewrites curves.png after the first epoch, after a later one if the training has taken much longer than the drawing
/// since, and at the end.
#[derive(Debug)]
pub struct CurvesPng {
    path: PathBuf,
    name: String,
    reference: Option<f32>,
    epochs: Vec<EpochLog>,
    /// When the picture was last finished, and how long that took.
    drawn: Option<(Instant, Duration)>,
    /// Epochs on the picture.
    shown: usize,
}

impl CurvesPng {
    /// Continues the plan's history.
    pub fn new(path: PathBuf, plan: &Plan) -> Self {
        Self {
            path,
            name: plan.name.clone(),
            reference: plan.reference_accuracy,
            epochs: plan.history.clone(),
            drawn: None,
            shown: plan.history.len(),
        }
    }

    fn draw(&mut self) -> Result<(), CallbackError> {
        let start = Instant::now();
        let png = draw(&self.name, &self.epochs, self.reference).map_err(|message| {
            CallbackError::Draw {
                path: self.path.clone(),
                message,
            }
        })?;
        write_atomic(&self.path, &png).map_err(|source| CallbackError::File {
            path: self.path.clone(),
            source,
        })?;
        self.drawn = Some((Instant::now(), start.elapsed()));
        self.shown = self.epochs.len();
        Ok(())
    }
}

impl Callback for CurvesPng {
    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        self.epochs.push(*log);
        match self.drawn {
            Some((at, took)) if at.elapsed() < SHARE * took => Ok(()),
            _ => self.draw(),
        }
    }

    fn end(&mut self) -> Result<(), CallbackError> {
        if self.shown == self.epochs.len() {
            return Ok(());
        }
        self.draw()
    }
}

/// Width and height of the picture in pixels.
pub const SIZE: [u32; 2] = [1400, 600];
/// Its name in the run folder.
pub const FILE: &str = "curves.png";
/// Draws the two panels as a PNG file.
pub fn draw(name: &str, epochs: &[EpochLog], reference: Option<f32>) -> Result<Vec<u8>, String> {
    let drawn = picture::draw(SIZE, |root| {
        let (left, right) = root.split_horizontally(SIZE[0] * OVERSAMPLE / 2);
        panel(&left, Quantity::Accuracy, name, epochs, reference)?;
        panel(&right, Quantity::Loss, "", epochs, None)
    })?;
    picture::png(&drawn)
}

fn panel(
    area: &Area<'_>,
    quantity: Quantity,
    name: &str,
    epochs: &[EpochLog],
    reference: Option<f32>,
) -> Result<(), String> {
    let s = OVERSAMPLE as i32;
    let heading = match quantity {
        Quantity::Accuracy => "Accuracy",
        Quantity::Loss => "Loss",
    };
    area.draw(&Text::new(heading, (24 * s, 18 * s), text(27, &INK)))
        .map_err(|e| e.to_string())?;
    let summary = summary(quantity, name, epochs);
    area.draw(&Text::new(summary, (24 * s, 52 * s), text(17, &MUTED)))
        .map_err(|e| e.to_string())?;

    let [low, high] = quantity.range(epochs, reference);
    let vertical = ticks([low, high], 6);
    let first = epochs.first().map_or(1, |log| log.epoch) as f64;
    let last = (epochs.last().map_or(1, |log| log.epoch) as f64).max(first + 1.0);
    let pad = (last - first) * 0.02;
    let mut chart = ChartBuilder::on(area)
        .margin_top(88 * s)
        .margin_right(28 * s)
        .margin_left(12 * s)
        .margin_bottom(12 * s)
        .x_label_area_size(54 * s)
        .y_label_area_size(74 * s)
        .build_cartesian_2d(first - pad..last + pad, low..high)
        .map_err(|e| e.to_string())?;
    let whole = |x: &f64| {
        if (x - x.round()).abs() < 1e-6 {
            format!("{x:.0}")
        } else {
            String::new()
        }
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(OVERSAMPLE))
        .axis_style(GRID.stroke_width(OVERSAMPLE))
        .x_labels(((last - first) as usize + 1).min(10))
        // as many as `vertical` has, so that the digits fit
        .y_labels(vertical.len())
        .x_label_formatter(&whole)
        .y_label_formatter(&|y| label(quantity, *y, &vertical))
        .x_desc("epoch")
        .label_style(text(17, &MUTED))
        .axis_desc_style(text(17, &MUTED))
        .draw()
        .map_err(|e| e.to_string())?;

    if let Some(reference) = reference.map(f64::from) {
        let line = [first - pad, last + pad].map(|x| (x, reference));
        chart
            .draw_series(DashedLineSeries::new(
                line,
                9 * OVERSAMPLE,
                6 * OVERSAMPLE,
                MUTED.stroke_width(2 * OVERSAMPLE),
            ))
            .map_err(|e| e.to_string())?
            .label(format!("reference {:.2}%", reference * 100.0))
            .legend(move |(x, y)| {
                DashedPathElement::new(
                    vec![(x, y), (x + 22 * s, y)],
                    6 * OVERSAMPLE,
                    4 * OVERSAMPLE,
                    MUTED.stroke_width(2 * OVERSAMPLE),
                )
            });
    }
    for (series, (name, color)) in [("training", TRAINING), ("validation", VALIDATION)]
        .into_iter()
        .enumerate()
    {
        let points = quantity.curve(epochs, series, [low, high]);
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                color.stroke_width(3 * OVERSAMPLE),
            ))
            .map_err(|e| e.to_string())?
            .label(name)
            .legend(move |(x, y)| {
                PathElement::new(
                    vec![(x, y), (x + 22 * s, y)],
                    color.stroke_width(3 * OVERSAMPLE),
                )
            });
        if points.len() <= 30 {
            let epochs = points.into_iter().filter(|(x, _)| x.fract() == 0.0);
            chart
                .draw_series(epochs.map(|p| Circle::new(p, 4 * s, color.filled())))
                .map_err(|e| e.to_string())?;
        }
    }
    chart
        .configure_series_labels()
        .position(match quantity {
            Quantity::Accuracy => SeriesLabelPosition::LowerRight,
            Quantity::Loss => SeriesLabelPosition::UpperRight,
        })
        .legend_area_size(30 * s)
        .margin(16 * s)
        .background_style(WHITE.mix(0.85))
        .border_style(TRANSPARENT)
        .label_font(text(17, &INK))
        .draw()
        .map_err(|e| e.to_string())?;
    Ok(())
}

/// The line under the heading: the last and the best validation value.
fn summary(quantity: Quantity, name: &str, epochs: &[EpochLog]) -> String {
    let Some(last) = epochs.last() else {
        return name.to_string();
    };
    let prefix = if name.is_empty() {
        String::new()
    } else {
        format!("{name}: ")
    };
    match quantity {
        Quantity::Accuracy => {
            let best = epochs.iter().fold(last, |best, log| {
                if log.val_accuracy > best.val_accuracy {
                    log
                } else {
                    best
                }
            });
            format!(
                "{prefix}validation {:.2}% after epoch {}, best {:.2}% after epoch {}",
                last.val_accuracy * 100.0,
                last.epoch,
                best.val_accuracy * 100.0,
                best.epoch
            )
        }
        Quantity::Loss => format!(
            "{prefix}training {:.4}, validation {:.4} after epoch {}",
            last.loss, last.val_loss, last.epoch
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(epoch: usize, accuracy: f32) -> EpochLog {
        EpochLog {
            epoch,
            step: epoch as u64,
            loss: 1.0 - accuracy,
            accuracy,
            val_loss: 1.1 - accuracy,
            val_accuracy: accuracy - 0.01,
            learning_rate: 0.001,
            seconds: 1.0,
            samples_per_second: 1.0,
        }
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        assert_eq!(
            ticks([0.0, 1.0], 5),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        assert_eq!(ticks([93.0, 101.0], 4), [94.0, 96.0, 98.0, 100.0]);
        assert!(ticks([1.0, 1.0], 4).is_empty());
    }

    #[test]
    fn labels_have_the_digits_of_the_step() {
        assert_eq!(label(Quantity::Accuracy, 0.95, &[0.95, 0.96]), "95%");
        assert_eq!(label(Quantity::Accuracy, 0.995, &[0.995, 1.0]), "99.5%");
        assert_eq!(label(Quantity::Loss, 0.2, &[0.0, 0.05]), "0.20");
    }

    #[test]
    fn ranges_contain_reference_and_survive_nan() {
        let mut epochs = vec![log(1, 0.95), log(2, 0.98)];
        let [low, high] = Quantity::Accuracy.range(&epochs, Some(0.994));
        assert!(low < 0.94 && high > 0.994 && high <= 1.0);
        epochs.push(log(3, f32::NAN));
        assert!(
            Quantity::Loss
                .range(&epochs, None)
                .iter()
                .all(|v| v.is_finite())
        );
        assert_eq!(Quantity::Loss.range(&[], None), [0.0, 1.0]);
    }

    #[test]
    fn the_beginning_of_a_long_training_does_not_flatten_the_rest() {
        let mut epochs = vec![log(1, 0.3)];
        epochs.extend((2..=9).map(|epoch| log(epoch, 0.98)));
        assert!(Quantity::Accuracy.range(&epochs, None)[0] < 0.3);
        epochs.push(log(10, 0.98));
        assert!(Quantity::Accuracy.range(&epochs, None)[0] > 0.95);
        assert!(Quantity::Loss.range(&epochs, None)[1] < 0.2);
    }

    #[test]
    fn a_curve_begins_where_it_enters_the_range() {
        let epochs = [log(1, 0.0), log(2, 0.5), log(3, 0.9), log(4, f32::NAN)];
        let curve = Quantity::Accuracy.curve(&epochs, 0, [0.75, 1.0]);
        assert_eq!(curve.len(), 2);
        // 0.5 at epoch 2, 0.9 at epoch 3: 0.75 at 2.625
        assert!((curve[0].0 - 2.625).abs() < 1e-6 && curve[0].1 == 0.75);
        assert_eq!(curve[1].0, 3.0);
        let whole = Quantity::Accuracy.curve(&epochs, 0, [0.0, 1.0]);
        assert_eq!(whole.len(), 3);
        let low = Quantity::Accuracy.curve(&epochs, 0, [0.0, 0.75]);
        assert_eq!(low[2], (3.0, 0.75));
    }

    /// The colours of both series and of the reference line are on the picture, in one epoch and in many.
    #[test]
    fn picture_shows_every_series() {
        for count in [1, 2, 40] {
            let epochs: Vec<_> = (1..=count).map(|e| log(e, 1.0 - 0.1 / e as f32)).collect();
            let png = draw("a <name>", &epochs, Some(0.99)).unwrap();
            let image = image::load_from_memory(&png).unwrap().to_rgb8();
            assert_eq!([image.width(), image.height()], SIZE);
            for RGBColor(r, g, b) in [TRAINING, VALIDATION, MUTED] {
                let pixels = image.pixels().filter(|p| p.0 == [r, g, b]).count();
                assert!(
                    pixels > 60,
                    "{count} epochs: {pixels} pixels of {r} {g} {b}"
                );
            }
        }
    }

    fn plan() -> Plan {
        Plan {
            name: "x".into(),
            epochs: 1,
            steps_per_epoch: 1,
            samples_per_epoch: 1,
            reference_accuracy: None,
            history: Vec::new(),
        }
    }

    /// Epochs that follow each other at once leave no time for drawing; the end shows all of them.
    #[test]
    fn short_epochs_share_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let read = || std::fs::read(&path).unwrap();
        let mut curves = CurvesPng::new(path.clone(), &plan());
        let picture = |count: usize| {
            let epochs: Vec<_> = (1..=count).map(|e| log(e, 0.9)).collect();
            draw("x", &epochs, None).unwrap()
        };
        for epoch in 1..=3 {
            curves.epoch(&log(epoch, 0.9)).unwrap();
            assert_eq!(read(), picture(1));
        }
        curves.end().unwrap();
        assert_eq!(read(), picture(3));
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_with_its_path() {
        let error = CurvesPng::new("no/such/curves.png".into(), &plan())
            .epoch(&log(1, 0.9))
            .unwrap_err();
        assert!(error.to_string().starts_with("no/such/curves.png: "));
    }
}
