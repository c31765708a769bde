//! A Chronik node of the benchmark's own, in a process of its own: so its CPU time and memory are told apart from the
//! client's.
//!
//! The process is this program again, under a hidden subcommand. It owns its data directory, a new one within
//! the directory that was chosen, and removes it at its end. Its end is that of its standard input: whoever started it may
//! close that pipe, or be killed, and the node stops either way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use chronik::boot::init_logging;
use chronik::cli::CommandLine;
use chronik::config::NodeConfig;
use chronik::node::Node;
use chronik_tuning::host::Host;
use clap::Parser;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "embedded-node";
/// What the node says when it serves.
const READY: &str = "ready";
/// How long an orderly stop may take, before the process just ends.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Below the range that the kernel takes for outgoing connections, which a free port must outlive.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A directory cannot be made.
    #[error("data directory {path}: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No process.
    #[error("starting the embedded node: {0}")]
    Spawn(#[from] io::Error),
    /// It ended before it served; what it said stands above.
    #[error("the embedded node did not start: see its own message above")]
    NotReady,
    /// Nothing is free.
    #[error("no free port between {} and {}", PORTS.start, PORTS.end)]
    NoPort,
}

/// A node that runs. Dropping it stops it.
#[derive(Debug)]
pub struct EmbeddedNode {
    process: Child,
    address: SocketAddr,
    data_dir: PathBuf,
}

impl EmbeddedNode {
    /// Starts a node with its data in a new directory under `parent`, and with further flags of `chronik-server`.
    ///
    /// `program` is this program's executable.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn start(program: &Path, parent: &Path, flags: &[String]) -> Result<Self, EmbeddedError> {
        let port = free_port().ok_or(EmbeddedError::NoPort)?;
        let data_dir = parent.join(format!("chronik-bench-{}-{port}", std::process::id()));
        let failed = |error| EmbeddedError::Directory { path: data_dir.clone(), error };
        fs::create_dir_all(parent).map_err(failed)?;
        fs::create_dir(&data_dir).map_err(failed)?;
        let mut command = Command::new(program);
        // The variables of a server that is configured on this machine are not this node's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHRONIK_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .arg(SUBCOMMAND)
            .arg("--data-dir")
            .arg(&data_dir)
            .arg("--kafka-port")
            .arg(port.to_string())
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the client, which stops the node when it is done with it.
            .process_group(0)
            .spawn()
            .inspect_err(|_| drop(fs::remove_dir(&data_dir)))?;
        let said = process.stdout.take().expect("it was piped");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut node = Self { process, address, data_dir };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        if line.trim() != READY {
            node.stop();
            return Err(EmbeddedError::NotReady);
        }
        Ok(node)
    }

    /// Where it serves Kafka clients.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything it stores.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn stop(&mut self) {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                drop(self.process.kill());
                drop(self.process.wait());
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // What a node that was killed left behind.
        drop(fs::remove_dir_all(&self.data_dir));
    }
}

impl Drop for EmbeddedNode {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Begins at a place of this process's own, so that two that start together do not meet.
fn free_port() -> Option<u16> {
    let count = PORTS.end - PORTS.start;
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.subsec_nanos();
    let first =
        (std::process::id().wrapping_mul(7919).wrapping_add(nanos) % u32::from(count)) as u16;
    (0..count)
        .map(|step| PORTS.start + (first + step) % count)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

/// What the process of the node does: serves until its standard input ends. `arguments` are those behind the subcommand.
pub fn serve(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let name = std::ffi::OsString::from("chronik-server");
    let mut command = CommandLine::parse_from(std::iter::once(name).chain(arguments));
    let data_dir = command.data_dir.clone();
    // What it says beside the figures should be worth reading.
    command.log_level.get_or_insert_with(|| "warn".to_owned());
    let served = serve_until_input_ends(command);
    if let Some(data_dir) = data_dir {
        drop(fs::remove_dir_all(data_dir));
    }
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embedded node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_until_input_ends(command: CommandLine) -> Result<(), Box<dyn std::error::Error>> {
    let config = NodeConfig::resolve(command, &Host::read()?)?;
    init_logging(config.log_level);
    let node = Node::start(&config)?;
    let mut said = io::stdout();
    writeln!(said, "{READY}")?;
    said.flush()?;
    // Whatever ends the pipe, an error too, means that nobody wants the node any more.
    let mut nothing = [0; 1];
    while matches!(io::stdin().read(&mut nothing), Ok(1)) {}
    thread::spawn(|| {
        thread::sleep(STOP_PATIENCE);
        std::process::exit(1);
    });
    node.stop();
    Ok(())
}
