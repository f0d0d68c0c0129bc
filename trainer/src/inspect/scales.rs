//! Distributions of weights and activations on the scales that the quantizer chose.

use plotters::prelude::*;
use runtime::DType;
use serde::Serialize;

use super::DrawError;
use crate::{
    calibrate::Histogram,
    picture::{self, Area, BLUE as WEIGHTS, GRID, INK, MUTED, SCALE, text},
    quantize::scale::{limits, pow2, quantize_weight},
};

/// Bars of a diagram.
const BARS: usize = 64;
const WIDTH: u32 = 1100;
const ROW: u32 = 230;
const TOP: u32 = 76;
const ACTIVATIONS: RGBColor = RGBColor(22, 128, 101);
const LIMIT: RGBColor = RGBColor(185, 28, 28);

/// One operator's weights and output on their scales.
#[derive(Clone, Debug, Serialize)]
pub struct Scales {
    /// Layer of the recipe.
    pub layer: String,
    /// None for an operator without weights.
    pub weights: Option<WeightScales>,
    /// None for the logits, which keep their accumulators.
    pub output: Option<OutputScale>,
}

/// Weights in steps of their channel's scale.
#[derive(Clone, Debug, Serialize)]
pub struct WeightScales {
    /// Smallest and largest exponent of a channel's step.
    pub exponents: [i32; 2],
    /// Part of the weights that lie beyond -127 or 127 steps, 0 to 1.
    pub saturated: f64,
    /// Part of the weights that become 0, 0 to 1.
    pub zero: f64,
    /// How many weights become -127, ..., 127.
    #[serde(skip)]
    counts: Vec<u64>,
}

impl WeightScales {
    /// `2^-7`, or `2^-9 to 2^-7` if the channels differ.
    pub fn step(&self) -> String {
        match self.exponents {
            [low, high] if low == high => format!("2^{low}"),
            [low, high] => format!("2^{low} to 2^{high}"),
        }
    }

    /// From float weights, channel by channel, and the exponents of the channels.
    ///
    /// # Panics
    /// If the lists have different lengths.
    pub fn new<'a>(channels: impl Iterator<Item = &'a [f64]>, exponents: &[i32]) -> Self {
        let mut counts = vec![0; 255];
        let (mut all, mut saturated) = (0u64, 0u64);
        let mut used = 0;
        for (channel, &exponent) in channels.zip(exponents) {
            used += 1;
            for &weight in channel {
                all += 1;
                saturated += u64::from((weight * pow2(-exponent)).round_ties_even().abs() > 127.0);
                let q = quantize_weight(weight, exponent);
                counts[(i16::from(q) + 127) as usize] += 1;
            }
        }
        assert_eq!(used, exponents.len(), "an exponent for every channel");
        let part = |count: u64| count as f64 / all.max(1) as f64;
        let bounds = |f: fn(i32, i32) -> i32| exponents.iter().copied().reduce(f).unwrap_or(0);
        Self {
            exponents: [bounds(i32::min), bounds(i32::max)],
            saturated: part(saturated),
            zero: part(counts[127]),
            counts,
        }
    }
}

/// An output's values and the range that its scale has.
#[derive(Clone, Debug, Serialize)]
pub struct OutputScale {
    /// Exponent of one step.
    pub exponent: i32,
    /// Smallest and largest value that the scale holds.
    pub range: [f64; 2],
    /// Smallest and largest value seen.
    pub seen: [f64; 2],
    /// Part of the values that lie outside of the range and become its end, 0 to 1.
    pub saturated: f64,
    #[serde(skip)]
    histogram: Histogram,
}

impl OutputScale {
    /// Of the values that calibration saw.
    pub fn new(histogram: &Histogram, dtype: DType, exponent: i32) -> Self {
        let (low, high) = limits(dtype);
        let range = [low, high].map(|q| q as f64 * pow2(exponent));
        let half = pow2(exponent) / 2.0;
        let outside = histogram
            .bins()
            .filter(|(value, _)| *value < range[0] - half || *value > range[1] + half);
        let outside: u64 = outside.map(|(_, count)| count).sum();
        let (min, max) = histogram.range();
        Self {
            exponent,
            range,
            seen: [min, max],
            saturated: outside as f64 / histogram.len().max(1) as f64,
            histogram: histogram.clone(),
        }
    }
}

/// Two diagrams per operator as a PNG file, counts on a logarithmic axis.
///
/// # Errors
/// [`DrawError`].
pub fn draw(layers: &[Scales]) -> Result<Vec<u8>, DrawError> {
    const TITLE: &str = "Weights and activations on their scales";
    let height = TOP + ROW * layers.len() as u32 + 10;
    let failed = |problem: String| DrawError {
        title: TITLE.into(),
        problem,
    };
    let page = picture::draw([WIDTH, height], |root| {
        let note = "left: weights in steps of their channel's scale; right: output values on training images; red: the scale ends there; heights are logarithmic";
        for (line, y, style) in [(TITLE, 16, text(24, &INK)), (note, 48, text(15, &MUTED))] {
            let place = [20, y].map(|n: u32| (n * SCALE).cast_signed());
            root.draw(&Text::new(line, place.into(), style))
                .map_err(|e| e.to_string())?;
        }
        let (_, below) = root.split_vertically(TOP * SCALE);
        for (layer, area) in layers.iter().zip(below.split_evenly((layers.len(), 1))) {
            let (left, right) = area.split_horizontally(WIDTH * SCALE / 2);
            row(layer, &left, &right)?;
        }
        Ok(())
    })
    .map_err(failed)?;
    picture::png(&page).map_err(failed)
}

