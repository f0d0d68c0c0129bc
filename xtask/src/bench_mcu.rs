//! Executed instructions of the runtime on emulated Cortex-M machines, for several networks.

mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use runtime::{
    Model,
    encode::{ModelSpec, WeightOrder, encode_by, saves},
};

use crate::{
    firmware::{self, Target},
    shell::{self, Failure},
};

/// Instructions by which the loop of known length may be off: the timer's resolution and the code
/// that reads it.
const LOOP_TOLERANCE: u64 = 200;

/// Networks of tests/cases that are measured besides the trained one.
const CASES: [&str; 2] = ["ds_cnn", "resnet_8"];

/// Bytes of RAM that the benchmark needs besides the arena: static data and stack.
const BESIDES: u64 = 4 * 1024;

/// A processor to measure: what is built, and where it runs.
struct Machine {
    /// Heading of its column.
    core: &'static str,
    /// As QEMU calls it.
    emulator: &'static str,
    /// Package, and thereby the memory map.
    package: &'static str,
    /// Rust's target, if it is not the package's own.
    target: Option<&'static str>,
    /// Convolutions are stored transformed where that saves multiplications; without any the machine is left out.
    winograd: bool,
    /// Cycles and instructions of the innermost loop of a convolution, as docs/kernels.md derives them, on a board.
    cycles: Option<(&'static str, [u64; 2])>,
}

/// The Cortex-M7 executes the program of the M4. The M0 of the micro:bit has 16 KiB of RAM; its code for larger
/// networks runs on the M3, which executes every instruction of an M0.
const MACHINES: [Machine; 7] = [
    Machine {
        core: "M0",
        emulator: "microbit",
        package: "microbit",
        target: None,
        winograd: false,
        cycles: None,
    },
    Machine {
        core: "M0 code",
        emulator: "mps2-an385",
        package: "mps2-an385",
        target: Some("thumbv6m-none-eabi"),
        winograd: false,
        cycles: Some(("RP2040", [189, 139])),
    },
    Machine {
        core: "M3",
        emulator: "mps2-an385",
        package: "mps2-an385",
        target: None,
        winograd: false,
        cycles: Some(("M3", [163, 81])),
    },
    Machine {
        core: "M4",
        emulator: "mps2-an386",
        package: "mps2-an386",
        target: None,
        winograd: false,
        cycles: Some(("STM32F4", [18, 13])),
    },
    Machine {
        core: "M4 Winograd",
        emulator: "mps2-an386",
        package: "mps2-an386",
        target: None,
        winograd: true,
        cycles: None,
    },
    Machine {
        core: "M7",
        emulator: "mps2-an500",
        package: "mps2-an386",
        target: None,
        winograd: false,
        cycles: None,
    },
    Machine {
        core: "M55",
        emulator: "mps3-an547",
        package: "mps3-an547",
        target: None,
        winograd: false,
        cycles: None,
    },
];

/// One operator of a benchmark.
#[derive(Debug, PartialEq, Eq)]
struct Operator {
    /// Kind and output shape.
    name: String,
    instructions: u64,
    /// Nominal multiply-accumulates; 0 for an operator without weights.
    macs: u64,
}

/// What one machine's benchmark prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bench {
    kernels: String,
    operators: Vec<Operator>,
    total: u64,
    stack: u64,
    arena: u64,
    /// Bytes of the functions of the runtime in the program.
    code: u64,
    known_loop: (u64, u64),
}

