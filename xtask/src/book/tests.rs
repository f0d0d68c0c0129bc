use clap::{Parser as _, error::ErrorKind};

use super::*;

/// README, changelog, docs/ and the models' pages.
fn pages() -> Vec<Page> {
    let root = shell::root();
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    let mut folders = vec![PathBuf::from("docs"), PathBuf::from("models")];
    for entry in fs::read_dir(root.join("models")).unwrap() {
        let folder = Path::new("models").join(entry.unwrap().file_name());
        folders.extend(root.join(&folder).is_dir().then_some(folder));
    }
    for folder in folders {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let page = |path: &PathBuf| Page::new(path, &fs::read_to_string(root.join(path)).unwrap());
    paths.iter().map(page).collect()
}

/// Words of a command line up to a comment, a pipe or a redirection; none if it is no command of this project.
fn words(line: &str) -> Option<(&'static str, Vec<String>)> {
    let line = line.trim().trim_start_matches("$ ");
    let all = shlex::split(line)?;
    let ends = |word: &String| {
        word.starts_with('#') || ["|", ">", "<", "&&", ";"].contains(&word.as_str())
    };
    let all: Vec<String> = all.into_iter().take_while(|word| !ends(word)).collect();
    let prefixes: [(&str, &[&str]); 3] = [
        (
            "trainer",
            &["cargo", "run", "--release", "-p", "trainer", "--"],
        ),
        ("xtask", &["cargo", "xtask"]),
        ("trainer", &["trainer"]),
    ];
    prefixes.into_iter().find_map(|(program, prefix)| {
        let rest = all.strip_prefix(
            prefix
                .iter()
                .map(|s| s.to_string())
                .collect::<Vec<_>>()
                .as_slice(),
        )?;
        let words = std::iter::once(program.to_string()).chain(rest.iter().cloned());
        Some((program, words.collect()))
    })
}

fn parse(program: &str, words: &[String]) -> Result<(), clap::Error> {
    match program {
        "xtask" => crate::Cli::try_parse_from(words).map(|_| ()),
        _ => trainer::cli::Cli::try_parse_from(words).map(|_| ()),
    }
}

#[test]
fn every_command_of_the_pages_is_valid() {
    let mut checked = 0;
    for page in pages() {
        for block in &page.blocks {
            for line in block.text.lines() {
                let Some((program, words)) = words(line) else {
                    continue;
                };
                let result = parse(program, &words);
                assert!(
                    result.is_ok(),
                    "{}: `{line}`: {}",
                    page.path.display(),
                    result.unwrap_err()
                );
                checked += 1;
            }
        }
        // In the text a command may stand without its arguments.
        for code in &page.inline {
            let Some((program, words)) = words(code) else {
                continue;
            };
            if words.len() == 1 {
                continue;
            }
            if let Err(error) = parse(program, &words) {
                let missing = error.kind() == ErrorKind::MissingRequiredArgument;
                assert!(missing, "{}: `{code}`: {error}", page.path.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    for page in &pages {
        let folder = page.path.parent().unwrap();
        for link in &page.links {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                page.path.clone()
            } else {
                folder.join(path)
            };
            let found = shell::root().join(&target).exists();
            assert!(found, "{}: {link}", page.path.display());
            if anchor.is_empty() {
                continue;
            }
            let same = |other: &&Page| {
                let real = |path: &Path| shell::root().join(path).canonicalize().ok();
                real(&other.path) == real(&target)
            };
            let known = pages
                .iter()
                .find(same)
                .is_some_and(|p| p.anchors.iter().any(|a| a == anchor));
            assert!(known, "{}: no heading for {link}", page.path.display());
        }
    }
}

#[test]
fn every_page_is_in_the_book() {
    let pages = pages();
    let summary = pages
        .iter()
        .find(|page| page.path.ends_with("SUMMARY.md"))
        .unwrap();
    let missing: Vec<_> = pages
        .iter()
        .filter(|page| page.path.starts_with("docs") && !page.path.ends_with("SUMMARY.md"))
        .filter(|page| {
            let name = page.path.file_name().unwrap().to_str().unwrap();
            !summary.links.iter().any(|link| link == name)
        })
        .map(|page| page.path.display())
        .collect();
    assert!(
        missing.is_empty(),
        "docs/SUMMARY.md does not link {missing:?}"
    );
}

#[test]
fn words_of_a_command_line() {
    let line = "    cargo run --release -p trainer -- evaluate runs/mnist   # metrics";
    let (program, found) = words(line).unwrap();
    assert_eq!(
        (program, found),
        (
            "trainer",
            ["trainer", "evaluate", "runs/mnist"]
                .map(String::from)
                .to_vec()
        )
    );
    assert_eq!(
        words("cargo xtask qemu --images 5").unwrap().1,
        ["xtask", "qemu", "--images", "5"]
    );
    assert!(words("cargo build").is_none());
    assert_eq!(words("trainer devices | head").unwrap().1.len(), 2);
}

#[test]
fn blocks_links_and_anchors_of_a_page() {
    let text = "# A `b`, c!\n\n[x](y.md#z) ![p](q.png)\n\n```sh\none\n```\n\n    two\n\ntext `trainer fit`\n";
    let page = Page::new(Path::new("docs/x.md"), text);
    assert_eq!(page.anchors, ["a-b-c"]);
    assert_eq!(page.links, ["y.md#z", "q.png"]);
    let block = |language: &str, text: &str| Block {
        language: language.into(),
        text: text.into(),
    };
    assert_eq!(page.blocks, [block("sh", "one\n"), block("", "two\n")]);
    assert_eq!(page.inline, ["b", "trainer fit"]);
}
