//! Reading and writing recipe files.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use toml::{Table, Value};
use verifier::compare::hex;

use super::Recipe;
use crate::error::Error;

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    #[error("{}: cannot read the recipe: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        path: PathBuf,
        line: usize,
        column: usize,
        message: String,
    },
    #[error("--set {set}: {message}")]
    Set { set: String, message: String },
    #[error("no recipe given, and there is no models/mnist/recipe.toml here or in {}", root.display())]
    NoDefault { root: PathBuf },
}

impl From<RecipeError> for Error {
    fn from(error: RecipeError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// The MNIST recipe: `models/mnist/recipe.toml` in the current folder, else in the folder that this program was built from.
///
/// # Errors
/// [`RecipeError::NoDefault`] if neither exists.
pub fn default_path() -> Result<PathBuf, RecipeError> {
    let recipe = Path::new("models/mnist/recipe.toml");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    [recipe.to_path_buf(), root.join(recipe)]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| RecipeError::NoDefault {
            root: root.to_path_buf(),
        })
}

impl Recipe {
    /// Reads a recipe and applies `section.key=value` overrides in order.
    ///
    /// A value is read as TOML (`0.01`, `true`, `[3, 3]`, `{ type = "sgd" }`), and as a string where it is not TOML
    /// (`sgd`). Layers are counted from 0: `network.layers.0.filters=16`. Setting a `type` starts its table afresh, because the
    /// other keys belong to the old type.
    ///
    /// # Errors
    /// [`RecipeError`]: unreadable file, invalid TOML, unknown key or value, number out of range; with file, line and column,
    /// or with the override at fault.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let text = fs::read_to_string(path).map_err(|source| RecipeError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(&text, path, sets)
    }

    /// [`Recipe::load`] of a text; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let invalid = |at: usize, message: String| {
            let (line, column) = position(text, at);
            RecipeError::Invalid {
                path: path.into(),
                line,
                column,
                message,
            }
        };
        let recipe: Self = toml::from_str(text).map_err(|error| {
            let (message, name) = explain(error.message());
            invalid(locate(text, error.span(), name.as_deref()), message)
        })?;
        if let Err((key, message)) = recipe.check() {
            return Err(invalid(locate_key(text, &key), format!("{key}: {message}")));
        }
        if sets.is_empty() {
            return Ok(recipe);
        }
        let table: Table =
            toml::from_str(text).map_err(|error| invalid(0, error.message().into()))?;
        let mut root = Value::Table(table);
        for set in sets {
            apply(&mut root, set).map_err(|message| RecipeError::Set {
                set: set.clone(),
                message,
            })?;
        }
        let blame = |name: Option<&str>, message: String| {
            let at_fault = |set: &&String| {
                let key = set.split('=').next().unwrap_or_default();
                name.is_some_and(|name| {
                    key.split('.').any(|part| part == name) || set.ends_with(name)
                })
            };
            let set = match sets.iter().find(at_fault) {
                Some(set) => set.clone(),
                None => sets.join(" --set "),
            };
            RecipeError::Set { set, message }
        };
        let recipe: Self = root.try_into().map_err(|error: toml::de::Error| {
            let (message, name) = explain(error.message());
            blame(name.as_deref(), message)
        })?;
        match recipe.check() {
            Ok(()) => Ok(recipe),
            Err((key, message)) => Err(blame(key.rsplit('.').next(), format!("{key}: {message}"))),
        }
    }

    /// The whole recipe with every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every value of a recipe can be written as TOML")
    }

    /// SHA-256 of [`Recipe::to_toml`] with an empty `data.path`: where the data lies does not change what is trained.
    pub fn digest(&self) -> [u8; 32] {
        let mut recipe = self.clone();
        recipe.data.path = PathBuf::new();
        Sha256::digest(recipe.to_toml()).into()
    }

    /// [`Recipe::digest`] in hexadecimal.
    pub fn hash(&self) -> String {
        hex(&self.digest())
    }
}

