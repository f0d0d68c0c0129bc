//! Recipes.

use crate::{Case, case, check, nothing, replace, write};

const FIT: &str = "fit recipe.toml --out out";

/// A case that replaces a part of the recipe.
fn changed(name: &str, from: &'static str, to: &'static str) -> Case {
    case(name, FIT, replace("recipe.toml", from, to))
}

/// A case of one `--set`, on a good recipe.
fn set(value: &str) -> Case {
    let mut case = case(&format!("--set {value}"), FIT, nothing);
    case.args.extend(["--set".into(), value.into()]);
    case
}

#[test]
fn recipes() {
    let file = vec![
        case("no such recipe", "fit missing.toml --out out", nothing),
        case("a folder for a recipe", "fit images --out out", nothing),
        case("not UTF-8", FIT, write("recipe.toml", b"name = \"\xff\"")),
        case("empty recipe", FIT, write("recipe.toml", "")),
        case(
            "an image for a recipe",
            "fit images/dark/0.png --out out",
            nothing,
        ),
        changed("TOML syntax", "epochs = 1", "epochs = "),
        changed("the same key twice", "epochs = 1", "epochs = 1\nepochs = 2"),
        changed("unknown section", "[train]", "[trian]"),
        changed("unknown key", "epochs = 1", "epoch = 1"),
        changed("unknown layer", "\"conv\"", "\"convolution\""),
        changed("unknown activation", "\"relu\"", "\"gelu\""),
        changed("unknown format", "format = \"idx\"", "format = \"mat\""),
        changed("missing key", "filters = 2, ", ""),
        changed("a text for a number", "batch = 4", "batch = \"four\""),
        changed("a fraction for a whole number", "batch = 4", "batch = 4.5"),
        changed("negative epochs", "epochs = 1", "epochs = -1"),
        changed("no epochs", "epochs = 1", "epochs = 0"),
        changed(
            "epochs beyond all measure",
            "epochs = 1",
            "epochs = 9000000000000000000",
        ),
        changed("no batch", "batch = 4", "batch = 0"),
        changed("a name with a path", "\"small\"", "\"../small\""),
        changed("two dimensions", "[4, 4, 1]", "[4, 4]"),
        changed("an image without rows", "[4, 4, 1]", "[0, 4, 1]"),
        changed(
            "an image of 2^62 pixels",
            "[4, 4, 1]",
            "[2147483648, 2147483648, 1]",
        ),
        case(
            "no layers",
            FIT,
            write(
                "recipe.toml",
                "name = 'a'\n[data]\nformat = 'idx'\npath = 'idx'\n[network]\ninput = [4, 4, 1]\nlayers = []\n",
            ),
        ),
        changed("a kernel that does not fit", "[3, 3]", "[5, 5]"),
        changed("an empty kernel", "[3, 3]", "[0, 3]"),
        changed("stride 0", "filters = 2", "filters = 2, stride = [0, 1]"),
        changed(
            "groups that do not divide",
            "filters = 2",
            "filters = 2, groups = 2",
        ),
        changed("no filters", "filters = 2", "filters = 0"),
        changed("no classes", "units = 2", "units = 0"),
        changed("more than 2^31 weights", "units = 2", "units = 2147483647"),
        changed("negative l2", "filters = 2", "filters = 2, l2 = -0.1"),
        changed(
            "l1 that is no number",
            "filters = 2",
            "filters = 2, l1 = nan",
        ),
        changed(
            "dropout of everything",
            "{ type = \"flatten\" }",
            "{ type = \"flatten\" }, { type = \"dropout\", rate = 1.0 }",
        ),
        changed(
            "a layer's name twice",
            "{ type = \"flatten\" }",
            "{ type = \"flatten\", name = \"a\" }, { type = \"dropout\", name = \"a\", rate = 0.1 }",
        ),
        changed(
            "add without the other layer",
            "{ type = \"flatten\" }",
            "{ type = \"add\", with = \"conv7\" }, { type = \"flatten\" }",
        ),
        changed(
            "add of two shapes",
            "{ type = \"flatten\" }",
            "{ type = \"add\", with = \"input\" }, { type = \"flatten\" }",
        ),
        changed(
            "a layer that nothing reads",
            "{ type = \"flatten\" }",
            "{ type = \"flatten\", input = \"input\" }",
        ),
        changed("softmax in the middle", "\"relu\"", "\"softmax\""),
        changed("dense without flatten", "    { type = \"flatten\" },\n", ""),
        changed(
            "cross-entropy behind a linear layer",
            "activation = \"softmax\"",
            "activation = \"linear\"",
        ),
        changed(
            "piecewise schedule with too few values",
            "batch = 4",
            "batch = 4\nschedule = { type = \"piecewise\", boundaries = [5], values = [0.1] }",
        ),
        changed(
            "schedule and plateau",
            "batch = 4",
            "batch = 4\nschedule = { type = \"cosine\" }\ncallbacks = { reduce_on_plateau = {} }",
        ),
    ];
    insta::assert_snapshot!("recipes", check(file));
}

#[test]
fn values_out_of_range() {
    let sets = [
        "train.epochs",
        "=1",
        "train..epochs=1",
        "train.epoch=1",
        "train.epochs=three",
        "train.seed=18446744073709551616",
        "name.x=1",
        "network.layers.7.filters=1",
        "network.layers.first.filters=1",
        "data.path=",
        "data.limit=0",
        "data.validation=1",
        "data.split.test=-1",
        "data.split.test=1.5",
        "data.augment.shift=nan",
        "data.augment.zoom=1",
        "data.augment.elastic_sigma=1000",
        "train.ema=1",
        "train.clip={ norm = 1.0, value = 1.0 }",
        "train.clip.value=-1",
        "train.loss={ type = 'categorical_crossentropy', label_smoothing = 1.0 }",
        "train.optimizer.type=sgb",
        "train.optimizer={ type = 'sgd', learning_rate = nan }",
        "train.optimizer={ type = 'sgd', learning_rate = -0.1 }",
        "train.optimizer={ type = 'sgd', momentum = 1.5 }",
        "train.optimizer={ type = 'rmsprop', rho = 1.0 }",
        "train.optimizer={ type = 'rmsprop', epsilon = -1.0 }",
        "train.optimizer={ type = 'adam', beta_1 = 1.0 }",
        "train.optimizer={ type = 'adam', beta_2 = -0.5 }",
        "train.optimizer={ type = 'adamw', weight_decay = inf }",
        "train.optimizer={ type = 'adagrad', initial_accumulator_value = -1.0 }",
        "train.schedule={ type = 'exponential', decay_rate = nan }",
        "train.schedule={ type = 'exponential', decay_rate = 0.5, decay_steps = 0 }",
        "train.schedule={ type = 'piecewise', boundaries = [9, 5], values = [1.0, 2.0, 3.0] }",
        "train.schedule={ type = 'piecewise', boundaries = [5], values = [0.1, nan] }",
        "train.schedule={ type = 'cosine', warmup_target = -1.0 }",
        "train.schedule={ type = 'one_cycle', pct_start = 2.0 }",
        "train.callbacks.early_stopping.min_delta=nan",
        "train.callbacks.reduce_on_plateau.factor=1.5",
        "train.callbacks.reduce_on_plateau.min_lr=-1",
        "train.callbacks.reference_accuracy=99",
        "quantize.calibration_images=0",
        "quantize.percentile=0",
        "quantize.method=entropy",
        "quantize.qat_learning_rate=nan",
        "quantize.qat_epochs=9000000000000000000",
        "export.opset=12",
    ];
    insta::assert_snapshot!("values", check(sets.map(set).into()));
}
