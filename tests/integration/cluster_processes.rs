//! Nodes of a cluster as processes: in which order they start, whom they refuse, how they stop.

use std::fs;

use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::server::is_reference;

#[test]
fn nodes_start_in_any_order_and_a_lone_one_can_be_stopped_while_it_waits() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::prepare(ClusterOptions::default());
    cluster.spawn(&[3]);
    cluster.await_line(3, 0, &["waiting for peers"]);
    cluster.stop(3);
    for node in [3, 1, 2] {
        let before = cluster.stderr(node).len();
        cluster.spawn(&[node]);
        cluster.await_line(node, before, &["start: directory and addresses claimed"]);
    }
    cluster.await_serving(&[1, 2, 3]);
    for node in [2, 3, 1] {
        cluster.stop(node);
    }
}

#[test]
fn directories_of_other_nodes_and_clusters_are_refused() {
    if is_reference() {
        return;
    }
    let (mut cluster, mut other) = (Cluster::start(), Cluster::start());
    cluster.stop(3);
    other.stop(3);
    let data = cluster.data_dir(3);
    let aside = data.with_extension("aside");
    fs::rename(&data, &aside).unwrap();

    // Another cluster's: the peers say so, and the node is none of them.
    fs::rename(other.data_dir(3), &data).unwrap();
    cluster.spawn(&[3]);
    cluster.await_line(3, 0, &["it refuses: node 3 is of cluster"]);
    cluster.stop(3);
    fs::rename(&data, other.data_dir(3)).unwrap();

    // A new one: it has forgotten what the node has promised.
    cluster.spawn(&[3]);
    cluster.await_line(3, 0, &["it refuses: node 3 joined with another data directory"]);
    cluster.stop(3);
    fs::remove_dir_all(&data).unwrap();

    // Another node's.
    other.stop(1);
    fs::rename(other.data_dir(1), &data).unwrap();
    cluster.refuses_start(3).expect_line_with(&["belongs to node 1, and this is node 3"]);
    fs::remove_dir_all(&data).unwrap();

    fs::rename(&aside, &data).unwrap();
    cluster.restart(3);
}