/// Writes one `path.to.key=value` into the recipe.
fn apply(root: &mut Value, set: &str) -> Result<(), String> {
    let Some((key, text)) = set.split_once('=') else {
        return Err("expected section.key=value".into());
    };
    let (key, text) = (key.trim(), text.trim());
    let value = match toml::from_str::<Table>(&format!("value = {text}")) {
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value"),
        _ => None,
    };
    let value = value.unwrap_or_else(|| Value::String(text.into()));
    let parts: Vec<&str> = key.split('.').collect();
    let Some((last, path)) = parts.split_last() else {
        return Err("expected section.key=value".into());
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("`{key}` has an empty part"));
    }
    let mut place = root;
    for part in path {
        place = enter(place, part)?;
    }
    match place {
        Value::Table(inner) => {
            if *last == "type" && inner.get("type") != Some(&value) {
                inner.clear();
            }
            inner.insert((*last).into(), value);
        }
        other => *enter(other, last)? = value,
    }
    Ok(())
}

/// The value called `part` (a missing table is made), or the item number `part` of an array.
fn enter<'a>(place: &'a mut Value, part: &str) -> Result<&'a mut Value, String> {
    match place {
        Value::Table(table) => Ok(table
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()))),
        Value::Array(items) => {
            let len = items.len();
            let item = part.parse::<usize>().ok().and_then(|i| items.get_mut(i));
            item.ok_or_else(|| format!("`{part}`: expected a number below {len}"))
        }
        other => Err(format!(
            "`{part}`: nothing can be set inside a {}",
            other.type_str()
        )),
    }
}

/// Adds a suggestion to serde's "unknown field" and "unknown variant" messages; also returns the unknown name.
fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim_end();
    // Types as users know them, not as Rust calls them.
    let named = ["usize", "u64", "u32"].map(|name| (name, "a whole number, 0 or more"));
    let named = named
        .into_iter()
        .chain([("f32", "a number"), ("f64", "a number")]);
    let message = named.fold(message.to_owned(), |text, (name, known)| {
        text.replace(&format!("expected {name}"), &format!("expected {known}"))
    });
    let message = message.as_str();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let name = quoted.next().map(str::to_owned);
    if !message.starts_with("unknown ") {
        return (message.into(), name);
    }
    let Some(unknown) = name else {
        return (message.into(), None);
    };
    let best = quoted
        .map(|known| (strsim::jaro_winkler(&unknown, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let message = match best {
        Some((score, known)) if score > 0.75 => {
            format!("{message}; did you mean `{known}`?")
        }
        _ => message.into(),
    };
    (message, Some(unknown))
}

/// Byte offset of an error: its span, narrowed to the named word inside it (tagged tables only know the whole table's span).
fn locate(text: &str, span: Option<Range<usize>>, name: Option<&str>) -> usize {
    let span = span.unwrap_or(0..text.len());
    let part = text.get(span.clone()).unwrap_or_default();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let found = name.and_then(|name| {
        part.match_indices(name).map(|(at, _)| at).find(|&at| {
            let end = at + name.len();
            !part.as_bytes()[..at].last().is_some_and(|&b| word(b))
                && !part.as_bytes().get(end).is_some_and(|&b| word(b))
        })
    });
    span.start + found.unwrap_or(0)
}

/// Byte offset of the value of a dotted key; of the deepest part that is written down, else 0.
fn locate_key(text: &str, key: &str) -> usize {
    use toml::de::{DeTable, DeValue};
    let Ok(table) = DeTable::parse(text) else {
        return 0;
    };
    let mut at = 0;
    let mut place = DeValue::Table(table.into_inner());
    for part in key.split('.') {
        let next = match place {
            DeValue::Table(mut table) => table.remove(part),
            _ => None,
        };
        let Some(next) = next else { break };
        at = next.span().start;
        place = next.into_inner();
    }
    at
}

/// Line and column of a byte offset, both from 1; the column counts characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (line, before[start..].chars().count() + 1)
}
