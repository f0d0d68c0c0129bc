//! The table of one network.

use std::fmt::Write;

use super::{Bench, Machine};

/// Width of the first column, and of the others.
const NAME: usize = 24;
const CELL: usize = 12;

/// A row per operator, a column per machine.
pub(super) fn text(results: &[(&Machine, Bench)]) -> String {
    let mut text = String::new();
    let mut row = |name: &str, macs: &str, cell: &dyn Fn(&Bench) -> String| {
        let _ = write!(text, "{name:<NAME$}{macs:>CELL$}");
        for (_, bench) in results {
            let _ = write!(text, "{:>CELL$}", cell(bench));
        }
        text.push('\n');
    };
    let Some((_, first)) = results.first() else {
        return "does not fit on any machine".into();
    };
    let macs: u64 = first.operators.iter().map(|operator| operator.macs).sum();
    let heading = results
        .iter()
        .map(|(machine, _)| format!("{:>CELL$}", machine.core))
        .collect::<String>();
    row("kernels", "", &|bench| bench.kernels.clone());
    for (i, operator) in first.operators.iter().enumerate() {
        let count = match operator.macs {
            0 => String::new(),
            macs => macs.to_string(),
        };
        row(&format!("{i} {}", operator.name), &count, &|bench| {
            bench
                .operators
                .get(i)
                .map_or_else(String::new, |operator| operator.instructions.to_string())
        });
    }
    row("total", &macs.to_string(), &|bench| bench.total.to_string());
    row("per MAC", "", &|bench| {
        format!("{:.2}", bench.total as f64 / macs.max(1) as f64)
    });
    row("arena (bytes)", "", &|bench| bench.arena.to_string());
    row("stack (bytes)", "", &|bench| bench.stack.to_string());
    row("code (bytes)", "", &|bench| bench.code.to_string());
    row("loop of 1000000", "", &|bench| {
        bench.known_loop.1.to_string()
    });
    for (i, (machine, bench)) in results.iter().enumerate() {
        if let Some((board, [cycles, instructions])) = machine.cycles {
            let estimate = bench.total * cycles / instructions;
            let before = NAME + CELL + i * CELL;
            let _ = writeln!(
                text,
                "{:<before$}{estimate:>CELL$}",
                format!("estimate {board}")
            );
        }
    }
    format!("{:<NAME$}{:>CELL$}{heading}\n{text}", "", "MACs")
}
