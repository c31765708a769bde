//! A `chronik-server` process of our own.
//!
//! With `CHRONIK_TEST_REFERENCE=<address>` tests talk to the broker there instead: what is demanded of
//! our server can be tried on Apache Kafka. Whatever stops, kills or looks into a server fails then.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use chronik_protocol::messages::api_versions_request::ApiVersionsRequest;
use chronik_protocol::messages::metadata_request::MetadataRequest;
use tempfile::TempDir;

use super::client::Client;
use super::{PATIENCE, poll_pause, wait_for};

const REFERENCE: &str = "CHRONIK_TEST_REFERENCE";

/// `--log-level` of all servers.
pub(super) const LOG_LEVEL: &str = "CHRONIK_TEST_LOG_LEVEL";

/// Ports that are tried before a start counts as failed.
const PORTS_TRIED_MAX: usize = 8;

/// Lines of standard error that a failing test shows.
const SHOWN_LINES_MAX: usize = 60;

/// Whether the tests talk to a broker that is not ours.
pub fn is_reference() -> bool {
    std::env::var_os(REFERENCE).is_some()
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub shards: u16,
    /// Kafka's keys, for the `[kafka]` table of the configuration file.
    pub kafka: Vec<(String, String)>,
    /// Further flags.
    pub flags: Vec<String>,
    /// Where the data is; a directory of the server's own when not given.
    pub data_dir: Option<PathBuf>,
    /// Whether shards are pinned to CPUs.
    pub pin: bool,
    /// How long it may take to answer.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 1,
            kafka: Vec::new(),
            flags: Vec::new(),
            data_dir: None,
            pin: false,
            patience: PATIENCE,
        }
    }
}

impl Options {
    pub fn shards(shards: u16) -> Self {
        Self { shards, ..Self::default() }
    }

    pub fn kafka(mut self, key: &str, value: impl ToString) -> Self {
        self.kafka.push((key.to_owned(), value.to_string()));
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.to_owned());
        self
    }

    pub fn start(self) -> Server {
        Server::start_with(self)
    }
}

/// How a process that should not have stayed ended.
#[derive(Debug)]
pub struct Refusal {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Refusal {
    /// Demands an exit code other than 0, without a signal or a panic, and one line that says all of `parts`.
    pub fn expect_line_with(&self, parts: &[&str]) {
        let code = self.status.code();
        assert!(code.is_some_and(|code| code != 0), "{}\n{}", self.status, self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
        let says_all = |line: &str| parts.iter().all(|part| line.contains(part));
        assert!(
            self.stderr.lines().any(says_all),
            "no line says all of {parts:?}:\n{}",
            self.stderr
        );
    }
}

/// A running server; ends with the value.
#[derive(Debug)]
pub struct Server {
    process: Option<Child>,
    address: SocketAddr,
    options: Options,
    home: TempDir,
}

impl Server {
    /// One shard, everything else at its default.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub fn start_with(options: Options) -> Self {
        let home = tempfile::tempdir().expect("a directory for the server");
        let address = match std::env::var(REFERENCE) {
            Ok(text) => text.parse().expect("CHRONIK_TEST_REFERENCE is an address"),
            Err(_) => free_address(),
        };
        let mut server = Self { process: None, address, options, home };
        if !is_reference() {
            server.launch();
        }
        server
    }

    /// Starts a process that is expected to end by itself, and waits for that.
    pub fn expect_refusal(options: Options) -> Refusal {
        let home = tempfile::tempdir().expect("a directory for the server");
        let server = Self { process: None, address: free_address(), options, home };
        server.refusal_at(server.address)
    }

    /// Like [`Self::expect_refusal`], on an address of the caller's choice.
    pub fn expect_refusal_at(address: SocketAddr, options: Options) -> Refusal {
        let home = tempfile::tempdir().expect("a directory for the server");
        Self { process: None, address, options, home }.refusal_at(address)
    }

    /// Starts again, over the same data, a server that is expected to end by itself.
    pub fn refuses_restart(&mut self) -> Refusal {
        assert!(self.process.is_none(), "it runs");
        self.refusal_at(self.address)
    }

    fn refusal_at(&self, address: SocketAddr) -> Refusal {
        let before = self.stderr().len();
        let mut process = self.spawn(address);
        let deadline = Instant::now() + self.options.patience;
        let status = loop {
            if let Some(status) = process.try_wait().expect("a child to wait for") {
                break status;
            }
            if Instant::now() >= deadline {
                let _ = process.kill();
                let _ = process.wait();
                panic!("it started, and should not have:\n{}", self.stderr());
            }
            poll_pause();
        };
        Refusal { status, stderr: self.stderr()[before..].to_owned() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a server of our own that runs").id()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.home.path().join("data"))
    }

    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// All that the server, in all its lives, wrote to standard error.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(self.home.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Resident memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        kib.expect("a number") << 10
    }

    /// Asserts that the server still runs.
    pub fn assert_alive(&mut self) {
        if is_reference() {
            return;
        }
        let ended = self.process.as_mut().expect("it was started").try_wait().expect("a child");
        assert!(ended.is_none(), "the server ended: {ended:?}");
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("a server of our own that runs");
        process.kill().expect("a process of ours");
        let status = process.wait().expect("a child to wait for");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended by itself before: {status}");
    }

