//! What the device reads: its model, and the bytes on its serial line.

use protocol::{Decoder, Packet, Request, Response};
use runtime::{Kernels, Model, encode::seal};

/// A name, and what is done with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// The names are those of the programs and of the corpora.
pub const TARGETS: [Target; 2] = [("model", model), ("frame", frame)];

/// Work of a model run that is still tried: multiply-accumulates, and bytes of arena.
const MOST_MACS: u64 = 1 << 22;
const MOST_ARENA: usize = 1 << 24;

/// model.fxp: validation, then a run with each set of kernels. The CRC-32 and the length are put right first, or nothing behind them would be reached.
pub fn model(bytes: &[u8]) {
    let _ = Model::new(bytes);
    let mut file = bytes.to_vec();
    file.resize(file.len().next_multiple_of(4), 0);
    if let Some(length) = file.get_mut(8..12) {
        let stated = bytes.len().next_multiple_of(4) as u32;
        length.copy_from_slice(&stated.to_le_bytes());
    }
    seal(&mut file);
    let Ok(model) = Model::new(&file) else { return };
    let outputs: usize = model.ops().map(|op| op.output.bytes()).sum();
    let macs: u64 = model.ops().map(|op| op.macs()).sum();
    if macs > MOST_MACS || model.arena_len() > MOST_ARENA || outputs > MOST_ARENA {
        return;
    }
    let image: Vec<u8> = (0..model.input().len())
        .map(|i| bytes[i % bytes.len()])
        .collect();
    // No result may depend on what the arena held before, or on the kernels.
    let runs = Kernels::ALL.iter().zip([0, 0xff].into_iter().cycle());
    let mut results = runs.map(|(&kernels, dirt)| {
        let mut arena = vec![dirt; model.arena_len()];
        let input = model.input_mut(&mut arena);
        input.expect("as long as stated").copy_from_slice(&image);
        let logits = model.run_loaded_on(kernels, &mut arena, |_| ());
        let logits = logits.expect("a validated model runs");
        assert!(logits.argmax() < model.classes());
        logits.accumulators().collect::<Vec<i32>>()
    });
    let first = results.next().expect("the portable kernels");
    assert!(first.iter().all(|logit| logit.unsigned_abs() < 1 << 24));
    for other in results {
        assert_eq!(other, first);
    }
    let mut arena = vec![0; model.arena_len()];
    model.self_test(&mut arena).expect("a validated model runs");
}

/// The bytes that a device receives, and those that a host receives.
pub fn frame(bytes: &[u8]) {
    let mut buffer = [0; 64];
    let mut decoder = Decoder::new(&mut buffer);
    for &byte in bytes {
        if decoder.push(byte) {
            let packet: Result<Packet<Request<'_>>, _> = decoder.packet();
            if let Ok(packet) = packet {
                let mut again = [0; 128];
                protocol::encode(&packet, &mut again).expect("as long as before, at most");
            }
        }
    }
    let mut buffer = bytes.to_vec();
    let _ = protocol::decode::<Response<'_, Vec<i32>, Vec<u32>>>(&mut buffer);
    // The same without COBS and with the right CRC-32, which bytes at random do not have.
    let sealed = framed(bytes);
    let mut buffer = sealed.clone();
    let _ = protocol::decode::<Response<'_, Vec<i32>, Vec<u32>>>(&mut buffer);
    let mut buffer = sealed;
    let _ = protocol::decode::<Request<'_>>(&mut buffer);
}

/// The bytes as the message of a frame, without its final zero.
fn framed(message: &[u8]) -> Vec<u8> {
    // Every run of bytes without a zero then fits into one block of COBS.
    let message = &message[..message.len().min(249)];
    let crc = runtime::crc::Crc::NEW.update(message).finish();
    let bytes = [message, &crc.to_le_bytes()].concat();
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    for block in bytes.split(|&byte| byte == 0) {
        frame.push(block.len() as u8 + 1);
        frame.extend_from_slice(block);
    }
    frame
}
