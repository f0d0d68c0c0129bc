//! CRC-32 (ISO-HDLC, as in zlib and Ethernet), also in const context.

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0xedb8_8320
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

const TABLE: &[u32; 256] = &table();

/// A CRC-32 over several pieces: `Crc::NEW.update(a).update(b).finish()`.
///
/// ```
/// use runtime::crc::Crc;
/// assert_eq!(Crc::NEW.update(b"1234").update(b"56789").finish(), 0xcbf4_3926); // the check value of the catalogue
/// assert_ne!(Crc::NEW.update(b"123456788").finish(), 0xcbf4_3926);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc(u32);

impl Crc {
    /// The CRC of no bytes.
    pub const NEW: Self = Self(!0);

    /// Adds bytes.
    pub const fn update(self, bytes: &[u8]) -> Self {
        let mut crc = self.0;
        let mut rest = bytes;
        // Four bytes per turn keep the count of loop turns of a compile-time check below the lint `long_running_const_eval`.
        while let [a, b, c, d, tail @ ..] = rest {
            crc = (crc >> 8) ^ TABLE[((crc ^ *a as u32) & 0xff) as usize];
            crc = (crc >> 8) ^ TABLE[((crc ^ *b as u32) & 0xff) as usize];
            crc = (crc >> 8) ^ TABLE[((crc ^ *c as u32) & 0xff) as usize];
            crc = (crc >> 8) ^ TABLE[((crc ^ *d as u32) & 0xff) as usize];
            rest = tail;
        }
        while let [a, tail @ ..] = rest {
            crc = (crc >> 8) ^ TABLE[((crc ^ *a as u32) & 0xff) as usize];
            rest = tail;
        }
        Self(crc)
    }

    /// The CRC of all bytes added so far.
    pub const fn finish(self) -> u32 {
        !self.0
    }
}
