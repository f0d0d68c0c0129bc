//! Pictures of what every layer of the float network computes for one image.

use image::RgbImage;

use super::{
    DrawError,
    sheet::{self, Block},
};
use crate::architecture::Shape;

/// Maps of a layer that a sheet shows; further ones are only counted.
const MOST: usize = 256;

/// A layer's output for one image.
#[derive(Clone, Debug)]
pub struct Maps {
    /// Name of the layer.
    pub layer: String,
    /// Its shape.
    pub shape: Shape,
    /// `shape.len()` values, row-major, channels last.
    pub values: Vec<f32>,
}

/// Image and maps as a PNG file. Colours span the values of each layer: from 0 (or its smallest value) to its largest one
/// if none is negative, else blue for negative, white for 0, red for positive values. `what` describes the image.
///
/// # Errors
/// [`DrawError`].
pub fn draw(what: &str, image: &[u8], input: Shape, layers: &[Maps]) -> Result<Vec<u8>, DrawError> {
    let scale = (112 / input.w.max(input.h)).clamp(1, 8);
    let mut blocks = vec![Block {
        heading: format!("image, {input}"),
        picture: sheet::pixels(image, input.into(), scale),
        captions: Vec::new(),
    }];
    blocks.extend(layers.iter().map(block));
    let note = "float network; violet 0, yellow the layer's largest value; with negative values blue, white, red";
    sheet::draw(&format!("Activations: {what}"), note, &blocks)
}

fn block(maps: &Maps) -> Block {
    let Shape { h, w, c } = maps.shape;
    let values = maps.values.iter().copied();
    let (low, high) = values.fold((0f32, 0f32), |(l, h), x| (l.min(x), h.max(x)));
    let largest = high.max(-low).max(f32::MIN_POSITIVE);
    let colour = |x: f32| {
        if low < 0.0 {
            sheet::signed(x / largest)
        } else {
            sheet::unsigned(x / largest)
        }
    };
    let shown = c.min(MOST);
    let (scale, columns) = match h * w {
        1 => (14, 46),
        _ => ((54 / w.max(h)).clamp(1, 10), 16),
    };
    let tiles: Vec<RgbImage> = (0..shown)
        .map(|channel| {
            let map: Vec<f32> = (0..h * w).map(|i| maps.values[i * c + channel]).collect();
            sheet::tile(&map, [h, w], scale, colour)
        })
        .collect();
    let left_out = if shown == c {
        String::new()
    } else {
        format!(", the first {shown} shown")
    };
    Block {
        heading: format!(
            "{}: {c} of {h} x {w}{left_out}, from {low:.2} to {high:.2}",
            maps.layer
        ),
        picture: sheet::grid(&tiles, columns, 0).0,
        captions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two maps of 1 x 2: the second one holds the largest value, at its right end.
    #[test]
    fn channels_become_tiles() {
        let maps = Maps {
            layer: "conv1".into(),
            shape: [1, 2, 2].into(),
            values: vec![0.0, 1.0, 2.0, 4.0],
        };
        let block = block(&maps);
        assert_eq!(block.heading, "conv1: 2 of 1 x 2, from 0.00 to 4.00");
        let picture = &block.picture;
        assert_eq!(picture.get_pixel(0, 0), &sheet::unsigned(0.0));
        assert_eq!(picture.get_pixel(10, 0), &sheet::unsigned(0.5));
        assert_eq!(picture.get_pixel(22, 0), &sheet::unsigned(0.25));
        assert_eq!(picture.get_pixel(32, 0), &sheet::unsigned(1.0));
        let png = draw("x", &[0, 255], [1, 2, 1].into(), &[maps]).unwrap();
        assert!(image::load_from_memory(&png).is_ok());
    }

    #[test]
    fn negative_values_are_blue() {
        let maps = Maps {
            layer: "dense1".into(),
            shape: [1, 1, 2].into(),
            values: vec![-3.0, 1.5],
        };
        let picture = block(&maps).picture;
        assert_eq!(picture.get_pixel(0, 0), &sheet::signed(-1.0));
        assert_eq!(picture.get_pixel(16, 0), &sheet::signed(0.5));
    }
}
