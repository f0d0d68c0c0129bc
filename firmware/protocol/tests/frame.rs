//! Frames survive a round trip; every broken stream is an error and the next frame is read.

use proptest::prelude::*;
use protocol::{
    Decoder, DeviceError, FrameError, Info, Packet, Request, Response, SelfTest, Source, Stack,
    Storage, encode, frame_capacity,
};

type Reply<'a> = Response<'a, Vec<i32>, Vec<u32>>;

fn feed(decoder: &mut Decoder<'_>, bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| decoder.push(b)).count()
}

#[test]
fn the_bytes_of_a_frame_are_fixed() {
    // sequence 7, variant 0 -> postcard 07 00; CRC-32/ISO-HDLC of 07 00 from Python's zlib.crc32.
    let crc = 0x0e98_8438_u32;
    let mut plain = vec![7, 0];
    plain.extend(crc.to_le_bytes());
    let mut expected = vec![2, 7, 5];
    expected.extend(&plain[2..]);
    expected.push(0);
    let mut buffer = [0; 32];
    let frame = encode(
        &Packet {
            sequence: 7,
            body: Request::Info,
        },
        &mut buffer,
    )
    .unwrap();
    assert_eq!(frame, expected);
}

/// The same frame from postcard's own parts.
fn postcards(packet: &Packet<Request<'_>>, buffer: &mut [u8]) -> Vec<u8> {
    use postcard::ser_flavors::{Cobs, Flavor, Slice, crc::CrcModifier};
    use serde::Serialize;
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let cobs = Cobs::try_new(Slice::new(buffer)).unwrap();
    let mut serializer = postcard::Serializer {
        output: CrcModifier::new(cobs, crc.digest()),
    };
    packet.serialize(&mut serializer).unwrap();
    serializer.output.finalize().unwrap().to_vec()
}

/// Around the 254 bytes that a code counts, with and without zeros.
#[test]
fn frames_are_those_of_postcard() {
    for len in (0..20).chain(235..265).chain(490..520) {
        for zero_every in [1, 2, 254, usize::MAX] {
            let image: Vec<u8> = (1..=len).map(|i| u8::from(i % zero_every != 0)).collect();
            let packet = Packet {
                sequence: 0x0101,
                body: Request::Classify { image: &image },
            };
            let (mut ours, mut theirs) = ([7; 600], [7; 600]);
            let frame = encode(&packet, &mut ours).unwrap();
            assert_eq!(frame, postcards(&packet, &mut theirs), "{len} {zero_every}");
            let short = frame.len() - 1;
            encode(&packet, &mut theirs[..short]).unwrap_err();
        }
    }
}

#[test]
fn info_fits_the_smallest_frame() {
    let info = Info {
        protocol: protocol::VERSION,
        board: "a board with a name of reasonable length",
        model: "a model whose name is as long as the file format allows it to be",
        recipe_hash: [0xff; 32],
        model_crc: u32::MAX,
        model_len: u32::MAX,
        source: Source::Uploaded,
        arena_len: u32::MAX,
        input: [u16::MAX; 3],
        classes: u16::MAX,
        kernels: "the name of some kernels",
        ticks_per_second: u32::MAX,
        self_test: SelfTest::Failed {
            expected: u32::MAX,
            got: u32::MAX,
        },
        storage: Storage::Flash,
        max_model_len: u32::MAX,
        stack: Some(Stack {
            used: u32::MAX,
            len: u32::MAX,
        }),
    };
    let mut buffer = vec![0; frame_capacity(0, 0, 0)];
    encode(
        &Packet {
            sequence: 1,
            body: Response::<&[i32], &[u32]>::Info(info),
        },
        &mut buffer,
    )
    .unwrap();
}

