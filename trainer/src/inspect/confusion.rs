//! The pairs of classes that are mistaken for each other most often, with the images.

use serde::Serialize;

use super::{
    DrawError,
    sheet::{self, Block},
};
use crate::dataset::Labelled;

/// Images of a pair that a sheet shows; further ones are only counted.
const MOST: usize = 24;

/// Images of one class that were taken for another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Class that the images have.
    pub label: u32,
    /// Class that was predicted.
    pub prediction: u32,
    /// Positions of the images, in order.
    pub images: Vec<usize>,
}

/// All pairs with an image, the most frequent ones first; of equally frequent ones the lower label, then the lower
/// prediction.
pub fn pairs(labels: &[u32], predictions: &[u32]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for (image, (&label, &prediction)) in labels.iter().zip(predictions).enumerate() {
        if label == prediction {
            continue;
        }
        let known = pairs
            .iter_mut()
            .find(|pair| pair.label == label && pair.prediction == prediction);
        match known {
            Some(pair) => pair.images.push(image),
            None => pairs.push(Pair {
                label,
                prediction,
                images: vec![image],
            }),
        }
    }
    pairs.sort_by_key(|pair| (usize::MAX - pair.images.len(), pair.label, pair.prediction));
    pairs
}

/// The pairs with their images as a PNG file; below each image its position, as `trainer inspect --index` takes it.
///
/// # Errors
/// [`DrawError`].
pub fn draw(pairs: &[Pair], names: &[String], data: &Labelled) -> Result<Vec<u8>, DrawError> {
    let shape = data.images.shape;
    let scale = (56 / shape.w.max(shape.h)).clamp(1, 8);
    let name = |class: u32| names.get(class as usize).map_or("?", String::as_str);
    let blocks: Vec<Block> = pairs
        .iter()
        .map(|pair| {
            let shown = &pair.images[..pair.images.len().min(MOST)];
            let tiles = shown.iter().map(|&i| data.images.get(i));
            let tiles: Vec<_> = tiles
                .map(|image| sheet::pixels(image, shape.into(), scale))
                .collect();
            let height = (shape.h * scale) as u32;
            let (picture, places) = sheet::grid(&tiles, 12, 18);
            let captions = places.iter().zip(shown);
            Block {
                heading: format!(
                    "{} taken for {}: {} images",
                    name(pair.label),
                    name(pair.prediction),
                    pair.images.len()
                ),
                picture,
                captions: captions
                    .map(|([x, y], image)| (*x, y + height + 2, image.to_string()))
                    .collect(),
            }
        })
        .collect();
    let note = if blocks.is_empty() {
        "every image was classified as its label"
    } else {
        "fixed-point model, test images; the number below an image is its position"
    };
    sheet::draw("Most confused classes", note, &blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Images;

    #[test]
    fn most_frequent_first_then_by_class() {
        let found = pairs(&[0, 1, 1, 2, 0, 1], &[0, 2, 2, 0, 1, 1]);
        let pair = |label, prediction, images: &[usize]| Pair {
            label,
            prediction,
            images: images.into(),
        };
        assert_eq!(
            found,
            [pair(1, 2, &[1, 2]), pair(0, 1, &[4]), pair(2, 0, &[3])]
        );
        assert!(pairs(&[1, 2], &[1, 2]).is_empty());
    }

    #[test]
    fn sheet_shows_the_images() {
        let data = Labelled {
            images: Images {
                shape: [1, 1, 3].into(),
                pixels: vec![9, 8, 7, 200, 100, 50],
            },
            labels: vec![0, 1],
        };
        let names = ["a".to_string(), "b".to_string()];
        let png = draw(&pairs(&data.labels, &[0, 0]), &names, &data).unwrap();
        let page = image::load_from_memory(&png).unwrap().to_rgb8();
        let count = |colour| page.pixels().filter(|p| p.0 == colour).count();
        assert_eq!(count([200, 100, 50]), 64, "one pixel, 8 x 8");
        assert_eq!(count([9, 8, 7]), 0, "the other image is right");
        assert!(draw(&[], &names, &data).is_ok());
    }
}
