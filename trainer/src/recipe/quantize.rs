//! Sections `quantize` and `export`.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// [`Winograd::Auto`] in a recipe.
const AUTO: &str = "auto";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantize {
    /// Training images used to calibrate activation ranges.
    pub calibration_images: usize,
    pub method: CalibrationMethod,
    /// For `percentile`: the part of the values that must not saturate, in percent.
    pub percentile: f32,
    /// Epochs of quantization-aware fine-tuning after the calibration; 0: none.
    pub qat_epochs: usize,
    /// Learning rate of the fine-tuning (Adam, cosine to 0).
    pub qat_learning_rate: f32,
}
impl Default for Quantize {
    fn default() -> Self {
        Self {
            calibration_images: 2000,
            method: CalibrationMethod::Divergence,
            percentile: 99.99,
            qat_epochs: 0,
            qat_learning_rate: 1e-4,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationMethod {
    /// No value seen in calibration saturates.
    MinMax,
    /// [`Quantize::percentile`] percent of them do not.
    Percentile,
    /// Smallest squared error of every tensor for itself.
    Mse,
    /// From `mse` on, exponents move as long as the class probabilities of the integer network come nearer to the float
    /// network's.
    #[default]
    Divergence,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// ONNX operator set, 13 to 18.
    pub opset: u32,
    /// Embed a golden image in model.fxp for the device's self-test.
    pub golden_image: bool,
    /// Convolutions whose weights model.fxp holds transformed for Winograd's algorithm. Not written out where it is none.
    #[serde(skip_serializing_if = "Winograd::is_none")]
    pub winograd: Winograd,
}
impl Default for Export {
    fn default() -> Self {
        Self {
            opset: 17,
            golden_image: true,
            winograd: Winograd::default(),
        }
    }
}

/// Which convolutions are stored transformed: `"auto"`, a layer's name, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Winograd {
    /// Those where it fits and saves multiplications.
    Auto,
    /// Those of these layers.
    Layers(Vec<String>),
}
impl Default for Winograd {
    fn default() -> Self {
        Self::Layers(Vec::new())
    }
}
impl Winograd {
    /// True if the layers are named, and none is.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Layers(names) if names.is_empty())
    }
}
impl Serialize for Winograd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Layers(names) => names.serialize(serializer),
        }
    }
}
impl<'de> Deserialize<'de> for Winograd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Winograd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", the name of a layer, or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Winograd, E> {
                Ok(match name {
                    AUTO => Winograd::Auto,
                    name => Winograd::Layers(vec![name.into()]),
                })
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Winograd, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(Winograd::Layers(names))
            }
        }
        deserializer.deserialize_any(Names)
    }
}
