//! Large data: memory stays below 2 GiB, and something moves on the terminal from the first second on.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use image::RgbImage;

use super::{FOLDER, at, trainer};
use crate::shell::{self, Failure};

/// Resident memory of the whole process.
const MOST_MEMORY_KIB: u64 = 2 << 20;
/// Until something is on the screen.
const FIRST: Duration = Duration::from_secs(1);
/// Until something changes there again: the curves stand still while an epoch's end is validated.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

struct Set {
    name: &'static str,
    images: u32,
    side: u32,
    channels: u32,
    layers: &'static str,
}

const SETS: [Set; 2] = [
    Set {
        name: "70000-28x28",
        images: 70_000,
        side: 28,
        channels: 1,
        layers: "{ type = \"conv\", filters = 8, stride = [2, 2], activation = \"relu\" }, { type = \"max_pool\" }",
    },
    Set {
        name: "20000-96x96x3",
        images: 20_000,
        side: 96,
        channels: 3,
        layers: "{ type = \"conv\", filters = 8, stride = [2, 2], activation = \"relu\" }, { type = \"max_pool\" }, \
                 { type = \"conv\", filters = 16, activation = \"relu\" }, { type = \"global_avg_pool\" }",
    },
];

/// Classes; the images of each lie in a folder of their own.
const CLASSES: u32 = 10;

/// Trains on both sets, once each. The images are made on the first call and kept.
pub fn run() -> Result<(), Failure> {
    let trainer = trainer()?;
    let mut lines = Vec::new();
    for set in &SETS {
        let folder = shell::root().join(FOLDER).join("load").join(set.name);
        make(set, &folder)?;
        let measured = train(&trainer, set, &folder)?;
        lines.push(format!(
            "{}: {:.1} s in all, {} MiB resident at most, first sign of life after {:.2} s, longest silence {:.2} s",
            set.name,
            measured.duration.as_secs_f64(),
            measured.memory_kib >> 10,
            measured.first.as_secs_f64(),
            measured.silence.as_secs_f64(),
        ));
        println!("{}", lines[lines.len() - 1]);
        if measured.memory_kib > MOST_MEMORY_KIB
            || measured.first > FIRST
            || measured.silence > LONGEST_SILENCE
        {
            return Err(Failure(format!("{}: beyond its limits", set.name)));
        }
    }
    println!("\n{}", lines.join("\n"));
    Ok(())
}

/// PNG files: a stripe whose place is the class, on noise.
fn make(set: &Set, folder: &Path) -> Result<(), Failure> {
    let done = folder.join("done");
    if done.exists() {
        return Ok(());
    }
    println!("{}: making the images", set.name);
    for class in 0..CLASSES {
        let images = folder.join("images").join(class.to_string());
        fs::create_dir_all(&images).map_err(|error| at(&images, &error))?;
    }
    for number in 0..set.images {
        let class = number % CLASSES;
        let mut state = number.wrapping_mul(2_654_435_761) | 1;
        let image = RgbImage::from_fn(set.side, set.side, |x, _| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let bright = x * CLASSES / set.side == class;
            let value = (state >> 27) as u8 + if bright { 200 } else { 20 };
            image::Rgb([value, value / 2, 255 - value])
        });
        let path = folder.join(format!("images/{class}/{number}.png"));
        let saved = if set.channels == 1 {
            image::DynamicImage::from(image).to_luma8().save(&path)
        } else {
            image.save(&path)
        };
        saved.map_err(|error| at(&path, &error))?;
    }
    let recipe = format!(
        "name = \"load\"\n[data]\nformat = \"folder\"\npath = \"images\"\n[network]\ninput = [{side}, {side}, {channels}]\n\
         layers = [{layers}, {{ type = \"flatten\" }}, {{ type = \"dense\", units = {CLASSES}, activation = \"softmax\" }}]\n\
         [train]\nepochs = 1\nbatch = 64\n",
        side = set.side,
        channels = set.channels,
        layers = set.layers,
    );
    let path = folder.join("recipe.toml");
    fs::write(&path, recipe).map_err(|error| at(&path, &error))?;
    fs::write(&done, "").map_err(|error| at(&done, &error))
}

#[derive(Default)]
struct Measured {
    duration: Duration,
    memory_kib: u64,
    first: Duration,
    silence: Duration,
}

/// One training on a terminal (`script` makes one), with the times at which something was drawn.
fn train(trainer: &Path, set: &Set, folder: &Path) -> Result<Measured, Failure> {
    let out = folder.join("run");
    if out.exists() {
        fs::remove_dir_all(&out).map_err(|error| at(&out, &error))?;
    }
    println!("{}: training", set.name);
    let line = format!(
        "exec {} fit {} --out {}",
        trainer.display(),
        folder.join("recipe.toml").display(),
        out.display()
    );
    let start = Instant::now();
    let mut child = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &line,
            "/dev/null",
        ])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure(format!("`script` (util-linux) does not start: {error}")))?;
    let mut screen = child
        .stdout
        .take()
        .ok_or_else(|| Failure("no output".into()))?;
    let reader = thread::spawn(move || {
        let mut bytes = [0; 4096];
        let mut times = Vec::new();
        let mut end = Vec::new();
        while let Ok(n @ 1..) = screen.read(&mut bytes) {
            times.push(start.elapsed());
            end.extend_from_slice(&bytes[..n]);
            let surplus = end.len().saturating_sub(2000);
            end.drain(..surplus);
        }
        (times, String::from_utf8_lossy(&end).into_owned())
    });
    let mut measured = Measured::default();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| at(folder, &error))? {
            break status;
        }
        measured.memory_kib = measured.memory_kib.max(memory(trainer));
        thread::sleep(Duration::from_millis(50));
    };
    measured.duration = start.elapsed();
    let (times, end) = reader.join().map_err(|_| Failure("no output".into()))?;
    if !status.success() {
        return Err(Failure(format!("{}: {status}\n{end}", set.name)));
    }
    measured.first = *times.first().unwrap_or(&measured.duration);
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    measured.silence = gaps.max().unwrap_or_default();
    Ok(measured)
}

/// Greatest resident size so far of the processes that run this program, KiB.
fn memory(program: &Path) -> u64 {
    let runs = |folder: &PathBuf| fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == program);
    let peak = |folder: PathBuf| {
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(runs);
    folders.filter_map(peak).max().unwrap_or(0)
}
