//! Nodes of a cluster as processes: in which order they start, whom they refuse, how they stop.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use chronik_protocol::messages::metadata_request::MetadataRequest;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::server::{free_address, is_reference};
use crate::support::wait_for;

/// Three nodes that form a cluster, numbered from 1, and a fourth that may come. Each runs or does not.
struct Nodes {
    home: TempDir,
    /// For clients, replication and the control plane, by node.
    addresses: Vec<[SocketAddr; 3]>,
    running: Vec<Option<Child>>,
}

impl Nodes {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = (0..4).map(|_| [(); 3].map(|()| free_address())).collect();
        let nodes = Self { home, addresses, running: (0..4).map(|_| None).collect() };
        for node in 1..=4 {
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
        if node == 4 {
            text.insert_str(0, "bootstrap = false\n");
        }
        for (id, [kafka, wal, raft]) in (1..).zip(&self.addresses).take(node.max(3)) {
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

    /// `chronik-server cluster` with these arguments, asked of a node.
    fn tool(&self, node: usize, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_chronik-server"))
            .env_clear()
            .arg("cluster")
            .arg(format!("--server={}", self.addresses[node - 1][0]))
            .args(arguments)
            .output()
            .unwrap()
    }

    fn status(&self, node: usize) -> Option<Value> {
        let output = self.tool(node, &["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits until the nodes and what they are in the group are these, as `asked` says.
    fn wait_for_roles(&self, asked: usize, expected: &[(i64, &str)]) {
        wait_for(&format!("{expected:?}, last: {:?}", self.status(asked)), || {
            let status = self.status(asked)?;
            let node = |node: &Value| {
                let role = node["role"].as_str()?.to_owned();
                (node["state"] == "serving").then_some((node["id"].as_i64()?, role))
            };
            let nodes: Option<Vec<_>> = status["nodes"].as_array()?.iter().map(node).collect();
            let nodes = nodes?;
            let nodes: Vec<_> = nodes.iter().map(|(id, role)| (*id, role.as_str())).collect();
            (nodes == expected).then_some(())
        });
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
            for node in 1..=4 {
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

#[test]
fn a_node_comes_to_a_running_cluster_and_another_goes() {
    if is_reference() {
        return;
    }
    let mut nodes = Nodes::new();
    for node in 1..=3 {
        nodes.spawn(node);
    }
    nodes.wait_until_all_serve(3);
    nodes.wait_for_roles(1, &[(1, "voter"), (2, "voter"), (3, "voter")]);
    let text = String::from_utf8(nodes.tool(2, &["status"]).stdout).unwrap();
    assert!(text.contains("node 3: serving") && text.contains("0 partitions"), "{text}");

    // It knocks before it is let in, and is told why it has to wait.
    nodes.spawn(4);
    nodes.wait_for_line(4, &["it refuses: node 4 is not one of the peers"]);
    let raft = format!("--raft-addr={}", nodes.addresses[3][2]);
    let added = nodes.tool(3, &["add-node", "--node-id=4", &raft]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    nodes.wait_for_roles(4, &[(1, "voter"), (2, "voter"), (3, "voter"), (4, "voter")]);
    let again = nodes.tool(3, &["add-node", "--node-id=4", &raft]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("of the cluster already"));

    // The controller, of all nodes.
    let gone = nodes.status(1).unwrap()["controller"].as_i64().unwrap();
    let asked = if gone == 4 { 2 } else { 4 };
    let removed = nodes
        .tool(asked, &["remove-node", &format!("--node-id={gone}"), "--json", "--timeout-s=20"]);
    let said = String::from_utf8_lossy(&removed.stderr);
    assert!(removed.status.success(), "{said}");
    let told: Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(told["removed"], gone);
    let gone = gone as usize;
    assert_eq!(nodes.wait_for_end(gone).code(), Some(0));
    assert!(nodes.log(gone).contains("this node was taken off the cluster"));
    let left: Vec<i64> = (1..=4).filter(|node| *node != gone as i64).collect();
    let voters: Vec<_> = left.iter().map(|node| (*node, "voter")).collect();
    nodes.wait_for_roles(asked, &voters);

    // What is left knows each other after a restart, too, though no file names all of it.
    let left: Vec<usize> = left.iter().map(|node| *node as usize).collect();
    for node in &left {
        assert_eq!(nodes.terminate(*node).code(), Some(0));
    }
    for node in &left {
        nodes.spawn(*node);
    }
    nodes.wait_until_all_serve(3);
    nodes.wait_for_roles(asked, &voters);

    // One of three is away: another one cannot go.
    let (away, stays) = (left[0], left[1]);
    assert_eq!(nodes.terminate(away).code(), Some(0));
    wait_for("a refusal", || {
        let refused =
            nodes.tool(stays, &["remove-node", &format!("--node-id={}", left[2]), "--timeout-s=5"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{said}");
        said.contains("lose its majority").then_some(())
    });
}
