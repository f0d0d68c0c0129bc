//! The firmware on every emulated machine: the start's log, logits of test images, the upload of a
//! model, noise. `cargo xtask qemu` builds the programs and runs this.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use defmt_decoder::{DecodeError, Table};
use protocol::DeviceError;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use runtime::Model;
use verifier::{
    backend::Backend,
    host::Host,
    link::{Client, Device, LinkError, Qemu, target},
};

/// Test images on each machine; `trainer verify` compares more, with the ONNX model.
const IMAGES: usize = 100;
/// Bytes of noise on each machine; more on the first one.
const NOISE: usize = 64 * 1024;
const MUCH_NOISE: usize = 1024 * 1024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn model_file() -> Vec<u8> {
    let path = std::env::var_os("ISOBIT_MODEL")
        .map_or_else(|| root().join("models/mnist/model.fxp"), PathBuf::from);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn start(name: &str) -> Client<Qemu> {
    Client::new(Qemu::start(target::machine(name).unwrap(), None).unwrap())
}

fn machines() -> impl Iterator<Item = &'static str> {
    target::targets()
        .machines
        .iter()
        .map(|machine| machine.name.as_str())
}

/// The log as text, one line per frame: level and message.
fn decoded(elf: &Path, log: &Path) -> String {
    let table = Table::parse(&fs::read(elf).unwrap())
        .unwrap()
        .expect("the program logs");
    let mut decoder = table.new_stream_decoder();
    decoder.received(&fs::read(log).unwrap());
    let mut text = String::new();
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let level = frame.level().map_or("println", |level| level.as_str());
                text += &format!("{} {}\n", level.to_uppercase(), frame.display_message());
            }
            Err(DecodeError::UnexpectedEof) => return text,
            Err(DecodeError::Malformed) => panic!("malformed log frame after:\n{text}"),
        }
    }
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
        let machine = target::machine(name).unwrap();
        let mut client = Client::new(Qemu::start(machine, Some(log.path())).unwrap());
        client.expect_model(&model).unwrap();
        let expected = fs::read_to_string(root().join(format!("firmware/qemu/{name}/{name}.out")))
            .unwrap()
            .replace("{name}", model.name())
            .replace("{len}", &file.len().to_string())
            .replace("{crc}", &format!("{:#010x}", model.crc()))
            .replace("{hash}", &format!("[{}]", hash.join(", ")))
            .replace("{arena}", &model.arena_len().to_string())
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
        for _ in 0..noise / 4096 {
            let mut chunk = vec![0; 4096];
            random.fill(&mut chunk[..]);
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
        let qemu = Qemu::start(target::machine(name).unwrap(), None).unwrap();
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

#[test]
fn a_model_is_uploaded_and_a_broken_one_refused() {
    let file = model_file();
    let model = Model::new(&file).unwrap();
    let mut client = start("mps2-an386");
    assert_eq!(client.upload(&file).unwrap(), model.crc());
    let uploaded = |client: &mut Client<Qemu>| {
        client
            .info(|info| info.source == protocol::Source::Uploaded)
            .unwrap()
    };
    assert!(uploaded(&mut client));
    client.expect_model(&model).unwrap();

    let mut broken = file.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    let error = client.upload(&broken).unwrap_err();
    assert!(
        matches!(error, LinkError::Refused(DeviceError::InvalidModel)),
        "{error}"
    );
    assert!(uploaded(&mut client), "the old model stays");
    client.expect_model(&model).unwrap();

    client.use_built_in().unwrap();
    assert!(!uploaded(&mut client));
}

#[test]
fn the_microbit_has_no_room_for_an_upload() {
    let error = start("microbit").upload(&model_file()).unwrap_err();
    assert!(
        matches!(
            error,
            LinkError::Refused(DeviceError::ModelTooLarge { max: 0, .. })
        ),
        "{error}"
    );
}
