//! What nodes of a cluster tell those who watch them.

use chronik_protocol::ErrorCode;

use crate::support::batch::Batch;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::groups::{
    OFFSETS_TOPIC, await_coordinator, commit_request, committed, find_coordinator,
};
use crate::support::metrics::{Scrape, await_scrape, get, scrape};
use crate::support::replicated::{
    await_agreement, await_in_sync, create_replicated, leaders, produce_to_leader,
};
use crate::support::requests::{error, high_watermark};
use crate::support::server::is_reference;
use crate::support::{unique, wait_for};

fn cluster() -> Cluster {
    ClusterOptions::shards(&[1, 2, 1]).kafka("offsets.topic.num.partitions", 3).metrics().start()
}

/// Commits an offset of a group that has no members; answers with the node that coordinates it.
fn commit(cluster: &Cluster, group: &str, topic: &str, partition: i32, offset: i64) -> i32 {
    let mut client = cluster.client(cluster.running()[0]);
    await_coordinator(&mut client, group);
    wait_for("a commit to be taken", || {
        let node = find_coordinator(&mut client, group).node_id;
        let request = commit_request(group, topic, partition, offset);
        let response = cluster.client(node).call(9, &request);
        let code = error(response.topics[0].partitions[0].error_code);
        (code == ErrorCode::None).then_some(node)
    })
}

fn value_at(cluster: &Cluster, node: i32, what: &str, of: impl Fn(&Scrape) -> bool) {
    await_scrape(cluster.metrics_address(node), &format!("node {node}: {what}"), |scrape| {
        of(scrape).then_some(())
    });
}

#[test]
fn the_lag_of_a_group_is_told_by_its_coordinator_whoever_leads_the_partitions() {
    if is_reference() {
        return;
    }
    let mut cluster = cluster();
    let (topic, lonely) = (unique("topic"), unique("lonely"));
    create_replicated(&mut cluster.client(1), &topic, 3, 3, &[]);
    create_replicated(&mut cluster.client(1), &lonely, 3, 1, &[]);
    let led = await_agreement(&cluster, &topic, 3);
    let alone = await_agreement(&cluster, &lonely, 3);
    for partition in 0..3 {
        produce_to_leader(&cluster, &topic, partition, &Batch::of(["a", "b", "c"]));
        produce_to_leader(&cluster, &lonely, partition, &Batch::of(["a", "b"]));
    }
    let group = unique("group");
    let mut coordinator = 0;
    for partition in 0..3 {
        coordinator = commit(&cluster, &group, &topic, partition, 1);
        assert_eq!(commit(&cluster, &group, &lonely, partition, 1), coordinator);
    }
    for partition in 0..3_i32 {
        let leader = led[usize::try_from(partition).unwrap()].node;
        let end = high_watermark(&mut cluster.client(leader), &topic, partition);
        let at = committed(&mut cluster.client(coordinator), &group, &topic, partition);
        let name = partition.to_string();
        let labels = [("group", &*group), ("topic", &*topic), ("partition", name.as_str())];
        value_at(&cluster, coordinator, "lag of a partition with replicas everywhere", |scrape| {
            scrape.value("chronik_group_committed_offset", &labels) == Some(at as f64)
                && scrape.value("chronik_group_lag_records", &labels) == Some((end - at) as f64)
        });
        // Of a partition that is elsewhere alone the leader tells the one half, the coordinator the other.
        let labels = [("group", &*group), ("topic", &*lonely), ("partition", name.as_str())];
        let leader = alone[usize::try_from(partition).unwrap()].node;
        let expected = (leader == coordinator).then_some(1.0);
        value_at(&cluster, coordinator, "committed offset", |scrape| {
            scrape.value("chronik_group_committed_offset", &labels) == Some(1.0)
                && scrape.value("chronik_group_lag_records", &labels) == expected
        });
        value_at(&cluster, leader, "high watermark", |scrape| {
            let labels = [("topic", &*lonely), ("partition", name.as_str())];
            scrape.value("chronik_partition_high_watermark_offset", &labels) == Some(2.0)
        });
    }
    for node in cluster.ids().filter(|node| *node != coordinator) {
        let found = scrape(cluster.metrics_address(node));
        assert_eq!(found.count("chronik_group_committed_offset", &[]), 0, "node {node}");
    }
    // The next coordinator tells, and goes on with what is produced then.
    await_in_sync(&cluster, 1, OFFSETS_TOPIC, 3);
    await_in_sync(&cluster, 1, &topic, 3);
    cluster.kill9(coordinator);
    let asked = cluster.running()[0];
    let next = wait_for("another coordinator", || {
        let found = find_coordinator(&mut cluster.client(asked), &group);
        let is_other = found.error_code == 0 && cluster.running().contains(&found.node_id);
        is_other.then_some(found.node_id)
    });
    produce_to_leader(&cluster, &topic, 0, &Batch::of(["d"]));
    let labels = [("group", &*group), ("topic", &*topic), ("partition", "0")];
    value_at(&cluster, next, "lag after a failover", |scrape| {
        scrape.value("chronik_group_lag_records", &labels) == Some(3.0)
    });
}

