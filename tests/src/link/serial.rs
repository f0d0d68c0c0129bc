//! A board's serial port.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use serialport::{ErrorKind, SerialPort};

use super::client::Port;

/// Rate of the boards' USB-serial bridges.
const BAUD: u32 = 115_200;
/// Longest wait of one read.
const WAIT: Duration = Duration::from_millis(100);

/// An open serial port.
pub struct Serial(Box<dyn SerialPort>);

impl std::fmt::Debug for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Serial").field(&self.0.name()).finish()
    }
}

impl Serial {
    /// Opens a port such as `/dev/ttyACM0` or `COM3` at 115,200 baud, 8N1.
    ///
    /// # Errors
    /// What is wrong and what to do about it.
    pub fn open(path: &str) -> Result<Self, String> {
        serialport::new(path, BAUD)
            .timeout(WAIT)
            .open()
            .map(Self)
            .map_err(|error| explain(path, &error))
    }
}

impl Read for Serial {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Port for Serial {}

fn explain(path: &str, error: &serialport::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
            "on Linux, join the group that owns the port (`sudo usermod -aG dialout $USER`, then log in again)"
        }
        ErrorKind::NoDevice | ErrorKind::Io(io::ErrorKind::NotFound) => {
            "`trainer devices` lists the ports; is the board plugged in, with a cable that carries data?"
        }
        _ => "is another program using the port?",
    };
    format!("cannot open {path}: {error}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_to_do() {
        let explain = |kind| explain("/dev/ttyACM0", &serialport::Error::new(kind, "reason"));
        let denied = explain(ErrorKind::Io(io::ErrorKind::PermissionDenied));
        assert!(
            denied.starts_with("cannot open /dev/ttyACM0: reason; "),
            "{denied}"
        );
        assert!(denied.contains("usermod -aG dialout"), "{denied}");
        for kind in [ErrorKind::NoDevice, ErrorKind::Io(io::ErrorKind::NotFound)] {
            assert!(explain(kind).contains("`trainer devices`"));
        }
        assert!(explain(ErrorKind::Io(io::ErrorKind::ResourceBusy)).contains("another program"));
    }
}
