//! `trainer summary`: what a recipe's network looks like and costs.

use std::fmt::Write;

use indicatif::HumanCount;
use serde::Serialize;

use super::output;
use crate::{
    architecture::{Architecture, LayerKind, Shape, Source},
    cli::SummaryArgs,
    error::Error,
    recipe::{self, PreprocessMode, Recipe},
    run::RunError,
};

/// Prints the table.
///
/// # Errors
/// An unreadable recipe, or a network that does not fit together.
pub fn run(args: &SummaryArgs) -> Result<(), Error> {
    let path = match &args.recipe {
        Some(path) => path.clone(),
        None => recipe::default_path()?,
    };
    let recipe = Recipe::load(&path, &args.set)?;
    let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss)
        .map_err(|source| RunError::Architecture { path, source })?;
    if args.json {
        return output::document(&Summary::new(&recipe, &architecture));
    }
    output::text(&table(&recipe, &architecture))
}

/// The table as values.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    name: &'a str,
    input: Shape,
    layers: Vec<Row<'a>>,
    parameters: u64,
    trainable_parameters: u64,
    macs: u64,
    estimated_flash_bytes: u64,
    estimated_arena_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    kind: &'static str,
    output: Shape,
    parameters: u64,
    macs: u64,
}

impl<'a> Summary<'a> {
    fn new(recipe: &'a Recipe, architecture: &'a Architecture) -> Self {
        let layers = &architecture.layers;
        let (flash, arena) = estimate(architecture, recipe.data.preprocess);
        Self {
            name: &recipe.name,
            input: architecture.input,
            layers: layers
                .iter()
                .map(|layer| Row {
                    name: &layer.name,
                    kind: layer.kind_name(),
                    output: layer.output,
                    parameters: layer.parameters(),
                    macs: layer.macs(),
                })
                .collect(),
            parameters: architecture.parameters(),
            trainable_parameters: layers.iter().map(|l| l.trainable_parameters()).sum(),
            macs: architecture.macs(),
            estimated_flash_bytes: flash,
            estimated_arena_bytes: arena,
        }
    }
}

fn table(recipe: &Recipe, architecture: &Architecture) -> String {
    let mut rows = vec![["layer", "kind", "output", "parameters", "MACs"].map(String::from)];
    for layer in &architecture.layers {
        rows.push([
            layer.name.clone(),
            layer.kind_name().into(),
            layer.output.to_string(),
            HumanCount(layer.parameters()).to_string(),
            HumanCount(layer.macs()).to_string(),
        ]);
    }
    rows.push([
        "total".into(),
        String::new(),
        String::new(),
        HumanCount(architecture.parameters()).to_string(),
        HumanCount(architecture.macs()).to_string(),
    ]);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let rule = "-".repeat(widths.iter().sum::<usize>() + 8);
    let mut text = format!("{}: input {}\n\n", recipe.name, architecture.input);
    let last = rows.len() - 1;
    for (i, [name, kind, output, parameters, macs]) in rows.iter().enumerate() {
        if i == 1 || i == last {
            let _ = writeln!(text, "{rule}");
        }
        let [a, b, c, d, e] = widths;
        let _ = writeln!(
            text,
            "{name:<a$}  {kind:<b$}  {output:<c$}  {parameters:>d$}  {macs:>e$}"
        );
    }
    let summary = Summary::new(recipe, architecture);
    for (name, number, unit) in [
        ("\ntrainable parameters  ", summary.trainable_parameters, ""),
        (
            "int8 flash, estimated ",
            summary.estimated_flash_bytes,
            " bytes",
        ),
        (
            "int8 arena, estimated ",
            summary.estimated_arena_bytes,
            " bytes",
        ),
    ] {
        let _ = writeln!(text, "{name} {}{unit}", HumanCount(number));
    }
    text
}

/// Bytes of weights (int8), biases (int32) and shifts (one byte) per output channel; and the largest sum of the tensors that
/// are alive at the same time. Layers that the quantizer merges into their neighbours cost nothing: batch norm, dropout,
/// flatten, and a max pool after a conv layer.
fn estimate(architecture: &Architecture, preprocess: PreprocessMode) -> (u64, u64) {
    let layers = &architecture.layers;
    let mut flash = 0;
    for layer in layers {
        if let LayerKind::Conv { .. } | LayerKind::Dense { .. } = layer.kind {
            let kernel: usize = layer.weight_shapes()[0].1.iter().product();
            flash += kernel as u64 + 5 * layer.output.c as u64;
        }
    }
    let image = match preprocess {
        PreprocessMode::PerPixel => architecture.input.len() as u64,
        _ => 0,
    };
    // The tensor that a layer's output lives in: its own, or that of the layer that it is merged with.
    let mut storage: Vec<usize> = Vec::with_capacity(layers.len());
    let mut bytes: Vec<u64> = Vec::with_capacity(layers.len());
    for (i, layer) in layers.iter().enumerate() {
        bytes.push(layer.output.len() as u64);
        let merged = match (&layer.kind, layer.inputs[0]) {
            (
                LayerKind::BatchNorm { .. } | LayerKind::Dropout { .. } | LayerKind::Flatten,
                Source::Layer(from),
            ) => Some(from),
            (LayerKind::MaxPool { .. }, Source::Layer(from))
                if matches!(layers[from].kind, LayerKind::Conv { .. }) =>
            {
                Some(from)
            }
            _ => None,
        };
        storage.push(merged.map_or(i, |from| storage[from]));
        if merged.is_some() {
            bytes[storage[i]] = layer.output.len() as u64;
        }
    }
    if let Some(&last) = storage.last() {
        bytes[last] = 4 * architecture.classes() as u64;
    }
    let reads = |layer: usize| {
        let inputs = layers[layer].inputs.iter();
        inputs.map(|source| match source {
            Source::Input => None,
            Source::Layer(from) => Some(storage[*from]),
        })
    };
    let mut peak = 0;
    for i in (0..layers.len()).filter(|&i| storage[i] == i) {
        let mut alive = bytes[i];
        if (i..layers.len()).any(|later| reads(later).any(|from| from.is_none())) {
            alive += image;
        }
        for earlier in (0..i).filter(|&e| storage[e] == e) {
            if (i..layers.len()).any(|later| reads(later).any(|from| from == Some(earlier))) {
                alive += bytes[earlier];
            }
        }
        peak = peak.max(alive);
    }
    (flash, peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(name: &str) -> (Recipe, Architecture) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mnist/");
        let recipe = Recipe::load(format!("{folder}{name}.toml").as_ref(), &[]).unwrap();
        let architecture = Architecture::resolve(&recipe.network, &recipe.train.loss).unwrap();
        (recipe, architecture)
    }

    #[test]
    fn shipped_recipes_resolve_with_their_parameters() {
        let wide = 640 + 64 * 64 * 9 + 64 + 64 * 128 * 9 + 128 + 1152 * 120 + 120 + 1210;
        let narrow = 320 + 18_496 + 64 * 128 * 9 + 128 + 1152 * 120 + 120 + 1210;
        for (name, parameters) in [
            ("recipe", 96_844),
            ("base-joined", 96_844),
            ("mlp", 57_390),
            ("wide-a", wide),
            ("wide-b", wide),
            ("wide-c", narrow),
        ] {
            assert_eq!(shipped(name).1.parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn base_table() {
        let (recipe, architecture) = shipped("recipe");
        insta::assert_snapshot!(table(&recipe, &architecture));
    }
}
