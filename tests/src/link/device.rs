//! A device as a backend of the verifier.

use std::{path::Path, time::Duration};

use runtime::Model;

use super::{
    client::{Client, LinkError, Port},
    qemu::{Qemu, Start},
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
    /// Whether the device's clock tells something about the device.
    timed: bool,
}

/// How a target is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// In QEMU the time of the device is the number of executed instructions, at one nanosecond each.
    pub count: bool,
}

/// Opens `qemu:MACHINE` (builds the firmware with the file's model and starts QEMU) or `serial:PORT`
/// (uploads the model if the board runs another one and has the memory for it).
///
/// # Errors
/// A file that is no model, a target that does not exist, cannot be reached, or runs another model.
pub fn open(target: &str, fxp: &Path, options: Options) -> Result<Box<dyn Backend>, BackendError> {
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
            Qemu::require().map_err(link)?;
            target::build(name, fxp).map_err(link)?;
            let start = Start {
                count: options.count,
                ..Start::default()
            };
            let port = Qemu::start(machine, &start).map_err(link)?;
            let mut device = Device::new(port, target, &model)?;
            device.timed = options.count;
            Ok(Box::new(device))
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
            timed: true,
        })
    }
}

fn prepare<P: Port>(client: &mut Client<P>, model: &Model<'_>) -> Result<(String, u32), LinkError> {
    match client.expect_model(model) {
        Err(other @ LinkError::OtherModel { .. }) => {
            let fits = |client: &mut Client<P>| {
                client.info(|info| info.max_model_len as usize >= model.file().len())
            };
            if !fits(client)? {
                // An uploaded model may occupy the only place.
                client.use_built_in()?;
                match client.expect_model(model) {
                    Err(LinkError::OtherModel { .. }) if fits(client)? => {}
                    Err(LinkError::OtherModel { .. }) => return Err(other),
                    built_in => return built_in.and_then(|()| describe(client)),
                }
            }
            client.upload(model.file())?;
            client.expect_model(model)?;
        }
        result => result?,
    }
    describe(client)
}

/// What answers, and the rate of its clock.
fn describe<P: Port>(client: &mut Client<P>) -> Result<(String, u32), LinkError> {
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
        self.timed
            .then(|| duration(self.ticks, self.ticks_per_second))
    }

    fn operator_times(&mut self, image: &[u8]) -> Result<Option<Vec<Duration>>, BackendError> {
        let ticks = self
            .client
            .profile(image)
            .map_err(|error| error.at(&self.target))?;
        Ok(Some(
            ticks
                .into_iter()
                .map(|ticks| duration(ticks.into(), self.ticks_per_second))
                .collect(),
        ))
    }
}

fn duration(ticks: u64, per_second: u32) -> Duration {
    let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
