//! What holds while nodes are away, and when they are back.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use chronik_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use super::{fetch_in_rack, grow};
use crate::support::batch::{Batch, Stored};
use crate::support::client::Client;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::replicated::{
    await_agreement, await_in_sync, create_replicated, leaders, produce_to_leader,
};
use crate::support::requests::{
    PRODUCE_BY_NAME, batches, delete_topic, describe_topic, error, expect_error, high_watermark,
    produce_bytes, produce_request, produced, read_batches,
};
use crate::support::server::is_reference;
use crate::support::{unique, wait_for};

const TOPIC_RESOURCE: i8 = 2;
const SET: i8 = 0;

#[test]
fn too_few_in_sync_replicas_refuse_before_the_append() {
    if is_reference() {
        return;
    }
    // Of five nodes two may go, and the others still decide who is in sync.
    let mut cluster = ClusterOptions::shards(&[1; 5]).start();
    let name = unique("too-few");
    create_replicated(&mut cluster.client(1), &name, 1, 3, &[]);
    produce_to_leader(&cluster, &name, 0, &Batch::of(["all there"]));
    let leader = await_agreement(&cluster, &name, 1)[0].node;
    let mut client = cluster.client(leader);
    let end = high_watermark(&mut client, &name, 0);
    let replicas = describe_topic(&mut client, &name).partitions[0].replica_nodes.clone();
    let others: Vec<i32> = replicas.into_iter().filter(|id| *id != leader).collect();
    cluster.kill9_at_once(&others);
    await_in_sync(&cluster, leader, &name, 1);

    wait_for("the leader to know that it is alone", || {
        let answer = produce_bytes(&mut client, &name, 0, -1, Batch::of(["refused"]).encode());
        assert_ne!(error(answer.error_code), ErrorCode::None, "one replica is not enough");
        (error(answer.error_code) == ErrorCode::NotEnoughReplicas).then_some(())
    });
    // What was on its way when the others went may be in the log; what is refused from now on is not.
    let answer = produce_bytes(&mut client, &name, 0, 1, Batch::of(["leader alone"]).encode());
    expect_error(answer.error_code, ErrorCode::None, "acks=1");
    assert!(answer.base_offset >= end);
    for _ in 0..3 {
        let refused = produce_bytes(&mut client, &name, 0, -1, Batch::of(["refused"]).encode());
        expect_error(refused.error_code, ErrorCode::NotEnoughReplicas, "acks=all");
    }
    let next = produce_bytes(&mut client, &name, 0, 1, Batch::of(["leader alone"]).encode());
    assert_eq!(next.base_offset, answer.base_offset + 1, "nothing was appended in between");

    cluster.restart(others[0]);
    await_in_sync(&cluster, leader, &name, 2);
    produce_to_leader(&cluster, &name, 0, &Batch::of(["two are enough"]));
}

#[test]
fn one_of_three_acknowledges_nothing_for_all() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let name = unique("one-of-three");
    create_replicated(&mut cluster.client(1), &name, 1, 3, &[]);
    produce_to_leader(&cluster, &name, 0, &Batch::of(["before"]));
    let leader = await_agreement(&cluster, &name, 1)[0].node;
    let others: Vec<i32> = cluster.ids().filter(|id| *id != leader).collect();
    cluster.kill9_at_once(&others);
    let mut request = produce_request(&name, 0, -1, Batch::of(["alone"]).encode());
    request.timeout_ms = 1500;
    let answer = produced(cluster.client(leader).call(PRODUCE_BY_NAME, &request));
    let code = error(answer.error_code);
    assert!(code != ErrorCode::None && code.is_retriable(), "{code:?}");

    cluster.spawn(&others);
    cluster.await_serving(&others);
    let base = produce_to_leader(&cluster, &name, 0, &Batch::of(["together again"]));
    let leader = await_agreement(&cluster, &name, 1)[0].node;
    let stored = read_batches(&mut cluster.client(leader), &name, 0, 0);
    assert!(stored.iter().any(|batch| batch.base_offset == base));
}