    /// SIGTERM, and an orderly end.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("a server of our own that runs");
        let pid = i32::try_from(process.id()).expect("a pid");
        // SAFETY: signals a child that was not waited for, so the pid is still its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0, "a process of ours");
        let deadline = Instant::now() + self.options.patience;
        let status = loop {
            if let Some(status) = process.try_wait().expect("a child to wait for") {
                break status;
            }
            if Instant::now() >= deadline {
                let _ = process.kill();
                let _ = process.wait();
                panic!("no end within {:?} of SIGTERM", self.options.patience);
            }
            poll_pause();
        };
        assert_eq!(status.code(), Some(0), "an orderly end: {status}");
    }

    /// Starts again over the same data; answers with the time from the start to the first answer.
    pub fn restart(&mut self) -> Duration {
        assert!(self.process.is_none(), "it runs");
        self.launch()
    }

    pub fn restart_with_shards(&mut self, shards: u16) -> Duration {
        self.options.shards = shards;
        self.restart()
    }

    fn launch(&mut self) -> Duration {
        for _ in 0..PORTS_TRIED_MAX {
            if let Some(took) = self.try_launch() {
                return took;
            }
            self.address = free_address();
        }
        panic!("no port was free");
    }

    /// `None`: somebody else took the port.
    fn try_launch(&mut self) -> Option<Duration> {
        let from = self.stderr().len();
        let begin = Instant::now();
        let mut process = self.spawn(self.address);
        let deadline = begin + self.options.patience;
        loop {
            if let Some(status) = process.try_wait().expect("a child to wait for") {
                let said = self.stderr();
                let said = &said[from..];
                if status.signal().is_none() && said.contains("is in use by another process") {
                    return None;
                }
                panic!("the server did not start: {status}\n{}", tail(said));
            }
            if self.answers_as_itself() {
                self.process = Some(process);
                return Some(begin.elapsed());
            }
            if Instant::now() >= deadline {
                let _ = process.kill();
                let _ = process.wait();
                let said = self.stderr();
                panic!("no answer within {:?}\n{}", self.options.patience, tail(&said[from..]));
            }
            poll_pause();
        }
    }

    fn spawn(&self, address: SocketAddr) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("stderr"))
            .expect("a file for standard error");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronik-server"));
        command
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .arg("--kafka-port")
            .arg(address.port().to_string())
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--shards")
            .arg(self.options.shards.to_string())
            .args(&self.options.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        if !self.options.pin {
            // Servers of tests that run at the same time would otherwise share the first CPUs.
            command.arg("--no-pin");
        }
        if let Ok(level) = std::env::var(LOG_LEVEL) {
            command.arg("--log-level").arg(level);
        }
        if !self.options.kafka.is_empty() {
            command.arg("--config").arg(self.write_config());
        }
        // SAFETY: prctl is async-signal-safe. A server must not outlive a test that was killed.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command.spawn().expect("the server's binary")
    }

    fn write_config(&self) -> PathBuf {
        let path = self.home.path().join("chronik.toml");
        let mut file = File::create(&path).expect("a file for the configuration");
        writeln!(file, "[kafka]").expect("a line");
        for (key, value) in &self.options.kafka {
            writeln!(file, "\"{key}\" = \"{value}\"").expect("a line");
        }
        path
    }

    /// Whether something answers on the address, and is the server of this data directory.
    fn answers_as_itself(&self) -> bool {
        let Ok(mut client) = Client::try_connect(self.address) else { return false };
        if client.try_call(0, &ApiVersionsRequest::default()).is_err() {
            return false;
        }
        let metadata = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
        let Ok(metadata) = client.try_call(9, &metadata) else { return false };
        let (cluster_id, node_id) = self.identity();
        let found = metadata.cluster_id.as_deref();
        assert_eq!(found, Some(cluster_id.as_str()), "another server answers on {}", self.address);
        let node = metadata.brokers.iter().find(|broker| broker.node_id == node_id);
        let node = node.unwrap_or_else(|| panic!("node {node_id} is not in {metadata:?}"));
        assert_eq!(node.port, i32::from(self.address.port()), "advertised port");
        true
    }

    /// Cluster id and node id as the data directory has them.
    pub fn identity(&self) -> (String, i32) {
        let path = self.data_dir().join("node.toml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let value = |key: &str| {
            let line = text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
            });
            line.unwrap_or_else(|| panic!("no {key} in {path:?}:\n{text}"))
        };
        (value("cluster_id"), value("node_id").parse().expect("a node id"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let said = self.stderr();
            eprintln!("--- the server at {} said:\n{}", self.address, tail(&said));
        }
    }
}

/// An address on loopback where nothing listens, outside of the range that the kernel gives to
/// outgoing connections.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    wait_for("a free port", || {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Steps of a prime that does not divide the count visit every port.
        let port = FIRST + ((u32::from(start) + u32::from(step) * 7919) % u32::from(COUNT)) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(address).ok().map(|_| address)
    })
}

pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..].join("\n")
}
