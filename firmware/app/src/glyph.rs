//! Pictures of classes for a matrix of 5 x 5 LEDs.

/// Five rows from the top; bit 4 is the left column.
pub type Glyph = [u8; 5];

/// The digit of a class from 0 to 9, a dash for others.
pub const fn glyph(class: usize) -> Glyph {
    match class {
        0 => [0b01110, 0b01010, 0b01010, 0b01010, 0b01110],
        1 => [0b00100, 0b01100, 0b00100, 0b00100, 0b01110],
        2 => [0b01110, 0b00010, 0b01110, 0b01000, 0b01110],
        3 => [0b01110, 0b00010, 0b00110, 0b00010, 0b01110],
        4 => [0b01010, 0b01010, 0b01110, 0b00010, 0b00010],
        5 => [0b01110, 0b01000, 0b01110, 0b00010, 0b01110],
        6 => [0b01110, 0b01000, 0b01110, 0b01010, 0b01110],
        7 => [0b01110, 0b00010, 0b00100, 0b01000, 0b01000],
        8 => [0b01110, 0b01010, 0b01110, 0b01010, 0b01110],
        9 => [0b01110, 0b01010, 0b01110, 0b00010, 0b01110],
        _ => [0, 0, 0b01110, 0, 0],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_digit_has_its_own_picture() {
        let pictures: HashSet<Glyph> = (0..=10).map(glyph).collect();
        assert_eq!(pictures.len(), 11);
        assert!(pictures.iter().flatten().all(|row| *row < 1 << 5));
        assert_eq!(glyph(usize::MAX), glyph(10));
    }
}
