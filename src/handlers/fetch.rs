//! Fetch: what a consumer may read, from memory or segments, at once or after a wait.
//!
//! The request and its session say what is wanted; every owning shard is asked at the same time; too
//! little makes the request wait until enough is readable or its time is up. Records leave as slices.
//!
//! Source: KIP-74 (first batch whole), KIP-227 (sessions), KIP-320 and KIP-595 (epochs), KIP-516 (ids), KIP-392
//! (followers).

use std::cell::RefCell;
use std::rc::Rc;

use chronik_protocol::messages::fetch_request::FetchRequest;
use chronik_protocol::messages::fetch_response::{
    EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use chronik_protocol::{ErrorCode, KafkaString, Records, RequestFrame, Uuid};
use chronik_shards::io::turn::Turn;
use chronik_shards::machine::input::{FetchError, FetchInput, FetchPartition};
use chronik_shards::model::{LeaderEpoch, MonotonicMicros, NodeId, Offset, ReplicaKey, ShardId};
use chronik_shards::shard::{Fetched, FetchedPartition};

use super::answer::answer;
use super::fetch_sessions::{Begun, Said, SessionError, TopicRef, Wanted};
use super::nearest_replica::Reader;
use super::partitions::{self, LeaderOnWire, NotHere, TopicNamed};
use super::{Handlers, error};
use crate::net::budget::Reservation;
use crate::net::{ConnectionContext, Response};

/// What looking again counts towards a turn, in bytes received.
const ROUND_COST: usize = 128 << 10;

/// A partition's answer, errors included.
struct Part {
    code: ErrorCode,
    fetched: Option<Fetched>,
    leader: Option<LeaderOnWire>,
    /// Who the client should ask instead, because it is nearer.
    nearer: Option<NodeId>,
}

impl Part {
    fn refused(code: ErrorCode) -> Self {
        Self { code, fetched: None, leader: None, nearer: None }
    }

    /// Sends the client to a nearer replica, for what it would have got here.
    fn go_there(&mut self, node: NodeId) {
        if let Some(fetched) = &mut self.fetched {
            fetched.records = Vec::new();
            (fetched.bytes, fetched.record_count) = (0, 0);
            self.nearer = Some(node);
        }
    }

    fn bytes(&self) -> usize {
        self.fetched.as_ref().map_or(0, |fetched| fetched.bytes)
    }
}

/// Answers a fetch.
pub async fn handle(
    handlers: Rc<Handlers>,
    frame: RequestFrame,
    connection: Rc<ConnectionContext>,
) -> Result<Response, String> {
    let (correlation_id, version) = (frame.header.correlation_id, frame.version());
    let request: FetchRequest = frame.decode().map_err(|error| error.to_string())?;
    let deadline = handlers.deadline(request.max_wait_ms);
    let begun = match begin(&handlers, &request, version) {
        Ok(begun) => begun,
        Err(error) => {
            let code = match error {
                SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
                SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
                SessionError::TopicIdMismatch => ErrorCode::FetchSessionTopicIdError,
            };
            let response = FetchResponse { error_code: code.code(), ..FetchResponse::default() };
            return answer(&handlers.counts, correlation_id, version, &response).into_result();
        }
    };
    let reader = Reader::of(&handlers, &request, version);
    let (parts, reservation) =
        read(&handlers, &request, &reader, &begun, deadline, &connection).await;
    count(&handlers, &parts);
    let mut response = respond(&handlers.sessions, &begun, parts, version);
    response.node_endpoints = endpoints(&handlers, &response, version);
    let response = answer(&handlers.counts, correlation_id, version, &response).into_result()?;
    Ok(response.with_reservation(reservation))
}

/// Counts what the client is sent.
fn count(handlers: &Handlers, parts: &[Part]) {
    let sent = || parts.iter().filter_map(|part| part.fetched.as_ref());
    let records = sent().map(|fetched| fetched.record_count).sum();
    handlers.counts.fetched(records, sent().map(|fetched| fetched.bytes as u64).sum());
}

fn begin(handlers: &Handlers, request: &FetchRequest, version: i16) -> Result<Begun, SessionError> {
    let uses_ids = version >= 13;
    let topic_ref = |name: &KafkaString, id: Uuid| match uses_ids {
        true => TopicRef::Id(id),
        false => TopicRef::Name(name.clone()),
    };
    let mut wanted = Vec::new();
    for topic in &request.topics {
        wanted.extend(topic.partitions.iter().map(|partition| Wanted {
            topic: topic_ref(&topic.topic, topic.topic_id),
            partition: partition.partition,
            offset: partition.fetch_offset,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
            max_bytes: partition.partition_max_bytes,
        }));
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_ref = topic_ref(&topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|partition| (topic_ref.clone(), *partition)));
    }
    handlers.sessions.borrow_mut().begin(
        handlers.now().monotonic,
        request.session_id,
        request.session_epoch,
        uses_ids,
        wanted,
        &forgotten,
    )
}

