//! Produce: checks what a client sent, hands it to the owning shards, answers when they do.
//!
//! Two phases. The first runs in the connection's order and ends when every batch is with its shard, so
//! produces of one connection to one partition are appended as they arrived. The second waits for the
//! shards and encodes. There is one path for all acks levels; `acks=0` differs in having no answer, and in being
//! settled when it is in the log of its shard, on its way to the disk.
//!
//! Source: KIP-98, KIP-467 (error messages), KIP-516 (topic ids), KIP-951 (current leader).

use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use chronik_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use chronik_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use chronik_protocol::{ErrorCode, KafkaString, RequestFrame};
use chronik_shards::format::compression::Codec;
use chronik_shards::format::record::recompress;
use chronik_shards::format::record_batch::{BatchError, ProducedBatch};
use chronik_shards::io::turn::Turn;
use chronik_shards::machine::input::{
    ProduceOutcome, ProduceOutcomes, ProducePartition, ProducePartitions,
};
use chronik_shards::model::{Acks, MonotonicMicros, ReplicaKey, ShardId};
use chronik_shards::shard::{PendingProduce, ProduceRequestPart};
use smallvec::SmallVec;

use super::answer::answer;
use super::error::Refusal;
use super::partitions::{self, NotHere, TopicNamed};
use super::{Handlers, error, groups};
use crate::metadata_view::MetadataView;
use crate::net;

/// How many times `max.message.bytes` the records of a batch may take while they are not compressed.
const EXPANSION_MAX: usize = 64;

/// One partition of the request: refused, or with the shard at that place of its group.
enum Fate {
    Refused(Refusal),
    Sent { group: usize, place: usize },
}

/// Of each partition of a request, in its order.
type Fates = SmallVec<[Fate; 1]>;
/// Batches by their owner.
type Groups = SmallVec<[(ShardId, ProducePartitions); 1]>;

/// A request whose batches are with their shards.
struct Sent {
    correlation_id: i32,
    version: i16,
    acks: Acks,
    topics: Vec<TopicProduceData>,
    fates: Fates,
    groups: SmallVec<[PendingProduce; 1]>,
    begun: MonotonicMicros,
}

/// First phase. Its result is the second.
pub async fn dispatch(
    handlers: &Rc<Handlers>,
    frame: RequestFrame,
) -> Result<impl Future<Output = Result<Option<net::Response>, String>> + use<>, String> {
    let (correlation_id, version) = (frame.header.correlation_id, frame.version());
    let frame_bytes = frame.body.remaining();
    let request: ProduceRequest = frame.decode().map_err(|error| error.to_string())?;
    let acks = acks(request.acks);
    let (begun, deadline) = (handlers.now().monotonic, handlers.deadline(request.timeout_ms));

    let topics = request.topic_data;
    let mut groups = Groups::new();
    let mut fates = Fates::with_capacity(partitions(&topics).count());
    let mut turn = Turn::default();
    for topic in &topics {
        for data in &topic.partition_data {
            let checked = match acks {
                Some(_) => check(handlers, version, topic, data, &mut turn).await,
                None => {
                    Err(Refusal::new(ErrorCode::InvalidRequiredAcks, "acks is one of -1, 0 and 1"))
                }
            };
            fates.push(match checked {
                Ok(partition) => group(handlers, &mut groups, partition),
                Err(refusal) => Fate::Refused(refusal),
            });
        }
    }

    detach_from_large_frame(&mut groups, frame_bytes);

    let acks = acks.unwrap_or(Acks::All);
    let mut pending = SmallVec::with_capacity(groups.len());
    for (shard, partitions) in groups {
        let part = ProduceRequestPart { acks, deadline, partitions };
        pending.push(handlers.shard.produce(shard, part).await);
    }
    let sent = Sent { correlation_id, version, acks, topics, fates, groups: pending, begun };
    let handlers = Rc::clone(handlers);
    Ok(async move { sent.finish(&handlers).await })
}

fn acks(wire: i16) -> Option<Acks> {
    match wire {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    }
}

/// Every partition that the request names, with its topic.
fn partitions(
    topics: &[TopicProduceData],
) -> impl Iterator<Item = (&TopicProduceData, &PartitionProduceData)> {
    topics.iter().flat_map(|topic| topic.partition_data.iter().map(move |data| (topic, data)))
}

