//! The pages: all Markdown files of the repository, those of docs/ built as a book. The tests follow every link.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::shell::{self, Failure};

#[cfg(test)]
mod tests;

/// Checked by the tests of this module; a newer one should do, too.
const MDBOOK: &str = "0.5.4";
/// Folders without pages of the project: what is built, and what is trained.
const NO_PAGES: [&str; 2] = ["target", "runs"];

/// Builds the book.
pub fn build() -> Result<(), Failure> {
    let installed = shell::output(Command::new("mdbook").arg("--version")).is_some();
    let program = if installed {
        PathBuf::from("mdbook")
    } else {
        let tools = shell::root().join("target/tools");
        let program = tools
            .join("bin")
            .join(format!("mdbook{}", std::env::consts::EXE_SUFFIX));
        if !program.is_file() {
            // A debug build without the server and the search index: the quickest one, and enough to build a book.
            shell::run(
                shell::cargo()
                    .args([
                        "install",
                        "mdbook",
                        "--version",
                        MDBOOK,
                        "--locked",
                        "--debug",
                    ])
                    .args(["--no-default-features", "--root"])
                    .arg(&tools),
            )?;
        }
        program
    };
    shell::run(
        Command::new(program)
            .arg("build")
            .arg(shell::root().join("docs")),
    )?;
    println!("open target/book/index.html");
    Ok(())
}

/// Every page of the repository, in the order of the paths.
pub fn pages() -> Result<Vec<Page>, Failure> {
    let mut pages = Vec::new();
    collect(Path::new(""), &mut pages)
        .map_err(|error| Failure(format!("{}: {error}", shell::root().display())))?;
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pages)
}

fn collect(folder: &Path, pages: &mut Vec<Page>) -> io::Result<()> {
    for entry in fs::read_dir(shell::root().join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = folder.join(&name);
        let hidden = name.to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() {
            if !hidden && NO_PAGES.iter().all(|&other| name != other) {
                collect(&path, pages)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(Page::new(&path, &fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

/// Code of a page.
#[derive(Debug, PartialEq)]
pub struct Code {
    /// Of a block, what stands after its fence; empty for an indented one. None inside of the text. `sh`: commands.
    pub block: Option<String>,
    /// Its lines.
    pub text: String,
}

/// What matters of a Markdown page.
#[derive(Debug, Default)]
pub struct Page {
    /// Relative to the repository's root.
    pub path: PathBuf,
    /// Code in order.
    pub code: Vec<Code>,
    /// Targets of links and pictures.
    pub links: Vec<String>,
    /// What a link may name after `#`.
    pub anchors: Vec<String>,
}

impl Page {
    /// Reads a page.
    pub fn new(path: &Path, text: &str) -> Self {
        let mut page = Self {
            path: path.into(),
            ..Self::default()
        };
        let mut heading: Option<String> = None;
        let mut in_block = false;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    in_block = true;
                    page.code.push(Code {
                        block: Some(match kind {
                            CodeBlockKind::Fenced(language) => language.to_string(),
                            CodeBlockKind::Indented => String::new(),
                        }),
                        text: String::new(),
                    });
                }
                Event::End(TagEnd::CodeBlock) => in_block = false,
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors
                        .extend(heading.take().map(|text| anchor(&text)));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.to_string());
                }
                Event::Text(text) => {
                    if let (true, Some(code)) = (in_block, page.code.last_mut()) {
                        code.text.push_str(&text);
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    page.code.push(Code {
                        block: None,
                        text: code.to_string(),
                    });
                }
                _ => {}
            }
        }
        page
    }
}

/// `A real board, step by step` as `a-real-board-step-by-step`.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
