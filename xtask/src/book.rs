//! The pages in docs/: built as a book, and their commands run. The tests check every command and link of all pages.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::shell::{self, Failure};

#[cfg(test)]
mod tests;

/// Checked by the tests of this module; a newer one should do, too.
const MDBOOK: &str = "0.5.4";
/// The page whose commands [`walk_through`] runs.
const TUTORIAL: &str = "docs/tutorial.md";

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

/// Runs the tutorial's `sh` blocks with a shell in the repository's root. The first one builds the `trainer` that the others
/// find.
pub fn walk_through() -> Result<(), Failure> {
    let path = shell::root().join(TUTORIAL);
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let mut search: OsString = shell::root().join("target/release").into();
    if let Some(before) = std::env::var_os("PATH") {
        search.push(":");
        search.push(before);
    }
    let blocks = Page::new(Path::new(TUTORIAL), &text).blocks;
    for block in blocks.iter().filter(|block| block.language == "sh") {
        let mut command = Command::new("sh");
        command.current_dir(shell::root()).env("PATH", &search);
        shell::run(command.args(["-e", "-c", &block.text]))?;
    }
    Ok(())
}

/// A code block.
#[derive(Debug, PartialEq)]
pub struct Block {
    /// After the fence; empty for an indented block. `sh`: commands that the walkthrough can run; `console`: commands that need
    /// something else (a board, other data).
    pub language: String,
    /// Its lines.
    pub text: String,
}

/// What matters of a Markdown page.
#[derive(Debug, Default)]
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the walkthrough needs the blocks only, the tests all"
    )
)]
pub struct Page {
    /// Relative to the repository's root.
    pub path: PathBuf,
    /// Code blocks in order.
    pub blocks: Vec<Block>,
    /// Code inside of the text.
    pub inline: Vec<String>,
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
                    page.blocks.push(Block {
                        language: match kind {
                            CodeBlockKind::Fenced(language) => language.to_string(),
                            CodeBlockKind::Indented => String::new(),
                        },
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
                    if let (true, Some(block)) = (in_block, page.blocks.last_mut()) {
                        block.text.push_str(&text);
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    page.inline.push(code.to_string());
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