#[test]
fn a_stop_waits_for_no_replica_that_does_not_answer() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let name = unique("stop");
    create_replicated(&mut cluster.client(1), &name, 1, 3, &[]);
    produce_to_leader(&cluster, &name, 0, &Batch::of(["before"]));
    await_in_sync(&cluster, 1, &name, 3);
    let leader = await_agreement(&cluster, &name, 1)[0].node;
    let others: Vec<i32> = cluster.ids().filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.freeze(*id));

    // One waits for all, and is known to be in the log when the offsets of others leave its place out.
    let mut client = cluster.client(leader);
    let own = |client: &mut Client| {
        produce_bytes(client, &name, 0, 1, Batch::of(["leader alone"]).encode()).base_offset
    };
    let mut last = own(&mut client);
    let mut waiting = cluster.client(leader);
    let request = produce_request(&name, 0, -1, Batch::of(["for all"]).encode());
    let waits = std::thread::spawn(move || produced(waiting.call(PRODUCE_BY_NAME, &request)));
    wait_for("a batch that waits", || {
        let offset = own(&mut client);
        let before = std::mem::replace(&mut last, offset);
        (offset > before + 1).then_some(())
    });
    cluster.begin_stop(leader);
    expect_error(waits.join().unwrap().error_code, ErrorCode::NotLeaderOrFollower, "the stop");
    cluster.await_end(leader);
    assert!(!cluster.stderr(leader).contains("cut off by the stop"));
    others.iter().for_each(|id| cluster.thaw(*id));
}

#[test]
fn nodes_that_are_all_stopped_do_not_wait_for_each_other() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let name = unique("all-stop");
    create_replicated(&mut cluster.client(1), &name, 3, 3, &[]);
    for round in 0..3 {
        for partition in 0..3 {
            produce_to_leader(&cluster, &name, partition, &Batch::of([format!("{round}")]));
        }
        cluster.stop_all();
        for id in cluster.ids() {
            let said = cluster.stderr(id);
            assert!(!said.contains("the peers are not told"), "node {id}:\n{said}");
        }
        let all: Vec<i32> = cluster.ids().collect();
        cluster.spawn(&all);
        cluster.await_serving(&all);
    }
    for partition in 0..3 {
        let leader = await_agreement(&cluster, &name, 3)[partition as usize].node;
        // Readable is what the others are known to have.
        wait_for("all records to be readable", || {
            let stored = read_batches(&mut cluster.client(leader), &name, partition, 0);
            (stored.len() >= 3).then_some(())
        });
    }
}

#[test]
fn a_node_that_was_away_catches_up_and_rejoins() {
    if is_reference() {
        return;
    }
    let mut cluster = ClusterOptions::shards(&[2; 3]).start();
    let (name, partitions) = (unique("back"), 3);
    // Segments roll while it is away.
    create_replicated(&mut cluster.client(1), &name, partitions, 3, &[("segment.bytes", "100000")]);
    for gone in cluster.ids() {
        for partition in 0..partitions {
            produce_to_leader(&cluster, &name, partition, &Batch::of(["before"]));
        }
        cluster.kill9(gone);
        for round in 0..20 {
            for partition in 0..partitions {
                let batch = Batch::of_size(10_000 + round);
                produce_to_leader(&cluster, &name, partition, &batch);
            }
        }
        let shards = gone as u16 + 1;
        cluster.set_shards(gone, shards);
        cluster.restart(gone);
        await_in_sync(&cluster, gone, &name, 3);
        for (partition, leader) in (0..).zip(await_agreement(&cluster, &name, 3)) {
            let stored = read_batches(&mut cluster.client(leader.node), &name, partition, 0);
            let copy = replica(&mut cluster.client(gone), &name, partition, stored.len());
            let same = stored.iter().zip(&copy).all(|(one, other)| one.bytes == other.bytes);
            assert!(same, "{partition} on node {gone}");
        }
    }
}

