//! The look at every record of a produced batch, on the connection's shard.
//!
//! It costs the connection that produces and nobody else: a long batch gives way to the rest of the shard again
//! and again, and no more than one of a shard is ever half done, so that the memory of decoders that wait is
//! that of one.

use chronik_shards::format::compression::Codec;
use chronik_shards::format::record_batch::{BatchError, ProducedBatch};
use chronik_shards::format::record_check::RecordCheck;
use chronik_shards::io::turn::Turn;
use chronik_shards::model::TimestampMs;

use crate::net::budget::Budget;

/// Bytes without compression that are walked before the shard gets its turn.
const STEP_BYTES: usize = 256 << 10;
/// To decompress a byte costs about so many times what it costs to receive one.
const DECOMPRESSED_COST: usize = 4;

/// The batches of a shard that may be half done: one.
#[derive(Debug)]
pub struct RecordChecks(Budget);

impl Default for RecordChecks {
    fn default() -> Self {
        Self(Budget::new(1))
    }
}

impl RecordChecks {
    /// Looks at every record and returns the batch with the largest of their timestamps.
    ///
    /// They may take `limit_bytes` without compression, and need keys where their topic tells them apart by these.
    pub async fn check(
        &self,
        batch: ProducedBatch,
        limit_bytes: usize,
        requires_keys: bool,
        turn: &mut Turn,
    ) -> Result<ProducedBatch, BatchError> {
        let latest = if batch.header.codec()? == Codec::None {
            let check = batch.record_check(usize::MAX)?.requires_keys(requires_keys);
            let latest = check.finish()?;
            turn.after(batch.bytes.len()).await;
            latest
        } else {
            self.decompress(&batch, limit_bytes, requires_keys, turn).await?
        };
        Ok(batch.with_max_timestamp(latest))
    }

    async fn decompress(
        &self,
        batch: &ProducedBatch,
        limit_bytes: usize,
        requires_keys: bool,
        turn: &mut Turn,
    ) -> Result<TimestampMs, BatchError> {
        let mut alone = self.0.try_reserve(1);
        let begin = || -> Result<RecordCheck<'_>, BatchError> {
            Ok(batch.record_check(limit_bytes)?.requires_keys(requires_keys))
        };
        let mut check = begin()?;
        loop {
            let before = check.walked();
            let latest = check.advance(STEP_BYTES)?;
            let cost = (check.walked() - before).saturating_mul(DECOMPRESSED_COST);
            if let Some(latest) = latest {
                drop((check, alone));
                turn.after(cost).await;
                return Ok(latest);
            }
            if alone.is_none() {
                // Longer than a step, while another such batch is half done: begun anew when that is through.
                drop(check);
                alone = Some(self.0.reserve(1).await);
                check = begin()?;
            }
            turn.after(cost).await;
        }
    }
}
