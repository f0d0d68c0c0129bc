//! Which filters of two trained networks are the same: pairs with the greatest correlation.
//!
//! Two trainings from different initial weights may find the same filters in another order. Layer by layer, the Pearson
//! correlation of every filter of one run with every filter of the other one is computed, over all their weights; the pair
//! with the greatest one is taken, then the greatest of what is left, and so on (greedy; of equal ones the lower number in
//! the first run, then in the second). The input channels of a layer are compared in the order that the layer before was matched in, and only matched
//! ones. A depthwise layer has no choice: its filters follow the channels that they read.
//!
//! What chance gives is measured too: the same matching with each filter's weights of the second run in a random order.

use image::RgbImage;
use serde::Serialize;

use super::{
    DrawError,
    filters::Filters,
    sheet::{self, Block},
};
use crate::{
    architecture::{Architecture, Layer, LayerKind, Source},
    random::{Purpose, permutation},
    weights::Weights,
};

/// Pairs of a layer that a sheet shows; the others are only counted.
const MOST: usize = 64;
/// Seed of the random order that the comparison with chance uses.
const SEED: u64 = 1;

/// A network with its weights.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// What it computes.
    pub architecture: &'a Architecture,
    /// Its weights.
    pub weights: &'a Weights,
}

/// Two networks whose layers cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// Other layers.
    #[error(
        "layer {position} is `{first}` in the first run and `{second}` in the second one; filters can be compared only where all layers before are of the same kind and size"
    )]
    Layer {
        /// From 1.
        position: usize,
        /// What it is in the first run.
        first: String,
        /// What it is in the second run.
        second: String,
    },
    /// Nothing to compare.
    #[error("the networks have neither a conv layer nor a dense layer on the image")]
    NoFilters,
}

/// Two filters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Number in the first run.
    pub first: usize,
    /// Number in the second run.
    pub second: usize,
    /// -1 to 1.
    pub correlation: f64,
}

/// One layer of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerMatch {
    /// Its name in the first run.
    pub layer: String,
    /// Filters in the first and in the second run.
    pub filters: [usize; 2],
    /// Best first; as many as the run with fewer filters has.
    pub pairs: Vec<Pair>,
    /// Mean correlation of the pairs.
    pub mean: f64,
    /// Part of the pairs with a correlation of at least 0.9.
    pub alike: f64,
    /// Mean correlation that the same matching finds by chance.
    pub chance: f64,
}

/// Channels of a layer's output that are the same in both runs.
type Channels = Vec<[usize; 2]>;

/// Matches the filters of all conv layers, and of a dense layer on the image.
///
/// # Errors
/// Networks whose layers, up to the last one with filters, are not of the same kind, order and kernel size. Numbers of filters may
/// differ.
pub fn compare(first: Trained<'_>, second: Trained<'_>) -> Result<Vec<LayerMatch>, MatchError> {
    let layers = [first, second].map(|run| run.architecture.layers.as_slice());
    let ends = [first, second].map(|run| {
        let Trained {
            architecture,
            weights,
        } = run;
        let mut layers = architecture.layers.iter();
        let last = layers.rposition(|layer| Filters::of(architecture, layer, weights).is_some());
        last.map_or(0, |last| last + 1)
    });
    if ends == [0, 0] {
        return Err(MatchError::NoFilters);
    }
    let colours = first.architecture.input.c.min(second.architecture.input.c);
    let image: Channels = (0..colours).map(|c| [c, c]).collect();
    let mut outputs: Vec<Channels> = Vec::new();
    let mut matches = Vec::new();
    for i in 0..ends[0].max(ends[1]) {
        let [a, b] = layers.map(|layers| layers.get(i));
        let different = || MatchError::Layer {
            position: i + 1,
            first: a.map_or("none".into(), describe),
            second: b.map_or("none".into(), describe),
        };
        let (Some(a), Some(b)) = (a, b) else {
            return Err(different());
        };
        if a.inputs != b.inputs || describe(a) != describe(b) {
            return Err(different());
        }
        let read = match a.inputs[0] {
            Source::Input => &image,
            Source::Layer(source) => &outputs[source],
        };
        let (Some(x), Some(y)) = (
            Filters::of(first.architecture, a, first.weights),
            Filters::of(second.architecture, b, second.weights),
        ) else {
            outputs.push(read.clone());
            continue;
        };
        let (table, chance) = correlations(a, b, [&x, &y], read);
        let pairs = greedy(&table, [x.count, y.count]);
        let chance = mean(&greedy(&chance, [x.count, y.count]));
        let mut channels: Channels = pairs.iter().map(|p| [p.first, p.second]).collect();
        channels.sort_unstable();
        outputs.push(channels);
        let alike = pairs.iter().filter(|pair| pair.correlation >= 0.9).count();
        matches.push(LayerMatch {
            layer: a.name.clone(),
            filters: [x.count, y.count],
            mean: mean(&pairs),
            alike: alike as f64 / pairs.len().max(1) as f64,
            chance,
            pairs,
        });
    }
    Ok(matches)
}

