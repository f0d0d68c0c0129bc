//! A sheet: headings with pictures below each other, as a PNG file. Pictures are made of tiles: small matrices whose values
//! become colours.

use image::{Rgb, RgbImage, imageops};
use plotters::prelude::*;

use super::DrawError;
use crate::picture::{self, INK, MUTED, SCALE, text};

/// Space between tiles, in pixels.
const GAP: u32 = 2;
/// Space around everything.
const MARGIN: u32 = 20;
/// Smallest width, so that headings fit.
const LEAST_WIDTH: u32 = 760;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// A part of a sheet.
#[derive(Clone, Debug)]
pub struct Block {
    /// Line above the picture.
    pub heading: String,
    /// The picture.
    pub picture: RgbImage,
    /// Small texts on the picture: left, top (pixels of the picture), text.
    pub captions: Vec<(u32, u32, String)>,
}

/// Draws a sheet as a PNG file: title, a note below it, then the blocks.
///
/// # Errors
/// The drawing library fails, for example because a sheet is too large for the memory.
pub fn draw(title: &str, note: &str, blocks: &[Block]) -> Result<Vec<u8>, DrawError> {
    const TITLE: u32 = 64;
    const HEADING: u32 = 26;
    const BETWEEN: u32 = 22;
    let widest = blocks.iter().map(|block| block.picture.width()).max();
    // A letter of the note is about half as wide as it is high.
    let wide = (note.chars().count() as u32 * 15 / 2).max(LEAST_WIDTH);
    let width = widest.unwrap_or(0).max(wide) + 2 * MARGIN;
    let heights = blocks
        .iter()
        .map(|b| HEADING + b.picture.height() + BETWEEN);
    let height = MARGIN + TITLE + heights.sum::<u32>() + MARGIN;
    let mut page = RgbImage::from_pixel(width, height, PAPER);
    let mut texts = vec![
        (MARGIN, MARGIN, 24, INK, title),
        (MARGIN, MARGIN + 30, 15, MUTED, note),
    ];
    let mut top = MARGIN + TITLE;
    for block in blocks {
        texts.push((MARGIN, top, 17, INK, &block.heading));
        top += HEADING;
        imageops::replace(&mut page, &block.picture, MARGIN.into(), top.into());
        for (x, y, caption) in &block.captions {
            texts.push((MARGIN + x, top + y, 13, MUTED, caption));
        }
        top += block.picture.height() + BETWEEN;
    }
    let failed = |problem: String| DrawError {
        title: title.into(),
        problem,
    };
    // The letters are drawn smoothly on white, then laid over the tiles, which stay sharp.
    let letters = picture::draw([width, height], |area| {
        let scaled = |n: u32| (n * SCALE).cast_signed();
        texts
            .into_iter()
            .try_for_each(|(x, y, size, colour, words)| {
                let place = (scaled(x), scaled(y));
                area.draw(&Text::new(words.to_owned(), place, text(size, &colour)))
                    .map_err(|e| e.to_string())
            })
    })
    .map_err(failed)?;
    for (below, above) in page.pixels_mut().zip(letters.pixels()) {
        for (below, above) in below.0.iter_mut().zip(above.0) {
            *below = above.min(*below);
        }
    }
    picture::png(&page).map_err(failed)
}

/// A matrix of `rows x columns` values, row-major, each as a square of `scale x scale` pixels.
///
/// # Panics
/// If there are fewer values.
pub fn tile(
    values: &[f32],
    [rows, columns]: [usize; 2],
    scale: usize,
    colour: impl Fn(f32) -> Rgb<u8>,
) -> RgbImage {
    assert!(values.len() >= rows * columns, "a value for every square");
    RgbImage::from_fn((columns * scale) as u32, (rows * scale) as u32, |x, y| {
        let (x, y) = (x as usize / scale, y as usize / scale);
        colour(values[y * columns + x])
    })
}

/// Raw pixels (1 or 3 channels, NHWC) as a picture, enlarged; of other channel counts the first one.
///
/// # Panics
/// If there are fewer pixels.
pub fn pixels(image: &[u8], [h, w, c]: [usize; 3], scale: usize) -> RgbImage {
    assert!(image.len() >= h * w * c, "a byte for every value");
    RgbImage::from_fn((w * scale) as u32, (h * scale) as u32, |x, y| {
        let at = ((y as usize / scale) * w + x as usize / scale) * c;
        match c {
            3 => Rgb([image[at], image[at + 1], image[at + 2]]),
            _ => Rgb([image[at]; 3]),
        }
    })
}

