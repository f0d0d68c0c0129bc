//! What the packages depend on: licences and sources by `cargo metadata`, numbers of crates by `cargo tree`. Needs no network
//! and no further tool; `cargo xtask soak deny` asks cargo-deny the same, and more.

use std::{collections::BTreeSet, fs};

use serde::Deserialize;
use spdx::{Expression, ParseMode};

use crate::shell::{self, Failure};

/// The policy, in cargo-deny's format.
const POLICY: &str = "deny.toml";

/// Folders with a lock file of their own.
const WORKSPACES: [&str; 5] = [
    ".",
    "firmware/qemu",
    "firmware/boards",
    "tests/defmt-log",
    "tests/fuzz",
];

/// Other platforms' crates need not be fetched for this; cargo-deny looks at them.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Packages whose dependencies are counted; [`STATED`] has the numbers.
const PACKAGES: [&str; 6] = ["runtime", "protocol", "app", "verifier", "trainer", "xtask"];

/// The page that states the numbers of crates.
const STATED: &str = "docs/reliability.md";

/// Everything that the device's runtime is made of, besides `core`.
const RUNTIME: [&str; 6] = [
    "byteorder",
    "hash32",
    "heapless",
    "libm",
    "runtime",
    "stable_deref_trait",
];

#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Checks every crate of the workspace on this platform against the policy, and prints the numbers of crates.
///
/// # Errors
/// Every crate with another licence or from another place; a new dependency of the runtime; a number that the docs state wrongly;
/// a crate that would be built twice.
pub fn check() -> Result<(), Failure> {
    let path = shell::root().join(POLICY);
    let failure = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| failure(&error))?;
    let policy: Policy = toml::from_str(&text).map_err(|error| failure(&error))?;
    let json = shell::output(shell::cargo().args([
        "metadata",
        "--locked",
        "--filter-platform",
        PLATFORM,
        "--format-version=1",
    ]))
    .ok_or_else(|| Failure("`cargo metadata --locked` failed".into()))?;
    let metadata: Metadata =
        serde_json::from_str(&json).map_err(|error| Failure(error.to_string()))?;
    let problems: Vec<String> = metadata
        .packages
        .iter()
        .filter_map(|package| {
            let problem = problem(package, &policy)?;
            Some(format!("{} {}: {problem}", package.name, package.version))
        })
        .collect();
    if !problems.is_empty() {
        return Err(Failure(format!(
            "not allowed by {POLICY}:\n  {}",
            problems.join("\n  ")
        )));
    }
    println!(
        "\nlicences and sources of all {} crates for {PLATFORM} are allowed by {POLICY}",
        metadata.packages.len()
    );
    println!("crates that a package is made of here, itself included:");
    let path = shell::root().join(STATED);
    let stated = fs::read_to_string(&path)
        .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    for package in PACKAGES {
        let row = row(package, crates(package)?.len());
        println!("  {row}");
        if !stated.lines().any(|line| line == row) {
            return Err(Failure(format!("{STATED} has no line `{row}`")));
        }
    }
    let runtime = crates("runtime")?;
    let name = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let mut more: Vec<String> = runtime.iter().map(name).collect();
    more.retain(|name| !RUNTIME.contains(&name.as_str()));
    if !more.is_empty() {
        return Err(Failure(format!("the runtime depends on {more:?} now")));
    }
    let twice = built_twice()?;
    if twice.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "other features with `--package trainer` than with `--workspace`:\n  {}",
        twice.join("\n  ")
    )))
}

/// cargo-deny on all workspaces: all platforms and all features, advisories left out.
///
/// # Errors
/// What it does not allow.
pub fn deny() -> Result<(), Failure> {
    for workspace in WORKSPACES {
        shell::run(
            shell::cargo()
                .args(["deny", "--locked", "--manifest-path"])
                .arg(format!("{workspace}/Cargo.toml"))
                .args(["--config", POLICY, "check"])
                .args(["bans", "licenses", "sources"]),
        )?;
    }
    Ok(())
}

/// A line of the table of crates.
fn row(package: &str, crates: usize) -> String {
    format!("| {package} | {crates} |")
}

/// Why the policy does not allow a crate.
fn problem(package: &Package, policy: &Policy) -> Option<String> {
    // A path (no source) is this repository; everything else comes from the registry that Cargo uses by itself.
    let foreign = package.source.as_ref();
    if let Some(source) = foreign.filter(|source| !source.starts_with("registry+")) {
        return Some(format!("from {source}, not from the registry"));
    }
    let Some(license) = &package.license else {
        return Some("no licence stated".into());
    };
    let expression = match Expression::parse_mode(license, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("licence `{license}`: {}", error.reason)),
    };
    let allowed = expression.evaluate(|wanted| {
        let wanted = wanted.to_string();
        policy.licenses.allow.contains(&wanted)
    });
    (!allowed).then(|| format!("licence `{license}`"))
}

/// Crates that `cargo build --package trainer` builds with other features than `cargo test --workspace`: each is built a
/// second time when a newcomer goes from the one to the other.
fn built_twice() -> Result<Vec<String>, Failure> {
    let with_features = ["--format", "{p} [{f}]"];
    let alone = ["--package", "trainer", "--edges", "normal,build"];
    let all = ["--workspace", "--edges", "normal,build,dev"];
    let all = tree(&[&all[..], &with_features].concat())?;
    let alone = tree(&[&alone[..], &with_features].concat())?;
    Ok(alone.difference(&all).cloned().collect())
}

/// Names and versions of a package's normal dependencies on this platform, itself included.
fn crates(package: &str) -> Result<BTreeSet<String>, Failure> {
    tree(&["--package", package, "--edges", "normal"])
}

/// Lines of `cargo tree`, without their order.
fn tree(arguments: &[&str]) -> Result<BTreeSet<String>, Failure> {
    let mut command = shell::cargo();
    command
        .args(["tree", "--locked", "--prefix", "none"])
        .args(arguments);
    let tree = shell::output(&mut command)
        .ok_or_else(|| Failure(format!("`cargo tree {}` failed", arguments.join(" "))))?;
    let lines = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)").trim());
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(Into::into)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: "a".into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            source: source.map(Into::into),
        }
    }

    #[test]
    fn licences_and_sources_are_judged() {
        let policy = Policy {
            licenses: Licenses {
                allow: vec!["MIT".into(), "Apache-2.0".into()],
            },
        };
        let here = Some("registry+https://registry.invalid/index");
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "MIT AND Apache-2.0",
        ] {
            assert_eq!(problem(&package(Some(good), here), &policy), None, "{good}");
        }
        assert_eq!(problem(&package(Some("MIT"), None), &policy), None);
        for bad in [
            Some("GPL-3.0"),
            Some("MIT AND GPL-3.0"),
            Some("my own"),
            None,
        ] {
            assert!(problem(&package(bad, here), &policy).is_some(), "{bad:?}");
        }
        let git = Some("git+https://registry.invalid/a");
        assert!(problem(&package(Some("MIT"), git), &policy).is_some());
    }
}
