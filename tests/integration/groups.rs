//! Consumer groups: coordinators, members, offsets; what survives a kill. Source: KIP-62, KIP-345, KIP-848.

use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use chronik_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use chronik_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use chronik_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use chronik_protocol::messages::list_config_resources_request::ListConfigResourcesRequest;
use chronik_protocol::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup,
};

use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::groups::{
    ConsumerMember, Member, OFFSETS_TOPIC, await_coordinator, commit_request, committed,
    delete_group, describe_group, find_coordinator, list_groups,
};
use crate::support::requests::{create_topic, describe_topic, error, expect_error, produce_bytes};
use crate::support::server::{Options, Server};
use crate::support::{unique, wait_for};

fn server(shards: u16) -> Server {
    Options::shards(shards)
        .kafka("group.initial.rebalance.delay.ms", 0)
        .kafka("group.min.session.timeout.ms", 100)
        .start()
}

/// A group of one member, which has everything.
fn group_of_one(client: &mut Client) -> Member {
    let mut member = Member::new(&unique("group"));
    await_coordinator(client, &member.group);
    let joined = member.join(client);
    assert_eq!(joined.leader, member.member_id);
    let synced = member.sync(client, &[(&member, "all")]);
    expect_error(synced.error_code, ErrorCode::None, "SyncGroup");
    assert_eq!(&synced.assignment[..], b"all");
    member
}

