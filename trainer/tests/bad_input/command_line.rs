//! Options and devices.

use crate::{case, check, nothing};

#[test]
fn command_lines() {
    let lines = [
        "fitt",
        "fit --epoch 3",
        "fit recipe.toml more.toml",
        "fit recipe.toml --out out --epochs three",
        "fit recipe.toml --out out --epochs 0",
        "fit recipe.toml --out out --epochs -1",
        "fit recipe.toml --out out --seed -1",
        "fit recipe.toml --out out --seed 18446744073709551615",
        "fit recipe.toml --out out --threads 0",
        "fit recipe.toml --out out --threads 1000000",
        "fit recipe.toml --quiet --plain",
        "fit recipe.toml --resume --reset-weights",
        "fit recipe.toml --out",
        "summary missing.toml",
        "summary recipe.toml --set network.input=[0,0,0]",
        "evaluate",
        "quantize run --qat-epochs -1",
        "verify run --limit 0",
        "verify run --limit many",
        "predict run",
        "predict run images/dark/0.png --top 0",
        "predict run images/dark/0.png --top 70000",
        "flash run",
        "completions cmd",
        "man a.csv",
        "man a.csv/man1",
    ];
    let cases = lines.map(|line| case(&format!("`{line}`"), line, nothing));
    insta::assert_snapshot!("command_line", check(cases.into()));
}

#[test]
fn devices() {
    let lines = [
        "fit recipe.toml --out out --device gpu",
        "fit recipe.toml --out out --device cpu:1",
        "fit recipe.toml --out out --device cuda:",
        "fit recipe.toml --out out --device cuda:first",
        "verify run --against board",
        "verify run --against qemu",
        "verify run --against qemu:",
        "verify run --against qemu:mps2",
        "verify run --against serial:",
        "verify run --against serial:no-such-port",
        "flash run --board nrf52840",
        "flash run --board mps2-an386",
    ];
    let mut cases: Vec<_> = lines
        .map(|line| case(&format!("`{line}`"), line, nothing))
        .into();
    if !candle_core::utils::cuda_is_available() {
        let line = "fit recipe.toml --out out --device cuda";
        cases.push(case(
            "a GPU that this program was not built for",
            line,
            nothing,
        ));
    }
    insta::assert_snapshot!("devices", check(cases));
}
