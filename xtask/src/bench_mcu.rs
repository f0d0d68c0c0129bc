//! Executed instructions of the runtime on every emulated machine.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    firmware::{self, Target},
    shell::{self, Failure},
};

/// Instructions by which the loop of known length may be off: the timer's resolution and the code
/// that reads it.
const LOOP_TOLERANCE: u64 = 200;

/// What one machine's benchmark prints.
#[derive(Debug, Default)]
struct Bench {
    kernels: String,
    operators: Vec<(String, u64)>,
    total: u64,
    stack: u64,
    arena: u64,
    known_loop: (u64, u64),
}

/// Builds the `bench-<machine>` programs, runs them under `-icount shift=0` and prints the table.
pub fn run(model: Option<&Path>) -> Result<(), Failure> {
    let machines: Vec<Target> = firmware::targets()?
        .into_iter()
        .filter(Target::is_emulated)
        .collect();
    let mut results = Vec::new();
    for machine in &machines {
        shell::run(&mut firmware::command(machine, model)?)?;
        let elf = firmware::elf(machine).with_file_name(format!("bench-{}", machine.name));
        let bench = parse(&measure(machine, &elf)?)?;
        let (expected, got) = bench.known_loop;
        if got.abs_diff(expected) > LOOP_TOLERANCE {
            return Err(Failure(format!(
                "{}: the loop of {expected} instructions was measured as {got}: the counts are not to be trusted",
                machine.name
            )));
        }
        results.push((
            machine,
            bench,
            firmware::Sizes::read(&firmware::elf(machine))?,
        ));
    }
    print(&results);
    let runtime = firmware::no_panic()?;
    println!(
        "\nruntime with kernels, validation and start-up code on Cortex-M4: {} bytes",
        runtime.flash
    );
    Ok(())
}

fn measure(machine: &Target, elf: &Path) -> Result<String, Failure> {
    let failure = |what: String| Failure(format!("{}: {what}", elf.display()));
    let output = Command::new("qemu-system-arm")
        .args([
            "-M",
            &machine.name,
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "none",
        ])
        .args([
            "-icount",
            "shift=0",
            "-semihosting-config",
            "enable=on,target=native",
        ])
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
                let name = rest.first().ok_or_else(|| bad(line))?;
                bench.operators.push(((*name).to_owned(), number(1)?));
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

fn print(results: &[(&Target, Bench, firmware::Sizes)]) {
    println!(
        "\nexecuted instructions for one image (QEMU, -icount shift=0; instructions are not cycles)\n"
    );
    let row = |name: &str, cell: &dyn Fn(&Bench) -> String| {
        let cells: String = results
            .iter()
            .map(|(_, bench, _)| format!(" {:>14}", cell(bench)))
            .collect();
        println!("{name:<22}{cells}");
    };
    let names: String = results
        .iter()
        .map(|(machine, ..)| format!(" {:>14}", machine.name))
        .collect();
    println!("{:<22}{names}", "machine");
    row("kernels", &|bench| bench.kernels.clone());
    let operators = results
        .iter()
        .map(|(_, bench, _)| bench.operators.len())
        .max()
        .unwrap_or(0);
    for i in 0..operators {
        let name = results
            .iter()
            .find_map(|(_, bench, _)| bench.operators.get(i));
        let name = format!("{i} {}", name.map_or("", |(name, _)| name));
        row(&name, &|bench| {
            bench
                .operators
                .get(i)
                .map_or_else(String::new, |(_, n)| n.to_string())
        });
    }
    row("total", &|bench| bench.total.to_string());
    row("loop, known", &|bench| bench.known_loop.0.to_string());
    row("loop, measured", &|bench| bench.known_loop.1.to_string());
    row("arena (bytes)", &|bench| bench.arena.to_string());
    row("stack (bytes)", &|bench| bench.stack.to_string());
    let flash: String = results
        .iter()
        .map(|(_, _, sizes)| format!(" {:>14}", sizes.flash))
        .collect();
    println!("{:<22}{flash}", "app's flash (bytes)");
}
