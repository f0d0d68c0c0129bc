//! The loop around sessions: which model is in use.

use core::mem;

use protocol::{Decoder, Source};
use runtime::Model;

use crate::{
    Board, Mark, Memory, Place, log,
    session::{Session, Switch, accept},
};

/// Answers requests until the board ends the loop.
///
/// Starts with the uploaded model that was kept last, if it still passes its self-test, else with the built-in one; each
/// successful upload, or the way back, starts a new session.
/// If `memory.arena` is too small for the built-in model, every classification is refused.
pub fn serve<B: Board, P: Place>(
    board: &mut B,
    built_in: &Model<'_>,
    memory: Memory<'_, P>,
) -> B::End {
    let Memory {
        arena,
        frame,
        places: [mut active, mut spare],
    } = memory;
    let mut decoder = Decoder::new(frame);
    let mut follow = |place: &P| follow(place, built_in, arena, decoder.capacity());
    let sequence_of = |place: &P| place.kept().map(|mark| mark.sequence);
    if sequence_of(&spare) > sequence_of(&active) {
        mem::swap(&mut active, &mut spare);
    }
    // Also after a mark that is not followed: the next one has to be greater.
    let mut sequence = sequence_of(&active).unwrap_or(0);
    let mut in_use = follow(&active);
    if in_use.is_none() {
        in_use = follow(&spare);
        if in_use.is_some() || spare.capacity() < active.capacity() {
            mem::swap(&mut active, &mut spare);
        }
    }
    let mut in_use = in_use.unwrap_or(Switch::BuiltIn);
    loop {
        let uploaded = match in_use {
            Switch::BuiltIn => None,
            Switch::Uploaded { len } => active.file(len).and_then(|file| Model::new(file).ok()),
        };
        let (model, source) = match &uploaded {
            Some(model) => (model, Source::Uploaded),
            None => (built_in, Source::BuiltIn),
        };
        sequence = sequence.wrapping_add(1);
        let next = Mark {
            sequence,
            len: 0,
            built_in: built_in.crc(),
        };
        let session = Session::new(board, model, source, arena, &mut decoder, &mut spare, next);
        match session.run() {
            Err(end) => return end,
            Ok(switch) => in_use = switch,
        }
        mem::swap(&mut active, &mut spare);
    }
}

/// What the place's mark says, if it is for this firmware and its model passes.
fn follow<P: Place>(
    place: &P,
    built_in: &Model<'_>,
    arena: &mut [u8],
    capacity: usize,
) -> Option<Switch> {
    let mark = place
        .kept()
        .filter(|mark| mark.built_in == built_in.crc())?;
    let len = mark.len as usize;
    if len == 0 {
        return Some(Switch::BuiltIn);
    }
    match accept(place, len, arena, capacity) {
        Ok(_) => Some(Switch::Uploaded { len }),
        Err(error) => {
            log::refused(error);
            None
        }
    }
}
