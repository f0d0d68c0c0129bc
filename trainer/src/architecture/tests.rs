use super::*;
use crate::recipe::Recipe;

fn resolve(layers: &str) -> Result<Architecture, ArchitectureError> {
    resolve_with(layers, "categorical_crossentropy")
}

fn resolve_with(layers: &str, loss: &str) -> Result<Architecture, ArchitectureError> {
    let text = format!(
        "name = 'a'\n[data]\nformat = 'idx'\npath = '.'\n[network]\ninput = [28, 28, 1]\nlayers = [{layers}]\n[train]\nloss = {{ type = '{loss}' }}"
    );
    let recipe = Recipe::parse(&text, "a.toml".as_ref(), &[]).unwrap();
    Architecture::resolve(&recipe.network, &recipe.train.loss)
}

fn message(layers: &str) -> String {
    resolve(layers).unwrap_err().to_string()
}

const BASE: &str = "
    { type = 'conv', filters = 32, activation = 'relu' }, { type = 'max_pool' },
    { type = 'conv', filters = 64, activation = 'relu' }, { type = 'max_pool' },
    { type = 'conv', filters = 64, activation = 'relu' }, { type = 'flatten' },
    { type = 'dense', units = 70, activation = 'relu' }, { type = 'dense', units = 10, activation = 'softmax' }";

#[test]
fn base_has_the_parameters_of_keras() {
    let base = resolve(BASE).unwrap();
    let parameters: Vec<u64> = base.layers.iter().map(Layer::parameters).collect();
    assert_eq!(parameters, [320, 0, 18_496, 0, 36_928, 0, 40_390, 710]);
    assert_eq!(base.parameters(), 96_844);
    let outputs: Vec<String> = base.layers.iter().map(|l| l.output.to_string()).collect();
    assert_eq!(
        outputs,
        [
            "26x26x32", "13x13x32", "11x11x64", "5x5x64", "3x3x64", "1x1x576", "1x1x70", "1x1x10"
        ]
    );
    let names: Vec<&str> = base.layers.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "conv1",
            "max_pool1",
            "conv2",
            "max_pool2",
            "conv3",
            "flatten1",
            "dense1",
            "dense2"
        ]
    );
    assert_eq!(
        base.macs(),
        676 * 288 + 121 * 9 * 32 * 64 + 9 * 9 * 64 * 64 + 40_320 + 700
    );
    assert_eq!(base.classes(), 10);
    assert_eq!(base.output, OutputActivation::Softmax);
    assert!(matches!(
        base.layers[7].kind,
        LayerKind::Dense {
            activation: Activation::Linear,
            ..
        }
    ));
}

#[test]
fn layers_that_do_not_fit() {
    let messages = [
        message(""),
        message("{ type = 'dense', units = 10 }"),
        message("{ type = 'conv', filters = 4, kernel = [29, 3] }"),
        message("{ type = 'conv', filters = 4, groups = 3 }"),
        message("{ type = 'max_pool', size = [0, 1] }"),
        message("{ type = 'dropout', rate = 1.0 }"),
        message("{ type = 'flatten' }, { type = 'dense', units = 1000000000000 }"),
        message("{ type = 'flatten' }, { type = 'dense', units = 3, activation = 'relu' }"),
        message("{ type = 'flatten' }, { type = 'dense', units = 1, activation = 'softmax' }"),
        message("{ type = 'conv', filters = 4, activation = 'softmax' }"),
        message("{ type = 'flatten' }, { type = 'dense', units = 3 }"),
        message(
            "{ type = 'conv', filters = 4, name = 'a' }, { type = 'conv', filters = 4, name = 'a' }",
        ),
        message("{ type = 'flatten', input = 'x' }"),
        message("{ type = 'flatten' }, { type = 'flatten', input = 'input' }"),
        message(
            "{ type = 'conv', filters = 4, name = 'a' }, { type = 'conv', filters = 4 }, { type = 'add', with = 'a' }",
        ),
        message(
            "{ type = 'flatten' }, { type = 'dense', units = 4, activation = 'softmax' }, { type = 'dense', units = 4, activation = 'softmax' }",
        ),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn a_last_activation_layer_is_taken_off() {
    let layers = "{ type = 'flatten' }, { type = 'dense', units = 3 }, { type = 'activation', activation = 'sigmoid' }";
    let architecture = resolve_with(layers, "binary_crossentropy").unwrap();
    assert_eq!(architecture.layers.len(), 2);
    assert_eq!(architecture.output, OutputActivation::Sigmoid);
}

#[test]
fn shapes_of_same_padding_depthwise_and_residual() {
    let a = resolve(
        "{ type = 'conv', filters = 4, stride = [2, 3], padding = 'same', name = 'a' }, { type = 'depthwise_conv', multiplier = 1, padding = 'same' },
         { type = 'add', with = 'a' }, { type = 'batch_norm' }, { type = 'avg_pool', size = [3, 3], stride = [2, 2] },
         { type = 'global_avg_pool' }, { type = 'dense', units = 3, activation = 'softmax' }",
    )
    .unwrap();
    let outputs: Vec<String> = a.layers.iter().map(|l| l.output.to_string()).collect();
    assert_eq!(
        outputs,
        [
            "14x10x4", "14x10x4", "14x10x4", "14x10x4", "6x4x4", "1x1x4", "1x1x3"
        ]
    );
    assert_eq!(a.layers[1].parameters(), 9 * 4 + 4);
    assert_eq!(a.layers[2].inputs, [Source::Layer(1), Source::Layer(0)]);
    assert_eq!(
        (a.layers[3].parameters(), a.layers[3].trainable_parameters()),
        (16, 8)
    );
}
