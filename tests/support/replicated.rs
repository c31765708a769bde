//! Topics with several replicas, as clients of a cluster ask for them.

use std::time::Duration;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};

use super::batch::Batch;
use super::client::Client;
use super::cluster::Cluster;
use super::requests::{
    PRODUCE_BY_NAME, describe_topic, error, expect_error, produce_request, produced,
};
use super::{PATIENCE, wait_within};

/// How long replicas may take to catch up.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(60);

/// Who leads a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leader {
    pub node: i32,
    pub epoch: i32,
}

/// Creates a topic with a replica on every one of `replicas` nodes.
pub fn create_replicated(
    client: &mut Client,
    name: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) {
    let code = try_create_replicated(client, name, partitions, replicas, configs);
    assert_eq!(code, ErrorCode::None, "creation of {name}");
}

pub fn try_create_replicated(
    client: &mut Client,
    name: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) -> ErrorCode {
    let configs = configs.iter().map(|(key, value)| CreatableTopicConfig {
        name: (*key).into(),
        value: Some((*value).into()),
        ..CreatableTopicConfig::default()
    });
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: replicas,
        configs: configs.collect(),
        ..CreatableTopic::default()
    };
    let timeout_ms = PATIENCE.as_millis() as i32;
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms, ..Default::default() };
    error(client.call(5, &request).topics[0].error_code)
}

/// Leaders of all partitions as this node knows them; `None` where there is none.
pub fn leaders(client: &mut Client, name: &str) -> Vec<Option<Leader>> {
    let topic = describe_topic(client, name);
    expect_error(topic.error_code, ErrorCode::None, name);
    let mut partitions = topic.partitions;
    partitions.sort_by_key(|partition| partition.partition_index);
    let leader = |node, epoch| (node >= 0).then_some(Leader { node, epoch });
    partitions.iter().map(|it| leader(it.leader_id, it.leader_epoch)).collect()
}

/// Waits until every one of the running nodes knows the same leaders, each of which runs; answers with them.
pub fn await_agreement(cluster: &Cluster, name: &str, partitions: usize) -> Vec<Leader> {
    let running = cluster.running();
    wait_within(CATCH_UP_PATIENCE, "leaders that all agree on", || {
        let mut seen: Option<Vec<Option<Leader>>> = None;
        for id in &running {
            let mut client = Client::try_connect(cluster.address(*id)).ok()?;
            if describe_topic(&mut client, name).error_code != 0 {
                return None;
            }
            let found = leaders(&mut client, name);
            if found.len() != partitions || seen.is_some_and(|seen| seen != found) {
                return None;
            }
            seen = Some(found);
        }
        let leaders: Option<Vec<Leader>> = seen?.into_iter().collect();
        leaders.filter(|leaders| leaders.iter().all(|leader| running.contains(&leader.node)))
    })
}

/// Waits until so many replicas of every partition are in sync, as node `by` knows it.
pub fn await_in_sync(cluster: &Cluster, by: i32, name: &str, replicas: usize) {
    let mut client = cluster.client(by);
    wait_within(CATCH_UP_PATIENCE, &format!("{replicas} replicas of {name} in sync"), || {
        let topic = describe_topic(&mut client, name);
        let is_in_sync = topic.partitions.iter().all(|it| it.isr_nodes.len() == replicas);
        (topic.error_code == 0 && !topic.partitions.is_empty() && is_in_sync).then_some(())
    });
}

/// Produces with acks=all to whoever leads, until it is acknowledged; the base offset.
///
/// A batch that no producer is named in may be there more than once after this.
pub fn produce_to_leader(cluster: &Cluster, name: &str, partition: i32, batch: &Batch) -> i64 {
    let bytes = batch.encode();
    wait_within(CATCH_UP_PATIENCE, &format!("an acknowledgement of {name}-{partition}"), || {
        cluster.running().into_iter().find_map(|id| {
            let mut client = Client::try_connect(cluster.address(id)).ok()?;
            let request = produce_request(name, partition, -1, bytes.clone());
            let answer = produced(client.try_call(PRODUCE_BY_NAME, &request).ok()?);
            match error(answer.error_code) {
                ErrorCode::None => Some(answer.base_offset),
                code => {
                    assert!(code.is_retriable(), "{name}-{partition}: {code:?}");
                    None
                }
            }
        })
    })
}
