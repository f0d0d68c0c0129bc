//! How all pictures are drawn: with an embedded font, so that they look alike on every machine, and [`SCALE`] times
//! larger than they become, so that lines and letters are smooth.

use std::{io::Cursor, sync::Once};

use image::{ImageFormat, RgbImage, imageops};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{FontStyle, TextStyle, register_font},
};

/// All lengths that a drawing function uses are multiplied by this.
pub const SCALE: u32 = 2;
const FONT: &str = "isobit";

/// Text and headings.
pub const INK: RGBColor = RGBColor(31, 41, 55);
/// Less important text.
pub const MUTED: RGBColor = RGBColor(107, 114, 128);
/// Axes and grid lines.
pub const GRID: RGBColor = RGBColor(229, 231, 235);
/// First series.
pub const BLUE: RGBColor = RGBColor(37, 99, 235);
/// Second series.
pub const ORANGE: RGBColor = RGBColor(234, 88, 12);

/// Where a drawing function draws.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A text style; `size` in pixels of the final picture.
pub fn text(size: u32, color: &RGBColor) -> TextStyle<'static> {
    (FONT, f64::from(size * SCALE)).into_font().color(color)
}

/// A picture of `[width, height]` pixels on white; `draw` gets an area [`SCALE`] times larger.
///
/// # Errors
/// Those of `draw`, and what the drawing library says.
pub fn draw(
    size: [u32; 2],
    draw: impl FnOnce(&Area<'_>) -> Result<(), String>,
) -> Result<RgbImage, String> {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // The embedded file is a valid font; a failure would show as the drawing error below.
        let _ = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
    let [width, height] = size.map(|n| n * SCALE);
    let mut large = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
    {
        let root = BitMapBackend::with_buffer(&mut large, (width, height)).into_drawing_area();
        draw(&root)?;
        root.present().map_err(|e| e.to_string())?;
    }
    let filter = imageops::FilterType::Triangle;
    Ok(imageops::resize(&large, size[0], size[1], filter))
}

/// The bytes of a PNG file.
///
/// # Errors
/// What the encoder says.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>, String> {
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| e.to_string())?;
    Ok(png.into_inner())
}
