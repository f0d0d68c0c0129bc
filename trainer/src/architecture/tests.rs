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
