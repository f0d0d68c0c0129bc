//! Bad input, driven through the real program: for each case the whole message, the exit code, and that no file has changed,
//! appeared or vanished. A case is a change of a folder with good data, a good recipe and a finished run, and a command line.

mod command_line;
mod data;
mod fixture;
mod recipe;
mod run;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
    process::Command,
};

/// One wrong thing.
struct Case {
    /// What is wrong; unique in its table.
    name: String,
    /// Words after `trainer`; an argument with spaces is one element of its own.
    args: Vec<String>,
    /// Makes it wrong.
    change: Box<dyn Fn(&Path) + Send + Sync>,
}

/// A case whose command line has no argument with a space.
fn case(name: &str, args: &str, change: impl Fn(&Path) + Send + Sync + 'static) -> Case {
    Case {
        name: name.into(),
        args: args.split_whitespace().map(Into::into).collect(),
        change: Box::new(change),
    }
}

/// Nothing is changed: the command line is what is wrong.
fn nothing(_: &Path) {}

/// Replaces a file of the folder; its parents are there.
fn write(file: &'static str, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> impl Fn(&Path) {
    move |folder| fs::write(folder.join(file), bytes.as_ref()).unwrap()
}

/// Removes a file of the folder.
fn remove(file: &'static str) -> impl Fn(&Path) {
    move |folder| fs::remove_file(folder.join(file)).unwrap()
}

/// Changes the bytes of a file of the folder.
fn edit(file: &'static str, change: impl Fn(&mut Vec<u8>)) -> impl Fn(&Path) {
    move |folder| {
        let path = folder.join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }
}

/// Replaces the only occurrence of a text in a file of the folder.
fn replace(file: &'static str, from: &'static str, to: &'static str) -> impl Fn(&Path) {
    edit(file, move |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{file}: `{from}`");
        *bytes = text.replace(from, to).into_bytes();
    })
}

/// Every path below the folder with its content; folders with none.
fn tree(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    fn visit(root: &Path, folder: &Path, found: &mut BTreeMap<String, Option<Vec<u8>>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let content = path.is_file().then(|| fs::read(&path).unwrap());
            found.insert(name, content);
            if path.is_dir() {
                visit(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(folder, folder, &mut found);
    found
}

/// Runs the cases; the text of a snapshot.
fn outcomes(cases: &[Case]) -> String {
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "every case has its own name");
    let mut text = String::new();
    for Case { name, args, change } in cases {
        let folder = fixture::copy();
        change(folder.path());
        let before = tree(folder.path());
        let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args(args)
            .current_dir(folder.path())
            .env("TERM", "dumb")
            .output()
            .unwrap();
        let after = tree(folder.path());
        let differing: Vec<&String> = before
            .keys()
            .chain(after.keys())
            .filter(|&path| before.get(path) != after.get(path))
            .collect();
        assert!(differing.is_empty(), "{name}: changed {differing:?}");
        let code = output.status.code();
        let errors = String::from_utf8(output.stderr).unwrap();
        let start = errors.find("error: ");
        let start = start.unwrap_or_else(|| panic!("{name}: {code:?}, no error:\n{errors}"));
        assert!(matches!(code, Some(1 | 2)), "{name}: {code:?}\n{errors}");
        assert!(!errors.contains("panicked"), "{name}: {errors}");
        let message = errors[start..].trim_end();
        let root = folder.path().canonicalize().unwrap();
        let message = message.replace(&root.display().to_string(), "ROOT");
        let message = without_model_numbers(&message);
        let line = args.join(" ");
        let code = code.unwrap_or_default();
        writeln!(text, "# {name}\n$ trainer {line}\n{message}\n=> {code}\n").unwrap();
    }
    text
}

/// Length and checksum of the trained model are no part of what a message promises.
fn without_model_numbers(message: &str) -> String {
    let mut before = "";
    let words = message.split(' ').map(|word| {
        let number = matches!(before, "stated" | "computed");
        before = word;
        match (number, word.strip_suffix(',')) {
            (true, Some(_)) => "NUMBER,",
            (true, None) => "NUMBER",
            (false, _) => word,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The parts of a table at the same time.
fn check(cases: Vec<Case>) -> String {
    let middle = cases.len() / 2;
    let (first, second) = cases.split_at(middle);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| outcomes(second));
        outcomes(first) + &second.join().unwrap()
    })
}
