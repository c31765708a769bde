//! Nodes of a cluster as processes: in which order they start, whom they refuse, how they stop.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use chronik_protocol::messages::metadata_request::MetadataRequest;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::server::{free_address, is_reference};
use crate::support::wait_for;

/// Three nodes, numbered from 1, each of which runs or not.
struct Nodes {
    home: TempDir,
    /// For clients, replication and the control plane, by node.
    addresses: Vec<[SocketAddr; 3]>,
    running: Vec<Option<Child>>,
}

impl Nodes {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = (0..3).map(|_| [(); 3].map(|()| free_address())).collect();
        let nodes = Self { home, addresses, running: vec![None, None, None] };
        for node in 1..=3 {
            fs::write(nodes.path(node, "toml"), nodes.config(node)).unwrap();
        }
        nodes
    }

    fn path(&self, node: usize, what: &str) -> PathBuf {
        self.home.path().join(format!("node{node}.{what}"))
    }

    fn config(&self, node: usize) -> String {
        let data = self.path(node, "data");
        let mut text = format!(
            "node_id = {node}\ndata_dir = \"{}\"\nprofile = \"shared-host\"\n\
             replication_factor = 3\nmin_insync_replicas = 2\n",
            data.display()
        );
        for (id, [kafka, wal, raft]) in (1..).zip(&self.addresses) {
            text += &format!(
                "[[peers]]\nid = {id}\nkafka = \"{kafka}\"\nwal = \"{wal}\"\nraft = \"{raft}\"\n"
            );
        }
        text
    }

    fn spawn(&mut self, node: usize) {
        let log = File::options().create(true).append(true).open(self.path(node, "log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronik-server"));
        command
            .env_clear()
            .arg("--shards=1")
            .arg("--no-pin")
            .arg("--config")
            .arg(self.path(node, "toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // SAFETY: prctl is async-signal-safe. A server must not outlive a test that was killed.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        self.running[node - 1] = Some(command.spawn().unwrap());
    }

    fn log(&self, node: usize) -> String {
        fs::read_to_string(self.path(node, "log")).unwrap_or_default()
    }

    fn wait_for_line(&mut self, node: usize, parts: &[&str]) {
        wait_for(&format!("node {node} says {parts:?}:\n{}", self.log(node)), || {
            let log = self.log(node);
            let says = log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            says.then_some(())
        });
    }

    /// Waits until every running node tells clients of `count` nodes.
    fn wait_until_all_serve(&self, count: usize) {
        let running = self.running.iter().zip(&self.addresses).filter(|(child, _)| child.is_some());
        for (_, [kafka, ..]) in running {
            wait_for("a node that serves and knows the others", || {
                let mut client = Client::try_connect(*kafka).ok()?;
                let request = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
                let told = client.try_call(9, &request).ok()?;
                (told.brokers.len() == count).then_some(())
            });
        }
    }

    fn terminate(&mut self, node: usize) -> ExitStatus {
        let child = self.running[node - 1].as_ref().unwrap();
        // SAFETY: signals a child that was not waited for, so the pid is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
        self.wait_for_end(node)
    }

    fn wait_for_end(&mut self, node: usize) -> ExitStatus {
        let mut child = self.running[node - 1].take().unwrap();
        let status = wait_for("an end", || child.try_wait().unwrap());
        assert!(!self.log(node).contains("panicked at"), "{}", self.log(node));
        status
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for node in 1..=3 {
                eprintln!("--- node {node}:\n{}", self.log(node));
            }
        }
    }
}

#[test]
fn nodes_start_in_any_order_and_a_lone_one_can_be_stopped_while_it_waits() {
    if is_reference() {
        return;
    }
    let mut nodes = Nodes::new();
    nodes.spawn(3);
    nodes.wait_for_line(3, &["waiting for peers"]);
    assert_eq!(nodes.terminate(3).code(), Some(0), "an orderly end");
    for node in [3, 1, 2] {
        nodes.spawn(node);
        nodes.wait_for_line(node, &["start: directory and addresses claimed"]);
    }
    nodes.wait_until_all_serve(3);
    for node in [2, 3, 1] {
        assert_eq!(nodes.terminate(node).code(), Some(0), "node {node}");
    }
}

#[test]
fn directories_of_other_nodes_and_clusters_are_refused() {
    if is_reference() {
        return;
    }
    let (mut nodes, mut others) = (Nodes::new(), Nodes::new());
    for cluster in [&mut nodes, &mut others] {
        for node in 1..=3 {
            cluster.spawn(node);
        }
    }
    for cluster in [&mut nodes, &mut others] {
        cluster.wait_until_all_serve(3);
        assert_eq!(cluster.terminate(3).code(), Some(0));
    }
    let (data, aside) = (nodes.path(3, "data"), nodes.path(3, "aside"));
    fs::rename(&data, &aside).unwrap();

    // Another cluster's: the peers say so, and the node is none of them.
    fs::rename(others.path(3, "data"), &data).unwrap();
    nodes.spawn(3);
    nodes.wait_for_line(3, &["it refuses: node 3 is of cluster"]);
    assert_eq!(nodes.terminate(3).code(), Some(0));
    fs::rename(&data, others.path(3, "data")).unwrap();

    // A new one: it has forgotten what the node has promised.
    nodes.spawn(3);
    nodes.wait_for_line(3, &["it refuses: node 3 joined with another data directory"]);
    assert_eq!(nodes.terminate(3).code(), Some(0));
    fs::remove_dir_all(&data).unwrap();

    // Another node's.
    assert_eq!(others.terminate(1).code(), Some(0));
    fs::rename(others.path(1, "data"), &data).unwrap();
    nodes.spawn(3);
    assert_eq!(nodes.wait_for_end(3).code(), Some(1));
    nodes.wait_for_line(3, &["belongs to node 1, and this is node 3"]);
    fs::remove_dir_all(&data).unwrap();

    fs::rename(&aside, &data).unwrap();
    nodes.spawn(3);
    nodes.wait_until_all_serve(3);
}
