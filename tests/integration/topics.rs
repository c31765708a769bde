//! Topics come, grow, change and go.

use std::collections::BTreeMap;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::alter_configs_request;
use chronik_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use chronik_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use chronik_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use chronik_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use chronik_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use chronik_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use chronik_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};

use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::requests::{
    await_leaders, create_topic, create_topic_with, delete_topic, describe_topic, error,
    expect_error, fetch, high_watermark, init_producer, log_start, produce, produce_bytes,
    produce_request, produced, read_values, set_config, topic_id, try_create_topic,
};
use crate::support::server::{Options, Server};
use crate::support::{unique, wait_for};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

fn configs(
    client: &mut Client,
    kind: i8,
    name: &str,
) -> BTreeMap<String, DescribeConfigsResourceResult> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: None,
            ..DescribeConfigsResource::default()
        }],
        include_synonyms: true,
        include_documentation: true,
        ..DescribeConfigsRequest::default()
    };
    let mut response = client.call(4, &request);
    let result = response.results.remove(0);
    expect_error(result.error_code, ErrorCode::None, name);
    result.configs.into_iter().map(|config| (config.name.to_string(), config)).collect()
}

#[test]
fn a_created_topic_is_described_and_survives_a_crash() {
    let mut server = Server::start_with(Options::shards(2));
    let topic = unique("created");
    let mut client = server.client();
    create_topic_with(&mut client, &topic, 5, &[("retention.bytes", "12345678")]);
    let before = describe_topic(&mut client, &topic);
    assert_eq!(before.partitions.len(), 5);
    for partition in &before.partitions {
        assert_eq!(partition.replica_nodes, partition.isr_nodes);
        assert_eq!(partition.replica_nodes, [partition.leader_id]);
    }
    server.kill9();
    server.restart();
    let mut client = server.client();
    await_leaders(&mut client, &topic, 5);
    assert_eq!(describe_topic(&mut client, &topic).topic_id, before.topic_id);
    let config = &configs(&mut client, TOPIC, &topic)["retention.bytes"];
    assert_eq!(config.value.as_deref(), Some("12345678"));
}

#[test]
fn creations_that_make_no_sense_are_refused_by_kind() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("refused");
    create_topic(&mut client, &topic, 1);
    for (name, partitions, config, expected) in [
        (topic.as_str(), 1, None, ErrorCode::TopicAlreadyExists),
        ("bad name", 1, None, ErrorCode::InvalidTopicException),
        ("", 1, None, ErrorCode::InvalidTopicException),
        ("..", 1, None, ErrorCode::InvalidTopicException),
        ("no-partitions", 0, None, ErrorCode::InvalidPartitions),
        ("fewer", -2, None, ErrorCode::InvalidPartitions),
        ("unknown-key", 1, Some(("no.such.key", "1")), ErrorCode::InvalidConfig),
        ("bad-value", 1, Some(("retention.ms", "soon")), ErrorCode::InvalidConfig),
        // Accepted without effect it would be a defect.
        ("no-effect", 1, Some(("segment.jitter.ms", "1")), ErrorCode::InvalidConfig),
        ("policy", 1, Some(("cleanup.policy", "shrink")), ErrorCode::InvalidConfig),
    ] {
        let configs: Vec<(&str, &str)> = config.into_iter().collect();
        let code = try_create_topic(&mut client, name, partitions, &configs);
        assert_eq!(code, expected, "{name}");
    }
    let long = "x".repeat(250);
    let code = try_create_topic(&mut client, &long, 1, &[]);
    assert_eq!(code, ErrorCode::InvalidTopicException, "a name of 250 characters");
}

#[test]
fn a_topic_that_only_differs_in_dots_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    let name = unique("a.b");
    create_topic(&mut client, &name, 1);
    let code = try_create_topic(&mut client, &name.replace('.', "_"), 1, &[]);
    assert_eq!(code, ErrorCode::InvalidTopicException);
}

#[test]
fn validation_creates_nothing() {
    use chronik_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("validated");
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: topic.as_str().into(),
            num_partitions: 3,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 30_000,
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let response = client.call(7, &request);
    expect_error(response.topics[0].error_code, ErrorCode::None, "it could be created");
    expect_error(
        describe_topic(&mut client, &topic).error_code,
        ErrorCode::UnknownTopicOrPartition,
        "it was not",
    );
}

#[test]
fn partitions_and_replicas_may_be_left_to_the_server() {
    let server = Options::default().kafka("num.partitions", "3").start();
    let mut client = server.client();
    let topic = unique("default");
    create_topic_default(&mut client, &topic);
    await_leaders(&mut client, &topic, 3);
}

fn create_topic_default(client: &mut Client, topic: &str) {
    use chronik_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: topic.into(),
            num_partitions: -1,
            replication_factor: -1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    let response = client.call(7, &request);
    expect_error(response.topics[0].error_code, ErrorCode::None, "creation");
    assert_eq!(response.topics[0].num_partitions, 3);
    assert_eq!(response.topics[0].replication_factor, 1);
}

