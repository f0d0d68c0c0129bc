//! The firmware on every emulated machine: the start's log, the self-test, logits of test images, the upload of a
//! model, noise, the stack. `cargo xtask qemu` builds the programs and runs this.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use protocol::{DeviceError, Packet, Request, SelfTest, Source, Storage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use runtime::{
    Model,
    encode::{DType, ModelSpec, OpSpec, OutputActivation, Post, Shape, TensorSpec, encode},
};
use verifier::{
    backend::Backend,
    host::Host,
    link::{Client, Device, LinkError, Qemu, Start, target},
};

/// Test images on each machine; `trainer verify` compares more, with the ONNX model.
const IMAGES: usize = 100;
/// Bytes of noise on each machine; more on the first one.
const NOISE: usize = 64 * 1024;
const MUCH_NOISE: usize = 1024 * 1024;
/// After so many bytes of it the machine is asked who it is.
const CHUNK: usize = 4096;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn model_file() -> Vec<u8> {
    let path = std::env::var_os("ISOBIT_MODEL")
        .map_or_else(|| root().join("models/mnist/model.fxp"), PathBuf::from);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn start(name: &str) -> Client<Qemu> {
    start_as(name, &Start::default())
}

fn start_as(name: &str, start: &Start<'_>) -> Client<Qemu> {
    Client::new(qemu(name, start))
}

fn qemu(name: &str, start: &Start<'_>) -> Qemu {
    if start.elf.is_none() {
        program(name);
    }
    Qemu::start(target::machine(name).unwrap(), start).unwrap()
}

/// The built program, which must hold the model that the tests compare with: `trainer verify --against qemu:NAME` leaves one with
/// its own.
fn program(name: &str) -> Vec<u8> {
    let path = target::elf(name).unwrap_or_else(|error| panic!("{error}"));
    let program = fs::read(&path).unwrap();
    let model = model_file();
    assert!(
        program.windows(model.len()).any(|window| window == model),
        "{} is built with another model than the one it is tested with (models/mnist/model.fxp, or ISOBIT_MODEL): run \
         `cargo xtask firmware {name}` first",
        path.display()
    );
    program
}

/// A dense layer on the images of MNIST: a model that fits wherever there is room for one.
fn small() -> Vec<u8> {
    let tensor = |h, w, c, dtype| TensorSpec {
        shape: Shape { h, w, c },
        dtype,
    };
    let spec = ModelSpec {
        name: "small".into(),
        recipe_hash: [1; 32],
        tensors: vec![tensor(28, 28, 1, DType::U8), tensor(1, 1, 10, DType::I32)],
        ops: vec![OpSpec::Dense {
            input: 0,
            output: 1,
            weight: (0..7840_u32).map(|i| (i * 37 % 31) as i8 - 15).collect(),
            bias: (0..10).map(|i| 1000 * i).collect(),
            post: Post::default(),
        }],
        logit_exponents: vec![-8; 10],
        output: OutputActivation::Softmax,
        golden_image: Some((0..784_u32).map(|i| (i * 91) as u8).collect()),
    };
    encode(&spec).unwrap()
}

/// Logits of one image on the host.
fn host(file: &[u8], image: &[u8]) -> Vec<i32> {
    Host::new(file).unwrap().logits(&[image]).unwrap().remove(0)
}

fn broken(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    file
}

fn source(client: &mut Client<Qemu>) -> Source {
    client.info(|info| info.source).unwrap()
}

fn machines() -> impl Iterator<Item = &'static str> {
    target::targets()
        .machines
        .iter()
        .map(|machine| machine.name.as_str())
}

/// The log as text, one line per frame: level and message.
fn decoded(elf: &Path, log: &Path) -> String {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(root().join("tests/defmt-log/Cargo.toml"))
        .arg("--target-dir")
        .arg(root().join("target/defmt-log"))
        .arg("--")
        .arg(elf)
        .stdin(fs::File::open(log).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "defmt-log: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_start_is_logged() {
    let file = model_file();
    let model = Model::new(&file).unwrap();
    let hash: Vec<String> = model
        .recipe_hash()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for name in machines() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let start = Start {
            log: Some(log.path()),
            ..Start::default()
        };
        let mut client = start_as(name, &start);
        client.expect_model(&model).unwrap();
        let room = client.info(|info| info.max_model_len).unwrap();
        let expected = fs::read_to_string(root().join(format!("firmware/qemu/{name}/{name}.out")))
            .unwrap()
            .replace("{name}", model.name())
            .replace("{len}", &file.len().to_string())
            .replace("{crc}", &format!("{:#010x}", model.crc()))
            .replace("{hash}", &format!("[{}]", hash.join(", ")))
            .replace("{arena}", &model.arena_len().to_string())
            .replace("{room}", &room.to_string())
            .replace("{classes}", &model.classes().to_string());
        assert_eq!(
            decoded(&target::elf(name).unwrap(), log.path()),
            expected,
            "log of {name}"
        );
    }
}