/// What must be the same for a comparison.
fn describe(layer: &Layer) -> String {
    let window = |w: &crate::architecture::Window| {
        let ([h, wide], [down, right]) = (w.size, w.stride);
        format!("{h}x{wide}, stride {down}x{right}")
    };
    match &layer.kind {
        LayerKind::Conv {
            window: w, groups, ..
        } => match groups {
            1 => format!("conv {}", window(w)),
            n if *n == layer.input.c => format!("depthwise conv {}", window(w)),
            n => format!("conv {} in {n} groups", window(w)),
        },
        LayerKind::MaxPool { window: w } => format!("max_pool {}", window(w)),
        LayerKind::AvgPool { window: w } => format!("avg_pool {}", window(w)),
        _ => layer.kind_name().into(),
    }
}

/// Correlation of every filter of the first run with every filter of the second one (row-major), and the same by chance;
/// `None` for filters that read other channels.
fn correlations(
    a: &Layer,
    b: &Layer,
    [x, y]: [&Filters; 2],
    read: &Channels,
) -> (Vec<Option<f64>>, Vec<Option<f64>>) {
    let groups = |layer: &Layer| match layer.kind {
        LayerKind::Conv { groups, .. } => groups,
        _ => 1,
    };
    let groups = [groups(a), groups(b)];
    let positions = x.size[0] * x.size[1];
    let whole = groups == [1, 1];
    // The channels, inside of the filters, that are compared.
    let channels: Channels = if whole {
        read.clone()
    } else {
        (0..x.channels.min(y.channels)).map(|c| [c, c]).collect()
    };
    let values = |filters: &Filters, f: usize, side: usize| -> Vec<f32> {
        let parts = channels.iter().map(|c| filters.channel(f, c[side]));
        parts.flatten().copied().collect()
    };
    let order = permutation(channels.len() * positions, SEED, Purpose::Chance, 0);
    let left: Vec<Vec<f32>> = (0..x.count).map(|f| values(x, f, 0)).collect();
    let right: Vec<Vec<f32>> = (0..y.count).map(|f| values(y, f, 1)).collect();
    let mixed: Vec<Vec<f32>> = right
        .iter()
        .map(|values| order.iter().map(|&i| values[i as usize]).collect())
        .collect();
    let allowed = |f: usize, g: usize| {
        let group = [f * groups[0] / x.count, g * groups[1] / y.count];
        whole || read.contains(&group)
    };
    let table = |right: &[Vec<f32>]| {
        let rows = left.iter().enumerate();
        let cells = rows.flat_map(|(f, l)| {
            let columns = right.iter().enumerate();
            columns.map(move |(g, r)| allowed(f, g).then(|| correlation(l, r)))
        });
        cells.collect()
    };
    (table(&right), table(&mixed))
}

/// Pearson's correlation; 0 if one list does not vary.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len().max(1) as f64;
    let mean = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x) - mean_a, f64::from(y) - mean_b);
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    if aa == 0.0 || bb == 0.0 {
        return 0.0;
    }
    (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0)
}

/// Takes the greatest entry whose row and column are free, until there is none.
fn greedy(table: &[Option<f64>], [rows, columns]: [usize; 2]) -> Vec<Pair> {
    let cells = table.iter().enumerate().filter_map(|(i, cell)| {
        Some(Pair {
            first: i / columns,
            second: i % columns,
            correlation: (*cell)?,
        })
    });
    let mut cells: Vec<Pair> = cells.collect();
    cells.sort_by(|a, b| {
        let by_value = b.correlation.total_cmp(&a.correlation);
        by_value
            .then(a.first.cmp(&b.first))
            .then(a.second.cmp(&b.second))
    });
    let (mut row_free, mut column_free) = (vec![true; rows], vec![true; columns]);
    cells.retain(|pair| {
        let free = row_free[pair.first] && column_free[pair.second];
        if free {
            row_free[pair.first] = false;
            column_free[pair.second] = false;
        }
        free
    });
    cells
}

