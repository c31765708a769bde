//! The bare server: one executor on each core that the broker would have, and on each a socket for every service.
//!
//! It is a process of its own, this program under a hidden subcommand, as the embedded node is. It ends with its
//! standard input, and leaves nothing behind.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc;

use chronik_shards::io::process::ProcessMask;
use chronik_shards::io::runtime::{self, ExecutorPlan, ShardCpus};
use chronik_shards::model::ShardId;
use chronik_tuning::host::Host;
use chronik_tuning::plan::Plan;
use chronik_tuning::profile::{DEFAULT_PROFILE, Profile, ShardCount};
use clap::{Args, Parser, ValueEnum};
use glommio::net::TcpListener;

use super::FloorError;
use super::connection::{self, Work, scratch};
use super::group::{GroupCommit, GroupOptions};
use crate::child::{ServerChild, serve_until_unwanted};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "floor-server";

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
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Floor")]
pub struct FloorServerOptions {
    /// Profile that says which cores the bare server has [default: that of the embedded node]
    #[arg(long, value_name = "NAME|FILE")]
    pub floor_profile: Option<String>,
    /// Cores of the bare server, an executor each [default: one for each shard of the profile or the embedded node]
    #[arg(long, value_name = "COUNT")]
    pub floor_cores: Option<u16>,
    /// Let the kernel move the bare server's executors
    #[arg(long)]
    pub floor_no_pin: bool,
    /// Most bytes of one commit of the bare server [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    pub floor_commit_bytes: Option<usize>,
    /// Commits of the bare server that are written at once [default: 2]
    #[arg(long, value_name = "COUNT")]
    pub floor_commits: Option<usize>,
}

const COMMIT_BYTES: usize = 1 << 20;
const COMMITS: usize = 2;

impl FloorServerOptions {
    /// Takes what is not given from the flags of the node that it is compared with.
    pub fn follow_node(&mut self, node_flags: &[String]) {
        let line = std::iter::once("chronik-server").chain(node_flags.iter().map(String::as_str));
        // Flags that a server does not take are refused where the node is started.
        let Ok(node) = chronik::cli::CommandLine::try_parse_from(line) else { return };
        self.floor_profile = self.floor_profile.take().or(node.profile);
        self.floor_cores = self.floor_cores.or(node.shards);
        self.floor_no_pin |= node.no_pin;
    }

    fn check(&self) -> Result<GroupOptions, FloorError> {
        let refuse = |what: &str| Err(FloorError::Options(what.to_owned()));
        let group_bytes = self.floor_commit_bytes.unwrap_or(COMMIT_BYTES);
        let in_flight_max = self.floor_commits.unwrap_or(COMMITS);
        if !(4096..=8 << 20).contains(&group_bytes) || !group_bytes.is_multiple_of(4096) {
            return refuse("--floor-commit-bytes: a multiple of 4096 up to 8 MiB is due");
        }
        if !(1..=4).contains(&in_flight_max) {
            return refuse("--floor-commits: 1 to 4 are possible");
        }
        Ok(GroupOptions { group_bytes, in_flight_max, file_bytes: FILE_BYTES })
    }

    fn to_arguments(&self) -> Vec<String> {
        let number = |name: &str, value: Option<usize>| value.map(|n| format!("--{name}={n}"));
        let profile = self.floor_profile.as_ref().map(|name| format!("--floor-profile={name}"));
        profile
            .into_iter()
            .chain(number("floor-cores", self.floor_cores.map(usize::from)))
            .chain(self.floor_no_pin.then(|| "--floor-no-pin".to_owned()))
            .chain(number("floor-commit-bytes", self.floor_commit_bytes))
            .chain(number("floor-commits", self.floor_commits))
            .collect()
    }

    /// The plan that a broker with this profile would have here.
    ///
    /// # Errors
    /// [`FloorError::Plan`].
    pub fn plan(&self) -> Result<Plan, FloorError> {
        let failed = |error: &dyn std::fmt::Display| FloorError::Plan(error.to_string());
        let name = self.floor_profile.as_deref().unwrap_or(DEFAULT_PROFILE);
        let mut profile = Profile::load(name).map_err(|error| failed(&error))?;
        if let Some(cores) = self.floor_cores {
            profile.shards = ShardCount::Count(cores);
        }
        profile.pin &= !self.floor_no_pin;
        let host = Host::read().map_err(|error| failed(&error))?;
        Plan::resolve(&profile, &host).map_err(|error| failed(&error))
    }
}

/// A bare server that runs. Dropping it stops it.
#[derive(Debug)]
pub struct FloorServer {
    child: ServerChild,
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
        // What the process would refuse is refused here, in one line.
        options.check()?;
        options.plan()?;
        fs::create_dir_all(parent)?;
        let directory = fresh_directory(parent)?;
        let place = [OsString::from("--directory"), directory.clone().into()];
        let arguments = options.to_arguments().into_iter().map(OsString::from).chain(place);
        let child = ServerChild::start(program, SUBCOMMAND, arguments)
            .inspect_err(|_| drop(fs::remove_dir_all(&directory)))?;
        let mut addresses = Vec::new();
        for line in child.said() {
            let (service, list) = line.split_once(' ').unwrap_or((line, ""));
            let service = Service::from_str(service, false).map_err(FloorError::Options)?;
            let list: Result<_, _> = list.split(' ').map(str::parse).collect();
            let list = list.map_err(|error| FloorError::Options(format!("{line}: {error}")))?;
            addresses.push((service, list));
        }
        Ok(Self { child, addresses, directory })
    }

    /// Where a service is offered: by each core at one address.
    #[must_use]
    pub fn addresses(&self, service: Service) -> &[SocketAddr] {
        let found = self.addresses.iter().find(|(offered, _)| *offered == service);
        let (_, cores) = found.expect("a server that is ready offers every service");
        cores
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // Its files have no names: nothing but directories is there, and those go without the process too.
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

/// The hidden subcommand's arguments.
#[derive(Parser, Debug)]
#[command(name = "chronik-bench")]
struct ServerCommand {
    #[command(flatten)]
    options: FloorServerOptions,
    /// Empty, and the server's own
    #[arg(long)]
    directory: PathBuf,
}

/// What the process of the server does: serves until its standard input ends. `arguments` are those behind the
/// subcommand.
pub fn serve(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let name = OsString::from(SUBCOMMAND);
    let command = ServerCommand::parse_from(std::iter::once(name).chain(arguments));
    let served = run(&command.options, &command.directory);
    // Its files have no names any more; nothing but directories is there.
    drop(fs::remove_dir_all(&command.directory));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chronik-bench: {error}");
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
    drop(out);
    Ok(serve_until_unwanted()?)
}

/// Opens every service of a core.
async fn offer(directory: &Path, group: GroupOptions) -> io::Result<Vec<(Service, SocketAddr)>> {
    // The first file that this executor opens for direct IO; see `chronik_shards::io::wal_writer`.
    let log = GroupCommit::open(directory, group).await?;
    glommio::spawn_local(Rc::clone(&log).run()).detach();
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
        let scratch = Rc::clone(&scratch);
        glommio::spawn_local(async move {
            loop {
                match listener.accept().await {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        let scratch = Rc::clone(&scratch);
                        let served = connection::serve(stream, work.clone(), scratch);
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