#[test]
fn noise_never_hangs_it() {
    for (i, name) in machines().enumerate() {
        let mut client = start(name);
        let mut random = ChaCha8Rng::seed_from_u64(i as u64);
        let noise = if i == 0 { MUCH_NOISE } else { NOISE };
        let begin = Instant::now();
        for _ in 0..noise / CHUNK {
            let chunk = noisy(&mut random);
            std::io::Write::write_all(client.port(), &chunk).unwrap();
            client
                .info(|_| ())
                .unwrap_or_else(|error| panic!("{name} after noise: {error}"));
        }
        println!(
            "{name}: {noise} bytes of noise in {:.1} s",
            begin.elapsed().as_secs_f64()
        );
    }
}

/// A chunk of noise: half of it random bytes, the rest requests, of which some are damaged or cut off.
fn noisy(random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut noise = vec![0; CHUNK / 2];
    random.fill(&mut noise[..]);
    let mut buffer = [0; 1024];
    while noise.len() < CHUNK {
        let bytes: Vec<u8> = (0..random.random_range(0..800))
            .map(|_| random.random())
            .collect();
        let body = match random.random_range(0..6) {
            0 => Request::Classify { image: &bytes },
            1 => Request::Profile { image: &bytes },
            2 => Request::LoadBegin {
                len: random.random_range(0..20_000) & !3,
            },
            3 => Request::LoadChunk {
                offset: 0,
                bytes: &bytes[..bytes.len() & !3],
            },
            4 => Request::LoadCommit,
            _ => Request::UseBuiltIn,
        };
        // A number that the client never waits for.
        let packet = Packet {
            sequence: u16::MAX,
            body,
        };
        let frame = protocol::encode(&packet, &mut buffer).unwrap();
        let mut frame = frame.to_vec();
        let at = random.random_range(0..frame.len());
        match random.random_range(0..4) {
            0 => frame[at] ^= 1 << random.random_range(0..8),
            1 => frame.truncate(at),
            _ => {}
        }
        noise.extend(frame);
    }
    noise
}

/// The first test images of MNIST.
fn test_images(count: usize) -> Vec<Vec<u8>> {
    let folder = root().join("models/mnist");
    let recipe = trainer::recipe::Recipe::load(&folder.join("recipe.toml"), &[]).unwrap();
    let architecture =
        trainer::architecture::Architecture::resolve(&recipe.network, &recipe.train.loss).unwrap();
    let (input, classes) = (architecture.input, architecture.classes());
    let data = trainer::dataset::load(&recipe.data, input, classes, &folder).unwrap();
    (0..count)
        .map(|i| data.test.images.get(i).to_vec())
        .collect()
}

