//! `chronik-server cluster`: looks at a running cluster, adds nodes to it and takes nodes off.
//!
//! A client of the Kafka protocol like any other: every step is a request that other tools can make, too.

mod client;
mod remove;
mod status;

use chronik_protocol::messages::add_raft_voter_request::{AddRaftVoterRequest, Listener};

use crate::cli::{ClusterAction, ClusterTask};
use crate::config::Endpoint;
use client::Client;

/// Why a task was not carried out. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The server cannot be talked to.
    #[error("{server}: {source}")]
    Connection {
        /// Which.
        server: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The server does not do it.
    #[error("the cluster refuses (Kafka's error {code}): {message}")]
    Refused {
        /// Kafka's number.
        code: i16,
        /// The server's words.
        message: String,
    },
    /// It cannot be done as things are.
    #[error("{0}")]
    Impossible(String),
}

/// Carries a task out, and says on standard output what there is to say.
///
/// # Errors
/// [`ToolError`]: see there.
pub fn run(task: &ClusterTask, node_id: Option<i32>) -> Result<(), ToolError> {
    let mut client = Client::connect(&task.server)?;
    let due = || {
        let message = "--node-id is due: which node";
        node_id.ok_or_else(|| ToolError::Impossible(message.to_owned()))
    };
    let json = match &task.action {
        ClusterAction::Status => {
            let status = status::of(&mut client)?;
            if !task.json {
                print!("{status}");
                return Ok(());
            }
            status.to_json()
        }
        ClusterAction::AddNode { raft_addr } => {
            let id = due()?;
            add(&mut client, id, raft_addr)?;
            let next = "start it without --bootstrap (in a file: bootstrap = false)";
            if !task.json {
                println!("node {id} may come: {next}");
                return Ok(());
            }
            serde_json::json!({ "added": id })
        }
        ClusterAction::RemoveNode { timeout_s } => {
            let id = due()?;
            let moved = remove::node(&mut client, id, *timeout_s)?;
            if !task.json {
                println!("node {id} is off the cluster; {moved} partitions were moved away before");
                return Ok(());
            }
            serde_json::json!({ "removed": id, "moved_partitions": moved })
        }
    };
    println!("{json}");
    Ok(())
}

fn add(client: &mut Client, id: i32, raft_addr: &str) -> Result<(), ToolError> {
    let Some(Endpoint { host, port }) = Endpoint::dialled(raft_addr) else {
        let message =
            format!("--raft-addr={raft_addr}: the host and port of its control plane are due");
        return Err(ToolError::Impossible(message));
    };
    let listener = Listener {
        name: "CONTROLLER".into(),
        host: host.as_str().into(),
        port,
        ..Listener::default()
    };
    let request = AddRaftVoterRequest {
        cluster_id: None,
        voter_id: id,
        timeout_ms: 30_000,
        listeners: vec![listener],
        ..AddRaftVoterRequest::default()
    };
    let response = client.call(1, &request)?;
    check(response.error_code, response.error_message.as_deref())
}

/// An answer's error, if it is one.
fn check(code: i16, message: Option<&str>) -> Result<(), ToolError> {
    match code {
        0 => Ok(()),
        code => {
            let message = message.unwrap_or("without a reason").to_owned();
            Err(ToolError::Refused { code, message })
        }
    }
}
