//! OffsetForLeaderEpoch: where an epoch ends, for clients that look for truncation. Source: KIP-101,
//! KIP-279, KIP-320.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use chronik_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use chronik_shards::machine::input::EpochEnd;
use chronik_shards::model::LeaderEpoch;
use chronik_shards::shard::EpochQuestion;

use super::{Handlers, concurrent, error};

/// Answers an OffsetForLeaderEpoch request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let lookups = topic.partitions.iter().map(|asked| async {
            let mut response =
                EpochEndOffset { partition: asked.partition, ..EpochEndOffset::default() };
            match look_up(handlers, &topic.topic, asked).await {
                Ok(Some(end)) => {
                    response.leader_epoch = end.epoch.get();
                    response.end_offset = end.end_offset.get();
                }
                // An epoch that this log never saw: the defaults say so.
                Ok(None) => {}
                Err(code) => response.error_code = code.code(),
            }
            response
        });
        topics.push(OffsetForLeaderTopicResult {
            topic: topic.topic.clone(),
            partitions: concurrent::all(lookups).await,
            ..OffsetForLeaderTopicResult::default()
        });
    }
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

async fn look_up(
    handlers: &Handlers,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<EpochEnd>, ErrorCode> {
    let key = handlers.led_here(topic, asked.partition)?;
    let current = asked.current_leader_epoch;
    let question = EpochQuestion {
        key,
        current_leader_epoch: (current >= 0).then_some(LeaderEpoch(current)),
        asked: LeaderEpoch(asked.leader_epoch),
    };
    let shard = handlers.shard.shard_of(&key);
    let mut answers = handlers.shard.epoch_ends(shard, vec![question]).await;
    let answer = answers.pop().expect("one question has one answer");
    answer.map_err(|error| error::of_fetch(&error))
}
