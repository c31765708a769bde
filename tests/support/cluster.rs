//! `chronik-server` processes of our own that are one cluster.
//!
//! Nodes have the ids 1 to n and the racks `rack-1` to `rack-n`; the last ones may be spares, which found nothing and are
//! let in later. With [`ClusterOptions::links`] what they say to
//! each other passes through [`Links`], which can hold it, delay it or cut it off.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use chronik_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use tempfile::TempDir;

use super::client::Client;
use super::links::Links;
use super::server::{LOG_LEVEL, Refusal, free_address, tail};
use super::{PATIENCE, poll_pause, wait_for};

/// Sets of ports that are tried before a start counts as failed.
const STARTS_MAX: usize = 4;

/// How long a node may take to be back or to stop: it may have to wait for its peers.
pub const NODE_PATIENCE: Duration = Duration::from_secs(60);

/// How the nodes are started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Shards of each node; as many nodes as there are numbers.
    pub shards: Vec<u16>,
    /// How many of the nodes do not found the cluster: the last ones. They are not started with the others.
    pub spares: usize,
    pub min_insync_replicas: usize,
    /// Kafka's keys, for the `[kafka]` table of every node.
    pub kafka: Vec<(String, String)>,
    /// Keys of the profile that every node changes.
    pub profile: Vec<String>,
    /// Whether the nodes talk through [`Links`].
    pub links: bool,
    /// Whether the nodes tell metrics.
    pub metrics: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            shards: vec![1; 3],
            spares: 0,
            min_insync_replicas: 2,
            kafka: Vec::new(),
            profile: Vec::new(),
            links: false,
            metrics: false,
        }
    }
}

impl ClusterOptions {
    pub fn shards(shards: &[u16]) -> Self {
        Self { shards: shards.to_vec(), ..Self::default() }
    }

    pub fn kafka(mut self, key: &str, value: impl ToString) -> Self {
        self.kafka.push((key.to_owned(), value.to_string()));
        self
    }

    /// A line of the `[profile]` table.
    pub fn profile(mut self, line: &str) -> Self {
        self.profile.push(line.to_owned());
        self
    }

    pub fn spares(mut self, spares: usize) -> Self {
        self.spares = spares;
        self
    }

    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    pub fn metrics(mut self) -> Self {
        self.metrics = true;
        self
    }

    pub fn start(self) -> Cluster {
        Cluster::start_with(self)
    }
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    kafka: SocketAddr,
    wal: SocketAddr,
    raft: SocketAddr,
    metrics: SocketAddr,
}

#[derive(Debug)]
struct Node {
    process: Option<Child>,
    addresses: Addresses,
    shards: u16,
    is_frozen: bool,
}

/// Running nodes; they end with the value.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    nodes: Vec<Node>,
    links: Option<Links>,
    home: TempDir,
}

impl Cluster {
    /// Three nodes of one shard each, which serve.
    pub fn start() -> Self {
        Self::start_with(ClusterOptions::default())
    }

    pub fn start_with(options: ClusterOptions) -> Self {
        for _ in 0..STARTS_MAX {
            let mut cluster = Self::prepare(options.clone());
            let nodes: Vec<i32> = cluster.founders().collect();
            cluster.spawn(&nodes);
            if cluster.try_await_serving(&nodes) {
                return cluster;
            }
        }
        panic!("ports of the cluster were taken by others, again and again");
    }

    /// A cluster of which no node runs yet.
    pub fn prepare(options: ClusterOptions) -> Self {
        let addresses = || Addresses {
            kafka: free_address(),
            wal: free_address(),
            raft: free_address(),
            metrics: free_address(),
        };
        let nodes: Vec<Node> = options
            .shards
            .iter()
            .map(|shards| Node {
                process: None,
                addresses: addresses(),
                shards: *shards,
                is_frozen: false,
            })
            .collect();
        let links = options.links.then(|| {
            let reached = (1..).zip(&nodes);
            Links::between(reached.map(|(id, it)| (id, it.addresses.wal, it.addresses.raft)))
        });
        let home = tempfile::tempdir().expect("a directory for the cluster");
        Self { options, nodes, links, home }
    }

    /// Ids of all nodes, whether they run or not.
    pub fn ids(&self) -> impl Iterator<Item = i32> + use<> {
        1..=self.nodes.len() as i32
    }

    /// Ids of the nodes that found the cluster.
    fn founders(&self) -> impl Iterator<Item = i32> + use<> {
        1..=self.nodes.len() as i32 - self.options.spares as i32
    }

    /// Nodes that run and are not frozen.
    pub fn running(&self) -> Vec<i32> {
        self.ids()
            .filter(|id| self.node(*id).process.is_some() && !self.node(*id).is_frozen)
            .collect()
    }

    fn node(&self, id: i32) -> &Node {
        &self.nodes[id as usize - 1]
    }

    fn node_mut(&mut self, id: i32) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    pub fn address(&self, id: i32) -> SocketAddr {
        self.node(id).addresses.kafka
    }

    /// Where the node's control plane listens.
    pub fn control_address(&self, id: i32) -> SocketAddr {
        self.node(id).addresses.raft
    }