#[test]
fn the_first_who_looks_for_a_coordinator_finds_the_topic_of_groups_created() {
    let server = Options::shards(2).kafka("offsets.topic.segment.bytes", 1 << 20).start();
    let mut client = server.client();
    expect_error(
        describe_topic(&mut client, OFFSETS_TOPIC).error_code,
        ErrorCode::UnknownTopicOrPartition,
        "before anybody has asked",
    );
    let (_, node_id) = server.identity();
    for version in 0..=6 {
        let mut request = FindCoordinatorRequest { key: "group".into(), ..Default::default() };
        if version >= 4 {
            request = FindCoordinatorRequest {
                coordinator_keys: vec!["group".into(), "other".into()],
                ..Default::default()
            };
        }
        let found = client.call(version, &request);
        let nodes: Vec<i32> = match version {
            ..4 => vec![found.node_id],
            _ => found.coordinators.iter().map(|it| it.node_id).collect(),
        };
        assert!(nodes.iter().all(|node| *node == node_id), "version {version}: {found:?}");
    }
    let topic = describe_topic(&mut client, OFFSETS_TOPIC);
    assert!(topic.is_internal);
    assert_eq!(topic.partitions.len(), 50);
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: OFFSETS_TOPIC.into(),
            configuration_keys: Some(vec!["cleanup.policy".into(), "segment.bytes".into()]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let configs = client.call(4, &request).results.remove(0).configs;
    let values: Vec<_> = configs.iter().map(|config| config.value.as_deref().unwrap()).collect();
    assert_eq!(values, ["compact", "1048576"]);
}

#[test]
fn without_as_many_nodes_as_replicas_nobody_coordinates() {
    let server = Options::default().kafka("offsets.topic.replication.factor", 2).start();
    let found = find_coordinator(&mut server.client(), "group");
    expect_error(found.error_code, ErrorCode::CoordinatorNotAvailable, "FindCoordinator");
    assert_eq!(found.node_id, -1);
}

#[test]
fn clients_do_not_write_to_the_topic_of_groups() {
    let server = server(1);
    let mut client = server.client();
    await_coordinator(&mut client, "group");
    let produced = produce_bytes(&mut client, OFFSETS_TOPIC, 0, -1, Batch::of(["x"]).encode());
    expect_error(produced.error_code, ErrorCode::InvalidTopicException, "Produce");
}

#[test]
fn a_member_joins_commits_and_leaves() {
    let server = server(2);
    let mut client = server.client();
    let topic = unique("topic");
    create_topic(&mut client, &topic, 2);
    let member = group_of_one(&mut client);
    assert_eq!(member.generation, 1);
    assert_eq!(member.heartbeat(&mut client), ErrorCode::None);
    assert_eq!(member.commit(&mut client, &topic, 1, 42), ErrorCode::None);
    assert_eq!(member.commit(&mut client, &topic, 2, 42), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(committed(&mut client, &member.group, &topic, 1), 42);
    assert_eq!(committed(&mut client, &member.group, &topic, 0), -1);
    let described = describe_group(&mut client, &member.group);
    assert_eq!((&*described.group_state, described.members.len()), ("Stable", 1));
    assert_eq!(described.members[0].client_host, "/127.0.0.1");
    assert_eq!(described.members[0].client_id, "chronik-tests");
    let listed = list_groups(&mut client, &["stable"], &["classic"]);
    assert_eq!(listed.groups.len(), 1);
    assert_eq!(listed.groups[0].group_id, member.group.as_str());
    assert_eq!(list_groups(&mut client, &["Empty"], &[]).groups.len(), 0);
    assert_eq!(delete_group(&mut client, &member.group), ErrorCode::NonEmptyGroup);
    assert_eq!(member.leave(&mut client), ErrorCode::None);
    assert_eq!(member.heartbeat(&mut client), ErrorCode::UnknownMemberId);
    assert_eq!(describe_group(&mut client, &member.group).group_state, "Empty");
}

#[test]
fn a_second_member_has_the_first_join_again_and_a_silent_one_is_given_up() {
    let server = server(2);
    let (mut client, mut other) = (server.client(), server.client());
    let mut first = group_of_one(&mut client);
    let mut second = Member::new(&first.group);
    second.session_timeout_ms = 1_000;
    second.introduce(&mut other);
    other.send(9, &second.join_request());
    wait_for("the first member to learn of it", || {
        (first.heartbeat(&mut client) == ErrorCode::RebalanceInProgress).then_some(())
    });
    let joined = first.join(&mut client);
    assert_eq!(joined.members.len(), 2, "the leader learns of both");
    second.joined(&other.receive());
    assert_eq!((first.generation, second.generation), (2, 2));
    other.send(5, &second.sync_request(&[]));
    let parts = [(&first, "half"), (&second, "other half")];
    assert_eq!(&first.sync(&mut client, &parts).assignment[..], b"half");
    let synced: chronik_protocol::messages::sync_group_response::SyncGroupResponse =
        other.receive();
    assert_eq!(&synced.assignment[..], b"other half");
    // Its connection stays; what counts is that it says nothing.
    wait_for("the second member to be given up", || {
        (first.heartbeat(&mut client) == ErrorCode::RebalanceInProgress).then_some(())
    });
    assert_eq!(first.join(&mut client).members.len(), 1);
    assert_eq!(second.heartbeat(&mut other), ErrorCode::UnknownMemberId);
}

#[test]
fn groups_and_offsets_survive_a_kill() {
    let mut server = server(2);
    let mut client = server.client();
    let topic = unique("topic");
    create_topic(&mut client, &topic, 1);
    let members: Vec<Member> = (0..20).map(|_| group_of_one(&mut client)).collect();
    for (offset, member) in (100..).zip(&members) {
        assert_eq!(member.commit(&mut client, &topic, 0, offset), ErrorCode::None);
    }
    for _ in 0..2 {
        server.kill9();
        server.restart();
        let mut client = server.client();
        for (offset, member) in (100..).zip(&members) {
            assert_eq!(committed(&mut client, &member.group, &topic, 0), offset);
            assert_eq!(member.heartbeat(&mut client), ErrorCode::None, "in the same generation");
        }
        assert_eq!(list_groups(&mut client, &[], &[]).groups.len(), members.len());
    }
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut server = server(1);
    let mut client = server.client();
    let mut member = Member::new(&unique("static"));
    member.instance_id = Some("one".into());
    await_coordinator(&mut client, &member.group);
    member.join(&mut client);
    member.sync(&mut client, &[(&member, "all")]);
    server.kill9();
    server.restart();
    let mut client = server.client();
    let mut again = Member { member_id: "".into(), ..member.clone() };
    let joined = wait_for("the coordinator to have loaded", || {
        let joined = client.call(9, &again.join_request());
        (!error(joined.error_code).is_retriable()).then_some(joined)
    });
    again.joined(&joined);
    assert_eq!(again.generation, member.generation, "nobody rebalances");
    assert_eq!(&again.sync(&mut client, &[]).assignment[..], b"all");
    assert_eq!(member.heartbeat(&mut client), ErrorCode::FencedInstanceId);
}

#[test]
fn whoever_waits_for_others_learns_that_the_server_stops() {
    let mut server = Options::shards(2).kafka("group.initial.rebalance.delay.ms", 60_000).start();
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        let mut member = Member::new(&unique("waits"));
        await_coordinator(client, &member.group);
        member.introduce(client);
        client.send(9, &member.join_request());
    }
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(8), "nobody is waited for");
}

