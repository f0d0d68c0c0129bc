//! The commands of the pages, run as a reader would run them, in a scratch folder. xtask/walkthrough/commands.toml says which are
//! not run, and why; there is no other list.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::Path,
    process::Command,
    time::Instant,
};

use serde::Deserialize;

use crate::{
    PARTS,
    book::{self, Page},
    shell::{self, Failure},
};

#[cfg(test)]
mod tests;

/// Below the repository's root: emptied before each walkthrough, removed after one that succeeds.
const FOLDER: &str = "target/walkthrough";
/// Its commands come first: the other pages take its images for granted.
const TUTORIAL: &str = "docs/tutorial.md";
/// Seconds that a command may take.
const LIMIT: u32 = 300;
/// Code in the text that begins with one of these is a command.
const PROGRAMS: [&str; 14] = [
    "apt-get", "cargo", "espflash", "git", "mdbook", "nice", "parallel", "perf", "pip", "probe-rs",
    "python3", "rustup", "sudo", "trainer",
];
/// What is run: the trainer, and programs of this repository.
const RUN: [&[&str]; 3] = [&["trainer"], &["cargo", "run"], &["cargo", "build"]];

/// xtask/walkthrough/commands.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Commands that come before all others.
    given: Vec<String>,
    /// Words of a command, and those that are run in their place.
    replace: BTreeMap<String, String>,
    /// Commands that are not run.
    elsewhere: Vec<Elsewhere>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    /// Why the walkthrough does not run them.
    reason: String,
    commands: Vec<String>,
}

/// A command to run.
#[derive(Debug, PartialEq)]
struct Step {
    /// Where it stands.
    page: String,
    /// As it stands there.
    written: String,
    /// What is run in its place.
    run: String,
}

/// Runs all commands, each text once, and stops at the first that fails.
pub fn run() -> Result<(), Failure> {
    let start = Instant::now();
    let steps = plan(&Rules::read()?, &book::pages()?)?;
    shell::build_trainer()?;
    let folder = shell::root().join(FOLDER);
    let failure = |error| Failure(format!("{}: {error}", folder.display()));
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failure)?;
    }
    fs::create_dir_all(&folder).map_err(failure)?;
    let mut search: OsString = shell::root().join("target/release").into();
    if let Some(before) = std::env::var_os("PATH") {
        search.push(":");
        search.push(before);
    }
    for step in &steps {
        println!("\n{}: {}", step.page, step.written);
        let mut command = Command::new("timeout");
        command
            .args([&LIMIT.to_string(), "sh", "-e", "-c", &step.run])
            .current_dir(&folder)
            .env("PATH", &search);
        shell::run(&mut command)?;
    }
    fs::remove_dir_all(&folder).map_err(failure)?;
    let seconds = start.elapsed().as_secs();
    println!("\n{} commands ran in {seconds} s", steps.len());
    Ok(())
}

impl Rules {
    fn read() -> Result<Self, Failure> {
        let path = shell::root().join("xtask/walkthrough/commands.toml");
        let failure = |error: String| Failure(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| failure(error.to_string()))?;
        toml::from_str(&text).map_err(|error| failure(error.to_string()))
    }

    /// The command with its words replaced, the longest ones first. What was replaced goes to `used`.
    fn replaced<'a>(&'a self, command: &str, used: &mut BTreeSet<&'a str>) -> String {
        let mut rest: Vec<&str> = command.split(' ').collect();
        let mut result = Vec::new();
        while !rest.is_empty() {
            let begins = |words: &str| {
                let words: Vec<&str> = words.split(' ').collect();
                rest.starts_with(&words)
            };
            let longest = self.replace.iter().filter(|(words, _)| begins(words));
            let count = match longest.max_by_key(|(words, _)| words.len()) {
                Some((words, others)) => {
                    used.insert(words);
                    result.push(others.as_str());
                    words.split(' ').count()
                }
                None => {
                    result.push(rest[0]);
                    1
                }
            };
            rest.drain(..count);
        }
        result.join(" ")
    }
}

/// What to run, in order.
///
/// # Errors
/// All commands that no rule covers, and all rules that cover no command.
fn plan(rules: &Rules, pages: &[Page]) -> Result<Vec<Step>, Failure> {
    let mut problems = Vec::new();
    let mut replaced = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut steps = Vec::new();
    for command in &rules.given {
        steps.push(Step {
            page: "given".into(),
            written: command.clone(),
            run: rules.replaced(command, &mut replaced),
        });
    }
    let elsewhere = |command: &str| {
        let mut lists = rules.elsewhere.iter();
        lists.any(|list| list.commands.iter().any(|other| other == command))
    };
    let tutorial_first = |page: &&Page| page.path != Path::new(TUTORIAL);
    let mut pages: Vec<&Page> = pages.iter().collect();
    pages.sort_by_key(tutorial_first);
    for page in pages {
        let name = page.path.display().to_string();
        for command in commands(page) {
            let command = match command {
                Ok(command) => command,
                Err(line) => {
                    problems.push(format!("{name}: mark the block of `{line}` as sh"));
                    continue;
                }
            };
            if !seen.insert(command.clone()) || elsewhere(&command) || in_the_test(&command) {
                continue;
            }
            let words: Vec<&str> = command.split(' ').collect();
            let run = rules.replaced(&command, &mut replaced);
            if run == command && !RUN.iter().any(|program| words.starts_with(program)) {
                problems.push(format!("{name}: no rule says what to do with `{command}`"));
                continue;
            }
            steps.push(Step {
                page: name.clone(),
                written: command,
                run,
            });
        }
    }
    for list in &rules.elsewhere {
        let unknown = list.commands.iter().filter(|other| !seen.contains(*other));
        problems.extend(unknown.map(|other| {
            let reason = &list.reason;
            format!("commands.toml: no page has the command `{other}` ({reason})")
        }));
    }
    let words = rules.replace.keys();
    let unused = words.filter(|words| !replaced.contains(words.as_str()));
    problems.extend(unused.map(|words| format!("commands.toml: no command has `{words}`")));
    if problems.is_empty() {
        Ok(steps)
    } else {
        Err(Failure(problems.join("\n")))
    }
}

/// True for `cargo xtask test` and its parts.
fn in_the_test(command: &str) -> bool {
    let job = command.strip_prefix("cargo xtask ");
    job.is_some_and(|job| job == "test" || PARTS.contains(&job))
}

/// The commands of a page in order: the lines of blocks that are marked `sh`, and code in the text that begins with the name of
/// a program. `trainer`, `trainer fit` and what ends with `--` are names. A line that begins with a program in another block is an error.
fn commands(page: &Page) -> Vec<Result<String, String>> {
    let mut commands = Vec::new();
    for code in &page.code {
        let text = code.text.replace("\\\n", " ");
        for line in text.lines() {
            let line = line.split(" #").next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let program = words.first().is_some_and(|word| PROGRAMS.contains(word));
            let name = matches!(words[..], [_] | ["trainer", _] | [.., "--"]);
            let command = words.join(" ");
            match code.block.as_deref() {
                Some("sh") if !words.is_empty() => commands.push(Ok(command)),
                Some(_) if program => commands.push(Err(command)),
                None if program && !name => commands.push(Ok(command)),
                _ => {}
            }
        }
    }
    commands
}