    /// Where the node tells metrics, in a cluster that does.
    pub fn metrics_address(&self, id: i32) -> SocketAddr {
        assert!(self.options.metrics, "a cluster that was started with metrics");
        self.node(id).addresses.metrics
    }

    /// `host:port` of every node, with commas.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.ids().map(|id| self.address(id).to_string()).collect();
        addresses.join(",")
    }

    pub fn client(&self, id: i32) -> Client {
        Client::connect(self.address(id))
    }

    /// The connections between the nodes.
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("a cluster that was started with links")
    }

    pub fn pid(&self, id: i32) -> u32 {
        self.node(id).process.as_ref().expect("a node that runs").id()
    }

    pub fn data_dir(&self, id: i32) -> PathBuf {
        self.home.path().join(format!("data-{id}"))
    }

    /// All that a node, in all its lives, wrote to standard error.
    pub fn stderr(&self, id: i32) -> String {
        let bytes = fs::read(self.log_path(id)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self, id: i32) -> PathBuf {
        self.home.path().join(format!("log-{id}"))
    }

    pub fn shards(&self, id: i32) -> u16 {
        self.node(id).shards
    }

    /// How many shards a node has from its next start on.
    pub fn set_shards(&mut self, id: i32, shards: u16) {
        self.node_mut(id).shards = shards;
    }

    /// Starts processes and does not wait. A process ends with the thread that started it.
    pub fn spawn(&mut self, ids: &[i32]) {
        for &id in ids {
            assert!(self.node(id).process.is_none(), "node {id} runs");
            let process = self.spawn_one(id);
            self.node_mut(id).process = Some(process);
        }
    }

    fn spawn_one(&self, id: i32) -> Child {
        let log = File::options().create(true).append(true).open(self.log_path(id));
        let log = log.expect("a file for standard error");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronik-server"));
        command
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .arg("--config")
            .arg(self.write_config(id))
            .arg("--shards")
            .arg(self.node(id).shards.to_string())
            .arg("--no-pin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        if let Ok(level) = std::env::var(LOG_LEVEL) {
            command.arg("--log-level").arg(level);
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

    fn write_config(&self, id: i32) -> PathBuf {
        use std::fmt::Write;
        let own = self.node(id).addresses;
        let founds = self.founders().any(|founder| founder == id);
        let metrics = match self.options.metrics {
            true => format!("metrics = \"{}\"\n", own.metrics),
            false => String::new(),
        };
        let mut text = format!(
            "bootstrap = {founds}\nnode_id = {id}\ndata_dir = {:?}\nrack = \"rack-{id}\"\n\
             replication_factor = {}\nmin_insync_replicas = {}\n\
             [bind]\nkafka = \"{}\"\nwal = \"{}\"\nraft = \"{}\"\n{metrics}\
             [profile]\nname = \"shared-host\"\n{}\n[kafka]\n",
            self.data_dir(id),
            self.founders().count(),
            self.options.min_insync_replicas,
            own.kafka,
            own.wal,
            own.raft,
            self.options.profile.join("\n"),
        );
        for (key, value) in &self.options.kafka {
            writeln!(text, "\"{key}\" = \"{value}\"").expect("a string");
        }
        // Who founds knows of no spares, and a spare knows of itself beside.
        for peer in self.founders().chain((!founds).then_some(id)) {
            let Addresses { kafka, mut wal, mut raft, .. } = self.node(peer).addresses;
            if let Some(links) = &self.links {
                wal = links.wal(peer);
                if peer != id {
                    raft = links.raft(id, peer);
                }
            }
            writeln!(
                text,
                "[[peers]]\nid = {peer}\nkafka = \"{kafka}\"\nwal = \"{wal}\"\nraft = \"{raft}\""
            )
            .expect("a string");
        }
        let path = self.home.path().join(format!("node-{id}.toml"));
        fs::write(&path, text).expect("a small file");
        path
    }

    /// Waits until these nodes serve, as all running ones see it.
    pub fn await_serving(&mut self, ids: &[i32]) {
        assert!(self.try_await_serving(ids), "a port of the cluster was taken by others");
    }

    /// False when a port is taken.
    fn try_await_serving(&mut self, ids: &[i32]) -> bool {
        let deadline = Instant::now() + NODE_PATIENCE;
        let mut missing: Vec<(i32, i32)> =
            self.running().into_iter().flat_map(|by| ids.iter().map(move |id| (by, *id))).collect();
        while let Some((by, id)) = missing.pop() {
            while !self.lists(by, id) {
                for other in self.ids() {
                    if let Some(status) = self.ended(other) {
                        let said = self.stderr(other);
                        if said.contains("is in use by another process") {
                            return false;
                        }
                        panic!("node {other} ended: {status}\n{}", tail(&said));
                    }
                }
                assert!(Instant::now() < deadline, "node {by} does not see node {id} serve");
                poll_pause();
            }
        }
        true
    }

    /// Whether a node says that another one, or itself, serves.
    fn lists(&self, by: i32, id: i32) -> bool {
        brokers(self.address(by))
            .is_some_and(|listed| listed.contains(&(id, self.address(id).port().into())))
    }

    /// The nodes that a node takes for serving.
    pub fn serving_as_seen_by(&self, id: i32) -> Vec<i32> {
        let listed = brokers(self.address(id)).unwrap_or_default();
        listed.into_iter().map(|(id, _)| id).collect()
    }

    fn ended(&mut self, id: i32) -> Option<ExitStatus> {
        self.node_mut(id).process.as_mut()?.try_wait().expect("a child to wait for")
    }

    /// Asserts that every process that should run does.
    pub fn assert_alive(&mut self) {
        for id in self.ids() {
            let ended = self.ended(id);
            assert!(ended.is_none(), "node {id} ended: {ended:?}\n{}", tail(&self.stderr(id)));
        }
    }

    /// `kill -9`, of a frozen one as well.
    pub fn kill9(&mut self, id: i32) {
        self.kill9_at_once(&[id]);
    }

    /// `kill -9` of several: none has time to go on while another one ends.
    pub fn kill9_at_once(&mut self, ids: &[i32]) {
        let mut killed = Vec::new();
        for id in ids {
            let mut process = self.node_mut(*id).process.take().expect("a node that runs");
            self.node_mut(*id).is_frozen = false;
            process.kill().expect("a process of ours");
            killed.push((*id, process));
        }
        for (id, mut process) in killed {
            let status = process.wait().expect("a child to wait for");
            let is_killed = status.signal() == Some(libc::SIGKILL);
            assert!(is_killed, "node {id} ended by itself: {status}\n{}", tail(&self.stderr(id)));
        }
    }

    /// SIGSTOP: the process does nothing, its connections stay.
    pub fn freeze(&mut self, id: i32) {
        self.signal(id, libc::SIGSTOP);
        self.node_mut(id).is_frozen = true;
    }

    /// SIGCONT.
    pub fn thaw(&mut self, id: i32) {
        self.signal(id, libc::SIGCONT);
        self.node_mut(id).is_frozen = false;
    }

    /// SIGTERM; [`Self::await_end`] waits for what comes of it.
    pub fn begin_stop(&mut self, id: i32) {
        self.signal(id, libc::SIGTERM);
    }

    fn signal(&self, id: i32, signal: i32) {
        let pid = i32::try_from(self.pid(id)).expect("a pid");
        // SAFETY: signals a child that was not waited for, so the pid is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "a process of ours");
    }

    /// Waits for the orderly end of a node.
    pub fn await_end(&mut self, id: i32) {
        let status = self.await_exit(id);
        assert_eq!(status.code(), Some(0), "an orderly end of node {id}: {status}");
    }

    fn await_exit(&mut self, id: i32) -> ExitStatus {
        let deadline = Instant::now() + NODE_PATIENCE;
        let status = loop {
            if let Some(status) = self.ended(id) {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "node {id} goes on for {NODE_PATIENCE:?}\n{}",
                tail(&self.stderr(id))
            );
            poll_pause();
        };
        self.node_mut(id).process = None;
        status
    }

    /// SIGTERM, and an orderly end.
    pub fn stop(&mut self, id: i32) {
        self.begin_stop(id);
        self.await_end(id);
    }

    /// Stops all that run at once.
    pub fn stop_all(&mut self) {
        let running = self.running();
        running.iter().for_each(|id| self.begin_stop(*id));
        running.iter().for_each(|id| self.await_end(*id));
    }

    /// Starts a node again over its data; answers with the time until it served.
    pub fn restart(&mut self, id: i32) -> Duration {
        let begin = Instant::now();
        self.spawn(&[id]);
        self.await_serving(&[id]);
        begin.elapsed()
    }

    /// Starts a node that is expected to end by itself.
    pub fn refuses_start(&mut self, id: i32) -> Refusal {
        let before = self.stderr(id).len();
        self.spawn(&[id]);
        let status = self.await_exit(id);
        Refusal { status, stderr: self.stderr(id)[before..].to_owned() }
    }

    /// A node writes a line with all of `parts` after the first `from` bytes of what it wrote.
    pub fn await_line(&self, id: i32, from: usize, parts: &[&str]) {
        wait_for(&format!("a line of node {id} with {parts:?}"), || {
            let said = self.stderr(id);
            said[from..]
                .lines()
                .any(|line| parts.iter().all(|part| line.contains(part)))
                .then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            for id in self.ids() {
                eprintln!("--- node {id} said:\n{}", tail(&self.stderr(id)));
            }
        }
    }
}

/// Id and port of the nodes that the one at `address` takes for serving; `None`: there is no answer.
fn brokers(address: SocketAddr) -> Option<Vec<(i32, i32)>> {
    let mut client = Client::try_connect(address).ok()?;
    client.set_read_timeout(PATIENCE.min(Duration::from_secs(5)));
    let request = DescribeClusterRequest { endpoint_type: 1, ..Default::default() };
    let response = client.try_call(1, &request).ok()?;
    Some(response.brokers.iter().map(|broker| (broker.broker_id, broker.port)).collect())
}
