//! Pictures of the weights that look at something two-dimensional: conv kernels, and dense layers on the image itself.

use image::{Rgb, RgbImage};

use super::{
    DrawError,
    sheet::{self, Block},
};
use crate::{
    architecture::{Architecture, Layer, LayerKind, Source},
    weights::{Array, Weights},
};

/// Filters, and channels of each, that a sheet shows; further ones are only counted.
const MOST: usize = 256;
/// Width that a sheet with a column per channel should have, in pixels.
const WIDTH: usize = 900;

/// One layer's filters as a PNG file: blue negative, red positive, white zero; full colour at the magnitude that 99.5 % of
/// the layer's weights do not exceed.
///
/// # Errors
/// [`DrawError`].
pub fn draw(layer: &str, filters: &Filters) -> Result<Vec<u8>, DrawError> {
    let limit = filters.limit();
    let shown = [filters.count.min(MOST), filters.channels.min(MOST)];
    let scale = (36 / filters.size[0].max(filters.size[1])).clamp(1, 12);
    let (tiles, columns, how) = if filters.channels == 3 {
        let tiles = (0..shown[0]).map(|f| filters.colour_tile(f, limit, scale));
        (
            tiles.collect::<Vec<_>>(),
            16,
            "one tile per filter, red, green and blue together; grey is zero",
        )
    } else if filters.channels == 1 {
        let tiles = (0..shown[0]).map(|f| filters.tile(f, 0, limit, scale));
        (tiles.collect(), 16, "one tile per filter")
    } else {
        let fitting = WIDTH / (shown[1] * filters.size[1]).max(1);
        let scale = fitting.clamp(3, scale.clamp(3, 8));
        let tiles = (0..shown[0]).flat_map(|f| (0..shown[1]).map(move |c| (f, c)));
        let tiles = tiles.map(|(f, c)| filters.tile(f, c, limit, scale));
        (
            tiles.collect(),
            shown[1],
            "one row per filter, one column per input channel",
        )
    };
    let (picture, _) = sheet::grid(&tiles, columns, 0);
    let left_out = if shown == [filters.count, filters.channels] {
        String::new()
    } else {
        format!(", the first {} x {} shown", shown[0], shown[1])
    };
    let [h, w] = filters.size;
    let heading = format!(
        "{} filters of {h} x {w} x {}{left_out}",
        filters.count, filters.channels
    );
    let block = Block {
        heading,
        picture,
        captions: Vec::new(),
    };
    let note = format!("{how}; blue -{limit:.3}, white 0, red +{limit:.3}");
    sheet::draw(&format!("Filters of {layer}"), &note, &[block])
}

/// Filters of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// How many.
    pub count: usize,
    /// Rows and columns of each.
    pub size: [usize; 2],
    /// Input channels of each.
    pub channels: usize,
    /// `[filter][channel][row][column]`.
    values: Vec<f32>,
}

impl Filters {
    /// The filters of a layer, if it has some that can be seen: a conv layer, or a dense layer on the flattened image.
    pub fn of(architecture: &Architecture, layer: &Layer, weights: &Weights) -> Option<Self> {
        let kernel = weights.0.get(&format!("{}.kernel", layer.name))?;
        match layer.kind {
            LayerKind::Conv { .. } => Self::conv(kernel),
            LayerKind::Dense { units, .. } => {
                let &[Source::Layer(source)] = layer.inputs.as_slice() else {
                    return None;
                };
                let flatten = &architecture.layers[source];
                let on_image =
                    flatten.inputs == [Source::Input] && matches!(flatten.kind, LayerKind::Flatten);
                let shape = flatten.input;
                on_image.then(|| Self {
                    count: units,
                    size: [shape.h, shape.w],
                    channels: shape.c,
                    values: reorder(&kernel.data, shape.h * shape.w, shape.c, units),
                })
            }
            _ => None,
        }
    }

    /// From a conv kernel, HWIO.
    fn conv(kernel: &Array) -> Option<Self> {
        let &[kh, kw, ci, co] = kernel.shape.as_slice() else {
            return None;
        };
        Some(Self {
            count: co,
            size: [kh, kw],
            channels: ci,
            values: reorder(&kernel.data, kh * kw, ci, co),
        })
    }

