//! A QEMU process whose serial port and monitor are TCP connections on this computer.

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

/// How a machine is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start<'a> {
    /// Another program than the one that `cargo xtask firmware` built.
    pub elf: Option<&'a Path>,
    /// File for what it logs: defmt frames over semihosting.
    pub log: Option<&'a Path>,
    /// Every instruction takes a nanosecond of the machine's time; else its clock is the computer's.
    pub count: bool,
}

/// A running machine; it ends with this value.
#[derive(Debug)]
pub struct Qemu {
    process: Process,
    wire: TcpStream,
    monitor: TcpStream,
}

impl Qemu {
    /// Starts a machine.
    ///
    /// # Errors
    /// QEMU is missing or ends at once, or the firmware is not built.
    pub fn start(machine: &Machine, start: &Start<'_>) -> Result<Self, String> {
        let elf = match start.elf {
            Some(path) => path.to_owned(),
            None => target::elf(&machine.name)?,
        };
        let log = match start.log {
            Some(path) => std::fs::File::create(path)
                .map_err(|error| format!("{}: {error}", path.display()))?
                .into(),
            None => Stdio::null(),
        };
        let (wire, monitor) = (Listener::new()?, Listener::new()?);
        let mut command = Command::new(PROGRAM);
        command
            .args(["-M", &machine.name, "-display", "none"])
            .args(["-chardev", &wire.device("wire"), "-serial", "chardev:wire"])
            .args([
                "-chardev",
                &monitor.device("monitor"),
                "-mon",
                "chardev=monitor",
            ])
            .args(["-semihosting-config", "enable=on,target=native"]);
        if start.count {
            command.args(["-icount", "shift=0"]);
        }
        let child = command
            .arg("-kernel")
            .arg(elf)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| missing(&error))?;
        let mut process = Process(child);
        Ok(Self {
            wire: wire.accept(&mut process)?,
            monitor: monitor.accept(&mut process)?,
            process,
        })
    }

    /// Says what to install if QEMU is missing.
    ///
    /// # Errors
    /// It is.
    pub fn require() -> Result<(), String> {
        Command::new(PROGRAM)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map(|_| ())
            .map_err(|error| missing(&error))
    }

    /// Presses the machine's reset button: memory keeps its contents, but what the program file says is loaded again.
    ///
    /// # Errors
    /// The connection to QEMU's monitor is lost.
    pub fn reset(&mut self) -> io::Result<()> {
        self.monitor.write_all(b"system_reset\n")
    }
}

fn missing(error: &io::Error) -> String {
    format!(
        "{PROGRAM} does not start ({error}); install QEMU for Arm (Debian: `apt-get install qemu-system-arm`; else \
         `cargo xtask setup` says what is missing)"
    )
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

/// A port that QEMU connects to, so that no port number has to be guessed.
struct Listener(TcpListener);

impl Listener {
    fn new() -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        listener
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        Ok(Self(listener))
    }

    /// QEMU's description of the other end.
    fn device(&self, id: &str) -> String {
        let port = self.0.local_addr().map_or(0, |address| address.port());
        format!("socket,id={id},host=127.0.0.1,port={port}")
    }

    fn accept(&self, process: &mut Process) -> Result<TcpStream, String> {
        let text = |error: io::Error| error.to_string();
        let deadline = Instant::now() + START;
        let wire = loop {
            match self.0.accept() {
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
        Ok(wire)
    }
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