/// The two diagrams of an operator.
fn row(layer: &Scales, left: &Area<'_>, right: &Area<'_>) -> Result<(), String> {
    if let Some(weights) = &layer.weights {
        let heading = format!(
            "{} weights, steps of {}: {:.2} % saturate, {:.1} % are 0",
            layer.layer,
            weights.step(),
            100.0 * weights.saturated,
            100.0 * weights.zero
        );
        let values = (-127..).zip(&weights.counts);
        let values = values.map(|(q, &n)| (f64::from(q), n));
        let bars = bars(values, [-127.5, 127.5]);
        diagram(left, &heading, &bars, [-127.0, 127.0], WEIGHTS)?;
    }
    if let Some(output) = &layer.output {
        let heading = format!(
            "{} output, steps of 2^{}: {:.3} % saturate",
            layer.layer,
            output.exponent,
            100.0 * output.saturated
        );
        let low = output.range[0].min(output.seen[0]);
        let high = output.range[1].max(output.seen[1]);
        let bars = bars(output.histogram.bins(), [low, high]);
        diagram(right, &heading, &bars, output.range, ACTIVATIONS)?;
    }
    Ok(())
}

/// Left end, right end and count of equal bars over the range.
fn bars(values: impl Iterator<Item = (f64, u64)>, [low, high]: [f64; 2]) -> Vec<(f64, f64, u64)> {
    let width = ((high - low) / BARS as f64).max(f64::MIN_POSITIVE);
    let end = |i: usize| low + width * i as f64;
    let mut bars: Vec<_> = (0..BARS).map(|i| (end(i), end(i + 1), 0)).collect();
    for (value, count) in values {
        let bar = ((value - low) / width).max(0.0) as usize;
        bars[bar.min(BARS - 1)].2 += count;
    }
    bars
}

fn diagram(
    area: &Area<'_>,
    heading: &str,
    bars: &[(f64, f64, u64)],
    range: [f64; 2],
    colour: RGBColor,
) -> Result<(), String> {
    let s = SCALE as i32;
    area.draw(&Text::new(
        heading.to_owned(),
        (20 * s, 8 * s),
        text(15, &INK),
    ))
    .map_err(|e| e.to_string())?;
    let height = |count: u64| (1.0 + count as f64).log10();
    let top = bars.iter().map(|bar| height(bar.2)).fold(1.0, f64::max);
    let first = bars.first().map_or(0.0, |bar| bar.0);
    let last = bars.last().map_or(1.0, |bar| bar.1);
    let pad = (last - first) * 0.02;
    let mut chart = ChartBuilder::on(area)
        .margin_top(30 * s)
        .margin_left(20 * s)
        .margin_right(24 * s)
        .x_label_area_size(26 * s)
        .build_cartesian_2d(first - pad..last + pad, 0.0..top * 1.05)
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(SCALE))
        .axis_style(GRID.stroke_width(SCALE))
        .x_labels(8)
        .label_style(text(13, &MUTED))
        .draw()
        .map_err(|e| e.to_string())?;
    let bars = bars
        .iter()
        .filter(|bar| bar.2 > 0)
        .map(|&(from, to, count)| {
            Rectangle::new(
                [(from, 0.0), (to, height(count))],
                colour.mix(0.75).filled(),
            )
        });
    chart.draw_series(bars).map_err(|e| e.to_string())?;
    let ends =
        range.map(|x| PathElement::new([(x, 0.0), (x, top * 1.05)], LIMIT.stroke_width(2 * SCALE)));
    chart.draw_series(ends).map_err(|e| e.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 1 and of 1/2: 2.4 becomes 2, 100 becomes 127 (saturated), 0.2 becomes 0.
    #[test]
    fn weights_in_steps() {
        let channels: [&[f64]; 2] = [&[2.4, -3.0], &[100.0, 0.2]];
        let weights = WeightScales::new(channels.into_iter(), &[0, -1]);
        assert_eq!(weights.exponents, [-1, 0]);
        assert_eq!((weights.saturated, weights.zero), (0.25, 0.25));
        let count = |q: i32| weights.counts[(q + 127) as usize];
        assert_eq!([count(2), count(-3), count(127), count(0)], [1; 4]);
    }

    /// u8 in steps of 1/16 ends at 15.9375.
    #[test]
    fn outputs_beyond_the_range_are_counted() {
        let histogram = Histogram::from_values(&[0.0, 1.0, 15.9, 20.0]);
        let output = OutputScale::new(&histogram, DType::U8, -4);
        assert_eq!(output.range, [0.0, 15.9375]);
        assert_eq!(output.saturated, 0.25);
        assert_eq!(output.seen, [0.0, 20.0]);
        let bars = bars(output.histogram.bins(), [0.0, 20.0]);
        assert_eq!(bars.iter().map(|bar| bar.2).sum::<u64>(), 4);
        assert_eq!(bars[BARS - 1].2, 1);
    }

    #[test]
    fn picture_has_bars_and_ends() {
        let channels: [&[f64]; 1] = [&[2.4, -3.0, 50.0]];
        let layer = Scales {
            layer: "conv1".into(),
            weights: Some(WeightScales::new(channels.into_iter(), &[0])),
            output: Some(OutputScale::new(
                &Histogram::uniform(0.0, 3.0),
                DType::U8,
                -6,
            )),
        };
        let png = draw(&[layer]).unwrap();
        let page = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(page.dimensions(), (WIDTH, TOP + ROW + 10));
        let RGBColor(r, g, b) = LIMIT;
        let red = page.pixels().filter(|p| p.0 == [r, g, b]).count();
        assert!(red > 4 * 100, "{red}");
    }
}