/// Builds the `bench-*` programs of all machines with each network, runs them under `-icount shift=0` and prints a
/// table per network. Without `models`: the trained model and the networks of [`CASES`].
pub fn run(models: &[PathBuf]) -> Result<(), Failure> {
    let models = if models.is_empty() {
        networks()?
    } else {
        models.to_vec()
    };
    let targets = firmware::targets()?;
    let columns = MACHINES
        .iter()
        .map(|machine| Ok((machine, target(machine, &targets)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let mut tables = Vec::new();
    for model in &models {
        let transformed = transformed(model)?;
        let mut results = Vec::new();
        for (machine, target) in &columns {
            let model = match (machine.winograd, &transformed) {
                (false, _) => model,
                (true, Some(transformed)) => transformed,
                (true, None) => continue,
            };
            if fits(model, target)? {
                results.push((*machine, measure(machine, target, model)?));
            }
        }
        tables.push((model, results));
    }
    println!(
        "\nExecuted instructions for one image (QEMU, -icount shift=0). Instructions are not cycles: the rows `estimate` are the\n\
         total times the ratio of cycles to instructions in the innermost loop, without wait states (docs/kernels.md)."
    );
    for (model, results) in &tables {
        let model = model.strip_prefix(shell::root()).unwrap_or(model);
        println!("\n{}\n\n{}", model.display(), table::text(results));
    }
    sizes(&columns)
}

/// Runs a network of transformed layers of all kinds with the instructions of the core that has them; the program fails if the
/// logits of the golden image are not those of the file.
pub fn transformed_layers() -> Result<(), Failure> {
    let targets = firmware::targets()?;
    let model = case("winograd")?;
    let Some(model) = transformed(&model)? else {
        return Err(Failure("winograd.toml: no layer is transformed".into()));
    };
    for machine in MACHINES.iter().filter(|machine| machine.winograd) {
        measure(machine, &target(machine, &targets)?, &model)?;
        println!("{}: the golden logits of winograd.toml", machine.core);
    }
    Ok(())
}

/// What is built for a machine.
fn target(machine: &Machine, targets: &[Target]) -> Result<Target, Failure> {
    let mut target = targets
        .iter()
        .find(|target| target.name == machine.package)
        .cloned()
        .ok_or_else(|| Failure(format!("{}: not in targets.toml", machine.package)))?;
    if let Some(other) = machine.target {
        target.target = other.to_owned();
    }
    Ok(target)
}

/// The trained model, and the random ones.
fn networks() -> Result<Vec<PathBuf>, Failure> {
    let mut models = vec![shell::root().join("models/mnist/model.fxp")];
    for name in CASES {
        models.push(case(name)?);
    }
    Ok(models)
}

/// The model of a network of tests/cases with random weights, which is made by a command and not committed.
fn case(name: &str) -> Result<PathBuf, Failure> {
    let folder = PathBuf::from("target/bench-mcu").join(name);
    shell::run(
        shell::cargo()
            .args(["run", "--release", "--locked", "--package", "verifier"])
            .args(["--example", "network", "--"])
            .arg(format!("tests/cases/{name}.toml"))
            .arg(&folder),
    )?;
    Ok(shell::root().join(folder).join("model.fxp"))
}

fn read(model: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(model).map_err(|error| Failure(format!("{}: {error}", model.display())))
}

/// True if the machine has the memory for the model.
fn fits(path: &Path, target: &Target) -> Result<bool, Failure> {
    let file = read(path)?;
    let model =
        Model::new(&file).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let ram = model.arena_len() as u64 + BESIDES;
    Ok(ram <= target.ram && file.len() as u64 <= target.flash / 2)
}

/// The model with those convolutions stored transformed that have fewer multiplications then; `None` if there are none.
fn transformed(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let failure = |error: String| Failure(format!("{}: {error}", path.display()));
    let file = read(path)?;
    let model = Model::new(&file).map_err(|error| failure(error.to_string()))?;
    let spec = ModelSpec::read(&model).ok_or_else(|| failure("a window is too large".into()))?;
    let saves = |index: usize| {
        let op = &spec.ops[index];
        let shape = |tensor: usize| spec.tensors[tensor].shape;
        op.inputs()[0].is_some_and(|input| saves(op, shape(input), shape(op.output())))
    };
    if !(0..spec.ops.len()).any(saves) {
        return Ok(None);
    }
    let order = |index| {
        if saves(index) {
            WeightOrder::Winograd
        } else {
            WeightOrder::Blocked
        }
    };
    let file = encode_by(&spec, order).map_err(|error| failure(error.to_string()))?;
    let folder = shell::root().join("target/bench-mcu");
    let name = format!("{}-{:08x}.fxp", spec.name, model.crc());
    let to = folder.join(name);
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&to, file))
        .map_err(|error| Failure(format!("{}: {error}", to.display())))?;
    Ok(Some(to))
}

fn measure(machine: &Machine, target: &Target, model: &Path) -> Result<Bench, Failure> {
    let program = format!("bench-{}", machine.package);
    shell::run(&mut firmware::command(target, &[&program], Some(model))?)?;
    let elf = firmware::elf(target).with_file_name(program);
    let mut bench = parse(&emulate(machine.emulator, &elf)?)?;
    bench.code = firmware::code(&elf)?;
    let (expected, got) = bench.known_loop;
    if got.abs_diff(expected) > LOOP_TOLERANCE {
        return Err(Failure(format!(
            "{}: the loop of {expected} instructions was measured as {got}: the counts are not to be trusted",
            machine.emulator
        )));
    }
    Ok(bench)
}

fn emulate(emulator: &str, elf: &Path) -> Result<String, Failure> {
    let failure = |what: String| Failure(format!("{}: {what}", elf.display()));
    let output = Command::new("qemu-system-arm")
        .args(["-M", emulator, "-display", "none"])
        .args(["-monitor", "none", "-serial", "none"])
        .args(["-icount", "shift=0"])
        .args(["-semihosting-config", "enable=on,target=native"])
        .arg("-kernel")
        .arg(elf)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failure(format!("qemu-system-arm does not start: {error}")))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() {
        Ok(text)
    } else {
        Err(failure(format!("{}: {text}", output.status)))
    }
}

