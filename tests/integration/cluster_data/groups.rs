//! Coordinators of groups on several nodes: who answers, and what is there when another one takes over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;

use crate::support::client::Client;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::groups::{
    Member, OFFSETS_TOPIC, await_coordinator, committed, find_coordinator,
};
use crate::support::replicated::{await_in_sync, create_replicated};
use crate::support::requests::{describe_topic, error};
use crate::support::server::is_reference;
use crate::support::{unique, wait_for};

/// Far above what is aimed at, which `tests/figures` prints: this fails only where something waits for a time-out.
const TAKEN_OVER: Duration = Duration::from_secs(15);

fn cluster() -> Cluster {
    ClusterOptions::shards(&[1, 2, 1])
        .kafka("group.initial.rebalance.delay.ms", 0)
        .kafka("offsets.topic.num.partitions", 6)
        .start()
}

/// A connection to the node that coordinates a group, and which node that is.
fn coordinator_of(cluster: &Cluster, asked: i32, group: &str) -> (Client, i32) {
    let mut client = cluster.client(asked);
    await_coordinator(&mut client, group);
    let node = find_coordinator(&mut client, group).node_id;
    (cluster.client(node), node)
}

/// A group of one member, and who coordinates it.
fn group_of_one(cluster: &Cluster) -> (Member, i32) {
    let mut member = Member::new(&unique("group"));
    member.session_timeout_ms = 60_000;
    let (mut client, node) = coordinator_of(cluster, 1, &member.group);
    member.join(&mut client);
    assert_eq!(error(member.sync(&mut client, &[(&member, "all")]).error_code), ErrorCode::None);
    (member, node)
}

#[test]
fn groups_are_spread_over_the_nodes_and_only_their_coordinator_answers() {
    if is_reference() {
        return;
    }
    let cluster = cluster();
    let members: Vec<(Member, i32)> = (0..12).map(|_| group_of_one(&cluster)).collect();
    let topic = describe_topic(&mut cluster.client(2), OFFSETS_TOPIC);
    assert_eq!(topic.partitions.len(), 6);
    assert!(topic.partitions.iter().all(|partition| partition.replica_nodes.len() == 3));
    let nodes: BTreeSet<i32> = members.iter().map(|(_, node)| *node).collect();
    assert!(nodes.len() > 1, "one node coordinates everything");
    for (member, node) in &members {
        for asked in cluster.ids() {
            let expected = if asked == *node { ErrorCode::None } else { ErrorCode::NotCoordinator };
            assert_eq!(member.heartbeat(&mut cluster.client(asked)), expected, "node {asked}");
        }
    }
}

#[test]
fn another_node_takes_over_with_members_and_offsets_when_a_coordinator_is_killed() {
    if is_reference() {
        return;
    }
    let mut cluster = cluster();
    let topic = unique("topic");
    create_replicated(&mut cluster.client(1), &topic, 1, 3, &[]);
    let members: Vec<(Member, i32)> = (0..12).map(|_| group_of_one(&cluster)).collect();
    await_in_sync(&cluster, 1, OFFSETS_TOPIC, 3);
    for (offset, (member, node)) in (100..).zip(&members) {
        let code = member.commit(&mut cluster.client(*node), &topic, 0, offset);
        assert_eq!(code, ErrorCode::None);
    }
    let killed = members[0].1;
    let asked = cluster.ids().find(|node| *node != killed).unwrap();
    cluster.kill9(killed);
    let begun = Instant::now();
    for (offset, (member, node)) in (100..).zip(&members) {
        if *node != killed {
            assert_eq!(member.heartbeat(&mut cluster.client(*node)), ErrorCode::None);
            continue;
        }
        // Until the others know of it they may name the one that was killed.
        let mut client = wait_for("another coordinator", || {
            let (client, now) = next_coordinator(&cluster, asked, &member.group)?;
            (now != killed).then_some(client)
        });
        wait_for("the member to be known", || {
            let code = member.heartbeat(&mut client);
            assert!(code == ErrorCode::None || code.is_retriable(), "{code:?}");
            (code == ErrorCode::None).then_some(())
        });
        assert_eq!(committed(&mut client, &member.group, &topic, 0), offset);
        let next = wait_for("a commit to be taken", || {
            let code = member.commit(&mut client, &topic, 0, offset + 1);
            assert!(code == ErrorCode::None || code.is_retriable(), "{code:?}");
            (code == ErrorCode::None).then_some(offset + 1)
        });
        assert_eq!(committed(&mut client, &member.group, &topic, 0), next);
    }
    assert!(begun.elapsed() < TAKEN_OVER, "after {:?}", begun.elapsed());
}

fn next_coordinator(cluster: &Cluster, asked: i32, group: &str) -> Option<(Client, i32)> {
    let found = find_coordinator(&mut cluster.client(asked), group);
    if found.error_code != 0 || !cluster.running().contains(&found.node_id) {
        return None;
    }
    Some((cluster.client(found.node_id), found.node_id))
}

#[test]
fn a_coordinator_that_is_deposed_tells_whoever_waits() {
    if is_reference() {
        return;
    }
    let mut cluster = cluster();
    let (member, node) = group_of_one(&cluster);
    await_in_sync(&cluster, 1, OFFSETS_TOPIC, 3);
    // A second member waits for the first, which says nothing.
    let mut second = Member::new(&member.group);
    second.session_timeout_ms = 60_000;
    let mut client = cluster.client(node);
    second.introduce(&mut client);
    client.send(9, &second.join_request());
    cluster.begin_stop(node);
    let answer: Option<chronik_protocol::messages::join_group_response::JoinGroupResponse> =
        client.try_receive().ok();
    if let Some(answer) = answer {
        assert_eq!(error(answer.error_code), ErrorCode::NotCoordinator);
    }
    cluster.await_end(node);
    let asked = cluster.ids().find(|other| *other != node).unwrap();
    wait_for("the next coordinator to know the group", || {
        let (mut client, _) = next_coordinator(&cluster, asked, &member.group)?;
        let code = member.heartbeat(&mut client);
        // The rebalance that was under way is not: the group is as it was.
        (code == ErrorCode::None).then_some(())
    });
}
