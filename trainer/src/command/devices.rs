//! `trainer devices`: serial ports, boards and emulated machines.

use serialport::{SerialPortInfo, SerialPortType};
use verifier::link::target::{self, Board};

use crate::error::Error;

/// Prints three lists.
///
/// # Errors
/// The system does not tell its serial ports.
pub fn run() -> Result<(), Error> {
    let ports = serialport::available_ports()
        .map_err(|error| Error::Failed(format!("cannot list the serial ports: {error}")))?;
    let boards = &target::targets().boards;
    println!("serial ports (trainer verify DIR --against serial:PORT)");
    if ports.is_empty() {
        println!("  none; plug a board in, with a cable that carries data");
    }
    for port in &ports {
        println!("  {}", describe(port, boards));
    }
    println!("\nboards (trainer flash DIR --board NAME)");
    for board in boards {
        println!(
            "  {:<18} {}, chip {}",
            board.name, board.description, board.chip
        );
    }
    println!("\nemulated machines (trainer verify DIR --against qemu:NAME)");
    for machine in &target::targets().machines {
        println!("  {:<18} {}", machine.name, machine.description);
    }
    Ok(())
}

/// Name of the port, what the USB device says about itself, and the boards with such a device.
fn describe(port: &SerialPortInfo, boards: &[Board]) -> String {
    let SerialPortType::UsbPort(usb) = &port.port_type else {
        return port.port_name.clone();
    };
    let id = format!("{:04x}:{:04x}", usb.vid, usb.pid);
    let product = usb.product.as_deref().unwrap_or("USB device");
    let names: Vec<&str> = boards
        .iter()
        .filter(|board| board.usb.contains(&id))
        .map(|board| board.name.as_str())
        .collect();
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
