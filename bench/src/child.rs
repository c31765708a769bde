//! This program again, as a server in a process of its own: so that its CPU time and memory are told apart from the client's.
//!
//! The server's end is that of its standard input: whoever started it may close that pipe, or be killed, and the
//! server stops either way.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a server says when it serves.
const READY: &str = "ready";
/// How long an orderly stop may take, before the process just ends.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Below the range that the kernel takes for outgoing connections, which a free port must outlive.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// No process.
    #[error("starting {0} in a process of its own: {1}")]
    Spawn(&'static str, io::Error),
    /// It ended before it served; what it said stands above.
    #[error("{0} did not start: see its own message above")]
    NotReady(&'static str),
    /// Nothing is free.
    #[error("no free port between {} and {}", PORTS.start, PORTS.end)]
    NoPort,
}

/// A server that runs. Dropping it stops it.
#[derive(Debug)]
pub struct ServerChild {
    process: Child,
    said: Vec<String>,
}

impl ServerChild {
    /// Runs `program` with these arguments, of which the first is a hidden subcommand, and waits until it serves.
    ///
    /// # Errors
    /// [`ChildError`].
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        subcommand: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, ChildError> {
        let failed = |error| ChildError::Spawn(subcommand, error);
        let mut command = Command::new(program);
        // The variables of a server that is configured on this machine are not this server's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHRONIK_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .arg(subcommand)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the client, which stops the server when it is done with it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let said = process.stdout.take().expect("it was piped");
        // From here on dropping it stops it.
        let mut server = Self { process, said: Vec::new() };
        for line in BufReader::new(said).lines() {
            let line = line.map_err(failed)?;
            if line == READY {
                return Ok(server);
            }
            server.said.push(line);
        }
        Err(ChildError::NotReady(subcommand))
    }

    /// What it printed before it served.
    #[must_use]
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for ServerChild {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                drop(self.process.kill());
                drop(self.process.wait());
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// In the server's process: says that it serves, and returns when nobody wants it any more. If the process is still
/// there some time after that, it ends anyhow.
///
/// # Errors
/// Of standard output.
pub fn serve_until_unwanted() -> io::Result<()> {
    let mut said = io::stdout();
    writeln!(said, "{READY}")?;
    said.flush()?;
    // Whatever ends the pipe, an error too, means that.
    let mut nothing = [0; 1];
    while matches!(io::stdin().read(&mut nothing), Ok(1)) {}
    thread::spawn(|| {
        thread::sleep(STOP_PATIENCE);
        std::process::exit(1);
    });
    Ok(())
}

/// A port that nothing listens on. Begins at a place of this process's own, so that two that start together do not meet.
///
/// # Errors
/// [`ChildError::NoPort`].
pub fn free_port() -> Result<u16, ChildError> {
    Ok(free_ports(1)?[0])
}

/// So many different ones.
///
/// # Errors
/// [`ChildError::NoPort`].
pub fn free_ports(wanted: usize) -> Result<Vec<u16>, ChildError> {
    let count = PORTS.end - PORTS.start;
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.subsec_nanos());
    let place = std::process::id().wrapping_mul(7919).wrapping_add(nanos) % u32::from(count);
    let first = u16::try_from(place).expect("below a count of ports");
    let found: Vec<u16> = (0..count)
        .map(|step| PORTS.start + (first + step) % count)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(wanted)
        .collect();
    if found.len() == wanted { Ok(found) } else { Err(ChildError::NoPort) }
}
