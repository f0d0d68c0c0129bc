//! Where a network computes: `cpu`, `cuda` or `cuda:N`.

use candle_core::{Device, utils};

use crate::error::Error;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device has this name.
    #[error("--device {name}: unknown device; expected cpu, cuda or cuda:N")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The program cannot use it.
    #[error(
        "--device {name}: this trainer was built without CUDA; build it with `cargo build --release -p trainer --features cuda`"
    )]
    NotBuiltIn {
        /// What was asked for.
        name: String,
    },
    /// The driver or the GPU is missing.
    #[error("--device {name}: {source}")]
    Unavailable {
        /// What was asked for.
        name: String,
        /// What the driver says.
        source: candle_core::Error,
    },
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Unavailable { .. } => Self::Failed(error.to_string()),
            _ => Self::Usage(error.to_string()),
        }
    }
}

/// Opens the device with this name; `cuda` is the first GPU.
///
/// # Errors
/// [`DeviceError`].
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let unknown = || DeviceError::Unknown { name: name.into() };
    let index = match name.split_once(':') {
        None if name == "cpu" => return Ok(Device::Cpu),
        None if name == "cuda" => 0,
        Some(("cuda", index)) => index.parse().map_err(|_| unknown())?,
        _ => return Err(unknown()),
    };
    if !utils::cuda_is_available() {
        return Err(DeviceError::NotBuiltIn { name: name.into() });
    }
    Device::new_cuda(index).map_err(|source| DeviceError::Unavailable {
        name: name.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cpu_and_numbered_gpus() {
        assert!(open("cpu").is_ok_and(|device| device.is_cpu()));
        for name in ["gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:first", ""] {
            let error = open(name).expect_err(name);
            assert!(
                matches!(error, DeviceError::Unknown { .. }),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn cuda_without_the_feature_says_how_to_get_it() {
        if utils::cuda_is_available() {
            return;
        }
        for name in ["cuda", "cuda:1"] {
            let error = Error::from(open(name).expect_err(name));
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("--features cuda"), "{error}");
        }
    }
}