#[test]
fn offsets_are_committed_fetched_and_deleted_without_members() {
    let server = server(2);
    let mut client = server.client();
    let (topic, group) = (unique("topic"), unique("simple"));
    create_topic(&mut client, &topic, 3);
    await_coordinator(&mut client, &group);
    for version in 2..=9 {
        let offset = i64::from(version) * 10;
        let response = client.call(version, &commit_request(&group, &topic, 0, offset));
        expect_error(response.topics[0].partitions[0].error_code, ErrorCode::None, "OffsetCommit");
        assert_eq!(committed(&mut client, &group, &topic, 0), offset, "version {version}");
    }
    let topic_id = describe_topic(&mut client, &topic).topic_id;
    let mut by_id = commit_request(&group, &topic, 2, 7);
    by_id.topics[0].topic_id = topic_id;
    let response = client.call(10, &by_id);
    expect_error(response.topics[0].partitions[0].error_code, ErrorCode::None, "OffsetCommit 10");
    // Everything that the group has, in a version that names topics by name and in one that does not.
    let all = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.as_str().into(),
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in [8, 9, 10] {
        let found = client.call(version, &all).groups.remove(0);
        let found = &found.topics[0];
        let offsets: Vec<i64> = found.partitions.iter().map(|it| it.committed_offset).collect();
        assert_eq!(offsets, [90, 7], "version {version}");
        assert_eq!(found.partitions[0].metadata.as_deref(), Some("kept"));
        let is_named =
            if version >= 10 { found.topic_id == topic_id } else { *found.name == *topic };
        assert!(is_named, "version {version}: {found:?}");
    }
    let forget = OffsetDeleteRequest {
        group_id: group.as_str().into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.as_str().into(),
            partitions: [0, 9]
                .map(|partition_index| OffsetDeleteRequestPartition { partition_index })
                .into(),
        }],
    };
    let deleted = client.call(0, &forget);
    let codes: Vec<_> =
        deleted.topics[0].partitions.iter().map(|it| error(it.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(committed(&mut client, &group, &topic, 0), -1);
    assert_eq!(committed(&mut client, &group, &topic, 2), 7);
    assert_eq!(delete_group(&mut client, &group), ErrorCode::None);
    assert_eq!(committed(&mut client, &group, &topic, 2), -1);
    assert_eq!(delete_group(&mut client, &group), ErrorCode::GroupIdNotFound);
    let gone = describe_group(&mut client, &group);
    assert_eq!((error(gone.error_code), &*gone.group_state), (ErrorCode::GroupIdNotFound, "Dead"));
}

#[test]
fn offsets_of_a_topic_go_with_it() {
    let server = server(2);
    let mut client = server.client();
    let (topic, group) = (unique("topic"), unique("simple"));
    create_topic(&mut client, &topic, 1);
    await_coordinator(&mut client, &group);
    committed(&mut client, &group, &topic, 0);
    client.call(9, &commit_request(&group, &topic, 0, 5));
    assert_eq!(committed(&mut client, &group, &topic, 0), 5);
    crate::support::requests::delete_topic(&mut client, &topic);
    wait_for("the offset to be gone", || {
        (committed(&mut client, &group, &topic, 0) == -1).then_some(())
    });
}

#[test]
fn members_of_a_consumer_group_share_partitions_that_the_coordinator_assigns() {
    let mut server = server(2);
    let mut client = server.client();
    let (topic, group) = (unique("topic"), unique("consumers"));
    create_topic(&mut client, &topic, 4);
    await_coordinator(&mut client, &group);
    let mut first = ConsumerMember::new(&group, "first");
    let joined = wait_for("the coordinator to have loaded", || {
        let joined = first.beat(&mut client, &[&topic]);
        (joined.error_code == 0).then_some(joined)
    });
    let count = |response: &chronik_protocol::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse| {
        let assignment = response.assignment.as_ref().expect("an assignment");
        assignment.topic_partitions.iter().map(|it| it.partitions.len()).sum::<usize>()
    };
    assert_eq!(count(&joined), 4);
    let mut second = ConsumerMember::new(&group, "second");
    assert_eq!(count(&second.beat(&mut client, &[&topic])), 0, "the first has not given up any");
    let kept = first.beat(&mut client, &[]);
    assert_eq!(count(&kept), 2);
    server.kill9();
    server.restart();
    let mut client = server.client();
    wait_for("the coordinator to have loaded", || {
        (first.beat(&mut client, &[]).error_code == 0).then_some(())
    });
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![group.as_str().into()],
        ..Default::default()
    };
    let described = client.call(1, &request).groups.remove(0);
    assert_eq!((described.members.len(), &*described.group_state), (2, "Reconciling"));
    let names: Vec<_> = described
        .members
        .iter()
        .flat_map(|it| &it.assignment.topic_partitions)
        .map(|it| it.topic_name.clone())
        .collect();
    assert!(names.iter().all(|name| *name == *topic), "{names:?}");
    assert_eq!(list_groups(&mut client, &[], &["consumer"]).groups.len(), 1);
}

