use clap::Parser as _;

use super::*;

fn page(text: &str) -> Page {
    Page::new(Path::new("page.md"), text)
}

fn rules(text: &str) -> Rules {
    let base = "given = []\nelsewhere = []\nreplace = {}\n";
    toml::from_str(if text.is_empty() { base } else { text }).unwrap()
}

#[test]
fn every_command_of_the_pages_has_a_rule() {
    let steps = plan(&Rules::read().unwrap(), &book::pages().unwrap());
    let steps = steps.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(steps.len() >= 60, "{}", steps.len());
    let tutorial = steps.iter().position(|step| step.page == TUTORIAL);
    let others = steps.iter().position(|step| step.page == "README.md");
    assert!(tutorial < others);
}

/// Also of those that are not run.
#[test]
fn every_command_of_the_pages_is_valid() {
    let mut checked = 0;
    for page in book::pages().unwrap() {
        for command in commands(&page) {
            let command = command.unwrap();
            let Some((program, words)) = words(&command) else {
                continue;
            };
            let error = match program {
                "xtask" => crate::Cli::try_parse_from(words).err(),
                _ => trainer::cli::Cli::try_parse_from(words).err(),
            };
            let path = page.path.display();
            assert!(error.is_none(), "{path}: `{command}`: {}", error.unwrap());
            checked += 1;
        }
    }
    assert!(checked >= 80, "{checked}");
}

/// Words of a command of the trainer or of xtask, up to a redirection.
fn words(command: &str) -> Option<(&'static str, Vec<String>)> {
    let words = shlex::split(command)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, rest) = match &words[..] {
        [
            "cargo",
            "run",
            "--release",
            "-p",
            "trainer",
            "--",
            rest @ ..,
        ] => ("trainer", rest),
        ["nice", "-n", "19", "cargo", "xtask", rest @ ..] => ("xtask", rest),
        ["cargo", "xtask", rest @ ..] => ("xtask", rest),
        ["trainer", rest @ ..] => ("trainer", rest),
        _ => return None,
    };
    let rest = rest.iter().take_while(|word| **word != ">");
    let words = [program].into_iter().chain(rest.copied());
    Some((program, words.map(String::from).collect()))
}

#[test]
fn commands_are_lines_of_marked_blocks_and_code_in_the_text() {
    let text = "`trainer fit` and `trainer fit --epochs 2`, `cargo run --`, `x.rs`\n\n```sh\necho a  # b\n\ncargo \\\n  run\n```\n\n    trainer man x\n";
    let found = commands(&page(text));
    let ok = |command: &str| Ok(command.to_owned());
    let expected = [
        ok("trainer fit --epochs 2"),
        ok("echo a"),
        ok("cargo run"),
        Err("trainer man x".to_owned()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_command_without_a_rule_is_refused() {
    for text in [
        "```sh\nmake\n```",
        "`cargo xtask soak load`",
        "`git clone x`",
        "```console\ntrainer fit\n```",
    ] {
        let failure = plan(&rules(""), &[page(text)]).unwrap_err().0;
        assert!(failure.starts_with("page.md: "), "{failure}");
    }
    let parts = "`cargo xtask test` `cargo xtask qemu`";
    assert_eq!(plan(&rules(""), &[page(parts)]).unwrap(), []);
}

#[test]
fn a_rule_without_a_command_is_refused() {
    let text = "given = []\nelsewhere = [{ reason = \"slow\", commands = [\"make\"] }]\n[replace]\nfit = \"fit --quiet\"\n";
    let failure = plan(&rules(text), &[]).unwrap_err().0;
    assert!(failure.contains("`make` (slow)"), "{failure}");
    assert!(failure.contains("no command has `fit`"), "{failure}");
    let steps = plan(&rules(text), &[page("```sh\nmake\ntrainer fit\n```")]).unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].run, "trainer fit --quiet");
}

#[test]
fn whole_words_are_replaced_and_the_longest_first() {
    let text = "given = []\nelsewhere = []\n[replace]\nfit = \"fit --quiet\"\n\"fit x.toml\" = \"fit y.toml\"\n";
    let rules = rules(text);
    let replaced = |command| rules.replaced(command, &mut BTreeSet::new());
    assert_eq!(replaced("trainer fit x.toml"), "trainer fit y.toml");
    assert_eq!(
        replaced("trainer fit --seed 1"),
        "trainer fit --quiet --seed 1"
    );
    assert_eq!(replaced("trainer fitness"), "trainer fitness");
}