/// A batch keeps the frame that it came in alive, for as long as it is cached. Where most of the frame is
/// something else, what was refused for instance, the cache would hold much more than it counts: there the
/// batches are copied.
fn detach_from_large_frame(groups: &mut Groups, frame_bytes: usize) {
    let batches = || groups.iter().flat_map(|(_, partitions)| partitions);
    let accepted: usize = batches().map(|partition| partition.batch.bytes.len()).sum();
    if accepted >= frame_bytes / 2 {
        return;
    }
    for partition in groups.iter_mut().flat_map(|(_, partitions)| partitions) {
        partition.batch.bytes = Bytes::copy_from_slice(&partition.batch.bytes);
    }
}

/// Adds a batch to its shard's group.
fn group(handlers: &Handlers, groups: &mut Groups, partition: ProducePartition) -> Fate {
    let shard = handlers.shard.shard_of(&partition.key);
    let group = groups.iter().position(|(owner, _)| *owner == shard).unwrap_or_else(|| {
        groups.push((shard, ProducePartitions::new()));
        groups.len() - 1
    });
    let place = groups[group].1.len();
    groups[group].1.push(partition);
    Fate::Sent { group, place }
}

/// Where a batch goes, and what its topic asks of it.
struct Destination {
    key: ReplicaKey,
    max_message_bytes: usize,
    codec: Option<Codec>,
    /// Its records are told apart by their keys.
    is_compacted: bool,
    is_internal: bool,
}

/// Finds the partition and checks the batch, on the connection's own shard.
async fn check(
    handlers: &Handlers,
    version: i16,
    topic: &TopicProduceData,
    data: &PartitionProduceData,
    turn: &mut Turn,
) -> Result<ProducePartition, Refusal> {
    let destination = find(&handlers.metadata.borrow(), named(topic, version), data.index)?;
    if destination.is_internal {
        let message = "the server alone appends to this topic";
        return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    }
    let records = data.records.clone().map(chronik_protocol::Records::into_bytes);
    let batch = checked(handlers, &destination, records.unwrap_or_default(), turn)
        .await
        .map_err(|error| Refusal::new(error::of_batch(&error), error.to_string()))?;
    Ok(ProducePartition { key: destination.key, batch })
}

fn find(
    view: &MetadataView,
    topic: TopicNamed<'_>,
    partition: i32,
) -> Result<Destination, Refusal> {
    let key = partitions::led_here(view, topic, partition).map_err(|not_here| {
        let message = match not_here {
            NotHere::Unknown(_) => "there is no such topic or partition",
            NotHere::LedElsewhere(_) => "another node leads the partition",
        };
        Refusal::new(not_here.code(), message)
    })?;
    let settings = view.settings(key.topic_id).expect("every topic of the image has settings");
    let max_message_bytes = settings.partition.max_message_bytes;
    let is_internal =
        view.image().topic(key.topic_id).is_some_and(|it| groups::is_internal(&it.name));
    let (codec, is_compacted) = (settings.compression.codec(), settings.partition.cleanup_compact);
    Ok(Destination { key, max_message_bytes, codec, is_compacted, is_internal })
}

/// The batch as it may enter the log, in the codec that the topic stores.
async fn checked(
    handlers: &Handlers,
    destination: &Destination,
    bytes: Bytes,
    turn: &mut Turn,
) -> Result<ProducedBatch, BatchError> {
    let batch = ProducedBatch::check(bytes)?;
    let limit = destination.max_message_bytes;
    if batch.header.total_bytes > limit
        || batch.header.is_control()
        || batch.header.is_transactional()
    {
        // Its partition refuses it, whatever is inside.
        return Ok(batch);
    }
    let expanded_bytes_max = limit.saturating_mul(EXPANSION_MAX);
    let requires_keys = destination.is_compacted;
    let checks = &handlers.record_checks;
    let batch = checks.check(batch, expanded_bytes_max, requires_keys, turn).await?;
    match destination.codec {
        Some(codec) => recompress(batch, codec, expanded_bytes_max),
        None => Ok(batch),
    }
}

impl Sent {
    /// Second phase: waits for every shard and encodes. A producer with `acks=0` is told nothing, or that its
    /// connection is closed.
    async fn finish(mut self, handlers: &Handlers) -> Result<Option<net::Response>, String> {
        let mut outcomes: SmallVec<[ProduceOutcomes; 1]> = SmallVec::new();
        for group in std::mem::take(&mut self.groups) {
            outcomes.push(group.await);
        }
        if self.acks == Acks::None {
            return first_refusal(&self.fates, &outcomes).map_or(Ok(None), Err);
        }
        if self.acks == Acks::All && tracing::enabled!(tracing::Level::DEBUG) {
            self.tell_complete(handlers, &outcomes);
        }
        let mut fates = self.fates.iter();
        let responses: Vec<TopicProduceResponse> = self
            .topics
            .iter()
            .map(|topic| TopicProduceResponse {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partition_responses: topic
                    .partition_data
                    .iter()
                    .zip(fates.by_ref())
                    .map(|(data, fate)| match fate {
                        Fate::Refused(refusal) => refused(data.index, refusal),
                        Fate::Sent { group, place } => {
                            decided(data.index, &outcomes[*group][*place])
                        }
                    })
                    .map(|response| with_leader(handlers, topic, self.version, response))
                    .collect(),
                ..TopicProduceResponse::default()
            })
            .collect();
        let node_endpoints = endpoints(handlers, &responses);
        let response = ProduceResponse { responses, node_endpoints, ..ProduceResponse::default() };
        let answer = answer(&handlers.counts, self.correlation_id, self.version, &response);
        answer.into_result().map(Some)
    }