fn parse(text: &str) -> Result<Bench, Failure> {
    let mut bench = Bench::default();
    let bad = |line: &str| Failure(format!("the benchmark printed `{line}`"));
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        let number = |i: usize| {
            rest.get(i)
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| bad(line))
        };
        match key {
            "kernels" => bench.kernels = rest.join(" "),
            "operator" => {
                let (Some(kind), Some(shape)) = (rest.first(), rest.get(1)) else {
                    return Err(bad(line));
                };
                bench.operators.push(Operator {
                    name: format!("{kind} {shape}"),
                    instructions: number(2)?,
                    macs: number(3)?,
                });
            }
            "total" => bench.total = number(0)?,
            "stack" => bench.stack = number(0)?,
            "arena" => bench.arena = number(0)?,
            "loop" => bench.known_loop = (number(0)?, number(1)?),
            "machine" | "model" | "resolution" | "" => {}
            _ => return Err(bad(line)),
        }
    }
    if bench.total == 0 {
        Err(bad("no total"))
    } else {
        Ok(bench)
    }
}

/// The size of the runtime alone, for each instruction set.
fn sizes(columns: &[(&Machine, Target)]) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut seen = Vec::new();
    for (_, target) in columns {
        if seen.contains(&&target.target) {
            continue;
        }
        seen.push(&target.target);
        let sizes = firmware::no_panic(&target.target, &[])?;
        lines.push(format!("{:<28}{:>8}", target.target, sizes.flash));
    }
    let target = "thumbv7em-none-eabihf";
    let sizes = firmware::no_panic(target, &["winograd"])?;
    lines.push(format!("{target}, Winograd{:>9}", sizes.flash));
    println!("\nruntime with all kernels, validation and start-up code (bytes of flash)\n");
    println!("{}", lines.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "machine mps2-an386\nkernels portable\nmodel mnist\nresolution 40\nloop 1000000 1000080\n\
        operator conv 13x13x32 1200 194688\noperator add 1x1x10 300 0\ntotal 1520\nstack 456\narena 7000\n";

    #[test]
    fn the_output_of_a_benchmark() {
        let bench = parse(OUTPUT).unwrap();
        assert_eq!(bench.total, 1520);
        assert_eq!(bench.known_loop, (1_000_000, 1_000_080));
        assert_eq!(
            bench.operators[0],
            Operator {
                name: "conv 13x13x32".into(),
                instructions: 1200,
                macs: 194_688
            }
        );
    }

    #[test]
    fn output_that_is_none() {
        for text in ["", "operator conv", "total many", "surprise"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_table() {
        let short = Bench {
            kernels: "portable".into(),
            ..parse(OUTPUT).unwrap()
        };
        let text = table::text(&[
            (&MACHINES[2], parse(OUTPUT).unwrap()),
            (&MACHINES[3], short),
        ]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0], ["MACs", "M3", "M4"]);
        assert!(rows.contains(&vec!["0", "conv", "13x13x32", "194688", "1200", "1200"]));
        assert!(rows.contains(&vec!["total", "194688", "1520", "1520"]));
        assert!(rows.contains(&vec!["per", "MAC", "0.01", "0.01"]));
        assert!(rows.contains(&vec!["estimate", "STM32F4", "2104"]));
    }
}