#[test]
fn every_machine_gives_the_logits_of_the_host() {
    let file = model_file();
    let model = Model::new(&file).unwrap();
    let images = test_images(IMAGES);
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let expected = Host::new(&file).unwrap().logits(&images).unwrap();
    for name in machines() {
        let qemu = qemu(name, &Start::default());
        let mut device = Device::new(qemu, name, &model).unwrap();
        let begin = Instant::now();
        let got = device.logits(&images).unwrap();
        let mismatching = got.iter().flatten().zip(expected.iter().flatten());
        let mismatching = mismatching.filter(|(a, b)| a != b).count();
        let rate = images.len() as f64 / begin.elapsed().as_secs_f64();
        println!("{name}: {rate:.1} images/s, mismatching logits: {mismatching}");
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn a_wrong_image_is_refused() {
    let mut client = start("mps2-an386");
    let error = client.classify(&[0; 3]).unwrap_err();
    assert!(
        matches!(
            error,
            LinkError::Refused(DeviceError::ImageLength { got: 3, .. })
        ),
        "{error}"
    );
}

/// A bit of the golden image flips in the built-in model, as in a flash that decays: its logits are not the stated ones.
#[test]
fn a_model_that_computes_something_else_is_not_used() {
    let file = model_file();
    let model = Model::new(&file).unwrap();
    for name in machines() {
        let mut elf = program(name);
        let at = elf
            .windows(file.len())
            .position(|window| window == file)
            .expect("checked");
        let golden = model.golden().unwrap().image;
        let pixel = golden.iter().position(|pixel| *pixel > 100).unwrap();
        let golden_at = golden.as_ptr() as usize - file.as_ptr() as usize;
        elf[at + golden_at + pixel] ^= 0x80;
        let folder = tempfile::tempdir().unwrap();
        let (program, log) = (folder.path().join(name), folder.path().join("log"));
        fs::write(&program, elf).unwrap();
        let start = Start {
            elf: Some(&program),
            log: Some(&log),
            ..Start::default()
        };
        let mut client = start_as(name, &start);
        let failed = client.info(|info| info.self_test).unwrap();
        let stated = model.golden().unwrap().logits_crc;
        assert!(
            matches!(failed, SelfTest::Failed { expected, got } if expected == stated && got != stated),
            "{name}: {failed:?}"
        );
        let image = vec![0; model.input().len()];
        for refusal in [
            client.classify(&image).unwrap_err(),
            client.profile(&image).unwrap_err(),
        ] {
            assert!(
                matches!(refusal, LinkError::Refused(DeviceError::SelfTestFailed)),
                "{name}: {refusal}"
            );
        }
        let error = client.expect_model(&model).unwrap_err();
        assert!(
            matches!(error, LinkError::SelfTest { .. }),
            "{name}: {error}"
        );
        let text = decoded(&program, &log);
        assert!(text.contains("ERROR self-test Failed"), "{name}: {text}");
    }
}

#[test]
fn a_model_is_uploaded_and_a_broken_one_refused() {
    let (file, other) = (model_file(), small());
    let (model, changed) = (Model::new(&file).unwrap(), Model::new(&other).unwrap());
    for name in machines() {
        let mut client = start(name);
        assert_eq!(source(&mut client), Source::BuiltIn);
        assert_eq!(client.upload(&other).unwrap(), changed.crc());
        assert_eq!(source(&mut client), Source::Uploaded);
        client.expect_model(&changed).unwrap();

        let error = client.upload(&broken(&file)).unwrap_err();
        assert!(
            matches!(
                error,
                LinkError::Refused(DeviceError::InvalidModel | DeviceError::ModelTooLarge { .. })
            ),
            "{name}: {error}"
        );
        client.expect_model(&changed).unwrap();

        client.use_built_in().unwrap();
        assert_eq!(source(&mut client), Source::BuiltIn);
        let error = client.upload(&broken(&other)).unwrap_err();
        assert!(
            matches!(error, LinkError::Refused(DeviceError::InvalidModel)),
            "{name}: {error}"
        );
        client.expect_model(&model).unwrap();
    }
}

/// The micro:bit keeps models in its flash, through the real chip's flash controller.
#[test]
fn a_model_in_flash_survives_a_reset() {
    let (file, other) = (model_file(), small());
    let (model, changed) = (Model::new(&file).unwrap(), Model::new(&other).unwrap());
    let image = test_images(1).remove(0);
    for machine in ["microbit", "mps2-an386"] {
        let mut client = start(machine);
        let storage = client.info(|info| info.storage).unwrap();
        let reset = |client: &mut Client<Qemu>| client.port().reset().unwrap();
        client.upload(&other).unwrap();
        reset(&mut client);
        let after = match storage {
            Storage::Flash => &changed,
            Storage::Ram => &model,
        };
        client.expect_model(after).unwrap();
        let logits = client.classify(&image).unwrap().logits;
        assert_eq!(logits, host(after.file(), &image));
        client.use_built_in().unwrap();
        reset(&mut client);
        client.expect_model(&model).unwrap();
        client.upload(&broken(&other)).unwrap_err();
        reset(&mut client);
        client.expect_model(&model).unwrap();
        let mut device = Device::new(client.into_port(), machine, &changed).unwrap();
        assert_eq!(device.logits(&[&image]).unwrap(), [host(&other, &image)]);
    }
}

#[test]
fn operators_are_timed_over_the_wire() {
    let file = model_file();
    let model = Model::new(&file).unwrap();
    let image = test_images(1).remove(0);
    let start = Start {
        count: true,
        ..Start::default()
    };
    let qemu = qemu("mps2-an386", &start);
    let mut device = Device::new(qemu, "mps2-an386", &model).unwrap();
    let times = device.operator_times(&image).unwrap().unwrap();
    assert_eq!(times.len(), model.ops().count());
    device.logits(&[&image]).unwrap();
    let (sum, whole) = (
        times.iter().sum::<std::time::Duration>().as_secs_f64(),
        device.device_time().unwrap().as_secs_f64(),
    );
    assert!(
        (sum / whole - 1.0).abs() < 0.01,
        "{sum} s in all operators, {whole} s in all"
    );
}

/// Everything that a device can do, then its stack: at most three quarters of what firmware/targets.toml reserves for it.
#[test]
fn the_stack_has_room() {
    let (file, other) = (model_file(), small());
    let image = test_images(1).remove(0);
    println!(
        "{:<12} {:>12} {:>12} {:>12}",
        "machine", "stack used", "reserved", "free RAM"
    );
    for machine in &target::targets().machines {
        let mut client = start(&machine.name);
        client.classify(&image).unwrap();
        client.profile(&image).unwrap();
        client.classify(&image[1..]).unwrap_err();
        client.upload(&broken(&file)).unwrap_err();
        client.upload(&other).unwrap();
        client.classify(&image).unwrap();
        client.profile(&image).unwrap();
        client.use_built_in().unwrap();
        std::io::Write::write_all(client.port(), &[7; 9000]).unwrap();
        let stack = client.info(|info| info.stack).unwrap().unwrap();
        println!(
            "{:<12} {:>12} {:>12} {:>12}",
            machine.name, stack.used, machine.stack, stack.len
        );
        assert!(
            u64::from(stack.used) * 4 <= machine.stack * 3,
            "{}",
            machine.name
        );
        assert!(machine.stack <= u64::from(stack.len), "{}", machine.name);
    }
}