#[test]
fn an_oversized_frame_is_reported_and_the_next_one_read() {
    let mut buffer = [0; 64];
    let mut decoder = Decoder::new(&mut buffer);
    let mut stream = vec![1; 10_000];
    stream.push(0);
    assert_eq!(feed(&mut decoder, &stream), 1);
    assert_eq!(
        decoder.packet::<Request<'_>>(),
        Err(FrameError::TooLong { capacity: 64 })
    );
    let mut frame = [0; 64];
    let frame = encode(
        &Packet {
            sequence: 3,
            body: Request::Info,
        },
        &mut frame,
    )
    .unwrap();
    assert_eq!(feed(&mut decoder, frame), 1);
    assert_eq!(
        decoder.packet(),
        Ok(Packet {
            sequence: 3,
            body: Request::Info
        })
    );
}

proptest! {
    #[test]
    fn an_image_comes_back(image in proptest::collection::vec(any::<u8>(), 0..2000), sequence in any::<u16>()) {
        let mut frame = vec![0; frame_capacity(image.len(), 0, 0)];
        let packet = Packet { sequence, body: Request::Classify { image: &image } };
        let sent = encode(&packet, &mut frame).unwrap().to_vec();
        prop_assert_eq!(sent.iter().filter(|&&b| b == 0).count(), 1);
        let mut buffer = vec![0; frame_capacity(image.len(), 0, 0)];
        let mut decoder = Decoder::new(&mut buffer);
        prop_assert_eq!(feed(&mut decoder, &sent), 1);
        prop_assert_eq!(decoder.packet(), Ok(packet));
    }

    /// The crate `cobs` decodes the same frames and refuses the same ones.
    #[test]
    fn broken_stuffing_is_told_from_a_wrong_crc(
        mut frame in proptest::collection::vec(prop_oneof![1u8..6, 250u8..=255, 1u8..], 1..600),
    ) {
        let is_cobs = cobs::decode(&frame, &mut [0; 600]).is_ok();
        let error = protocol::decode::<Request<'_>>(&mut frame).unwrap_err();
        prop_assert_eq!(is_cobs, error != FrameError::Encoding);
    }

    #[test]
    fn logits_come_back(logits in proptest::collection::vec(any::<i32>(), 0..300), ticks in any::<u32>()) {
        let mut frame = vec![0; frame_capacity(0, logits.len(), 0)];
        let body: Response<'_> = Response::Classified { logits: &logits, argmax: 3, ticks };
        let sent = encode(&Packet { sequence: 9, body }, &mut frame).unwrap().to_vec();
        let mut buffer = vec![0; 2000];
        let mut decoder = Decoder::new(&mut buffer);
        prop_assert_eq!(feed(&mut decoder, &sent), 1);
        let got: Packet<Reply<'_>> = decoder.packet().unwrap();
        prop_assert_eq!(got.body, Response::Classified { logits, argmax: 3, ticks });
    }

    #[test]
    fn a_changed_byte_is_noticed(at in 0_usize..100, change in 1_u8..=255) {
        let mut frame = [0; 256];
        let packet = Packet { sequence: 5, body: Request::Classify { image: &[9; 80] } };
        let mut sent = encode(&packet, &mut frame).unwrap().to_vec();
        let at = at % (sent.len() - 1);
        sent[at] ^= change;
        let mut buffer = [0; 256];
        let mut decoder = Decoder::new(&mut buffer);
        for &byte in &sent {
            if decoder.push(byte) {
                prop_assert!(decoder.packet::<Request<'_>>().is_err());
            }
        }
    }

    #[test]
    fn after_noise_the_next_frame_is_read(noise in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let mut buffer = [0; 128];
        let mut decoder = Decoder::new(&mut buffer);
        for byte in noise {
            if decoder.push(byte) {
                let _ = decoder.packet::<Request<'_>>();
            }
        }
        if decoder.push(0) {
            let _ = decoder.packet::<Request<'_>>();
        }
        let mut frame = [0; 128];
        let sent = encode(&Packet { sequence: 1, body: DeviceError::NotLoading }, &mut frame).unwrap();
        prop_assert_eq!(feed(&mut decoder, sent), 1);
        prop_assert_eq!(decoder.packet(), Ok(Packet { sequence: 1, body: DeviceError::NotLoading }));
    }
}