    /// The `channels * rows * columns` weights of one filter.
    pub fn filter(&self, filter: usize) -> &[f32] {
        let len = self.channels * self.size[0] * self.size[1];
        &self.values[filter * len..][..len]
    }

    /// One channel's `rows * columns` weights.
    pub fn channel(&self, filter: usize, channel: usize) -> &[f32] {
        let len = self.size[0] * self.size[1];
        &self.filter(filter)[channel * len..][..len]
    }

    /// The magnitude that 99.5 % of the weights do not exceed; positive.
    pub fn limit(&self) -> f32 {
        let mut magnitudes: Vec<f32> = self.values.iter().map(|w| w.abs()).collect();
        magnitudes.sort_by(f32::total_cmp);
        let last = magnitudes.len().saturating_sub(1);
        let at = (last as f64 * 0.995).ceil() as usize;
        magnitudes
            .get(at)
            .copied()
            .unwrap_or(0.0)
            .max(f32::MIN_POSITIVE)
    }

    fn tile(&self, filter: usize, channel: usize, limit: f32, scale: usize) -> RgbImage {
        let values = self.channel(filter, channel);
        sheet::tile(values, self.size, scale, |w| sheet::signed(w / limit))
    }

    fn colour_tile(&self, filter: usize, limit: f32, scale: usize) -> RgbImage {
        let len = self.size[0] * self.size[1];
        let positions: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let values = self.filter(filter);
        sheet::tile(&positions, self.size, scale, |i| {
            let part = |c: usize| values[c * len + i as usize] / limit;
            Rgb([0, 1, 2].map(|c| (127.5 + 127.5 * part(c).clamp(-1.0, 1.0)) as u8))
        })
    }

    /// All channels of a filter in one picture, near a square.
    pub fn mosaic(&self, filter: usize, channels: &[usize], limit: f32, scale: usize) -> RgbImage {
        if self.channels == 3 {
            return self.colour_tile(filter, limit, scale);
        }
        let tiles = channels.iter().map(|&c| self.tile(filter, c, limit, scale));
        let tiles: Vec<RgbImage> = tiles.collect();
        if let [tile] = tiles.as_slice() {
            return tile.clone();
        }
        let columns = (tiles.len() as f64).sqrt().ceil() as usize;
        sheet::grid(&tiles, columns, 0).0
    }
}

/// `[position][channel][filter]` to `[filter][channel][position]`.
fn reorder(values: &[f32], positions: usize, channels: usize, filters: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for f in 0..filters {
        for c in 0..channels {
            out.extend((0..positions).map(|p| values[(p * channels + c) * filters + f]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two filters of 1 x 2 on two channels; HWIO values 0 to 7.
    fn filters() -> Filters {
        let kernel = Array {
            shape: vec![1, 2, 2, 2],
            data: (0..8).map(|i| i as f32).collect(),
        };
        Filters::conv(&kernel).unwrap()
    }

    #[test]
    fn hwio_becomes_filter_channel_position() {
        let filters = filters();
        assert_eq!(filters.filter(0), [0.0, 4.0, 2.0, 6.0]);
        assert_eq!(filters.channel(1, 1), [3.0, 7.0]);
        assert_eq!(filters.limit(), 7.0);
    }

    #[test]
    fn sheet_shows_the_greatest_weight_in_full_red() {
        let png = draw("conv1", &filters()).unwrap();
        let page = image::load_from_memory(&png).unwrap().to_rgb8();
        let red = page.pixels().filter(|p| **p == sheet::signed(1.0)).count();
        assert_eq!(red, 64, "one square of 8 x 8 pixels");
        assert!(
            !page.pixels().any(|p| p.0[2] > p.0[0].saturating_add(40)),
            "no blue"
        );
    }

    #[test]
    fn colour_filters_are_one_tile_each() {
        let kernel = Array {
            shape: vec![1, 1, 3, 2],
            data: vec![1.0, 0.0, -1.0, 0.0, 0.0, 1.0],
        };
        let filters = Filters::conv(&kernel).unwrap();
        assert_eq!(filters.filter(0), [1.0, -1.0, 0.0]);
        let tile = filters.mosaic(0, &[0, 1, 2], 1.0, 1);
        assert_eq!(tile.get_pixel(0, 0), &Rgb([255, 0, 127]));
    }
}
