//! Models in flash: they survive resets, and a power cut at every single step leaves the old model or the new one.

mod script;

use app::{Event, Flash, Memory, serve};
use proptest::{collection::vec, option, prelude::*};
use protocol::{DeviceError, Request, Response, SelfTest, Source, Storage};
use runtime::{Aligned, Model};
use script::{
    Answer, Ended, IMAGE, LOGITS, OTHER_LOGITS, Script, built_in, file,
    flash::{Power, Region, UNIT},
    frame, frames, other, untrue, with_info,
};

const CLASSIFY: Request<'static> = Request::Classify { image: &IMAGE };

/// Two regions of eight units each, with room for every model here.
fn halves() -> [Region; 2] {
    [Region::new(8), Region::new(8)]
}

/// One run of a device from its start until its requests or its power end.
fn run(
    built_in: &[u8],
    regions: &mut [Region; 2],
    power: &Power,
    requests: &[Request<'_>],
    check: impl FnMut(usize, Answer<'_>),
) {
    let input = requests.iter().flat_map(|&body| frame(1, body)).collect();
    feed(built_in, regions, power, input, check);
}

/// The same with any bytes.
fn feed(
    built_in: &[u8],
    [first, second]: &mut [Region; 2],
    power: &Power,
    input: Vec<u8>,
    mut check: impl FnMut(usize, Answer<'_>),
) {
    first.power = power.clone();
    second.power = power.clone();
    let model = Model::new(built_in).unwrap();
    let events = input.into_iter().map(Event::Byte);
    let mut board = Script::new(events.take_while(|_| power.is_on()));
    let memory = Memory {
        arena: &mut Aligned([0; 1024]).0,
        frame: &mut vec![0; app::frame_len(&model)],
        places: [Flash::new(first), Flash::new(second)],
    };
    let Ended = serve(&mut board, &model, memory);
    for (i, mut bytes) in frames(&board.output).into_iter().enumerate() {
        check(i, protocol::decode(&mut bytes).unwrap().body);
    }
}

/// The requests of an upload, in chunks of at most 100 bytes.
fn upload(file: &[u8]) -> Vec<Request<'_>> {
    let begin = Request::LoadBegin {
        len: file.len() as u32,
    };
    let chunks = file
        .chunks(100)
        .enumerate()
        .map(|(i, bytes)| Request::LoadChunk {
            offset: 100 * i as u32,
            bytes,
        });
    [begin]
        .into_iter()
        .chain(chunks)
        .chain([Request::LoadCommit])
        .collect()
}

/// The model in use after a start: its name and its logits of `IMAGE`.
fn in_use(regions: &mut [Region; 2]) -> (String, Vec<i32>) {
    let mut name = String::new();
    let mut result = Vec::new();
    let requests = [Request::Info, CLASSIFY];
    run(
        &built_in(),
        regions,
        &Power::on(),
        &requests,
        |i, answer| match (i, answer) {
            (0, answer) => with_info(answer, |info| {
                assert!(!matches!(info.self_test, SelfTest::Failed { .. }));
                assert_eq!(info.source == Source::BuiltIn, info.model == "built-in");
                assert_eq!(info.storage, Storage::Flash);
                name = info.model.to_owned();
            }),
            (_, Response::Classified { logits, .. }) => result = logits,
            (_, other) => panic!("{other:?}"),
        },
    );
    (name, result)
}

fn expect_last(
    built_in: &[u8],
    regions: &mut [Region; 2],
    requests: &[Request<'_>],
    expected: &Answer<'_>,
) {
    let mut last = 0;
    run(built_in, regions, &Power::on(), requests, |i, answer| {
        if i + 1 == requests.len() {
            assert_eq!(answer, *expected);
        }
        last = i + 1;
    });
    assert_eq!(last, requests.len());
}

fn loaded(file: &[u8]) -> Answer<'static> {
    Response::Loaded {
        model_crc: Model::new(file).unwrap().crc(),
    }
}

#[test]
fn an_uploaded_model_survives_a_reset_and_so_does_the_way_back() {
    let mut regions = halves();
    assert_eq!(in_use(&mut regions), ("built-in".into(), LOGITS.into()));
    let other = other();
    expect_last(&built_in(), &mut regions, &upload(&other), &loaded(&other));
    assert_eq!(in_use(&mut regions), ("other".into(), OTHER_LOGITS.into()));
    expect_last(
        &built_in(),
        &mut regions,
        &[Request::UseBuiltIn],
        &Response::Switching,
    );
    assert_eq!(in_use(&mut regions), ("built-in".into(), LOGITS.into()));
    expect_last(&built_in(), &mut regions, &upload(&other), &loaded(&other));
    assert_eq!(in_use(&mut regions), ("other".into(), OTHER_LOGITS.into()));
}

#[test]
fn a_broken_upload_is_refused_and_the_old_model_stays() {
    let mut regions = halves();
    expect_last(
        &built_in(),
        &mut regions,
        &upload(&other()),
        &loaded(&other()),
    );
    let mut damaged = built_in();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (file, error) in [
        (damaged, DeviceError::InvalidModel),
        (untrue(built_in()), DeviceError::UploadSelfTestFailed),
    ] {
        let mut requests = upload(&file);
        expect_last(
            &built_in(),
            &mut regions,
            &requests,
            &Response::Error(error),
        );
        assert_eq!(in_use(&mut regions).0, "other");
        requests.pop();
        run(
            &built_in(),
            &mut regions,
            &Power::on(),
            &requests,
            |_, _| {},
        );
        assert_eq!(
            in_use(&mut regions).0,
            "other",
            "an upload that was not finished"
        );
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_model_or_the_new_one() {
    let (second, third) = (other(), file("third", &[[5, 5, 5, 5]], &[1]));
    let stages = [
        (upload(&second), "other"),
        (upload(&third), "third"),
        (vec![Request::UseBuiltIn], "built-in"),
        (upload(&second), "other"),
        (upload(&second), "other"),
    ];
    let requests: Vec<Request<'_>> = stages.iter().flat_map(|(part, _)| part.clone()).collect();
    // Nothing of the last step, all of it, and three ways in between.
    for (last, pages) in [0, u32::MAX, 0x5a5a_1234, 0x0000_ffff, 0x8000_0001]
        .into_iter()
        .flat_map(|last| [(last, false), (last, true)])
    {
        let mut step = 0;
        loop {
            step += 1;
            let power = Power::cut_at(step, last, pages);
            let mut regions = halves();
            let mut done = 0;
            run(&built_in(), &mut regions, &power, &requests, |_, answer| {
                done += usize::from(matches!(
                    answer,
                    Response::Loaded { .. } | Response::Switching
                ));
            });
            if power.is_on() {
                break;
            }
            let before = done.checked_sub(1).map_or("built-in", |i| stages[i].1);
            let (name, _) = in_use(&mut regions);
            assert!(
                name == before || name == stages[done].1,
                "step {step}, bits {last:#x}: {name} after {done} changes"
            );
            assert_eq!(
                in_use(&mut regions).0,
                name,
                "a second start finds the same"
            );
            expect_last(&built_in(), &mut regions, &upload(&third), &loaded(&third));
            assert_eq!(
                in_use(&mut regions).0,
                "third",
                "step {step}, bits {last:#x}"
            );
        }
        assert!(step > if pages { 30 } else { 200 }, "{step} steps");
    }
}

#[test]
fn a_model_that_decays_gives_way_to_the_one_before() {
    let third = file("third", &[[5, 5, 5, 5]], &[1]);
    let mut regions = halves();
    expect_last(
        &built_in(),
        &mut regions,
        &upload(&other()),
        &loaded(&other()),
    );
    expect_last(&built_in(), &mut regions, &upload(&third), &loaded(&third));
    assert_eq!(in_use(&mut regions).0, "third");
    // Word 1 of a mark is its sequence number.
    let newest = usize::from(regions[1].words[1] > regions[0].words[1]);
    regions[newest].words[20] ^= 1 << 7;
    assert_eq!(in_use(&mut regions).0, "other");
    regions[1 - newest].words[20] ^= 1 << 7;
    assert_eq!(in_use(&mut regions).0, "built-in");
    expect_last(
        &built_in(),
        &mut regions,
        &upload(&other()),
        &loaded(&other()),
    );
    assert_eq!(in_use(&mut regions).0, "other");
}

#[test]
fn a_firmware_with_another_built_in_model_starts_with_that() {
    let mut regions = halves();
    expect_last(
        &built_in(),
        &mut regions,
        &upload(&other()),
        &loaded(&other()),
    );
    let newer = file("newer", &[[1, 1, 1, 1]], &[0]);
    run(
        &newer,
        &mut regions,
        &Power::on(),
        &[Request::Info],
        |_, answer| {
            with_info(answer, |info| {
                assert_eq!((info.model, info.source), ("newer", Source::BuiltIn));
            });
        },
    );
}

/// Room for one model and for the mark of the built-in one.
#[test]
fn with_one_place_the_built_in_model_makes_room() {
    let mut regions = [Region::new(8), Region::new(1)];
    expect_last(
        &built_in(),
        &mut regions,
        &upload(&other()),
        &loaded(&other()),
    );
    let third = file("third", &[[5, 5, 5, 5]], &[1]);
    let begin = Request::LoadBegin {
        len: third.len() as u32,
    };
    let refusal = DeviceError::ModelTooLarge {
        max: UNIT as u32 - 32,
        got: third.len() as u32,
    };
    expect_last(
        &built_in(),
        &mut regions,
        &[begin],
        &Response::Error(refusal),
    );
    assert_eq!(in_use(&mut regions).0, "other");
    expect_last(
        &built_in(),
        &mut regions,
        &[Request::UseBuiltIn],
        &Response::Switching,
    );
    expect_last(&built_in(), &mut regions, &upload(&third), &loaded(&third));
    assert_eq!(in_use(&mut regions).0, "third");
}

#[test]
fn flash_that_fails_is_reported_and_the_old_model_stays() {
    let mut regions = halves();
    expect_last(
        &built_in(),
        &mut regions,
        &upload(&other()),
        &loaded(&other()),
    );
    for region in &mut regions {
        region.stuck = 1 << 1;
    }
    let error = Response::Error(DeviceError::Storage);
    expect_last(&built_in(), &mut regions, &upload(&built_in()), &error);
    assert_eq!(in_use(&mut regions).0, "other");
    expect_last(&built_in(), &mut regions, &[Request::UseBuiltIn], &error);
    assert_eq!(in_use(&mut regions).0, "other");
}

#[test]
fn without_flash_every_upload_is_refused() {
    let mut regions = [Region::new(0), Region::new(0)];
    let refusal = DeviceError::ModelTooLarge { max: 0, got: 4 };
    let begin = Request::LoadBegin { len: 4 };
    expect_last(
        &built_in(),
        &mut regions,
        &[begin],
        &Response::Error(refusal),
    );
    assert_eq!(in_use(&mut regions).0, "built-in");
}

/// Requests in any order and with any contents, some of them damaged on the wire.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let request = (0..7u8, 0..600u32, 0..600u32, vec(any::<u8>(), 0..60));
    let frame = (request, option::of((any::<u8>(), any::<u8>()))).prop_map(
        |((kind, len, offset, bytes), damage)| {
            let body = match kind {
                0 => Request::Classify { image: &bytes },
                1 => Request::Profile { image: &bytes },
                2 => Request::LoadBegin { len },
                3 => Request::LoadChunk {
                    offset,
                    bytes: &bytes,
                },
                4 => Request::LoadCommit,
                5 => Request::UseBuiltIn,
                _ => Request::Info,
            };
            let mut frame = frame(1, body);
            if let Some((at, value)) = damage {
                let at = usize::from(at) % frame.len();
                frame[at] = value;
            }
            frame
        },
    );
    vec(frame, 0..40).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn any_requests_are_survived(before in anything(), after in anything()) {
        let mut regions = halves();
        let other = other();
        let upload: Vec<u8> = upload(&other).into_iter().flat_map(|body| frame(1, body)).collect();
        let zero = vec![0];
        let info = frame(1, Request::Info);
        let input = [before, zero.clone(), upload, after, zero, info].concat();
        let mut answered = false;
        feed(&built_in(), &mut regions, &Power::on(), input, |_, answer| {
            answered = matches!(answer, Response::Info(_));
        });
        prop_assert!(answered, "the last answer is that to the last request");
        let (name, _) = in_use(&mut regions);
        prop_assert!(name == "other" || name == "built-in");
    }
}
