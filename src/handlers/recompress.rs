//! Batches of a topic whose `compression.type` is not `producer`, in the codec that the topic asks for.
//!
//! Runs on the connection's shard, before the owning shard sees the batch: it costs the connection that
//! asked for it and nobody else.

use chronik_shards::format::compression::Codec;
use chronik_shards::format::record::recompress;
use chronik_shards::format::record_batch::ProducedBatch;
use chronik_shards::machine::topic_config::{CompressionType, TopicSettings};

use super::error::{self, Refusal};

/// How many times `max.message.bytes` a batch may take while it is not compressed.
const EXPANSION_MAX: usize = 64;

/// The batch as the topic stores it.
pub fn for_topic(batch: ProducedBatch, settings: &TopicSettings) -> Result<ProducedBatch, Refusal> {
    let Some(wanted) = codec(settings.compression) else { return Ok(batch) };
    let bytes_max = settings.partition.max_message_bytes.saturating_mul(EXPANSION_MAX);
    recompress(batch, wanted, bytes_max)
        .map_err(|error| Refusal::new(error::of_batch(&error), error.to_string()))
}

/// `None` keeps the producer's.
fn codec(compression: CompressionType) -> Option<Codec> {
    match compression {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => Some(Codec::None),
        CompressionType::Gzip => Some(Codec::Gzip),
        CompressionType::Snappy => Some(Codec::Snappy),
        CompressionType::Lz4 => Some(Codec::Lz4),
        CompressionType::Zstd => Some(Codec::Zstd),
    }
}
