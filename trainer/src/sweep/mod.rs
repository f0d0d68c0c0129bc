//! A sweep: one recipe, many variants of it. From a file with the values to try come trials; each trial is an ordinary run
//! in a folder of its own, and the results are read back from those folders.

pub mod plot;
pub mod results;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rand::RngExt;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::{Table, Value};
use verifier::compare::hex;

use crate::{
    error::Error,
    random::{Purpose, generator},
    recipe::{Recipe, RecipeError},
};

/// The key whose values are repetitions of one setting: accuracies are averaged over it.
pub const SEED: &str = "train.seed";
/// Longest folder name made from values; longer ones become a hash.
const LONGEST_NAME: usize = 80;
/// Most trials of a sweep.
const MOST_TRIALS: usize = 10_000;

/// Why a sweep cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The file cannot be read.
    #[error("{}: cannot read the sweep: {source}", path.display())]
    Read {
        /// The sweep file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no sweep.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The sweep file.
        path: PathBuf,
        /// What was found and expected, with the place.
        message: String,
    },
    /// A trial is no valid recipe.
    #[error("{}: trial {trial}: {source}", path.display())]
    Trial {
        /// The sweep file.
        path: PathBuf,
        /// Its name.
        trial: String,
        /// What is wrong.
        source: RecipeError,
    },
}

impl From<SweepError> for Error {
    fn from(error: SweepError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// The sweep file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    recipe: PathBuf,
    #[serde(default)]
    set: Table,
    #[serde(default)]
    grid: Table,
    #[serde(default)]
    random: Table,
    trials: Option<usize>,
    #[serde(default)]
    seed: u64,
}

/// What a random value is drawn from.
#[derive(Debug)]
enum Range {
    Choice(Vec<Value>),
    /// Both ends included.
    Integer {
        from: i64,
        to: i64,
        log: bool,
    },
    Float {
        from: f64,
        to: f64,
        log: bool,
    },
}

/// One variant of the recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Name of its run folder.
    pub name: String,
    /// Swept keys with their values as TOML, in the order of the keys.
    pub values: Vec<(String, Value)>,
    /// Changes of the recipe, as `--set` takes them.
    pub sets: Vec<String>,
}

/// A sweep with all its trials.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Default folder `runs/<name>`.
    pub name: String,
    /// The recipe file, relative to the current folder.
    pub recipe: PathBuf,
    /// Swept keys, in alphabetical order.
    pub keys: Vec<String>,
    /// In a fixed order: more `trials` or grid values add some and change none.
    pub trials: Vec<Trial>,
}

impl Plan {
    /// Reads a sweep file and checks the recipe of every trial.
    ///
    /// # Errors
    /// [`SweepError`]: an unreadable or wrong file, a trial that is no valid recipe or has no validation images.
    pub fn load(path: &Path) -> Result<Self, SweepError> {
        let text = fs::read_to_string(path).map_err(|source| SweepError::Read {
            path: path.into(),
            source,
        })?;
        let plan = Self::parse(&text, path)?;
        for trial in &plan.trials {
            let recipe =
                Recipe::load(&plan.recipe, &trial.sets).map_err(|source| SweepError::Trial {
                    path: path.into(),
                    trial: trial.name.clone(),
                    source,
                })?;
            if recipe.data.validation == 0.0 {
                return Err(SweepError::Invalid {
                    path: path.into(),
                    message: format!(
                        "trial {}: data.validation is 0, but a sweep chooses by the accuracy on validation images; add \
                         `\"data.validation\" = 0.1` to [set] or to the recipe",
                        trial.name
                    ),
                });
            }
        }
        Ok(plan)
    }

