//! The topics that are written to: made for a run, described, deleted after it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chronik_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use chronik_protocol::messages::describe_configs_request::DescribeConfigsResource;
use chronik_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use chronik_protocol::messages::metadata_request::MetadataRequestTopic;
use chronik_protocol::messages::metadata_response::MetadataResponseTopic;
use chronik_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, ListOffsetsRequest,
    MetadataRequest, MetadataResponse,
};

use crate::report::Durability;
use crate::wire::{Wire, WireError, resolve};

const TIMEOUT_MS: i32 = 60_000;
/// How long all partitions of a new topic may take to have leaders that serve.
const LEADERS_PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);
/// Kafka's number for topics in DescribeConfigs.
const TOPIC_RESOURCE: i8 = 2;
/// "The offset after the last record", in ListOffsets.
const LATEST: i64 = -1;
/// Partitions that one ListOffsets asks for.
const PARTITIONS_PER_QUESTION: usize = 1000;

/// What a topic shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Copies of each; −1: the server's default.
    pub replication_factor: i16,
    /// Its configuration, by Kafka's keys.
    pub configs: Vec<(String, String)>,
}

/// A topic that serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Where each partition's leader listens.
    pub leaders: Vec<SocketAddr>,
}

impl Topic {
    /// Makes a topic, and waits until every partition has a leader that serves.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn create(wire: &mut Wire, spec: &TopicSpec) -> Result<Self, WireError> {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
            ..CreatableTopicConfig::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: spec.name.as_str().into(),
                num_partitions: spec.partitions,
                replication_factor: spec.replication_factor,
                configs: spec.configs.iter().map(config).collect(),
                ..CreatableTopic::default()
            }],
            timeout_ms: TIMEOUT_MS,
            ..CreateTopicsRequest::default()
        };
        let answer = wire.call(&request)?;
        let what = format!("creating topic {}", spec.name);
        for topic in &answer.topics {
            wire.check(&what, topic.error_code, topic.error_message.as_deref())?;
        }
        Self::await_leaders(wire, spec)
    }

    fn await_leaders(wire: &mut Wire, spec: &TopicSpec) -> Result<Self, WireError> {
        let deadline = Instant::now() + LEADERS_PATIENCE;
        loop {
            let metadata = describe(wire, &spec.name)?;
            if let Some(leaders) = leaders(&metadata, spec) {
                let topic = Self { name: spec.name.clone(), leaders: leaders? };
                // Kafka tells of a leader before that leader serves.
                if topic.end_offsets().is_ok() {
                    return Ok(topic);
                }
            }
            if Instant::now() >= deadline {
                return Err(WireError::Patience {
                    address: wire.address(),
                    what: format!("making topic {} ready", spec.name),
                    patience: LEADERS_PATIENCE,
                });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The log end offset of every partition.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn end_offsets(&self) -> Result<Vec<i64>, WireError> {
        let mut by_leader: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in (0..).zip(&self.leaders) {
            by_leader.entry(*leader).or_default().push(partition);
        }
        let mut ends = vec![0; self.leaders.len()];
        for (leader, partitions) in by_leader {
            let mut wire = Wire::connect(leader)?;
            for partitions in partitions.chunks(PARTITIONS_PER_QUESTION) {
                self.ask_end_offsets(&mut wire, partitions, &mut ends)?;
            }
        }
        Ok(ends)
    }

    fn ask_end_offsets(
        &self,
        wire: &mut Wire,
        partitions: &[i32],
        ends: &mut [i64],
    ) -> Result<(), WireError> {
        let partition = |index: &i32| ListOffsetsPartition {
            partition_index: *index,
            timestamp: LATEST,
            ..ListOffsetsPartition::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: self.name.as_str().into(),
                partitions: partitions.iter().map(partition).collect(),
                ..ListOffsetsTopic::default()
            }],
            timeout_ms: TIMEOUT_MS,
            ..ListOffsetsRequest::default()
        };
        let answer = wire.call(&request)?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let what = format!("end offset of {}-{}", self.name, partition.partition_index);
            wire.check(&what, partition.error_code, None)?;
            let index = usize::try_from(partition.partition_index).ok();
            if let Some(end) = index.and_then(|index| ends.get_mut(index)) {
                *end = partition.offset;
            }
        }
        Ok(())
    }

    /// Deletes the topic.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn delete(&self, wire: &mut Wire) -> Result<(), WireError> {
        let request = DeleteTopicsRequest {
            topic_names: vec![self.name.as_str().into()],
            timeout_ms: TIMEOUT_MS,
            ..DeleteTopicsRequest::default()
        };
        // The last version that takes names as a plain list.
        let version = wire.version::<DeleteTopicsRequest>(5)?;
        let answer = wire.call_version(version, &request)?;
        let what = format!("deleting topic {}", self.name);
        for topic in &answer.responses {
            wire.check(&what, topic.error_code, topic.error_message.as_deref())?;
        }
        Ok(())
    }

    /// What an acknowledgement stands for, as the topic's configuration has it.
    ///
    /// # Errors
    /// [`WireError`] other than a refusal: a server that does not say is [`Durability::Unknown`].
    pub fn durability(&self, wire: &mut Wire, acks: i16) -> Result<Durability, WireError> {
        if acks == 0 {
            return Ok(Durability::NotAcknowledged);
        }
        Ok(match self.config(wire, "flush.messages")? {
            Some(value) if value == "1" => Durability::WaitsForDisk,
            Some(_) => Durability::DoesNotWait,
            None => Durability::Unknown,
        })
    }

    fn config(&self, wire: &mut Wire, key: &str) -> Result<Option<String>, WireError> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: self.name.as_str().into(),
                configuration_keys: Some(vec![key.into()]),
                ..DescribeConfigsResource::default()
            }],
            ..DescribeConfigsRequest::default()
        };
        let answer = match wire.call(&request) {
            Err(WireError::Version { .. }) => return Ok(None),
            answer => answer?,
        };
        let configs = answer.results.iter().flat_map(|result| &result.configs);
        let found = configs.filter(|config| config.name == key).find_map(|c| c.value.as_ref());
        Ok(found.map(|value| value.to_string()))
    }
}

fn describe(wire: &mut Wire, name: &str) -> Result<MetadataResponse, WireError> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(name.into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    wire.call(&request)
}

/// The leaders' addresses; `None` while a partition has none.
fn leaders(
    metadata: &MetadataResponse,
    spec: &TopicSpec,
) -> Option<Result<Vec<SocketAddr>, WireError>> {
    let topic: &MetadataResponseTopic =
        metadata.topics.iter().find(|topic| topic.name.as_deref() == Some(spec.name.as_str()))?;
    let count = usize::try_from(spec.partitions).unwrap_or(0);
    if topic.error_code != 0 || topic.partitions.len() != count {
        return None;
    }
    let mut addresses = BTreeMap::new();
    for broker in &metadata.brokers {
        let address = match resolve(&format!("{}:{}", broker.host, broker.port)) {
            Ok(address) => address,
            Err(error) => return Some(Err(error)),
        };
        addresses.insert(broker.node_id, address);
    }
    let mut leaders = vec![None; count];
    for partition in &topic.partitions {
        let index = usize::try_from(partition.partition_index).ok()?;
        let leader = addresses.get(&partition.leader_id).filter(|_| partition.error_code == 0);
        *leaders.get_mut(index)? = leader.copied();
    }
    leaders.into_iter().collect::<Option<Vec<_>>>().map(Ok)
}
