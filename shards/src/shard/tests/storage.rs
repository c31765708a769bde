//! Storage that appends to segment files and forgets everything at the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::record_batch::StoredBatch;
use crate::io::store_thread::{Storage, StorageError};
use crate::machine::effect::{LogView, SegmentMeta, StoreJob, StoreReply};
use crate::model::{Offset, ReplicaKey, TimestampMs};

pub struct AppendOnly {
    data: PathBuf,
    logs: BTreeMap<ReplicaKey, (PathBuf, u64, LogView)>,
}

impl AppendOnly {
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), logs: BTreeMap::new() }
    }
}

impl Storage for AppendOnly {
    fn execute(&mut self, job: StoreJob) -> Result<Vec<StoreReply>, StorageError> {
        Ok(match job {
            StoreJob::Open { key, topic_name, config } => {
                let directory = format!("{topic_name}-{}", key.partition);
                let directory = self.data.join("topics").join(directory);
                fs::create_dir_all(&directory)?;
                let view = LogView::default();
                self.logs.insert(key, (directory, config.segment_bytes, view.clone()));
                vec![StoreReply::Segments { key, view }]
            }
            StoreJob::Append { key, batches, .. } => {
                let (directory, segment_bytes, view) = self.logs.get_mut(&key).unwrap();
                for batch in batches {
                    if view.active.is_some_and(|active| active.bytes >= *segment_bytes) {
                        let full = view.active.take();
                        let sealed: Vec<_> = view.sealed.iter().copied().chain(full).collect();
                        view.sealed = Arc::from(sealed);
                    }
                    let active = view.active.get_or_insert(SegmentMeta {
                        base_offset: batch.header.base_offset,
                        end_offset: batch.header.base_offset,
                        bytes: 0,
                        max_timestamp: TimestampMs::NONE,
                        created: TimestampMs(0),
                    });
                    assert_eq!(active.end_offset, batch.header.base_offset);
                    let path = directory.join(format!("{:020}.log", active.base_offset.0));
                    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
                    file.write_all(&batch.to_log())?;
                    active.end_offset = batch.end_offset();
                    active.bytes += batch.total_bytes() as u64;
                    active.max_timestamp = active.max_timestamp.max(batch.header.max_timestamp);
                }
                vec![StoreReply::Segments { key, view: view.clone() }]
            }
            StoreJob::AppendRuns { runs, now } => {
                let mut replies = Vec::new();
                for (key, batches) in runs {
                    let end = self.logs[&key].2.end_offset().unwrap_or(Offset::ZERO);
                    let is_new = |batch: &StoredBatch| batch.end_offset() > end;
                    let batches = batches.into_iter().filter(is_new).collect();
                    replies.extend(self.execute(StoreJob::Append { key, batches, now })?);
                }
                replies.push(StoreReply::RunsDone);
                replies
            }
            StoreJob::Checkpoint(job) => vec![StoreReply::Checkpointed { lsn: job.lsn }],
            StoreJob::Truncate { .. } => panic!("a single node cuts no log"),
            StoreJob::Remove { key } => vec![StoreReply::Removed { key }],
            StoreJob::RemoveLeftovers => vec![StoreReply::Leftovers { count: 0 }],
            StoreJob::Configure { .. }
            | StoreJob::Roll { .. }
            | StoreJob::Compact { .. }
            | StoreJob::SwapSegments { .. }
            | StoreJob::DeleteSegments { .. } => Vec::new(),
        })
    }

    fn finish(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
}
