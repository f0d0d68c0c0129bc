//! A QEMU process whose serial port is a TCP connection on this computer.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{client::Port, target, target::Machine};

const PROGRAM: &str = "qemu-system-arm";
/// Longest wait of one read.
const WAIT: Duration = Duration::from_millis(100);
/// Longest time until QEMU connects.
const START: Duration = Duration::from_secs(20);

/// A running machine; it ends with this value.
#[derive(Debug)]
pub struct Qemu {
    process: Process,
    wire: TcpStream,
}

impl Qemu {
    /// Starts the machine with the firmware that `cargo xtask firmware` built. What it logs (defmt
    /// frames over semihosting) goes to the file `log`.
    ///
    /// # Errors
    /// QEMU is missing or ends at once, or the firmware is not built.
    pub fn start(machine: &Machine, log: Option<&Path>) -> Result<Self, String> {
        let elf = target::elf(&machine.name)?;
        // QEMU connects to us, so no port number has to be guessed.
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let log = match log {
            Some(path) => std::fs::File::create(path)
                .map_err(|error| format!("{}: {error}", path.display()))?
                .into(),
            None => Stdio::null(),
        };
        let child = Command::new(PROGRAM)
            .args(["-M", &machine.name, "-display", "none", "-monitor", "none"])
            .args(["-chardev", &format!("socket,id=wire,host=127.0.0.1,port={}", address.port())])
            .args(["-serial", "chardev:wire"])
            .args(["-semihosting-config", "enable=on,target=native"])
            .arg("-kernel")
            .arg(elf)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                format!("{PROGRAM} does not start ({error}); install QEMU for Arm (Debian: `apt-get install qemu-system-arm`)")
            })?;
        accept(&listener, Process(child))
    }
}

/// A child process that is ended when it is dropped.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// How it ended, if it has.
    fn ended(&mut self) -> Option<String> {
        let status = self.0.try_wait().ok()??;
        let mut text = String::new();
        if let Some(stderr) = &mut self.0.stderr {
            // Without its words the exit status has to do.
            let _ = stderr.read_to_string(&mut text);
        }
        Some(format!("{PROGRAM} ended ({status}): {}", text.trim()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn accept(listener: &TcpListener, mut process: Process) -> Result<Qemu, String> {
    let text = |error: io::Error| error.to_string();
    listener.set_nonblocking(true).map_err(text)?;
    let deadline = Instant::now() + START;
    let wire = loop {
        match listener.accept() {
            Ok((wire, _)) => break wire,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        if let Some(reason) = process.ended() {
            return Err(reason);
        }
        if Instant::now() > deadline {
            return Err(format!(
                "{PROGRAM} did not connect within {} s",
                START.as_secs()
            ));
        }
        thread::sleep(Duration::from_millis(5));
    };
    wire.set_nonblocking(false).map_err(text)?;
    wire.set_nodelay(true).map_err(text)?;
    wire.set_read_timeout(Some(WAIT)).map_err(text)?;
    Ok(Qemu { process, wire })
}

impl Read for Qemu {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.read(buffer)
    }
}

impl Write for Qemu {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}

impl Port for Qemu {
    fn died(&mut self) -> Option<String> {
        self.process.ended()
    }
}
