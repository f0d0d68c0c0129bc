//! Log statements, compiled to nothing without the feature `defmt`.

use protocol::{Info, SelfTest};

/// First words after the start, and after every change of the model.
pub(crate) fn model(info: &Info<'_>) {
    #[cfg(feature = "defmt")]
    {
        defmt::info!("board {=str}, kernels {=str}", info.board, info.kernels);
        defmt::info!(
            "model {=str} ({}), {=u32} bytes, crc {=u32:#010x}",
            info.model,
            info.source,
            info.model_len,
            info.model_crc
        );
        defmt::info!("recipe {=[u8]:02x}", info.recipe_hash);
        defmt::info!(
            "arena {=u32} bytes, classes {=u16}",
            info.arena_len,
            info.classes
        );
        defmt::info!(
            "room for an uploaded model: {=u32} bytes of {}",
            info.max_model_len,
            info.storage
        );
        match info.self_test {
            SelfTest::Failed { .. } => defmt::error!("self-test {}", info.self_test),
            SelfTest::Passed | SelfTest::Absent => defmt::info!("self-test {}", info.self_test),
        }
    }
    #[cfg(not(feature = "defmt"))]
    let (_, _): (&Info<'_>, Option<SelfTest>) = (info, None);
}

/// A request that was not carried out.
pub(crate) fn refused(error: protocol::DeviceError) {
    #[cfg(feature = "defmt")]
    defmt::warn!("refused: {}", error);
    #[cfg(not(feature = "defmt"))]
    let _ = error;
}