#[test]
fn a_group_has_times_of_its_own() {
    let mut server = server(2);
    let mut client = server.client();
    let (topic, group) = (unique("topic"), unique("own-times"));
    create_topic(&mut client, &topic, 1);
    await_coordinator(&mut client, &group);
    let interval = |client: &mut Client, member: &mut ConsumerMember| {
        wait_for("the coordinator to have loaded", || {
            let beat = member.beat(client, &[&topic]);
            (beat.error_code == 0).then_some(beat.heartbeat_interval_ms)
        })
    };
    let mut member = ConsumerMember::new(&group, "m");
    assert_eq!(interval(&mut client, &mut member), 5000);
    let key = "consumer.heartbeat.interval.ms";
    for (value, code) in [("4999", ErrorCode::InvalidConfig), ("7000", ErrorCode::None)] {
        assert_eq!(set_group_config(&mut client, &group, key, value), code, "{value}");
    }
    let unknown = set_group_config(&mut client, &group, "share.heartbeat.interval.ms", "5000");
    assert_eq!(unknown, ErrorCode::InvalidConfig);
    assert_eq!(interval(&mut client, &mut member), 7000);
    server.kill9();
    server.restart();
    let mut client = server.client();
    assert_eq!(interval(&mut client, &mut member), 7000);
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: GROUP,
            resource_name: group.as_str().into(),
            configuration_keys: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let configs = client.call(4, &request).results.remove(0).configs;
    let values: Vec<_> = configs
        .iter()
        .map(|config| (&*config.name, config.value.as_deref().unwrap(), config.config_source))
        .collect();
    assert_eq!(values, [(key, "7000", 8), ("consumer.session.timeout.ms", "45000", 5)]);
    let listed = client
        .call(1, &ListConfigResourcesRequest { resource_types: vec![GROUP], ..Default::default() });
    let names: Vec<_> = listed.config_resources.iter().map(|it| &*it.resource_name).collect();
    assert_eq!(names, [&*group]);
}

/// Wire number of a group as a resource.
const GROUP: i8 = 32;

fn set_group_config(client: &mut Client, group: &str, key: &str, value: &str) -> ErrorCode {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: group.into(),
            configs: vec![AlterableConfig {
                name: key.into(),
                value: Some(value.into()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    error(client.call(1, &request).responses[0].error_code)
}