/// Reads until there is enough, or the deadline. The answer's bytes come out of the response budget:
/// when little is left of it the answer is small, it never waits for more.
async fn read(
    handlers: &Handlers,
    request: &FetchRequest,
    reader: &Reader,
    begun: &Begun,
    deadline: MonotonicMicros,
    connection: &ConnectionContext,
) -> (Vec<Part>, Reservation) {
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut turn = Turn::default();
    loop {
        let reservation = connection.response_budget().try_take_up_to(max_bytes);
        let parts = read_once(handlers, reader, begun, reservation.bytes()).await;
        let bytes: usize = parts.iter().map(Part::bytes).sum();
        // An error is told at once, and so is anything that makes the client act.
        let must_answer = parts.iter().any(|part| {
            part.code != ErrorCode::None
                || part.nearer.is_some()
                || part.fetched.as_ref().is_some_and(|fetched| fetched.diverging.is_some())
        });
        // With the budget used up an answer may be as small as it gets, but an empty one still waits.
        let is_full = bytes >= min_bytes || (bytes > 0 && bytes >= reservation.bytes());
        let is_over = handlers.now().monotonic >= deadline || handlers.shard.is_stopping();
        // Of no partition there will never be news.
        let is_about_nothing = begun.wanted.is_empty();
        if must_answer || is_full || is_over || is_about_nothing {
            return (parts, settled(reservation, bytes));
        }
        drop(reservation);
        wait(handlers, reader, begun, &parts, min_bytes - bytes, deadline).await;
        // A shard that has all the waits it takes answers at once: others have to come in between.
        turn.after(ROUND_COST).await;
    }
}

/// What an answer of so many bytes holds: less than was taken, or more by its one batch that goes out whole.
fn settled(mut reservation: Reservation, bytes: usize) -> Reservation {
    reservation.grow(bytes.saturating_sub(reservation.bytes()));
    reservation.shrink_to(bytes);
    reservation
}

/// One pass over all shards, in parallel; then cut to `max_bytes` in the request's order.
async fn read_once(
    handlers: &Handlers,
    reader: &Reader,
    begun: &Begun,
    max_bytes: usize,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(begun.wanted.len());
    let mut groups: Vec<(ShardId, Vec<usize>, FetchInput)> = Vec::new();
    for (index, wanted) in begun.wanted.iter().enumerate() {
        match locate(handlers, reader, &wanted.topic, wanted.partition) {
            Err(part) => parts.push(part),
            Ok(key) => {
                parts.push(Part::refused(ErrorCode::None));
                let shard = handlers.shard.shard_of(&key);
                let group = groups.iter().position(|(owner, ..)| *owner == shard);
                let group = group.unwrap_or_else(|| {
                    let input = FetchInput { max_bytes, partitions: Vec::new() };
                    groups.push((shard, Vec::new(), input));
                    groups.len() - 1
                });
                groups[group].1.push(index);
                groups[group].2.partitions.push(FetchPartition {
                    key,
                    offset: Offset(wanted.offset),
                    current_leader_epoch: epoch(wanted.current_leader_epoch),
                    last_fetched_epoch: epoch(wanted.last_fetched_epoch),
                    max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0),
                });
            }
        }
    }
    let reads = groups.into_iter().map(|(shard, places, input)| async move {
        (places, handlers.shard.fetch(shard, input).await)
    });
    for (places, answers) in super::concurrent::all(reads).await {
        for (place, fetched) in places.into_iter().zip(answers) {
            let nearer = reader.nearer_than_here(handlers, fetched.key);
            parts[place] = part(handlers, fetched);
            if let Some(node) = nearer {
                parts[place].go_there(node);
            }
        }
    }
    cut(&mut parts, max_bytes);
    parts
}

