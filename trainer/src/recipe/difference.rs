//! Where two recipes differ.

use toml::{Table, Value};

use super::Recipe;

/// A key with two values.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Dotted, layers counted from 0: `network.layers.0.filters`.
    pub key: String,
    /// As TOML; `none` where the key is absent.
    pub before: String,
    /// As TOML; `none` where the key is absent.
    pub after: String,
}

impl Recipe {
    /// All keys whose values differ, in alphabetical order, except for `data.path`: what the data is, not where it lies,
    /// changes a training.
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let table = |recipe: &Self| {
            let mut table = Table::try_from(recipe).unwrap_or_default();
            if let Some(Value::Table(data)) = table.get_mut("data") {
                data.remove("path");
            }
            Value::Table(table)
        };
        let mut found = Vec::new();
        compare(
            String::new(),
            Some(&table(self)),
            Some(&table(after)),
            &mut found,
        );
        found
    }
}

fn compare(
    key: String,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    let inside = |part: String| {
        if key.is_empty() {
            part
        } else {
            format!("{key}.{part}")
        }
    };
    match (before, after) {
        (Some(Value::Table(a)), Some(Value::Table(b))) => {
            let added = b.keys().filter(|name| !a.contains_key(*name));
            for name in a.keys().chain(added) {
                compare(inside(name.clone()), a.get(name), b.get(name), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                compare(inside(i.to_string()), a.get(i), b.get(i), found);
            }
        }
        _ if before == after => {}
        _ => {
            let text = |value: Option<&Value>| value.map_or("none".into(), Value::to_string);
            found.push(Difference {
                key,
                before: text(before),
                after: text(after),
            });
        }
    }
}
