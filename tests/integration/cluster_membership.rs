//! Nodes that come to a running cluster and go from it, as an operator has them do.

use std::path::PathBuf;
use std::process::{Command, Output};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use serde_json::Value;

use crate::support::batch::Batch;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::replicated::{
    await_agreement, await_in_sync, create_replicated, produce_to_leader,
};
use crate::support::requests::{describe_topic, expect_error, read_values};
use crate::support::server::is_reference;
use crate::support::{unique, wait_for};

/// Three nodes that serve, and a fourth that may come.
fn three_and_a_spare() -> Cluster {
    ClusterOptions::shards(&[1, 2, 1, 2]).spares(1).start()
}

/// `chronik-server cluster` with these arguments, asked of a node.
fn tool(cluster: &Cluster, node: i32, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chronik-server"))
        .env_clear()
        .arg("cluster")
        .arg(format!("--server={}", cluster.address(node)))
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(cluster: &Cluster, node: i32) -> Option<Value> {
    let output = tool(cluster, node, &["status", "--json"]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

/// Waits until these nodes serve and vote, and no others do, as `asked` says.
fn await_voters(cluster: &Cluster, asked: i32, expected: &[i64]) {
    wait_for(&format!("{expected:?} to vote, last: {:?}", status(cluster, asked)), || {
        let status = status(cluster, asked)?;
        let voter = |node: &Value| {
            let votes = node["role"] == "voter" && node["state"] == "serving";
            votes.then(|| node["id"].as_i64()).flatten()
        };
        let voters: Option<Vec<i64>> = status["nodes"].as_array()?.iter().map(voter).collect();
        (voters? == expected).then_some(())
    });
}

/// Lets the spare node in; answers when it votes.
fn add_fourth(cluster: &mut Cluster) {
    cluster.spawn(&[4]);
    let raft = format!("--raft-addr={}", cluster.control_address(4));
    let added = tool(cluster, 3, &["add-node", "--node-id=4", &raft]);
    assert!(added.status.success(), "{}", said(&added));
    await_voters(cluster, 4, &[1, 2, 3, 4]);
}

/// Takes a node off, of which `asked` is not the one; the number of partitions that were moved for that.
fn remove(cluster: &Cluster, asked: i32, node: i32) -> u64 {
    let id = format!("--node-id={node}");
    let removed = tool(cluster, asked, &["remove-node", &id, "--json", "--timeout-s=40"]);
    assert!(removed.status.success(), "{}", said(&removed));
    let told: Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(told["removed"], node);
    told["moved_partitions"].as_u64().unwrap()
}

fn reassign(cluster: &Cluster, asked: i32, name: &str, partition: i32, replicas: &[i32]) {
    let partitions = vec![ReassignablePartition {
        partition_index: partition,
        replicas: Some(replicas.to_vec()),
        ..ReassignablePartition::default()
    }];
    let topic = ReassignableTopic { name: name.into(), partitions, ..Default::default() };
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..AlterPartitionReassignmentsRequest::default()
    };
    let response = cluster.client(asked).call(0, &request);
    expect_error(response.responses[0].partitions[0].error_code, ErrorCode::None, name);
    wait_for("a reassignment to be done", || {
        let topic = describe_topic(&mut cluster.client(asked), name);
        let of_it =
            |it: &&chronik_protocol::messages::metadata_response::MetadataResponsePartition| {
                it.partition_index == partition
            };
        let found = topic.partitions.iter().find(of_it)?;
        let mut isr = found.isr_nodes.clone();
        isr.sort_unstable();
        let mut expected = replicas.to_vec();
        expected.sort_unstable();
        (found.replica_nodes == replicas && isr == expected).then_some(())
    });
}

fn directory(cluster: &Cluster, node: i32, name: &str, partition: i32) -> PathBuf {
    cluster.data_dir(node).join("topics").join(format!("{name}-{partition}"))
}

#[test]
fn a_node_comes_to_a_running_cluster_and_another_goes() {
    if is_reference() {
        return;
    }
    let mut cluster = three_and_a_spare();
    await_voters(&cluster, 1, &[1, 2, 3]);
    let text = String::from_utf8(tool(&cluster, 2, &["status"]).stdout).unwrap();
    assert!(text.contains("node 3: serving") && text.contains("0 partitions"), "{text}");

    // It knocks before it is let in, and is told why it has to wait.
    cluster.spawn(&[4]);
    cluster.await_line(4, 0, &["it refuses: node 4 is not one of the peers"]);
    let raft = format!("--raft-addr={}", cluster.control_address(4));
    let added = tool(&cluster, 3, &["add-node", "--node-id=4", &raft]);
    assert!(added.status.success(), "{}", said(&added));
    await_voters(&cluster, 4, &[1, 2, 3, 4]);
    let again = tool(&cluster, 3, &["add-node", "--node-id=4", &raft]);
    assert!(said(&again).contains("of the cluster already"));

    // The controller, of all nodes.
    let gone = status(&cluster, 1).unwrap()["controller"].as_i64().unwrap() as i32;
    let asked = if gone == 4 { 2 } else { 4 };
    assert_eq!(remove(&cluster, asked, gone), 0);
    cluster.await_end(gone);
    assert!(cluster.stderr(gone).contains("this node was taken off the cluster"));
    let left: Vec<i32> = (1..=4).filter(|node| *node != gone).collect();
    let voters: Vec<i64> = left.iter().map(|node| i64::from(*node)).collect();
    await_voters(&cluster, asked, &voters);

    // What is left knows each other after a restart, too, though no file names all of it.
    cluster.stop_all();
    cluster.spawn(&left);
    cluster.await_serving(&left);
    await_voters(&cluster, asked, &voters);

    // One of three is away, however short: another one cannot go.
    let controller = status(&cluster, asked).unwrap()["controller"].as_i64().unwrap() as i32;
    let others: Vec<i32> = left.into_iter().filter(|node| *node != controller).collect();
    cluster.kill9(others[0]);
    let id = format!("--node-id={}", others[1]);
    let refused = tool(&cluster, controller, &["remove-node", &id, "--timeout-s=5"]);
    assert!(!refused.status.success() && said(&refused).contains("majority"), "{}", said(&refused));
}

#[test]
fn a_node_goes_when_its_replicas_are_with_others_that_have_all_of_their_records() {
    if is_reference() {
        return;
    }
    let mut cluster = three_and_a_spare();
    let (name, partitions) = (unique("moved"), 6);
    create_replicated(&mut cluster.client(1), &name, partitions, 3, &[("segment.bytes", "100000")]);
    let fill = |cluster: &Cluster, round: i32| {
        for partition in 0..partitions {
            let value = format!("{round}/{partition}/{}", "x".repeat(20_000));
            produce_to_leader(cluster, &name, partition, &Batch::of([value]));
        }
    };
    (0..8).for_each(|round| fill(&cluster, round));
    add_fourth(&mut cluster);
    reassign(&cluster, 4, &name, 0, &[4, 1, 2]);
    fill(&cluster, 8);

    let gone = 2;
    let before = describe_topic(&mut cluster.client(1), &name).partitions;
    let held = before.iter().filter(|it| it.replica_nodes.contains(&gone)).count();
    assert_eq!(remove(&cluster, 3, gone), held as u64);
    cluster.await_end(gone);
    fill(&cluster, 9);
    await_in_sync(&cluster, 4, &name, 3);
    let leaders = await_agreement(&cluster, &name, partitions as usize);
    for (partition, leader) in (0..).zip(leaders) {
        let values = read_values(&mut cluster.client(leader.node), &name, partition, 0);
        for round in 0..10 {
            let begins = format!("{round}/{partition}/");
            assert!(values.iter().any(|value| value.starts_with(&begins)), "{begins} is missing");
        }
    }
    for described in describe_topic(&mut cluster.client(1), &name).partitions {
        let mut replicas = described.replica_nodes;
        replicas.sort_unstable();
        assert_eq!(replicas, [1, 3, 4]);
    }
    cluster.assert_alive();
}

#[test]
fn a_node_that_was_taken_off_while_it_was_away_says_so_and_ends() {
    if is_reference() {
        return;
    }
    let mut cluster = three_and_a_spare();
    let name = unique("held");
    create_replicated(&mut cluster.client(1), &name, 3, 3, &[]);
    produce_to_leader(&cluster, &name, 0, &Batch::of(["before"]));
    add_fourth(&mut cluster);
    cluster.kill9(3);
    assert_eq!(remove(&cluster, 1, 3), 3);
    cluster
        .refuses_start(3)
        .expect_line_with(&["taken off the cluster", "empty its data directory"]);
    await_in_sync(&cluster, 1, &name, 3);
    cluster.assert_alive();
}

#[test]
fn what_is_left_of_a_replica_that_was_moved_away_meanwhile_goes_with_the_next_start() {
    if is_reference() {
        return;
    }
    let mut cluster = ClusterOptions::shards(&[1; 4]).start();
    let name = unique("left");
    create_replicated(&mut cluster.client(1), &name, 1, 4, &[]);
    for value in ["one", "two"] {
        produce_to_leader(&cluster, &name, 0, &Batch::of([value]));
    }
    await_in_sync(&cluster, 1, &name, 4);
    cluster.kill9(4);
    let files = directory(&cluster, 4, &name, 0);
    assert!(files.exists());
    reassign(&cluster, 1, &name, 0, &[1, 2, 3]);
    cluster.restart(4);
    assert!(!files.exists(), "{}", cluster.stderr(4));

    // Moved back, it is a replica like any other, whatever was there before.
    produce_to_leader(&cluster, &name, 0, &Batch::of(["three"]));
    reassign(&cluster, 1, &name, 0, &[4, 1, 2]);
    cluster.kill9(4);
    cluster.restart(4);
    await_in_sync(&cluster, 4, &name, 3);
    produce_to_leader(&cluster, &name, 0, &Batch::of(["four"]));
    let leader = await_agreement(&cluster, &name, 1)[0].node;
    let values = read_values(&mut cluster.client(leader), &name, 0, 0);
    assert!(["one", "two", "three", "four"].iter().all(|it| values.iter().any(|v| v == it)));
    assert!(files.exists());
}