#[test]
fn a_topic_created_again_has_none_of_the_old_records() {
    let mut server = Server::start_with(Options::shards(2));
    let topic = unique("again");
    let mut client = server.client();
    create_topic(&mut client, &topic, 3);
    let old_id = topic_id(&mut client, &topic);
    let producer = init_producer(&mut client);
    for partition in 0..3 {
        let batch = Batch::of(["old", "old"]).idempotent(producer.0, producer.1, 0);
        produce(&mut client, &topic, partition, &batch);
    }
    assert_eq!(delete_topic(&mut client, &topic), ErrorCode::None);
    let gone = describe_topic(&mut client, &topic);
    expect_error(gone.error_code, ErrorCode::UnknownTopicOrPartition, "a deleted topic");
    let data = fetch(&mut client, &topic, 0, 0);
    expect_error(data.error_code, ErrorCode::UnknownTopicOrPartition, "a deleted topic");

    create_topic(&mut client, &topic, 3);
    assert_ne!(topic_id(&mut client, &topic), old_id, "a topic of its own");
    for partition in 0..3 {
        assert_eq!(high_watermark(&mut client, &topic, partition), 0);
        assert_eq!(log_start(&mut client, &topic, partition), 0);
        // The old topic's producer state went with it.
        let batch = Batch::of(["new"]).idempotent(producer.0, producer.1, 0);
        assert_eq!(produce(&mut client, &topic, partition, &batch), 0);
    }
    // A producer that still has the old id must not reach the new topic.
    let mut late = produce_request("", 0, -1, Batch::of(["late"]).encode());
    late.topic_data[0].topic_id = old_id;
    let response = produced(client.call(13, &late));
    expect_error(response.error_code, ErrorCode::UnknownTopicId, "the old id");

    for round in 0..3 {
        let mut client = server.client();
        for partition in 0..3 {
            let values = read_values(&mut client, &topic, partition, 0);
            assert_eq!(values, ["new"], "round {round}, partition {partition}");
        }
        match round {
            0 => server.kill9(),
            _ => server.stop(),
        }
        server.restart_with_shards(round + 1);
    }
}

#[test]
fn a_topic_is_deleted_by_id_too() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("by-id");
    create_topic(&mut client, &topic, 1);
    let delete = |topic_id| DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: None, topic_id, ..DeleteTopicState::default() }],
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    let id = topic_id(&mut client, &topic);
    let response = client.call(6, &delete(id));
    expect_error(response.responses[0].error_code, ErrorCode::None, "its id");
    let response = client.call(6, &delete(id));
    expect_error(response.responses[0].error_code, ErrorCode::UnknownTopicId, "an id nobody has");
    assert_eq!(delete_topic(&mut client, &topic), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn the_directories_of_a_deleted_topic_go() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("directories");
    create_topic(&mut client, &topic, 2);
    produce(&mut client, &topic, 0, &Batch::of(["x"]));
    let topics = server.data_dir().join("topics");
    let ours = || {
        let entries = std::fs::read_dir(&topics).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(&topic)).collect::<Vec<_>>()
    };
    wait_for("directories of the partitions", || (ours().len() == 2).then_some(()));
    assert_eq!(delete_topic(&mut client, &topic), ErrorCode::None);
    wait_for("the directories to go", || ours().is_empty().then_some(()));
}

fn grow(client: &mut Client, topic: &str, count: i32) -> ErrorCode {
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: topic.into(),
            count,
            assignments: None,
            ..CreatePartitionsTopic::default()
        }],
        timeout_ms: 30_000,
        ..CreatePartitionsRequest::default()
    };
    error(client.call(3, &request).results[0].error_code)
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let mut server = Server::start_with(Options::shards(2));
    let topic = unique("grows");
    let mut client = server.client();
    create_topic(&mut client, &topic, 2);
    produce(&mut client, &topic, 1, &Batch::of(["before"]));
    assert_eq!(grow(&mut client, &topic, 5), ErrorCode::None);
    await_leaders(&mut client, &topic, 5);
    produce(&mut client, &topic, 4, &Batch::of(["after"]));
    assert_eq!(grow(&mut client, &topic, 5), ErrorCode::InvalidPartitions);
    assert_eq!(grow(&mut client, &topic, 3), ErrorCode::InvalidPartitions);
    let unknown = grow(&mut client, &unique("none"), 3);
    assert_eq!(unknown, ErrorCode::UnknownTopicOrPartition);
    server.kill9();
    server.restart();
    let mut client = server.client();
    await_leaders(&mut client, &topic, 5);
    assert_eq!(read_values(&mut client, &topic, 1, 0), ["before"]);
    assert_eq!(read_values(&mut client, &topic, 4, 0), ["after"]);
}

