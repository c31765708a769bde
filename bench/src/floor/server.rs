//! The bare server: one executor on each core that the broker would have, and on each a socket for every service.
//!
//! It is a process of its own, this program under a hidden subcommand, as the embedded node is. It ends with its
//! standard input, and leaves nothing behind.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;

use chronik_shards::io::process::ProcessMask;
use chronik_shards::io::runtime::{self, ExecutorPlan, ShardCpus};
use chronik_shards::model::ShardId;
use chronik_tuning::host::Host;
use chronik_tuning::plan::Plan;
use chronik_tuning::profile::Profile;
use clap::{Args, ValueEnum};
use glommio::net::TcpListener;

use super::FloorError;
use super::connection::{Work, scratch, serve};
use super::group::{GroupCommit, GroupOptions};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "floor-server";

/// Says that all addresses are printed.
const READY: &str = "ready";

/// Zero-filled file of each core.
const FILE_BYTES: u64 = 64 << 20;

/// What a bare server does with frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Service {
    /// Each frame is answered at once with its correlation id.
    Answer,
    /// Each frame goes back whole.
    Echo,
    /// Nothing is answered.
    Discard,
    /// Each frame is answered when it is on the disk.
    Commit,
    /// As `Answer`, but the kernel drops what it received without copying it.
    Sink,
}

impl Service {
    /// All, in the order in which addresses are printed.
    pub const ALL: [Self; 5] = [Self::Answer, Self::Echo, Self::Discard, Self::Commit, Self::Sink];
}

/// How a bare server runs.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct FloorServerOptions {
    /// Profile that says which cores: development, latency, throughput, shared-host, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = chronik_tuning::profile::DEFAULT_PROFILE)]
    pub floor_profile: String,
    /// Cores of the bare server, one executor each [default: as many as the profile has]
    #[arg(long, value_name = "COUNT")]
    pub floor_cores: Option<u16>,
    /// Most bytes of one commit of the bare server
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub floor_commit_bytes: usize,
    /// Commits of the bare server that are written at once
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub floor_commits: usize,
}

impl FloorServerOptions {
    fn check(&self) -> Result<GroupOptions, FloorError> {
        let refuse = |what: &str| Err(FloorError::Options(what.to_owned()));
        let (bytes, commits) = (self.floor_commit_bytes, self.floor_commits);
        if !(4096..=8 << 20).contains(&bytes) || !bytes.is_multiple_of(4096) {
            return refuse("--floor-commit-bytes: a multiple of 4096 up to 8 MiB is due");
        }
        if !(1..=4).contains(&commits) {
            return refuse("--floor-commits: 1 to 4 are possible");
        }
        Ok(GroupOptions { group_bytes: bytes, in_flight_max: commits, file_bytes: FILE_BYTES })
    }

    fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--floor-profile={}", self.floor_profile),
            format!("--floor-commit-bytes={}", self.floor_commit_bytes),
            format!("--floor-commits={}", self.floor_commits),
        ];
        arguments.extend(self.floor_cores.map(|cores| format!("--floor-cores={cores}")));
        arguments
    }

    /// The plan that a broker with this profile would have here.
    ///
    /// # Errors
    /// [`FloorError::Plan`].
    pub fn plan(&self) -> Result<Plan, FloorError> {
        let failed = |error: &dyn std::fmt::Display| FloorError::Plan(error.to_string());
        let mut profile = Profile::load(&self.floor_profile).map_err(|error| failed(&error))?;
        if let Some(cores) = self.floor_cores {
            profile.shards = chronik_tuning::profile::ShardCount::Count(cores);
        }
        let host = Host::read().map_err(|error| failed(&error))?;
        Plan::resolve(&profile, &host).map_err(|error| failed(&error))
    }
}

/// A bare server that runs. Dropping it stops it.
#[derive(Debug)]
pub struct FloorServer {
    process: Child,
    /// By service, the addresses of its cores.
    addresses: Vec<(Service, Vec<SocketAddr>)>,
    directory: PathBuf,
}

impl FloorServer {
    /// Starts one whose log is in a new directory under `parent`; `program` is this program's executable.
    ///
    /// # Errors
    /// [`FloorError`].
    pub fn start(
        program: &Path,
        parent: &Path,
        options: &FloorServerOptions,
    ) -> Result<Self, FloorError> {
        options.check()?;
        fs::create_dir_all(parent)?;
        let directory = fresh_directory(parent)?;
        let spawned = Command::new(program)
            .arg(SUBCOMMAND)
            .args(options.to_arguments())
            .arg("--directory")
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the client, which stops the server when it is done with it.
            .process_group(0)
            .spawn();
        let mut process = spawned.inspect_err(|_| drop(fs::remove_dir(&directory)))?;
        let said = process.stdout.take().expect("it was piped");
        let mut server = Self { process, addresses: Vec::new(), directory };
        for line in BufReader::new(said).lines() {
            let line = line?;
            if line == READY {
                return Ok(server);
            }
            let (service, list) = line.split_once(' ').unwrap_or((&line, ""));
            let service = Service::from_str(service, false).map_err(FloorError::Options)?;
            let list: Result<_, _> = list.split(' ').map(str::parse).collect();
            let list = list.map_err(|error| FloorError::Options(format!("{line}: {error}")))?;
            server.addresses.push((service, list));
        }
        Err(FloorError::NotReady)
    }

