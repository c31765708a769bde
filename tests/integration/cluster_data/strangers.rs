//! Who is not let in: whoever comes without its data, or with another cluster's.

use std::fs;

use crate::support::batch::Batch;
use crate::support::cluster::Cluster;
use crate::support::replicated::{
    await_agreement, await_in_sync, create_replicated, produce_to_leader,
};
use crate::support::requests::read_values;
use crate::support::server::is_reference;
use crate::support::{unique, wait_for};

#[test]
fn a_node_without_its_data_is_refused_until_it_brings_it_back() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let name = unique("emptied");
    create_replicated(&mut cluster.client(1), &name, 3, 3, &[]);
    for partition in 0..3 {
        produce_to_leader(&cluster, &name, partition, &Batch::of(["kept"]));
    }
    await_in_sync(&cluster, 1, &name, 3);
    let (node, data) = (2, cluster.data_dir(2));
    cluster.kill9(node);
    let aside = data.with_extension("aside");
    fs::rename(&data, &aside).unwrap();
    refused(&mut cluster, node, "joined with another data directory");

    fs::remove_dir_all(&data).unwrap();
    fs::rename(&aside, &data).unwrap();
    cluster.restart(node);
    await_in_sync(&cluster, node, &name, 3);
    for (partition, leader) in (0..).zip(await_agreement(&cluster, &name, 3)) {
        let values = read_values(&mut cluster.client(leader.node), &name, partition, 0);
        assert_eq!(values[0], "kept", "partition {partition}");
    }
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let (node, data) = (3, cluster.data_dir(3));
    let others = {
        let mut others = Cluster::start();
        others.kill9(node);
        let data = others.data_dir(node);
        let kept = tempfile::tempdir().unwrap();
        fs::rename(data, kept.path().join("data")).unwrap();
        kept
    };
    cluster.stop(node);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(others.path().join("data"), &data).unwrap();
    refused(&mut cluster, node, "is of cluster");
}

/// Starts a node, which its peers refuse with a line that says `reason`; kills it.
fn refused(cluster: &mut Cluster, node: i32, reason: &str) {
    let others: Vec<i32> = cluster.running();
    let before: Vec<usize> = others.iter().map(|id| cluster.stderr(*id).len()).collect();
    wait_for("its peers to know that it is gone", || {
        others.iter().all(|id| !cluster.serving_as_seen_by(*id).contains(&node)).then_some(())
    });
    cluster.spawn(&[node]);
    for (id, before) in others.iter().zip(before) {
        cluster.await_line(*id, before, &["refused", reason]);
    }
    // Clients find nothing of it, and the others go on.
    for id in &others {
        assert!(!cluster.serving_as_seen_by(*id).contains(&node), "node {id} lists it");
    }
    let name = unique("without");
    create_replicated(&mut cluster.client(others[0]), &name, 1, 2, &[]);
    produce_to_leader(cluster, &name, 0, &Batch::of(["without it"]));
    cluster.kill9(node);
}
