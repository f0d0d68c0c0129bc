use super::*;

fn parse(text: &str) -> Result<Plan, String> {
    Plan::parse(text, Path::new("here/rate.toml")).map_err(|error| error.to_string())
}

#[test]
fn a_grid_has_every_combination() {
    let plan = parse(
        r#"
        recipe = "recipe.toml"
        [set]
        data.validation = 0.1
        "train.optimizer" = { type = "sgd", momentum = 0.9 }
        [grid]
        "train.optimizer.learning_rate" = [0.001, 0.01]
        train.seed = [1, 2, 3]
        "#,
    )
    .unwrap();
    assert_eq!(plan.name, "rate");
    assert_eq!(plan.recipe, Path::new("here/recipe.toml"));
    assert_eq!(plan.keys, ["train.optimizer.learning_rate", "train.seed"]);
    let names: Vec<&str> = plan
        .trials
        .iter()
        .map(|trial| trial.name.as_str())
        .collect();
    assert_eq!(names.len(), 6);
    assert_eq!(names[0], "learning_rate-0.001_seed-1");
    assert_eq!(names[5], "learning_rate-0.01_seed-3");
    let sets = [
        "data.validation=0.1",
        "train.optimizer={ momentum = 0.9, type = \"sgd\" }",
        "train.optimizer.learning_rate=0.001",
        "train.seed=2",
    ];
    assert_eq!(plan.trials[1].sets, sets);
}

#[test]
fn random_draws_stay_in_their_ranges_and_do_not_depend_on_their_number() {
    let text = |trials: usize| {
        format!(
            r#"
            recipe = "r.toml"
            trials = {trials}
            [grid]
            "train.seed" = [1, 2]
            [random]
            "train.optimizer.learning_rate" = {{ from = 1e-4, to = 1e-2, log = true }}
            "train.batch" = {{ from = 16, to = 18 }}
            "data.augment.shift" = [0.0, 2.0]
            "#
        )
    };
    let (few, many) = (parse(&text(20)).unwrap(), parse(&text(40)).unwrap());
    assert_eq!(few.trials[..], many.trials[..few.trials.len()]);
    let (mut small, mut batches) = (0, [0; 3]);
    for trial in &many.trials {
        let value = |key: &str| &trial.values.iter().find(|(k, _)| k == key).unwrap().1;
        let rate = value("train.optimizer.learning_rate").as_float().unwrap();
        assert!((1e-4..=1e-2).contains(&rate), "{rate}");
        small += usize::from(rate < 1e-3);
        batches[value("train.batch").as_integer().unwrap() as usize - 16] += 1;
    }
    let n = many.trials.len();
    assert_eq!(n, 80);
    assert!(
        (n / 4..3 * n / 4).contains(&small),
        "logarithmic: {small} of {n} below the middle"
    );
    assert!(batches.iter().all(|&count| count > n / 8), "{batches:?}");
}

#[test]
fn names_are_short_and_safe_for_any_file_system() {
    let plan = parse(
        r#"
        recipe = "r.toml"
        [grid]
        "network.layers.0.filters" = [8]
        "network.layers.2.filters" = [16]
        "#,
    )
    .unwrap();
    assert_eq!(plan.trials[0].name, "0.filters-8_2.filters-16");
    let plan = parse(
        r#"
        recipe = "r.toml"
        [grid]
        "train.optimizer" = [{ type = "adam" }, { type = "sgd", momentum = 0.9 }]
        "#,
    )
    .unwrap();
    for trial in &plan.trials {
        assert!(
            trial.name.starts_with("trial-") && trial.name.len() == 18,
            "{}",
            trial.name
        );
    }
    assert_ne!(plan.trials[0].name, plan.trials[1].name);
    assert_eq!(plan.trials[0].sets, ["train.optimizer={ type = \"adam\" }"]);
}

#[test]
fn wrong_files_say_what_is_wrong() {
    for (text, message) in [
        ("[grid]\na = [1]", "missing field `recipe`"),
        (
            "recipe = \"r\"",
            "expected values to try in [grid] or [random]",
        ),
        (
            "recipe = \"r\"\n[grid]\na = 1",
            "grid.a: got 1, expected a list of values",
        ),
        (
            "recipe = \"r\"\n[grid]\na = []",
            "grid.a: got [], expected a list of values",
        ),
        ("recipe = \"r\"\n[gird]\na = [1]", "unknown field `gird`"),
        (
            "recipe = \"r\"\n[random]\na = [1]",
            "trials: expected how many times",
        ),
        (
            "recipe = \"r\"\ntrials = 3\n[grid]\na = [1]",
            "trials: there is nothing in [random]",
        ),
        (
            "recipe = \"r\"\ntrials = 3\n[random]\na = { from = 1 }",
            "random.a: expected both from and to",
        ),
        (
            "recipe = \"r\"\ntrials = 3\n[random]\na = { from = 2, to = 1 }",
            "random.a: from = 2 is not below to = 1",
        ),
        (
            "recipe = \"r\"\ntrials = 3\n[random]\na = { from = 0, to = 1, log = true }",
            "a logarithmic range starts above 0",
        ),
        (
            "recipe = \"r\"\ntrials = 3\n[random]\na = { from = 0, to = 1, step = 1 }",
            "random.a: unknown key `step`",
        ),
        (
            "recipe = \"r\"\n[set]\na = 1\n[grid]\na = [1]",
            "a: it is in [set], and swept too",
        ),
        (
            "recipe = \"r\"\ntrials = 1\n[random]\na = [1]\n[grid]\na = [1]",
            "a: it is in [grid] and in [random]",
        ),
        (
            "recipe = \"r\"\ntrials = 99999\n[random]\na = [1]",
            "more than 10000 trials",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(
            error.starts_with("here/rate.toml: ") && error.contains(message),
            "{error}"
        );
    }
}

#[test]
fn a_sweep_needs_validation_images_and_valid_trials() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mnist/recipe.toml");
    let path = folder.path().join("s.toml");
    let load = |more: &str| {
        fs::write(&path, format!("recipe = {recipe:?}\n{more}")).unwrap();
        Plan::load(&path).map_err(|error| error.to_string())
    };
    let error = load("[grid]\ntrain.batch = [1, 2]").unwrap_err();
    assert!(
        error.contains("trial batch-1: data.validation is 0"),
        "{error}"
    );
    let error = load("[set]\ndata.validation = 0.1\n[grid]\ntrain.batch = [1, 0]").unwrap_err();
    assert!(
        error.contains("trial batch-0: --set train.batch=0"),
        "{error}"
    );
    assert!(load("[set]\ndata.validation = 0.1\n[grid]\ntrain.batch = [1, 2]").is_ok());
}
