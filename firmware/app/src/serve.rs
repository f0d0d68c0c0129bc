//! The loop around sessions: which model is in use.

use core::mem;

use protocol::{Decoder, Source};
use runtime::Model;

use crate::{
    Board, Memory,
    session::{Session, Switch},
};

/// Answers requests until the board ends the loop.
///
/// Starts with the built-in model; each successful upload, or the way back, starts a new session.
/// If `memory.arena` is too small for the built-in model, every classification is refused.
pub fn serve<B: Board>(board: &mut B, built_in: &Model<'_>, memory: Memory<'_>) -> B::End {
    let Memory {
        arena,
        frame,
        uploads: [mut active, mut spare],
    } = memory;
    let mut decoder = Decoder::new(frame);
    let mut uploaded_len = None;
    loop {
        let uploaded = uploaded_len
            .and_then(|len| active.get(..len))
            .and_then(|file| Model::new(file).ok());
        let (model, source) = match &uploaded {
            Some(model) => (model, Source::Uploaded),
            None => (built_in, Source::BuiltIn),
        };
        let session = Session::new(board, model, source, arena, &mut decoder, spare);
        match session.run() {
            Err(end) => return end,
            Ok(Switch::BuiltIn) => uploaded_len = None,
            Ok(Switch::Uploaded { len }) => {
                uploaded_len = Some(len);
                mem::swap(&mut active, &mut spare);
            }
        }
    }
}