    /// For operators who look for it in the log.
    fn tell_complete(&self, handlers: &Handlers, outcomes: &[ProduceOutcomes]) {
        let view = handlers.metadata.borrow();
        let millis = handlers.now().monotonic.since(self.begun) / 1000;
        for ((topic, data), fate) in partitions(&self.topics).zip(&self.fates) {
            let Fate::Sent { group, place } = fate else { continue };
            let Ok(appended) = &outcomes[*group][*place].result else { continue };
            let Ok(found) = partitions::topic(&view, named(topic, self.version)) else { continue };
            let partition = partitions::find(found, data.index);
            // The leader's own disk is one of them.
            let others = partition.map_or(0, |(_, partition)| partition.isr.len().max(1) - 1);
            let (topic, partition) = (&found.name, data.index);
            let offset = appended.base_offset;
            tracing::debug!(
                "acks=all complete for {topic}-{partition} offset {offset} ({others}/{others} ACKs in {millis} ms)"
            );
        }
    }
}

/// Where the leaders that clients are sent to listen. Older versions are told of none.
fn endpoints(handlers: &Handlers, responses: &[TopicProduceResponse]) -> Vec<NodeEndpoint> {
    let partitions = responses.iter().flat_map(|topic| &topic.partition_responses);
    let leaders = partitions.map(|partition| partition.current_leader.leader_id);
    partitions::endpoints(&handlers.metadata.borrow(), leaders, |node_id, broker| NodeEndpoint {
        node_id,
        host: broker.host.as_str().into(),
        port: i32::from(broker.port),
        rack: broker.rack.as_deref().map(KafkaString::from),
        ..NodeEndpoint::default()
    })
}

/// Why the connection of an `acks=0` producer is closed: it has no other way to learn of it.
fn first_refusal(fates: &[Fate], outcomes: &[ProduceOutcomes]) -> Option<String> {
    fates.iter().find_map(|fate| {
        let (message, code) = match fate {
            Fate::Refused(refusal) => (refusal.message.clone(), refusal.code),
            Fate::Sent { group, place } => match &outcomes[*group][*place].result {
                Ok(_) => return None,
                Err(error) => (error.to_string(), error::of_produce(error)),
            },
        };
        Some(format!("a produce with acks=0 was refused: {message} ({})", code.name()))
    })
}

fn refused(index: i32, refusal: &Refusal) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: refusal.code.code(),
        error_message: Some(KafkaString::from(refusal.message.as_str())),
        base_offset: -1,
        ..PartitionProduceResponse::default()
    }
}

fn decided(index: i32, outcome: &ProduceOutcome) -> PartitionProduceResponse {
    match &outcome.result {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset.get(),
            log_append_time_ms: appended.log_append_time.map_or(-1, |time| time.get()),
            log_start_offset: appended.log_start_offset.get(),
            ..PartitionProduceResponse::default()
        },
        Err(error) => refused(index, &Refusal::new(error::of_produce(error), error.to_string())),
    }
}

/// Tells a client that came to the wrong node who leads, where the version can say it.
fn with_leader(
    handlers: &Handlers,
    topic: &TopicProduceData,
    version: i16,
    mut response: PartitionProduceResponse,
) -> PartitionProduceResponse {
    if version >= 10 && response.error_code == ErrorCode::NotLeaderOrFollower.code() {
        let view = handlers.metadata.borrow();
        let led = partitions::led_here(&view, named(topic, version), response.index);
        if let Err(NotHere::LedElsewhere(leader)) = led {
            response.current_leader = LeaderIdAndEpoch {
                leader_id: leader.leader_id,
                leader_epoch: leader.leader_epoch,
                ..LeaderIdAndEpoch::default()
            };
        }
    }
    response
}

fn named(topic: &TopicProduceData, version: i16) -> TopicNamed<'_> {
    match version {
        13.. => TopicNamed::Id(topic.topic_id),
        _ => TopicNamed::Name(&topic.name),
    }
}