#[test]
fn what_is_under_replicated_and_what_nobody_leads_is_told() {
    if is_reference() {
        return;
    }
    let mut cluster = cluster();
    let (topic, lonely) = (unique("topic"), unique("lonely"));
    create_replicated(&mut cluster.client(1), &topic, 3, 3, &[("min.insync.replicas", "3")]);
    create_replicated(&mut cluster.client(1), &lonely, 3, 1, &[]);
    await_agreement(&cluster, &topic, 3);
    let alone = await_agreement(&cluster, &lonely, 3);
    await_in_sync(&cluster, 1, &topic, 3);
    for node in cluster.ids() {
        value_at(&cluster, node, "everything to be well", |scrape| {
            scrape.sum("chronik_under_replicated_partitions", &[]) == 0.0
                && scrape.sum("chronik_under_min_isr_partitions", &[]) == 0.0
                && scrape.value("chronik_offline_partitions", &[]) == Some(0.0)
                && scrape.value("chronik_cluster_nodes", &[("state", "serving")]) == Some(3.0)
        });
    }
    let told = |cluster: &Cluster, name: &str| -> f64 {
        let nodes = cluster.running().into_iter();
        nodes.map(|node| scrape(cluster.metrics_address(node)).sum(name, &[])).sum()
    };
    assert_eq!(told(&cluster, "chronik_controller_active"), 1.0);
    assert_eq!(told(&cluster, "chronik_led_partitions"), 6.0);
    assert_eq!(told(&cluster, "chronik_partitions"), 12.0);

    let killed = alone[0].node;
    cluster.kill9(killed);
    let asked = cluster.running()[0];
    wait_for("others to lead", || {
        let led = leaders(&mut cluster.client(asked), &topic);
        led.iter().all(|leader| leader.is_some_and(|it| it.node != killed)).then_some(())
    });
    wait_for("three partitions without one of their replicas", || {
        let is_so = told(&cluster, "chronik_under_replicated_partitions") == 3.0
            && told(&cluster, "chronik_under_min_isr_partitions") == 3.0;
        is_so.then_some(())
    });
    for node in cluster.running() {
        value_at(&cluster, node, "one partition without a leader", |scrape| {
            scrape.value("chronik_offline_partitions", &[]) == Some(1.0)
                && scrape.value("chronik_cluster_nodes", &[("state", "fenced")]) == Some(1.0)
        });
    }
    let before = told(&cluster, "chronik_isr_expands_total");
    cluster.restart(killed);
    await_in_sync(&cluster, asked, &topic, 3);
    wait_for("in-sync sets that were told to grow", || {
        (told(&cluster, "chronik_isr_expands_total") >= before + 3.0).then_some(())
    });
    wait_for("one controller", || {
        (told(&cluster, "chronik_controller_active") == 1.0).then_some(())
    });
}

#[test]
fn a_node_without_a_majority_lives_and_is_not_ready() {
    if is_reference() {
        return;
    }
    let mut cluster = cluster();
    for node in cluster.ids() {
        wait_for("every node to be ready", || {
            (get(cluster.metrics_address(node), "/health/ready").0 == 200).then_some(())
        });
    }
    cluster.kill9(2);
    cluster.kill9(3);
    wait_for("the last one to see that it is alone", || {
        (get(cluster.metrics_address(1), "/health/ready").0 == 503).then_some(())
    });
    assert_eq!(get(cluster.metrics_address(1), "/health/live").0, 200);
    cluster.spawn(&[2, 3]);
    cluster.await_serving(&[1, 2, 3]);
    wait_for("it to be ready again", || {
        (get(cluster.metrics_address(1), "/health/ready").0 == 200).then_some(())
    });
}
