//! A device as a backend of the verifier.

use std::{path::Path, time::Duration};

use runtime::Model;

use super::{
    client::{Client, LinkError, Port},
    qemu::Qemu,
    serial::Serial,
    target,
};
use crate::backend::{Backend, BackendError};

/// A device that runs the model of a file.
#[derive(Debug)]
pub struct Device<P> {
    client: Client<P>,
    target: String,
    description: String,
    ticks: u64,
    ticks_per_second: u32,
}

/// Opens `qemu:MACHINE` (builds the firmware with the file's model and starts QEMU) or `serial:PORT`
/// (uploads the model if the board runs another one and has the memory for it).
///
/// # Errors
/// A file that is no model, a target that does not exist, cannot be reached, or runs another model.
pub fn open(target: &str, fxp: &Path) -> Result<Box<dyn Backend>, BackendError> {
    let file = std::fs::read(fxp)
        .map_err(|error| BackendError::Model(format!("{}: {error}", fxp.display())))?;
    let model = Model::new(&file).map_err(|error| BackendError::Model(error.to_string()))?;
    let link = |reason| BackendError::Link {
        target: target.to_owned(),
        reason,
    };
    match target.split_once(':') {
        Some(("qemu", name)) => {
            let machine = target::machine(name).map_err(link)?;
            target::build(name, fxp).map_err(link)?;
            let port = Qemu::start(machine, None).map_err(link)?;
            Ok(Box::new(Device::new(port, target, &model)?))
        }
        Some(("serial", path)) => {
            let port = Serial::open(path).map_err(link)?;
            Ok(Box::new(Device::new(port, target, &model)?))
        }
        _ => Err(link("expected qemu:MACHINE or serial:PORT".into())),
    }
}

impl<P: Port> Device<P> {
    /// Over an open port; makes sure that the device runs `model`.
    ///
    /// # Errors
    /// No answer, another protocol version, a failed self-test, or another model that cannot be replaced.
    pub fn new(port: P, target: &str, model: &Model<'_>) -> Result<Self, BackendError> {
        let mut client = Client::new(port);
        let (description, ticks_per_second) =
            prepare(&mut client, model).map_err(|error| error.at(target))?;
        Ok(Self {
            client,
            target: target.to_owned(),
            description: format!("{target} ({description})"),
            ticks: 0,
            ticks_per_second,
        })
    }
}

fn prepare<P: Port>(client: &mut Client<P>, model: &Model<'_>) -> Result<(String, u32), LinkError> {
    match client.expect_model(model) {
        Err(other @ LinkError::OtherModel { .. }) => {
            if client.info(|info| info.max_model_len as usize)? < model.file().len() {
                return Err(other);
            }
            client.upload(model.file())?;
            client.expect_model(model)?;
        }
        result => result?,
    }
    client.info(|info| {
        (
            format!("{}, kernels {}", info.board, info.kernels),
            info.ticks_per_second,
        )
    })
}

impl<P: Port> Backend for Device<P> {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn logits(&mut self, images: &[&[u8]]) -> Result<Vec<Vec<i32>>, BackendError> {
        let mut all = Vec::with_capacity(images.len());
        for (position, image) in images.iter().enumerate() {
            let classified = self.client.classify(image).map_err(|error| match error {
                LinkError::Refused(_) => BackendError::Image {
                    image: position,
                    reason: error.to_string(),
                },
                error => error.at(&self.target),
            })?;
            self.ticks += u64::from(classified.ticks);
            all.push(classified.logits);
        }
        Ok(all)
    }

    fn device_time(&self) -> Option<Duration> {
        let nanoseconds =
            u128::from(self.ticks) * 1_000_000_000 / u128::from(self.ticks_per_second.max(1));
        Some(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))
    }
}
