//! Batch norm folded into the layer before it: the network as inference computes it, ready for fine-tuning.

use crate::{
    architecture::{Activation, Architecture, Layer, LayerKind, Source},
    weights::{Array, Weights},
};

/// The same function in inference mode, without the batch norms that follow a conv or dense layer without activation
/// whose output nothing else reads. All other layers keep their names and weights. Weights of another network are left as
/// they are.
pub fn batch_norm(architecture: &Architecture, weights: &Weights) -> (Architecture, Weights) {
    let mut weights = weights.clone();
    let mut layers: Vec<Layer> = Vec::new();
    // Where the output of every old layer is found.
    let mut places: Vec<usize> = Vec::new();
    for (index, layer) in architecture.layers.iter().enumerate() {
        if let Some(source) = foldable(architecture, index)
            && fold(&architecture.layers[source], layer, &mut weights).is_some()
        {
            let place = places[source];
            if let LayerKind::Conv { use_bias, .. } | LayerKind::Dense { use_bias, .. } =
                &mut layers[place].kind
            {
                *use_bias = true;
            }
            places.push(place);
            continue;
        }
        let mut layer = layer.clone();
        for input in &mut layer.inputs {
            if let Source::Layer(source) = input {
                *source = places[*source];
            }
        }
        places.push(layers.len());
        layers.push(layer);
    }
    let folded = Architecture {
        layers,
        ..architecture.clone()
    };
    (folded, weights)
}

/// The layer into which the batch norm at `index` can be folded.
fn foldable(architecture: &Architecture, index: usize) -> Option<usize> {
    let layer = &architecture.layers[index];
    let (LayerKind::BatchNorm { .. }, &[Source::Layer(source)]) =
        (&layer.kind, layer.inputs.as_slice())
    else {
        return None;
    };
    let linear = matches!(
        architecture.layers[source].kind,
        LayerKind::Conv {
            activation: Activation::Linear,
            ..
        } | LayerKind::Dense {
            activation: Activation::Linear,
            ..
        }
    );
    let readers = architecture.layers.iter().flat_map(|layer| &layer.inputs);
    let readers = readers.filter(|&&input| input == Source::Layer(source));
    (linear && readers.count() == 1).then_some(source)
}

/// Changes the linear layer's weights and removes the batch norm's; nothing if one is missing.
fn fold(linear: &Layer, norm: &Layer, weights: &mut Weights) -> Option<()> {
    let LayerKind::BatchNorm { epsilon, .. } = norm.kind else {
        return None;
    };
    let names = ["gamma", "beta", "moving_mean", "moving_variance"]
        .map(|kind| format!("{}.{kind}", norm.name));
    let [gamma, beta, mean, variance] = names.each_ref().map(|name| weights.0.get(name));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let channels = gamma.data.len();
    let factors: Vec<f64> = gamma
        .data
        .iter()
        .zip(&variance.data)
        .map(|(&g, &v)| f64::from(g) / (f64::from(v) + f64::from(epsilon)).sqrt())
        .collect();
    let bias_name = format!("{}.bias", linear.name);
    let bias = weights.0.get(&bias_name);
    let bias = (0..channels).map(|c| {
        let bias = bias.map_or(0.0, |bias| f64::from(bias.data[c]));
        ((bias - f64::from(mean.data[c])) * factors[c] + f64::from(beta.data[c])) as f32
    });
    let bias = Array {
        shape: vec![channels],
        data: bias.collect(),
    };
    let kernel = weights.0.get_mut(&format!("{}.kernel", linear.name))?;
    for row in kernel.data.chunks_mut(channels) {
        for (weight, factor) in row.iter_mut().zip(&factors) {
            *weight = (f64::from(*weight) * factor) as f32;
        }
    }
    weights.0.insert(bias_name, bias);
    for name in names {
        weights.0.remove(&name);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::{
        initializer::initial_weights,
        network::{Mode, Network},
        recipe,
    };

    /// Against the network with its batch norms in place.
    #[test]
    fn the_folded_network_computes_the_same() -> candle_core::Result<()> {
        let network: recipe::Network = toml::from_str(
            r#"
            input = [6, 6, 2]
            layers = [
                { type = "batch_norm" },
                { type = "conv", filters = 4, use_bias = false },
                { type = "batch_norm" },
                { type = "activation", activation = "relu" },
                { type = "conv", filters = 4, activation = "relu" },
                { type = "batch_norm" },
                { type = "flatten" },
                { type = "dense", units = 3 },
                { type = "batch_norm" },
                { type = "dense", units = 3, activation = "softmax" },
            ]
            "#,
        )
        .unwrap();
        let architecture = Architecture::resolve(&network, &recipe::LossRecipe::default()).unwrap();
        let mut weights = initial_weights(&architecture, 3);
        for (i, (name, array)) in weights.0.iter_mut().enumerate() {
            if !name.ends_with("kernel") {
                for (j, x) in array.data.iter_mut().enumerate() {
                    *x = 0.4 + ((7 * i + 3 * j) % 11) as f32 / 8.0;
                }
            }
        }
        let (folded, folded_weights) = batch_norm(&architecture, &weights);
        let names: Vec<&str> = folded
            .layers
            .iter()
            .map(|layer| layer.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "batch_norm1",
                "conv1",
                "activation1",
                "conv2",
                "batch_norm3",
                "flatten1",
                "dense1",
                "dense2"
            ]
        );
        let x: Vec<f32> = (0..5 * 72)
            .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
            .collect();
        let x = Tensor::from_vec(x, (5, 6, 6, 2), &Device::Cpu)?;
        let logits = |architecture: &Architecture, weights: &Weights| {
            let network = Network::new(architecture, weights, &Device::Cpu)?;
            network
                .forward(&x, Mode::Infer)?
                .flatten_all()?
                .to_vec1::<f32>()
        };
        let (before, after) = (
            logits(&architecture, &weights)?,
            logits(&folded, &folded_weights)?,
        );
        for (a, b) in before.iter().zip(&after) {
            assert!(
                (a - b).abs() < 1e-5 * (1.0 + a.abs()),
                "{before:?} {after:?}"
            );
        }
        assert!(before.iter().any(|x| x.abs() > 0.1));
        Ok(())
    }
}