fn mean(pairs: &[Pair]) -> f64 {
    let sum: f64 = pairs.iter().map(|pair| pair.correlation).sum();
    sum / pairs.len().max(1) as f64
}

/// The pairs of all layers as a PNG file: first run above, second run below, then the correlation. A filter with many input
/// channels is a mosaic of them, in the order of the first run.
///
/// # Errors
/// [`DrawError`].
pub fn draw(
    names: [&str; 2],
    first: Trained<'_>,
    second: Trained<'_>,
    matches: &[LayerMatch],
) -> Result<Vec<u8>, DrawError> {
    let mut blocks = Vec::new();
    let mut read: Channels = Vec::new();
    for found in matches {
        let filters = [first, second].map(|run| {
            let mut layers = run.architecture.layers.iter();
            let layer = layers.find(|layer| layer.name == found.layer)?;
            Filters::of(run.architecture, layer, run.weights)
        });
        let [Some(x), Some(y)] = filters else {
            continue;
        };
        let by_channel = |side: usize| -> Vec<usize> {
            let count = [x.channels, y.channels][side];
            let matched: Vec<usize> = read
                .iter()
                .map(|c| c[side])
                .filter(|c| *c < count)
                .collect();
            if matched.is_empty() || x.channels == 1 {
                (0..count).collect()
            } else {
                matched
            }
        };
        let channels = [by_channel(0), by_channel(1)];
        let side = (channels[0].len() as f64).sqrt().ceil() as usize;
        let scale = (52 / (side * x.size[0].max(x.size[1]))).clamp(1, 14);
        let shown = &found.pairs[..found.pairs.len().min(MOST)];
        let tile = |pair: &Pair| {
            let above = x.mosaic(pair.first, &channels[0], x.limit(), scale);
            let below = y.mosaic(pair.second, &channels[1], y.limit(), scale);
            let (w, h) = above.dimensions();
            let mut both = RgbImage::from_pixel(w.max(44), 2 * h + 4, image::Rgb([255; 3]));
            image::imageops::replace(&mut both, &above, 0, 0);
            image::imageops::replace(&mut both, &below, 0, (h + 4).into());
            both
        };
        let tiles: Vec<RgbImage> = shown.iter().map(tile).collect();
        let height = tiles.first().map_or(0, RgbImage::height);
        let (picture, places) = sheet::grid(&tiles, 16, 20);
        let captions = places.iter().zip(shown);
        blocks.push(Block {
            heading: format!(
                "{}: mean correlation {:.2}, by chance {:.2}; {:.0} % of the pairs have 0.9 or more",
                found.layer,
                found.mean,
                found.chance,
                100.0 * found.alike
            ),
            picture,
            captions: captions
                .map(|([x, y], pair)| (*x, y + height + 2, format!("{:.2}", pair.correlation)))
                .collect(),
        });
        read = found.pairs.iter().map(|p| [p.first, p.second]).collect();
        read.sort_unstable();
    }
    let note = format!(
        "above {}, below {}; below each pair its correlation",
        names[0], names[1]
    );
    sheet::draw("Matched filters", &note, &blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recipe, weights::Array};

    fn network(first: usize, second: usize) -> Architecture {
        let text = format!(
            r#"
            input = [6, 6, 1]
            layers = [
                {{ type = "conv", filters = {first}, kernel = [1, 3], activation = "relu" }},
                {{ type = "max_pool", size = [1, 2] }},
                {{ type = "conv", filters = {second}, kernel = [1, 2], activation = "relu" }},
                {{ type = "flatten" }},
                {{ type = "dense", units = 2, activation = "softmax" }},
            ]
            "#
        );
        let network: recipe::Network = toml::from_str(&text).unwrap();
        Architecture::resolve(&network, &recipe::LossRecipe::default()).unwrap()
    }

    /// HWIO kernels from filters, each `[channel][column]`.
    fn weights(first: &[[f32; 3]], second: &[Vec<[f32; 2]>]) -> Weights {
        let mut weights = Weights::default();
        let (co, data) = (
            first.len(),
            (0..3).flat_map(|w| first.iter().map(move |f| f[w])),
        );
        let kernel = Array {
            shape: vec![1, 3, 1, co],
            data: data.collect(),
        };
        weights.0.insert("conv1.kernel".into(), kernel);
        let ci = second[0].len();
        let cells = (0..2).flat_map(|w| (0..ci).map(move |i| (w, i)));
        let data = cells.flat_map(|(w, i)| second.iter().map(move |f| f[i][w]));
        let kernel = Array {
            shape: vec![1, 2, ci, second.len()],
            data: data.collect(),
        };
        weights.0.insert("conv2.kernel".into(), kernel);
        weights
    }

    const EDGE: [f32; 3] = [-1.0, 0.0, 1.0];
    const LINE: [f32; 3] = [-1.0, 2.0, -1.0];
    const RISE: [f32; 3] = [0.0, 0.0, 3.0];

    /// The second run is the first one with its filters in another order and scaled: everything is found again.
    #[test]
    fn a_permuted_network_is_the_same() {
        let a = weights(
            &[EDGE, LINE, RISE],
            &[
                vec![[1.0, 2.0], [3.0, -4.0], [0.5, 0.0]],
                vec![[-2.0, 1.0], [0.0, 5.0], [1.0, 1.0]],
            ],
        );
        let twice = |f: [f32; 3]| f.map(|w| 2.0 * w);
        let b = weights(
            &[twice(RISE), twice(EDGE), twice(LINE)],
            &[
                vec![[1.0, 1.0], [-2.0, 1.0], [0.0, 5.0]],
                vec![[0.5, 0.0], [1.0, 2.0], [3.0, -4.0]],
            ],
        );
        let architecture = network(3, 2);
        let run = |weights| Trained {
            architecture: &architecture,
            weights,
        };
        let found = compare(run(&a), run(&b)).unwrap();
        assert_eq!(found.len(), 2);
        for layer in &found {
            assert!(
                (layer.mean - 1.0).abs() < 1e-6 && layer.alike == 1.0,
                "{layer:?}"
            );
            assert!(layer.chance <= layer.mean + 1e-9, "{layer:?}");
        }
        let order = |layer: &LayerMatch| {
            let mut order: Vec<_> = layer.pairs.iter().map(|p| (p.first, p.second)).collect();
            order.sort_unstable();
            order
        };
        assert_eq!(order(&found[0]), [(0, 1), (1, 2), (2, 0)]);
        assert_eq!(order(&found[1]), [(0, 1), (1, 0)]);
        let png = draw(["a", "b"], run(&a), run(&b), &found).unwrap();
        assert!(image::load_from_memory(&png).is_ok());
    }

    /// Two filters against three: the best two pairs, and the next layer compares only their channels.
    #[test]
    fn different_numbers_of_filters() {
        let a = weights(&[EDGE, LINE], &[vec![[1.0, 2.0], [3.0, -4.0]]]);
        let b = weights(
            &[LINE, RISE, EDGE],
            &[vec![[3.0, -4.0], [90.0, -90.0], [1.0, 2.0]]],
        );
        let (small, large) = (network(2, 1), network(3, 1));
        let first = Trained {
            architecture: &small,
            weights: &a,
        };
        let second = Trained {
            architecture: &large,
            weights: &b,
        };
        let found = compare(first, second).unwrap();
        assert_eq!(found[0].filters, [2, 3]);
        assert_eq!(found[0].pairs.len(), 2);
        assert!((found[1].mean - 1.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn greedy_takes_the_greatest_first() {
        let table = [Some(0.9), Some(0.8), Some(0.7), Some(-0.5)];
        let pairs = greedy(&table, [2, 2]);
        assert_eq!(pairs.len(), 2);
        assert_eq!((pairs[0].first, pairs[0].second), (0, 0));
        assert_eq!((pairs[1].first, pairs[1].second), (1, 1));
        assert_eq!(correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), 1.0);
        assert_eq!(correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
        assert_eq!(correlation(&[1.0, 1.0], &[3.0, 2.0]), 0.0);
    }

    #[test]
    fn other_layers_are_named() {
        let weights = weights(&[EDGE], &[vec![[1.0, 2.0]]]);
        let (one, mut other) = (network(1, 1), network(1, 1));
        let LayerKind::MaxPool { window } = &mut other.layers[1].kind else {
            panic!("max pool");
        };
        window.stride = [1, 1];
        let run = |architecture| Trained {
            architecture,
            weights: &weights,
        };
        let error = compare(run(&one), run(&other)).unwrap_err().to_string();
        assert!(
            error.starts_with("layer 2 is `max_pool 1x2, stride 1x2` in the first run and `max_pool 1x2, stride 1x1`"),
            "{error}"
        );
    }
}