/// The first `count` batches of a replica.
fn replica(client: &mut Client, name: &str, partition: i32, count: usize) -> Vec<Stored> {
    let mut found: Vec<Stored> = Vec::new();
    wait_for("batches of a replica", || {
        let next = found.last().map_or(0, |batch| batch.last_offset() + 1);
        let data = fetch_in_rack(client, name, partition, next, "");
        expect_error(data.error_code, ErrorCode::None, name);
        found.extend(batches(&data));
        (found.len() >= count).then_some(())
    });
    found
}

#[test]
fn what_is_changed_while_a_node_is_away_holds_when_it_is_back() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let [deleted, renewed, grown, created] = ["deleted", "renewed", "grown", "created"].map(unique);
    for name in [&deleted, &renewed, &grown] {
        create_replicated(&mut cluster.client(1), name, 3, 3, &[]);
        for partition in 0..3 {
            produce_to_leader(&cluster, name, partition, &Batch::of(["before"]));
        }
        await_in_sync(&cluster, 1, name, 3);
    }
    let gone = 3;
    cluster.kill9(gone);
    let mut client = cluster.client(1);
    // Without the leader of some partitions these changes are possible all the same.
    assert_eq!(delete_topic(&mut client, &deleted), ErrorCode::None);
    assert_eq!(delete_topic(&mut client, &renewed), ErrorCode::None);
    create_replicated(&mut client, &renewed, 3, 3, &[]);
    create_replicated(&mut client, &created, 2, 3, &[]);
    grow(&mut client, &grown, 5);
    configure(&mut client, &grown, "max.message.bytes", "4321");
    let base = produce_to_leader(&cluster, &renewed, 0, &Batch::of(["after"]));
    assert_eq!(base, 0, "a topic of the same name is another one");

    cluster.restart(gone);
    let mut client = cluster.client(gone);
    for (name, partitions) in [(&renewed, 3), (&created, 2), (&grown, 5)] {
        await_in_sync(&cluster, gone, name, 3);
        assert_eq!(leaders(&mut client, name).len(), partitions);
        for partition in 0..partitions as i32 {
            produce_to_leader(&cluster, name, partition, &Batch::of(["with all"]));
        }
    }
    let code = describe_topic(&mut client, &deleted).error_code;
    expect_error(code, ErrorCode::UnknownTopicOrPartition, "a topic that was deleted meanwhile");
    assert_eq!(configured(&mut client, &grown, "max.message.bytes").as_deref(), Some("4321"));
    let topics = cluster.data_dir(gone).join("topics");
    wait_for("the deleted topic's files to go", || {
        let names = std::fs::read_dir(&topics).unwrap().map(|it| it.unwrap().file_name());
        let is_gone = |name: std::ffi::OsString| !name.to_string_lossy().starts_with(&deleted);
        names.into_iter().all(is_gone).then_some(())
    });
    let first = &replica(&mut client, &renewed, 0, 1)[0].records()[0].1;
    assert_eq!(first.value.as_deref(), Some(&b"after"[..]), "nothing of the topic before it");
}

fn configure(client: &mut Client, topic: &str, name: &str, value: &str) {
    let config = AlterableConfig {
        name: name.into(),
        config_operation: SET,
        value: Some(value.into()),
        ..AlterableConfig::default()
    };
    let resource = AlterConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: topic.into(),
        configs: vec![config],
        ..AlterConfigsResource::default()
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = client.call(1, &request);
    expect_error(response.responses[0].error_code, ErrorCode::None, "a setting");
}

fn configured(client: &mut Client, topic: &str, name: &str) -> Option<String> {
    let resource = DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: topic.into(),
        configuration_keys: Some(vec![name.into()]),
        ..DescribeConfigsResource::default()
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = client.call(4, &request);
    response.results[0].configs[0].value.as_ref().map(|value| value.to_string())
}