    /// The trials of a sweep file's text; `path` says what the recipe's path is relative to. The recipe is not read.
    ///
    /// # Errors
    /// [`SweepError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, SweepError> {
        let invalid = |message: String| SweepError::Invalid {
            path: path.into(),
            message,
        };
        let file: File = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let mut fixed = BTreeMap::new();
        // The keys of a tagged table belong together; any other table is only a way of writing dotted keys.
        flatten(
            "",
            &file.set,
            &|table| table.contains_key("type"),
            &mut fixed,
        );
        let (mut grid, mut random) = (BTreeMap::new(), BTreeMap::new());
        flatten("", &file.grid, &|_| false, &mut grid);
        let is_range = |table: &Table| table.contains_key("from") || table.contains_key("to");
        flatten("", &file.random, &is_range, &mut random);
        let mut grid_values = Vec::new();
        for (key, value) in grid {
            match value {
                Value::Array(values) if !values.is_empty() => grid_values.push((key, values)),
                other => {
                    return Err(invalid(format!(
                        "grid.{key}: got {other}, expected a list of values"
                    )));
                }
            }
        }
        let mut ranges = Vec::new();
        for (key, value) in random {
            let range = Range::parse(&value)
                .map_err(|message| invalid(format!("random.{key}: {message}")))?;
            ranges.push((key, range));
        }
        let draws = match (ranges.is_empty(), file.trials) {
            (false, Some(trials)) if trials > 0 => trials,
            (true, None) => 1,
            (true, Some(_)) => {
                return Err(invalid(
                    "trials: there is nothing in [random] to draw".into(),
                ));
            }
            (false, _) => {
                return Err(invalid(
                    "trials: expected how many times the values of [random] are drawn".into(),
                ));
            }
        };
        let keys = grid_values.iter().map(|(key, _)| key);
        let mut keys: Vec<String> = keys
            .chain(ranges.iter().map(|(key, _)| key))
            .cloned()
            .collect();
        keys.sort_unstable();
        if let Some(key) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(invalid(format!(
                "{}: it is in [grid] and in [random]",
                key[0]
            )));
        }
        if keys.is_empty() {
            return Err(invalid(
                "expected values to try in [grid] or [random]".into(),
            ));
        }
        if let Some(key) = keys.iter().find(|key| fixed.contains_key(*key)) {
            return Err(invalid(format!("{key}: it is in [set], and swept too")));
        }
        let cells: usize = grid_values.iter().map(|(_, values)| values.len()).product();
        if cells.saturating_mul(draws) > MOST_TRIALS {
            return Err(invalid(format!(
                "{cells} combinations, drawn {draws} times, are more than {MOST_TRIALS} trials"
            )));
        }
        let mut trials: Vec<Trial> = Vec::new();
        for draw in 0..draws {
            for cell in 0..cells {
                let mut values = pick(&grid_values, cell);
                for (i, (key, range)) in ranges.iter().enumerate() {
                    let mut random = generator(file.seed, Purpose::Sweep, draw as u64, i as u64);
                    values.push((key.clone(), range.draw(&mut random)));
                }
                values.sort_by(|a, b| a.0.cmp(&b.0));
                let trial = Trial::new(values, &fixed);
                // Two draws from a choice may be the same trial.
                if trials.iter().all(|known| known.name != trial.name) {
                    trials.push(trial);
                }
            }
        }
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        Ok(Self {
            name: file.name.or(stem).unwrap_or_else(|| "sweep".into()),
            recipe: path.parent().unwrap_or(Path::new("")).join(file.recipe),
            keys,
            trials,
        })
    }
}

/// Combination number `cell` of the grid; the last key varies fastest.
fn pick(grid: &[(String, Vec<Value>)], mut cell: usize) -> Vec<(String, Value)> {
    let mut picked: Vec<(String, Value)> = Vec::with_capacity(grid.len());
    for (key, values) in grid.iter().rev() {
        picked.push((key.clone(), values[cell % values.len()].clone()));
        cell /= values.len();
    }
    picked
}

impl Trial {
    fn new(values: Vec<(String, Value)>, fixed: &BTreeMap<String, Value>) -> Self {
        let set = |(key, value): (&String, &Value)| format!("{key}={value}");
        let mut sets: Vec<String> = fixed.iter().map(set).collect();
        sets.extend(values.iter().map(|(key, value)| set((key, value))));
        Self {
            name: folder_name(&values),
            values,
            sets,
        }
    }
}