    /// Where connections go: in turn to each core.
    #[must_use]
    pub fn addresses(&self, service: Service, connections: usize) -> Vec<SocketAddr> {
        let found = self.addresses.iter().find(|(offered, _)| *offered == service);
        let (_, cores) = found.expect("a server that is ready offers every service");
        cores.iter().copied().cycle().take(connections).collect()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // It has nothing to bring home, and its files have no names.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn fresh_directory(parent: &Path) -> io::Result<PathBuf> {
    for number in 0.. {
        let path = parent.join(format!("chronik-floor-{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("numbers do not end")
}

/// The process itself: serves until its standard input ends.
pub fn main(options: &FloorServerOptions, directory: &Path) -> ExitCode {
    match run(options, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chronik-bench: the bare server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &FloorServerOptions, directory: &Path) -> Result<(), FloorError> {
    let group = options.check()?;
    let plan = options.plan()?;
    chronik_shards::io::process::abort_on_shard_panic();
    chronik_tuning::limits::raise_open_files()?;
    let unpinned = plan.shard_cpus.as_deref();
    let unpinned =
        unpinned.map_or(ShardCpus::Inherited, |cpus| ShardCpus::Among(ProcessMask::of(cpus)));
    let mut told = Vec::new();
    for (core, cpu) in (0u16..).zip(&plan.shards) {
        let executor = ExecutorPlan {
            cpus: cpu.map_or(unpinned, ShardCpus::Pinned),
            spin_before_park: plan.profile.spin_before_park,
            ring_buffer_bytes: plan.ring_buffer_bytes,
        };
        let (tell, heard) = mpsc::channel();
        let directory = directory.join(core.to_string());
        fs::create_dir(&directory)?;
        // The thread ends with the process.
        runtime::start(ShardId(core), executor, move || async move {
            match offer(&directory, group).await {
                Ok(addresses) => {
                    let _ = tell.send(Ok(addresses));
                    std::future::pending::<()>().await;
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        told.push(heard);
    }
    let mut by_service: Vec<(Service, Vec<SocketAddr>)> =
        Service::ALL.map(|service| (service, Vec::new())).into();
    for heard in told {
        let addresses = heard.recv().map_err(|_| FloorError::NotReady)??;
        for (service, address) in addresses {
            let place = by_service.iter_mut().find(|(known, _)| *known == service);
            place.expect("it lists all").1.push(address);
        }
    }
    let sink = super::sink::start()?;
    for (service, addresses) in &mut by_service {
        if *service == Service::Sink {
            addresses.push(sink);
        }
    }
    let mut out = io::stdout().lock();
    for (service, addresses) in by_service {
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let name = service.to_possible_value().expect("no service is skipped");
        writeln!(out, "{} {}", name.get_name(), list.join(" "))?;
    }
    writeln!(out, "{READY}")?;
    out.flush()?;
    let mut rest = Vec::new();
    io::stdin().read_to_end(&mut rest)?;
    Ok(())
}

/// Opens every service of a core.
async fn offer(directory: &Path, group: GroupOptions) -> io::Result<Vec<(Service, SocketAddr)>> {
    // The first file that this executor opens for direct IO; see `chronik_shards::io::wal_writer`.
    let log = GroupCommit::open(directory, group).await?;
    glommio::spawn_local(std::rc::Rc::clone(&log).run()).detach();
    let scratch = scratch();
    let mut addresses = Vec::new();
    let works = [
        (Service::Answer, Work::Answer),
        (Service::Echo, Work::Echo),
        (Service::Discard, Work::Discard),
        (Service::Commit, Work::Commit(log)),
    ];
    for (service, work) in works {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        addresses.push((service, listener.local_addr()?));
        let scratch = std::rc::Rc::clone(&scratch);
        glommio::spawn_local(async move {
            loop {
                match listener.accept().await {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        let served = serve(stream, work.clone(), std::rc::Rc::clone(&scratch));
                        glommio::spawn_local(served).detach();
                    }
                    Err(error) => give_up(&format!("accepting failed: {error}")),
                }
            }
        })
        .detach();
    }
    Ok(addresses)
}

/// A bare server that cannot go on measures nothing.
pub(super) fn give_up(reason: &str) -> ! {
    eprintln!("chronik-bench: the bare server: {reason}");
    std::process::exit(1)
}