fn epoch(wire: i32) -> Option<LeaderEpoch> {
    (wire >= 0).then_some(LeaderEpoch(wire))
}

/// Which replica a request means, when this reader may read it here.
fn locate(
    handlers: &Handlers,
    reader: &Reader,
    topic: &TopicRef,
    partition: i32,
) -> Result<ReplicaKey, Part> {
    let named = match topic {
        TopicRef::Name(name) => TopicNamed::Name(name),
        TopicRef::Id(id) => TopicNamed::Id(*id),
    };
    let view = &handlers.metadata.borrow();
    let found = match reader.reads_followers {
        true => partitions::replica_here(view, named, partition),
        false => partitions::led_here(view, named, partition),
    };
    found.map_err(|not_here| {
        let leader = match not_here {
            NotHere::Unknown(_) => None,
            NotHere::LedElsewhere(leader) => Some(leader),
        };
        Part { leader, ..Part::refused(not_here.code()) }
    })
}

fn part(handlers: &Handlers, partition: FetchedPartition) -> Part {
    let error = match partition.result {
        Ok(fetched) => return Part { fetched: Some(fetched), ..Part::refused(ErrorCode::None) },
        Err(error) => error,
    };
    let leader = match error {
        // The client is behind: tell it who leads now.
        FetchError::FencedEpoch { .. } | FetchError::NotLeader { .. } => {
            let view = handlers.metadata.borrow();
            view.image().partition(partition.key).map(LeaderOnWire::of)
        }
        FetchError::UnknownPartition(_)
        | FetchError::OutOfRange { .. }
        | FetchError::UnknownEpoch { .. }
        | FetchError::OffsetNotAvailable { .. }
        | FetchError::StorageFailed => None,
    };
    Part { leader, ..Part::refused(error::of_fetch(&error)) }
}

/// Every shard was allowed all of `max_bytes`; together they keep to it. The first partition that has
/// records keeps at least its first batch, whatever its size (KIP-74).
fn cut(parts: &mut [Part], max_bytes: usize) {
    let mut left = max_bytes;
    let mut is_first = true;
    for fetched in parts.iter_mut().filter_map(|part| part.fetched.as_mut()) {
        if fetched.bytes > left && !is_first {
            fetched.records = Vec::new();
            (fetched.bytes, fetched.record_count) = (0, 0);
        }
        is_first &= fetched.bytes == 0;
        left = left.saturating_sub(fetched.bytes);
    }
}