/// `batch-64_learning_rate-0.001`: the last part of every key with its value; a hash of both where the values are no plain
/// words, or where the name would be long.
fn folder_name(values: &[(String, Value)]) -> String {
    let plain = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-".contains(&b);
        !text.is_empty() && text.bytes().all(|b| fits(b) || b == b'_')
    };
    let parts: Vec<(String, String)> = values
        .iter()
        .map(|(key, value)| {
            let short = |part: &str| !matches!(part, "train" | "data" | "network" | "layers");
            let last = key.rsplit('.').next().unwrap_or(key);
            let shared = values
                .iter()
                .filter(|(other, _)| other.ends_with(last))
                .count()
                > 1;
            let key = if shared {
                let parts: Vec<&str> = key.split('.').filter(|part| short(part)).collect();
                parts.join(".")
            } else {
                last.to_owned()
            };
            (key, text(value))
        })
        .collect();
    let joined: Vec<String> = parts
        .iter()
        .map(|(key, value)| format!("{key}-{value}"))
        .collect();
    let name = joined.join("_");
    if name.len() <= LONGEST_NAME && parts.iter().all(|(key, value)| plain(key) && plain(value)) {
        return name;
    }
    let all: Vec<String> = values
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("trial-{}", &hex(&Sha256::digest(all.join("\n")))[..12])
}

/// A value for people: strings without quotes.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Dotted keys of all leaves; a table is a leaf if `leaf` says so. An empty table is one, too.
fn flatten(
    prefix: &str,
    table: &Table,
    leaf: &impl Fn(&Table) -> bool,
    found: &mut BTreeMap<String, Value>,
) {
    for (key, value) in table {
        let key = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            Value::Table(inner) if !inner.is_empty() && !leaf(inner) => {
                flatten(&key, inner, leaf, found);
            }
            other => {
                found.insert(key, other.clone());
            }
        }
    }
}

impl Range {
    fn parse(value: &Value) -> Result<Self, String> {
        let table = match value {
            Value::Array(values) if !values.is_empty() => {
                return Ok(Self::Choice(values.clone()));
            }
            Value::Table(table) => table,
            other => {
                return Err(format!(
                    "got {other}, expected a list of values or {{ from = .., to = .., log = false }}"
                ));
            }
        };
        if let Some(key) = table
            .keys()
            .find(|key| !["from", "to", "log"].contains(&key.as_str()))
        {
            return Err(format!("unknown key `{key}`, expected from, to and log"));
        }
        let log = match table.get("log") {
            None => false,
            Some(Value::Boolean(log)) => *log,
            Some(other) => return Err(format!("log: got {other}, expected true or false")),
        };
        let (Some(from), Some(to)) = (table.get("from"), table.get("to")) else {
            return Err("expected both from and to".into());
        };
        let number = |value: &Value| match value {
            Value::Integer(n) => Ok(*n as f64),
            Value::Float(x) if x.is_finite() => Ok(*x),
            other => Err(format!("got {other}, expected a number")),
        };
        let (low, high) = (number(from)?, number(to)?);
        if low >= high {
            return Err(format!("from = {from} is not below to = {to}"));
        }
        if log && low <= 0.0 {
            return Err(format!("from = {from}: a logarithmic range starts above 0"));
        }
        Ok(match (from, to) {
            (&Value::Integer(from), &Value::Integer(to)) => Self::Integer { from, to, log },
            _ => Self::Float {
                from: low,
                to: high,
                log,
            },
        })
    }

    /// A value; floats have three significant digits.
    fn draw(&self, random: &mut impl rand::Rng) -> Value {
        let mut between = |from: f64, to: f64, log: bool| {
            let part: f64 = random.random();
            if log {
                from * (to / from).powf(part)
            } else {
                from + (to - from) * part
            }
        };
        match self {
            Self::Choice(values) => {
                let i = between(0.0, values.len() as f64, false) as usize;
                values[i.min(values.len() - 1)].clone()
            }
            &Self::Integer { from, to, log } => {
                // One more than the range, rounded down: every integer of a linear range is equally likely.
                let drawn = between(from as f64, to as f64 + 1.0, log).floor() as i64;
                Value::Integer(drawn.clamp(from, to))
            }
            &Self::Float { from, to, log } => {
                let drawn = between(from, to, log);
                let rounded = format!("{drawn:.2e}").parse().unwrap_or(drawn);
                Value::Float(f64::clamp(rounded, from, to))
            }
        }
    }
}

#[cfg(test)]
mod tests;