/// Equally large tiles in rows of `columns`; `below` pixels are left free under each row. Also gives the place (left, top) of
/// each tile.
pub fn grid(tiles: &[RgbImage], columns: usize, below: u32) -> (RgbImage, Vec<[u32; 2]>) {
    let (w, h) = tiles.first().map_or((1, 1), |tile| tile.dimensions());
    let columns = columns.clamp(1, tiles.len().max(1)) as u32;
    let rows = (tiles.len() as u32).div_ceil(columns).max(1);
    let (step_x, step_y) = (w + GAP, h + below + GAP);
    let mut picture = RgbImage::from_pixel(columns * step_x, rows * step_y, PAPER);
    let place = |i: u32| [i % columns * step_x, i / columns * step_y];
    let places: Vec<[u32; 2]> = (0..tiles.len() as u32).map(place).collect();
    for (tile, [x, y]) in tiles.iter().zip(&places) {
        imageops::replace(&mut picture, tile, (*x).into(), (*y).into());
    }
    (picture, places)
}

/// Signed values: -1 blue, 0 white, 1 red; beyond that the same as at the end.
pub fn signed(x: f32) -> Rgb<u8> {
    const ENDS: [[f32; 3]; 2] = [[33.0, 102.0, 172.0], [178.0, 24.0, 43.0]];
    let end = ENDS[usize::from(x > 0.0)];
    let strength = x.abs().min(1.0);
    Rgb(end.map(|end| (247.0 + (end - 247.0) * strength) as u8))
}

/// Values from 0 (dark violet) over green to 1 (yellow): the colours of matplotlib's viridis, of even brightness steps.
pub fn unsigned(x: f32) -> Rgb<u8> {
    const STOPS: [[f32; 3]; 5] = [
        [68.0, 1.0, 84.0],
        [59.0, 82.0, 139.0],
        [33.0, 145.0, 140.0],
        [94.0, 201.0, 98.0],
        [253.0, 231.0, 37.0],
    ];
    let at = x.clamp(0.0, 1.0) * 4.0;
    let first = (at as usize).min(3);
    let part = at - first as f32;
    let [a, b] = [STOPS[first], STOPS[first + 1]];
    Rgb(std::array::from_fn(|i| (a[i] + (b[i] - a[i]) * part) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_at_their_ends() {
        assert_eq!(signed(0.0), Rgb([247, 247, 247]));
        assert_eq!(signed(5.0), Rgb([178, 24, 43]));
        assert_eq!(signed(-1.0), Rgb([33, 102, 172]));
        assert_eq!(unsigned(-1.0), Rgb([68, 1, 84]));
        assert_eq!(unsigned(0.5), Rgb([33, 145, 140]));
        assert_eq!(unsigned(9.0), Rgb([253, 231, 37]));
    }

    #[test]
    fn tiles_keep_their_order() {
        let colour = |x: f32| Rgb([x as u8; 3]);
        let tiles: Vec<RgbImage> = (0..3)
            .map(|i| tile(&[10.0 * i as f32, 1.0, 2.0, 3.0], [2, 2], 3, colour))
            .collect();
        let (picture, places) = grid(&tiles, 2, 5);
        assert_eq!(places, [[0, 0], [8, 0], [0, 13]]);
        assert_eq!(picture.dimensions(), (16, 26));
        assert_eq!(picture.get_pixel(8, 0), &Rgb([10; 3]));
        assert_eq!(picture.get_pixel(3, 2), &Rgb([1; 3]));
        assert_eq!(picture.get_pixel(0, 13), &Rgb([20; 3]));
        assert_eq!(picture.get_pixel(0, 7), &PAPER);
    }

    #[test]
    fn a_sheet_has_title_headings_and_pictures() {
        let block = Block {
            heading: "one".into(),
            picture: RgbImage::from_pixel(30, 10, Rgb([1, 2, 3])),
            captions: vec![(0, 0, "caption".into())],
        };
        let png = draw("title", "note", &[block.clone(), block]).unwrap();
        let page = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(page.dimensions(), (800, 20 + 64 + 2 * (26 + 10 + 22) + 20));
        assert_eq!(page.get_pixel(20 + 29, 20 + 64 + 26 + 9), &Rgb([1, 2, 3]));
        let ink = page
            .enumerate_pixels()
            .filter(|(_, y, p)| *y < 84 && p.0[0] < 128);
        assert!(ink.count() > 20, "the title is there");
    }
}
