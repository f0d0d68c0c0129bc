//! The model proves itself on the device.

use protocol::SelfTest;
use runtime::Model;

/// Runs the model on its embedded golden image and compares the CRC-32 of the logits (i32,
/// little-endian) with the one in the file. Overwrites `arena`.
///
/// A model that cannot run at all in `arena` fails with `got: 0`.
pub fn self_test(model: &Model<'_>, arena: &mut [u8]) -> SelfTest {
    let Some(golden) = model.golden() else {
        return SelfTest::Absent;
    };
    let expected = golden.logits_crc;
    let got = model
        .run(golden.image, arena)
        .map_or(0, |logits| logits.crc());
    if got == expected {
        SelfTest::Passed
    } else {
        SelfTest::Failed { expected, got }
    }
}
