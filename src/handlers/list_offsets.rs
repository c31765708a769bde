//! ListOffsets: where a log begins and ends, and where a time is. Source: KIP-79, KIP-734, KIP-1005.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use chronik_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use chronik_shards::model::{LeaderEpoch, TimestampMs};
use chronik_shards::shard::{ListOffset, ListPosition, ListedOffset};

use super::{Handlers, concurrent, error, repeats};

/// Wire timestamps with a meaning of their own.
mod special {
    pub const LATEST: i64 = -1;
    pub const EARLIEST: i64 = -2;
    pub const MAX_TIMESTAMP: i64 = -3;
    pub const EARLIEST_LOCAL: i64 = -4;
    pub const LATEST_TIERED: i64 = -5;
    pub const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

/// The first version in which a negative timestamp means what it means now; `i16::MAX` for one that has no
/// meaning yet.
fn first_version(timestamp: i64) -> i16 {
    match timestamp {
        special::LATEST | special::EARLIEST => 0,
        special::MAX_TIMESTAMP => 7,
        special::EARLIEST_LOCAL => 8,
        special::LATEST_TIERED => 9,
        special::EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    }
}

/// Answers a ListOffsets request. Isolation makes no difference: without transactions the last stable
/// offset is the high watermark.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let repeated = &repeats::of(topic.partitions.iter().map(|asked| asked.partition_index));
        let lookups = topic.partitions.iter().map(|asked| async move {
            if repeated.contains(&asked.partition_index) {
                return refused(asked, ErrorCode::InvalidRequest);
            }
            one(handlers, topic, asked, version).await
        });
        topics.push(ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: concurrent::all(lookups).await,
            ..ListOffsetsTopicResponse::default()
        });
    }
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

fn refused(asked: &ListOffsetsPartition, code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        error_code: code.code(),
        ..ListOffsetsPartitionResponse::default()
    }
}

async fn one(
    handlers: &Handlers,
    topic: &ListOffsetsTopic,
    asked: &ListOffsetsPartition,
    version: i16,
) -> ListOffsetsPartitionResponse {
    // Where nothing is there, this says so.
    let mut response = refused(asked, ErrorCode::None);
    match look_up(handlers, topic, asked, version).await {
        Ok(Some(found)) => {
            response.offset = found.offset.get();
            response.timestamp = found.timestamp.get();
            // Older versions have no place for it.
            let epoch = found.leader_epoch.filter(|_| version >= 4);
            response.leader_epoch = epoch.map_or(-1, |epoch| epoch.get());
        }
        Ok(None) => {}
        Err(code) => response.error_code = code.code(),
    }
    response
}

async fn look_up(
    handlers: &Handlers,
    topic: &ListOffsetsTopic,
    asked: &ListOffsetsPartition,
    version: i16,
) -> Result<Option<ListedOffset>, ErrorCode> {
    let key = handlers.led_here(&topic.name, asked.partition_index)?;
    let position = match asked.timestamp {
        special if special < 0 && version < first_version(special) => {
            return Err(ErrorCode::UnsupportedVersion);
        }
        special::LATEST => ListPosition::Latest,
        // There is no tier: all that there is is local.
        special::EARLIEST | special::EARLIEST_LOCAL => ListPosition::Earliest,
        special::MAX_TIMESTAMP => ListPosition::MaxTimestamp,
        special::LATEST_TIERED | special::EARLIEST_PENDING_UPLOAD => return Ok(None),
        timestamp if timestamp >= 0 => ListPosition::Timestamp(TimestampMs(timestamp)),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    let epoch = asked.current_leader_epoch;
    let current_leader_epoch = (epoch >= 0).then_some(LeaderEpoch(epoch));
    let question = ListOffset { key, current_leader_epoch, position };
    let shard = handlers.shard.shard_of(&key);
    let mut answers = handlers.shard.list_offsets(shard, vec![question]).await;
    let answer = answers.pop().expect("one question has one answer");
    answer.map_err(|error| error::of_fetch(&error))
}
