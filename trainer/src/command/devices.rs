//! `trainer devices`: serial ports, boards and emulated machines.

use std::fmt;

use serde::Serialize;
use serialport::{SerialPortInfo, SerialPortType};
use verifier::link::target::{self, Board};

use super::output;
use crate::{cli::DevicesArgs, error::Error};

/// Prints three lists.
///
/// # Errors
/// The system does not tell its serial ports.
pub fn run(args: &DevicesArgs) -> Result<(), Error> {
    let ports = serialport::available_ports()
        .map_err(|error| Error::Failed(format!("cannot list the serial ports: {error}")))?;
    let targets = target::targets();
    let devices = Devices {
        ports: ports
            .into_iter()
            .map(|port| Port {
                description: describe(&port, &targets.boards),
                name: port.port_name,
            })
            .collect(),
        boards: targets
            .boards
            .iter()
            .map(|board| Target {
                name: &board.name,
                description: format!("{}, chip {}", board.description, board.chip),
            })
            .collect(),
        machines: targets
            .machines
            .iter()
            .map(|machine| Target {
                name: &machine.name,
                description: machine.description.clone(),
            })
            .collect(),
    };
    output::result(&devices, args.json)
}

#[derive(Debug, Serialize)]
struct Devices<'a> {
    ports: Vec<Port>,
    boards: Vec<Target<'a>>,
    machines: Vec<Target<'a>>,
}

#[derive(Debug, Serialize)]
struct Port {
    name: String,
    /// One line for people; starts with the name.
    description: String,
}

/// A board or an emulated machine.
#[derive(Debug, Serialize)]
struct Target<'a> {
    name: &'a str,
    description: String,
}

impl fmt::Display for Devices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "serial ports (trainer verify DIR --against serial:PORT)")?;
        if self.ports.is_empty() {
            writeln!(f, "  none; plug a board in, with a cable that carries data")?;
        }
        for port in &self.ports {
            writeln!(f, "  {}", port.description)?;
        }
        writeln!(f, "\nboards (trainer flash DIR --board NAME)")?;
        for board in &self.boards {
            writeln!(f, "  {:<18} {}", board.name, board.description)?;
        }
        writeln!(
            f,
            "\nemulated machines (trainer verify DIR --against qemu:NAME)"
        )?;
        for machine in &self.machines {
            writeln!(f, "  {:<18} {}", machine.name, machine.description)?;
        }
        Ok(())
    }
}

/// Names of the boards whose debugger, or own USB port, has the USB identity of this serial port.
pub(super) fn boards_of<'b>(port: &SerialPortInfo, boards: &'b [Board]) -> Vec<&'b str> {
    let SerialPortType::UsbPort(usb) = &port.port_type else {
        return Vec::new();
    };
    let id = format!("{:04x}:{:04x}", usb.vid, usb.pid);
    boards
        .iter()
        .filter(|board| board.usb.contains(&id))
        .map(|board| board.name.as_str())
        .collect()
}

/// Name of the port, what the USB device says about itself, and the boards with such a device.
fn describe(port: &SerialPortInfo, boards: &[Board]) -> String {
    let SerialPortType::UsbPort(usb) = &port.port_type else {
        return port.port_name.clone();
    };
    let id = format!("{:04x}:{:04x}", usb.vid, usb.pid);
    let product = usb.product.as_deref().unwrap_or("USB device");
    let names = boards_of(port, boards);
    let guess = match names.as_slice() {
        [] => String::new(),
        names => format!(", perhaps {}", names.join(" or ")),
    };
    format!("{:<18} {product} ({id}){guess}", port.port_name)
}

#[cfg(test)]
mod tests {
    use serialport::UsbPortInfo;

    use super::*;

    fn usb(vid: u16, pid: u16) -> SerialPortInfo {
        SerialPortInfo {
            port_name: "/dev/ttyACM0".into(),
            port_type: SerialPortType::UsbPort(UsbPortInfo {
                vid,
                pid,
                serial_number: None,
                manufacturer: None,
                product: Some("J-Link".into()),
            }),
        }
    }

    #[test]
    fn a_known_debugger_names_its_board() {
        let boards = &target::targets().boards;
        let text = describe(&usb(0x1366, 0x1015), boards);
        assert_eq!(
            text,
            "/dev/ttyACM0       J-Link (1366:1015), perhaps nrf52840-dk"
        );
        assert!(!describe(&usb(1, 2), boards).contains("perhaps"));
    }
}
