//! The corpora of the fuzz targets, replayed: what libFuzzer once reached, or once found, is tried in every test run.

#[path = "../fuzz/src/device.rs"]
mod device;
#[path = "../fuzz/src/host.rs"]
mod host;

use std::{alloc::System, fs, path::Path};

use cap::Cap;

/// A file that claims to be large ends the test if anything believes it.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 512 << 20);

fn targets() -> impl Iterator<Item = device::Target> {
    device::TARGETS.into_iter().chain(host::TARGETS)
}

#[test]
fn every_seed_of_every_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders: Vec<String> = fs::read_dir(&corpora)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort_unstable();
    let mut names: Vec<&str> = targets().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(folders, names, "one corpus per target");
    for (name, run) in targets() {
        let mut seeds = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            run(&fs::read(&path).unwrap());
            seeds += 1;
        }
        assert!(seeds >= 5, "{name}: {seeds} seeds");
    }
}

/// Damage of every kind to every seed: cut off, bytes changed, pieces doubled. Always the same 64 per seed.
#[test]
fn damaged_seeds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, run) in targets() {
        for entry in fs::read_dir(corpora.join(name)).unwrap() {
            let seed = fs::read(entry.unwrap().path()).unwrap();
            for round in 0..64_usize {
                let mut bytes = seed.clone();
                let at = (round * 7919 + bytes.len() / 3) % (bytes.len() + 1);
                match round % 4 {
                    0 => bytes.truncate(at),
                    1 => {
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= 1 << (round / 4 % 8);
                        }
                    }
                    2 => {
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte = [0, 0xff, 0x7f, 0x80][round / 4 % 4];
                        }
                    }
                    _ => {
                        let piece = bytes[at..(at + 16).min(bytes.len())].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
                run(&bytes);
            }
        }
    }
}
