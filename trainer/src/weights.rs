//! Named tensors on the host: what a checkpoint holds, what the exporter and the quantizer read.

use std::collections::{BTreeMap, HashMap};

use safetensors::{
    SafeTensorError, SafeTensors,
    tensor::{Dtype, TensorView},
};

use crate::architecture::Architecture;

/// A dense row-major f32 tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

/// Weights by name: `<layer>.kernel`, `<layer>.bias`, `<layer>.gamma`, `.beta`, `.moving_mean`, `.moving_variance`.
/// Layouts as in [`crate::architecture`]. Iteration is in name order, so every file made from it is reproducible.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Array>);

/// Why tensors are not the weights of a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// No safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] SafeTensorError),
    /// Numbers of another type.
    #[error("tensor `{name}` has the type {got:?}, expected F32")]
    Type {
        /// Which tensor.
        name: String,
        /// What was found.
        got: Dtype,
    },
    /// The network needs it.
    #[error("tensor `{name}` is missing, expected with the shape {expected:?}")]
    Missing {
        /// Which tensor.
        name: String,
        /// Dimensions, slowest first.
        expected: Vec<usize>,
    },
    /// Of another network.
    #[error("tensor `{name}` has the shape {got:?}, expected {expected:?}")]
    Shape {
        /// Which tensor.
        name: String,
        /// What was found.
        got: Vec<usize>,
        /// Dimensions, slowest first.
        expected: Vec<usize>,
    },
    /// No layer of the network has it.
    #[error("tensor `{name}` of the shape {got:?} belongs to no layer of the network")]
    Unexpected {
        /// Which tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
    },
    /// Not a number.
    #[error("tensor `{name}` contains {value}")]
    NotFinite {
        /// Which tensor.
        name: String,
        /// What was found.
        value: f32,
    },
}

impl Weights {
    /// The bytes of a safetensors file, f32.
    ///
    /// # Errors
    /// An array whose data does not fit its shape.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, WeightsError> {
        let tensors = self.0.iter();
        let tensors = tensors.map(|(name, a)| (name.clone(), a.shape.clone(), a.data.as_slice()));
        Ok(safetensors(tensors, None)?)
    }

    /// The tensors of a safetensors file.
    ///
    /// # Errors
    /// A damaged file, or a tensor of another type than f32.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, WeightsError> {
        let file = SafeTensors::deserialize(bytes)?;
        let mut weights = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(WeightsError::Type {
                    name: name.into(),
                    got: view.dtype(),
                });
            }
            let (values, _) = view.data().as_chunks();
            let array = Array {
                shape: view.shape().into(),
                data: values.iter().map(|&x| f32::from_le_bytes(x)).collect(),
            };
            weights.insert(name.into(), array);
        }
        Ok(Self(weights))
    }

    /// Checks that these are all weights of the network, no others, and finite numbers.
    ///
    /// # Errors
    /// The first tensor that is not as the network needs it.
    pub fn check(&self, architecture: &Architecture) -> Result<(), WeightsError> {
        let mut rest: BTreeMap<&str, &Array> = self
            .0
            .iter()
            .map(|(name, array)| (name.as_str(), array))
            .collect();
        for layer in &architecture.layers {
            for (kind, expected) in layer.weight_shapes() {
                let name = format!("{}.{kind}", layer.name);
                let Some(array) = rest.remove(name.as_str()) else {
                    return Err(WeightsError::Missing { name, expected });
                };
                if array.shape != expected {
                    let got = array.shape.clone();
                    return Err(WeightsError::Shape {
                        name,
                        got,
                        expected,
                    });
                }
                if let Some(&value) = array.data.iter().find(|x| !x.is_finite()) {
                    return Err(WeightsError::NotFinite { name, value });
                }
            }
        }
        match rest.pop_first() {
            Some((name, array)) => Err(WeightsError::Unexpected {
                name: name.into(),
                got: array.shape.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// The bytes of a safetensors file with f32 tensors: name, shape, values.
///
/// # Errors
/// Values that do not fit the shape.
pub fn safetensors<'a>(
    tensors: impl Iterator<Item = (String, Vec<usize>, &'a [f32])>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, SafeTensorError> {
    let bytes = |data: &[f32]| data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .map(|(name, shape, data)| (name, shape, bytes(data)))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes)?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    safetensors::serialize(views, metadata)
}
