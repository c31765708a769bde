//! Answers of a cluster in every version that is served: what there is more to tell has a place in new versions only.

use chronik_protocol::messages::{
    create_partitions_request, create_topics_request, delete_records_request,
    describe_configs_request, describe_log_dirs_request, describe_quorum_request,
    describe_topic_partitions_request, elect_leaders_request, list_offsets_request,
    metadata_request, offset_for_leader_epoch_request,
};
use chronik_protocol::{AnyRequest, ApiKey, KafkaString};

use crate::support::cluster::Cluster;
use crate::support::replicated::{await_agreement, create_replicated};
use crate::support::server::is_reference;
use crate::support::unique;

const TOPIC_RESOURCE: i8 = 2;

const ASKED: [ApiKey; 13] = [
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::CreateTopics,
    ApiKey::DeleteRecords,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DescribeConfigs,
    ApiKey::DescribeLogDirs,
    ApiKey::CreatePartitions,
    ApiKey::ElectLeaders,
    ApiKey::DescribeQuorum,
    ApiKey::DescribeCluster,
    ApiKey::DescribeTopicPartitions,
    ApiKey::InitProducerId,
];

/// A request about a topic that is there, for an answer with something in it.
fn about(api: ApiKey, version: i16, topic: &str) -> AnyRequest {
    let name = || KafkaString::from(topic);
    let mut request = AnyRequest::default_of(api);
    match &mut request {
        AnyRequest::ListOffsets(asked) => {
            let partition = list_offsets_request::ListOffsetsPartition::default();
            asked.topics = vec![list_offsets_request::ListOffsetsTopic {
                name: name(),
                partitions: vec![partition],
                ..Default::default()
            }];
        }
        AnyRequest::Metadata(asked) => {
            let topic =
                metadata_request::MetadataRequestTopic { name: Some(name()), ..Default::default() };
            asked.topics = Some(vec![topic]);
            asked.include_topic_authorized_operations = version >= 8;
            asked.include_cluster_authorized_operations = (8..=10).contains(&version);
        }
        AnyRequest::CreateTopics(asked) => {
            asked.topics = vec![create_topics_request::CreatableTopic {
                name: unique("version").as_str().into(),
                num_partitions: 1,
                replication_factor: 3,
                ..Default::default()
            }];
        }
        AnyRequest::DeleteRecords(asked) => {
            let partition = delete_records_request::DeleteRecordsPartition::default();
            asked.topics = vec![delete_records_request::DeleteRecordsTopic {
                name: name(),
                partitions: vec![partition],
                ..Default::default()
            }];
        }
        AnyRequest::OffsetForLeaderEpoch(asked) => {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            asked.topics = vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: name(),
                partitions: vec![partition],
                ..Default::default()
            }];
        }
        AnyRequest::DescribeConfigs(asked) => {
            asked.resources = vec![describe_configs_request::DescribeConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: name(),
                ..Default::default()
            }];
            asked.include_synonyms = true;
            asked.include_documentation = version >= 3;
        }
        AnyRequest::DescribeLogDirs(asked) => {
            asked.topics = Some(vec![describe_log_dirs_request::DescribableLogDirTopic {
                topic: name(),
                partitions: vec![0, 1, 2],
                ..Default::default()
            }]);
        }
        AnyRequest::CreatePartitions(asked) => {
            asked.topics = vec![create_partitions_request::CreatePartitionsTopic {
                name: name(),
                count: 4,
                ..Default::default()
            }];
            asked.validate_only = true;
        }
        AnyRequest::ElectLeaders(asked) => {
            asked.topic_partitions = Some(vec![elect_leaders_request::TopicPartitions {
                topic: name(),
                partitions: vec![0, 9],
                ..Default::default()
            }]);
        }
        AnyRequest::DescribeQuorum(asked) => {
            let partition = describe_quorum_request::PartitionData::default();
            asked.topics = vec![describe_quorum_request::TopicData {
                topic_name: "__cluster_metadata".into(),
                partitions: vec![partition],
                ..Default::default()
            }];
        }
        AnyRequest::DescribeCluster(asked) => {
            asked.include_cluster_authorized_operations = true;
            asked.include_fenced_brokers = version >= 2;
        }
        AnyRequest::DescribeTopicPartitions(asked) => {
            asked.topics = vec![describe_topic_partitions_request::TopicRequest {
                name: name(),
                ..Default::default()
            }];
        }
        AnyRequest::InitProducerId(asked) => {
            asked.transactional_id = None;
            asked.transaction_timeout_ms = 60_000;
        }
        _ => unreachable!("{api} is not asked"),
    }
    request
}

#[test]
fn what_a_cluster_says_is_answered_in_every_version() {
    if is_reference() {
        return;
    }
    let cluster = Cluster::start();
    let topic = unique("versions");
    create_replicated(&mut cluster.client(1), &topic, 3, 3, &[]);
    await_agreement(&cluster, &topic, 3);
    for api in ASKED {
        let served = chronik::handlers::served::find(api).expect("it is served");
        for version in served.versions.iter() {
            // On a connection of its own: one that cannot be encoded closes it.
            let answer = cluster.client(2).call_any(version, &about(api, version, &topic));
            assert!(answer.is_some(), "{api} version {version} is not answered");
        }
    }
}
