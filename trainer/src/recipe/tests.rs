use std::path::Path;

use super::*;

const RECIPE: &str = "\
name = 'a'
[data]
format = 'idx'
path = '.'
[network]
input = [28, 28, 1]
layers = [
  { type = 'conv', filters = 8 },
  { type = 'flatten' },
  { type = 'dense', units = 10, activation = 'softmax' },
]
[train]
epochs = 3
optimizer = { type = 'rmsprop', momentum = 0.8 }
";

fn parse(text: &str, sets: &[&str]) -> Result<Recipe, RecipeError> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Recipe::parse(text, Path::new("a.toml"), &sets)
}

fn replaced(from: &str, to: &str) -> String {
    assert!(RECIPE.contains(from));
    parse(&RECIPE.replacen(from, to, 1), &[])
        .unwrap_err()
        .to_string()
}

#[test]
fn wrong_recipes_name_the_place() {
    let messages = [
        replaced("epochs = 3", "epoch = 3"),
        replaced("momentum", "momentun"),
        replaced("'rmsprop'", "'rmsprob'"),
        replaced("filters = 8", "filter = 8"),
        replaced("'softmax'", "'sofmax'"),
        replaced("epochs = 3", "epochs = 'three'"),
        replaced("epochs = 3", "epochs = 0"),
        replaced("epochs = 3", "epochs ="),
        replaced("'idx'", "'mat'"),
        replaced("name = 'a'", "name = '../a'"),
        replaced("epochs = 3", "clip = { norm = 1.0, value = 1.0 }"),
        replaced(
            "epochs = 3",
            "schedule = { type = 'piecewise', boundaries = [5], values = [0.1] }",
        ),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn overrides() {
    let recipe = parse(
        RECIPE,
        &[
            "train.epochs=7",
            "train.optimizer.type=sgd",
            "train.optimizer.learning_rate=1",
            "network.layers.0.filters=16",
            "data.label_column=y",
            "train.schedule={ type = 'exponential', decay_rate = 0.5 }",
            "train.callbacks.early_stopping.patience=2",
        ],
    )
    .unwrap();
    assert_eq!(recipe.train.epochs, 7);
    assert_eq!(
        recipe.train.optimizer,
        OptimizerRecipe::Sgd {
            learning_rate: 1.0,
            momentum: 0.0,
            nesterov: false
        }
    );
    assert!(matches!(
        recipe.network.layers[0],
        LayerRecipe::Conv { filters: 16, .. }
    ));
    assert_eq!(recipe.data.label_column, LabelColumn::Named("y".into()));
    assert_eq!(recipe.train.callbacks.early_stopping.unwrap().patience, 2);
}

/// A name, several, or `auto`; not written out where it is none, so that older runs keep their hash.
#[test]
fn convolutions_to_transform() {
    let winograd = |set: &str| parse(RECIPE, &[set]).unwrap().export.winograd;
    let layers = |names: &[&str]| Winograd::Layers(names.iter().map(|&name| name.into()).collect());
    assert_eq!(parse(RECIPE, &[]).unwrap().export.winograd, layers(&[]));
    assert_eq!(winograd("export.winograd=conv2"), layers(&["conv2"]));
    assert_eq!(winograd("export.winograd=['a', 'b']"), layers(&["a", "b"]));
    assert_eq!(winograd("export.winograd=auto"), Winograd::Auto);
    for set in ["export.winograd=auto", "export.winograd=['a']"] {
        let recipe = parse(RECIPE, &[set]).unwrap();
        assert_eq!(parse(&recipe.to_toml(), &[]).unwrap(), recipe);
    }
    let none = parse(RECIPE, &["export.winograd=[]"]).unwrap();
    assert_eq!(none.hash(), parse(RECIPE, &[]).unwrap().hash());
    let error = parse(RECIPE, &["export.winograd=2"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected \"auto\", the name of a layer, or a list of names"),
        "{error}"
    );
}

#[test]
fn wrong_overrides() {
    let wrong = |sets: &[&str]| parse(RECIPE, sets).unwrap_err().to_string();
    let messages = [
        wrong(&["train.epochs"]),
        wrong(&["train.batch=64", "train.epoch=3"]),
        wrong(&["train.epochs=three"]),
        wrong(&["train.epochs=0"]),
        wrong(&["network.layers.3.filters=1"]),
        wrong(&["name.x=1"]),
        wrong(&["train..x=1"]),
        wrong(&["train.optimizer.type=sgb"]),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn the_resolved_text_gives_the_same_recipe() {
    let recipe = parse(RECIPE, &["train.optimizer.learning_rate=0.003"]).unwrap();
    let text = recipe.to_toml();
    let again = parse(&text, &[]).unwrap();
    assert_eq!(again, recipe);
    assert_eq!(again.hash(), recipe.hash());
    assert_ne!(parse(RECIPE, &[]).unwrap().hash(), recipe.hash());
    for default in [
        "batch = 64",
        "rho = 0.9",
        "calibration_images",
        "opset",
        "validation",
    ] {
        assert!(text.contains(default), "{default} in\n{text}");
    }
}

/// Every key of the resolved texts of recipes that use everything is described in docs/recipe.md.
#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../docs/recipe.md");
    let layers = "[{ type = 'conv', name = 'a', input = 'input', filters = 1 }, { type = 'depthwise_conv' }, { type = 'max_pool', stride = [1, 1] },
        { type = 'avg_pool' }, { type = 'global_avg_pool' }, { type = 'batch_norm' }, { type = 'dropout', rate = 0.5 }, { type = 'flatten' },
        { type = 'dense', units = 1 }, { type = 'activation', activation = 'relu' }, { type = 'add', with = 'a' }]";
    let base = RECIPE.replace("'.'", "'.'\nlimit = 5\nsplit = { test = 5 }");
    let start = base.find("layers = ").unwrap();
    let end = base.find("[train]").unwrap();
    let base = format!("{}layers = {layers}\n{}", &base[..start], &base[end..]);
    let optimizers = [
        "sgd", "rmsprop", "adam", "nadam", "adamax", "adamw", "adagrad", "lion",
    ];
    let schedules = [
        "type = 'constant'",
        "type = 'inverse_time', decay_rate = 1",
        "type = 'exponential', decay_rate = 1",
        "type = 'piecewise', boundaries = [1], values = [1, 2]",
        "type = 'polynomial', decay_steps = 1",
        "type = 'cosine', decay_steps = 5, warmup_target = 1.0",
        "type = 'cosine_restarts', first_decay_steps = 1",
        "type = 'one_cycle', total_steps = 5",
    ];
    let losses = [
        "categorical_crossentropy",
        "binary_crossentropy",
        "mean_squared_error",
    ];
    for i in 0..8 {
        let mut sets = vec![
            format!("train.optimizer.type={}", optimizers[i]),
            format!("train.schedule={{ {} }}", schedules[i]),
            format!("train.loss={{ type = '{}' }}", losses[i % 3]),
            format!("train.clip.{}=1.0", ["norm", "global_norm", "value"][i % 3]),
            "train.callbacks.early_stopping.patience=1".into(),
            "train.callbacks.reference_accuracy=0.9".into(),
            "export.winograd=auto".into(),
        ];
        let plateau = "train.callbacks.reduce_on_plateau.patience=1".to_owned();
        if schedules[i].contains("constant") {
            sets.push(plateau);
        } else {
            let both = [sets[1].clone(), plateau];
            let error = Recipe::parse(&base, Path::new("a.toml"), &both).unwrap_err();
            assert!(
                error.to_string().contains("expected only one of"),
                "{error}"
            );
        }
        let recipe = Recipe::parse(&base, Path::new("a.toml"), &sets).unwrap();
        let table: toml::Table = toml::from_str(&recipe.to_toml()).unwrap();
        let mut words = Vec::new();
        collect(&toml::Value::Table(table), &mut words);
        for word in words {
            assert!(
                page.contains(&format!("`{word}`")),
                "`{word}` is not in docs/recipe.md"
            );
        }
    }
}

/// Keys, and values of `type`.
fn collect(value: &toml::Value, words: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                words.push(key.clone());
                if let (true, Some(kind)) = (key == "type", value.as_str()) {
                    words.push(kind.into());
                }
                collect(value, words);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        _ => {}
    }
}

#[test]
fn differences_name_the_key_and_leave_the_place_of_the_data_out() {
    let text = include_str!("../../../models/mnist/recipe.toml");
    let read = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
        Recipe::parse(text, Path::new("a.toml"), &sets).unwrap()
    };
    let before = read(&["data.path=here"]);
    assert_eq!(before.differences(&read(&["data.path=there"])), []);
    let after = read(&["train.seed=7", "network.layers.0.filters=9", "data.limit=5"]);
    let found = before.differences(&after);
    let found: Vec<[&str; 3]> = found
        .iter()
        .map(|d| [d.key.as_str(), d.before.as_str(), d.after.as_str()])
        .collect();
    let filters = before.differences(&after)[1].before.clone();
    assert_eq!(
        found,
        [
            ["data.limit", "none", "5"],
            ["network.layers.0.filters", &filters, "9"],
            ["train.seed", "1", "7"],
        ]
    );
}