#[test]
fn topic_configs_are_set_described_used_and_removed() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("configs");
    create_topic(&mut client, &topic, 1);
    let before = configs(&mut client, TOPIC, &topic);
    let limit = &before["max.message.bytes"];
    assert_eq!((limit.value.as_deref(), limit.config_source), (Some("1048588"), SOURCE_DEFAULT));
    for config in before.values() {
        let documentation = config.documentation.as_deref().unwrap_or_default();
        assert!(!documentation.is_empty(), "{} is explained", config.name);
        assert_ne!(config.config_type, 0, "{} has a type", config.name);
    }

    let code = set_config(&mut client, &topic, "max.message.bytes", Some("2000"));
    assert_eq!(code, ErrorCode::None);
    let limit = &configs(&mut client, TOPIC, &topic)["max.message.bytes"];
    assert_eq!((limit.value.as_deref(), limit.config_source), (Some("2000"), SOURCE_TOPIC));
    let response = produce_bytes(&mut client, &topic, 0, -1, Batch::of_size(3000).encode());
    expect_error(response.error_code, ErrorCode::MessageTooLarge, "above the new limit");

    assert_eq!(set_config(&mut client, &topic, "max.message.bytes", None), ErrorCode::None);
    produce(&mut client, &topic, 0, &Batch::of_size(3000));

    for (key, value) in [("no.such.key", "1"), ("retention.ms", "soon"), ("retention.ms", "-2")] {
        let code = set_config(&mut client, &topic, key, Some(value));
        assert_eq!(code, ErrorCode::InvalidConfig, "{key}={value}");
    }
    let code = set_config(&mut client, &unique("none"), "retention.ms", Some("1"));
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn alter_configs_replaces_all_overrides() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("replaced");
    create_topic_with(&mut client, &topic, 1, &[("retention.ms", "111"), ("segment.ms", "222")]);
    let request = alter_configs_request::AlterConfigsRequest {
        resources: vec![alter_configs_request::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.as_str().into(),
            configs: vec![alter_configs_request::AlterableConfig {
                name: "segment.ms".into(),
                value: Some("333".into()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    expect_error(client.call(2, &request).responses[0].error_code, ErrorCode::None, "AlterConfigs");
    let after = configs(&mut client, TOPIC, &topic);
    assert_eq!(after["segment.ms"].value.as_deref(), Some("333"));
    assert_eq!(after["retention.ms"].config_source, SOURCE_DEFAULT, "it is not overridden now");
}

#[test]
fn broker_configs_are_described() {
    let server = Options::default().kafka("num.partitions", "7").start();
    let mut client = server.client();
    let (_, node_id) = server.identity();
    let broker = configs(&mut client, BROKER, &node_id.to_string());
    assert_eq!(broker["num.partitions"].value.as_deref(), Some("7"));
    assert_eq!(broker["node.id"].value.as_deref(), Some(node_id.to_string().as_str()));
    assert!(broker["node.id"].read_only);
}

fn ask_for(client: &mut Client, topic: &str, allow: bool) -> ErrorCode {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(topic.into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: allow,
        ..MetadataRequest::default()
    };
    error(client.call(9, &request).topics[0].error_code)
}

#[test]
fn a_topic_that_is_asked_for_is_created_where_both_sides_allow_it() {
    let server = Options::default().kafka("num.partitions", "2").start();
    let mut client = server.client();
    let topic = unique("auto");
    let code = ask_for(&mut client, &topic, false);
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition, "the client does not want it");
    wait_for("the topic to be created", || {
        let code = ask_for(&mut client, &topic, true);
        assert!(code == ErrorCode::None || code.is_retriable(), "{code:?}");
        (code == ErrorCode::None).then_some(())
    });
    await_leaders(&mut client, &topic, 2);
    produce(&mut client, &topic, 1, &Batch::of(["x"]));
    let code = ask_for(&mut client, "bad name", true);
    assert_eq!(code, ErrorCode::InvalidTopicException);
}

#[test]
fn a_topic_is_not_created_where_the_server_forbids_it() {
    let server = Options::default().kafka("auto.create.topics.enable", "false").start();
    let mut client = server.client();
    let topic = unique("no-auto");
    for _ in 0..2 {
        let code = ask_for(&mut client, &topic, true);
        assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn cluster_and_log_directories_are_described() {
    let server = Server::start();
    let mut client = server.client();
    let (cluster_id, node_id) = server.identity();
    let cluster = client.call(1, &DescribeClusterRequest::default());
    expect_error(cluster.error_code, ErrorCode::None, "DescribeCluster");
    assert_eq!(cluster.cluster_id, cluster_id.as_str());
    assert_eq!(cluster.brokers.len(), 1);
    assert_eq!(cluster.brokers[0].broker_id, node_id);

    let topic = unique("sizes");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of_size(100_000));
    let request = DescribeLogDirsRequest { topics: None, ..DescribeLogDirsRequest::default() };
    let response = client.call(4, &request);
    assert_eq!(response.results.len(), 1);
    let dir = &response.results[0];
    expect_error(dir.error_code, ErrorCode::None, "the directory");
    let ours = dir.topics.iter().find(|found| found.name == topic.as_str()).expect("our topic");
    let size = ours.partitions[0].partition_size;
    assert!((100_000..200_000).contains(&size), "{size} bytes");
    assert!(dir.total_bytes > 0 && dir.usable_bytes > 0, "{dir:?}");
}