/// Until `missing` more bytes than `parts` hold are readable over all shards, something went wrong with
/// a partition, or the deadline passed.
async fn wait(
    handlers: &Handlers,
    reader: &Reader,
    begun: &Begun,
    parts: &[Part],
    missing: usize,
    deadline: MonotonicMicros,
) {
    let mut groups: Vec<(ShardId, Vec<(ReplicaKey, Offset)>)> = Vec::new();
    for (wanted, part) in begun.wanted.iter().zip(parts) {
        let located = locate(handlers, reader, &wanted.topic, wanted.partition);
        let Ok(key) = located else { return };
        let shard = handlers.shard.shard_of(&key);
        // What was readable is counted already: only what comes behind it is news.
        let seen = part.fetched.as_ref().map(|fetched| fetched.high_watermark);
        let entry = (key, seen.unwrap_or(Offset(wanted.offset)));
        match groups.iter_mut().find(|(owner, _)| *owner == shard) {
            Some((_, partitions)) => partitions.push(entry),
            None => groups.push((shard, vec![entry])),
        }
    }
    // On several shards no one of them sees all bytes: any news is a reason to look again.
    let min_bytes = if groups.len() > 1 { 1 } else { missing };
    handlers.wait_any(groups, min_bytes, deadline).await;
}

fn respond(
    sessions: &RefCell<super::fetch_sessions::FetchSessions>,
    begun: &Begun,
    parts: Vec<Part>,
    version: i16,
) -> FetchResponse {
    let mut sessions = sessions.borrow_mut();
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    for (wanted, part) in begun.wanted.iter().zip(parts) {
        let data = partition_data(wanted.partition, part, version);
        let said = Said {
            error_code: data.error_code,
            high_watermark: data.high_watermark,
            log_start_offset: data.log_start_offset,
        };
        let has_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
        let must_say = sessions.say(begun, wanted, said, has_records);
        if !must_say && data.diverging_epoch == EpochEndOffset::default() {
            continue;
        }
        let (name, id) = match &wanted.topic {
            TopicRef::Name(name) => (name.clone(), Uuid::ZERO),
            TopicRef::Id(id) => (KafkaString::default(), *id),
        };
        match responses.last_mut() {
            Some(topic) if topic.topic == name && topic.topic_id == id => {
                topic.partitions.push(data);
            }
            Some(_) | None => responses.push(FetchableTopicResponse {
                topic: name,
                topic_id: id,
                partitions: vec![data],
                ..FetchableTopicResponse::default()
            }),
        }
    }
    let session_id = if version >= 7 { begun.session_id } else { 0 };
    FetchResponse { session_id, responses, ..FetchResponse::default() }
}

/// Where the leaders that clients are sent to listen.
fn endpoints(handlers: &Handlers, response: &FetchResponse, version: i16) -> Vec<NodeEndpoint> {
    if version < 16 {
        return Vec::new();
    }
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let leaders = partitions.map(|partition| partition.current_leader.leader_id);
    partitions::endpoints(&handlers.metadata.borrow(), leaders, |node_id, broker| NodeEndpoint {
        node_id,
        host: broker.host.as_str().into(),
        port: i32::from(broker.port),
        rack: broker.rack.as_deref().map(KafkaString::from),
        ..NodeEndpoint::default()
    })
}

fn partition_data(index: i32, part: Part, version: i16) -> PartitionData {
    let mut data = PartitionData {
        partition_index: index,
        error_code: part.code.code(),
        high_watermark: -1,
        records: Some(Records::new()),
        preferred_read_replica: part.nearer.map_or(-1, NodeId::get),
        ..PartitionData::default()
    };
    // Older versions have no place for the leader.
    if let Some(leader) = part.leader.filter(|_| version >= 12) {
        data.current_leader = LeaderIdAndEpoch {
            leader_id: leader.leader_id,
            leader_epoch: leader.leader_epoch,
            ..LeaderIdAndEpoch::default()
        };
    }
    if let Some(fetched) = part.fetched {
        data.high_watermark = fetched.high_watermark.get();
        data.last_stable_offset = fetched.last_stable_offset.get();
        data.log_start_offset = fetched.log_start_offset.get();
        if let Some(end) = fetched.diverging {
            data.diverging_epoch = EpochEndOffset {
                epoch: end.epoch.get(),
                end_offset: end.end_offset.get(),
                ..EpochEndOffset::default()
            };
        }
        data.records = Some(fetched.records.into_iter().collect());
    }
    data
}
