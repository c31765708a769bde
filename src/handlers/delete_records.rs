//! DeleteRecords: everything below an offset goes. Source: KIP-107.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest,
};
use chronik_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use chronik_shards::model::Offset;

use super::{Handlers, concurrent, error};

/// On the wire: everything that consumers could read.
const HIGH_WATERMARK: i64 = -1;

/// Answers a DeleteRecords request when the new log starts are durable.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let deletions = topic.partitions.iter().map(|asked| async {
            let result = delete(handlers, &topic.name, asked).await;
            DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark: result.map_or(-1, |offset| offset.get()),
                error_code: result.err().unwrap_or(ErrorCode::None).code(),
                ..DeleteRecordsPartitionResult::default()
            }
        });
        topics.push(DeleteRecordsTopicResult {
            name: topic.name.clone(),
            partitions: concurrent::all(deletions).await,
            ..DeleteRecordsTopicResult::default()
        });
    }
    DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() }
}

async fn delete(
    handlers: &Handlers,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    let key = handlers.led_here(topic, asked.partition_index)?;
    let deletes = handlers.metadata.borrow().settings(key.topic_id).is_some_and(|settings| {
        // What is only compacted keeps every key, as in Kafka.
        settings.partition.cleanup_delete
    });
    if !deletes {
        return Err(ErrorCode::PolicyViolation);
    }
    let before = match asked.offset {
        HIGH_WATERMARK => None,
        0.. => Some(Offset(asked.offset)),
        _ => return Err(ErrorCode::OffsetOutOfRange),
    };
    let shard = handlers.shard.shard_of(&key);
    let deleted = handlers.shard.delete_records(shard, key, before).await;
    deleted.map_err(|error| error::of_fetch(&error))
}
