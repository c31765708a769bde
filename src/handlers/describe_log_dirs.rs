//! DescribeLogDirs: the data directory, its space and what each partition takes of it. Source: KIP-113,
//! KIP-827.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use chronik_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use chronik_shards::model::{ReplicaKey, ShardId};

use super::{Handlers, concurrent, partitions};

/// Answers a DescribeLogDirs request. There is one data directory; partitions that are asked for and not
/// here are left out.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let mut by_shard: BTreeMap<ShardId, Vec<ReplicaKey>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (name, key) in asked(handlers, &request) {
        by_shard.entry(handlers.shard.shard_of(&key)).or_default().push(key);
        names.insert(key, name);
    }
    let queries = by_shard.into_iter().map(|(shard, keys)| async move {
        let infos = handlers.shard.partition_infos(shard, keys.clone()).await;
        keys.into_iter().zip(infos).collect::<Vec<_>>()
    });
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (key, info) in concurrent::all(queries).await.into_iter().flatten() {
        let Some(info) = info else { continue };
        let name = names.get(&key).cloned().unwrap_or_default();
        topics.entry(name).or_default().push(DescribeLogDirsPartition {
            partition_index: key.partition.get(),
            partition_size: i64::try_from(info.log_bytes).unwrap_or(i64::MAX),
            ..DescribeLogDirsPartition::default()
        });
    }
    let directory = handlers.data_dir.clone();
    // Off the shard's thread: a filesystem may take its time.
    let asking = move || std::panic::catch_unwind(|| space(&directory)).ok().flatten();
    let space = glommio::executor().spawn_blocking(asking).await;
    let result = DescribeLogDirsResult {
        log_dir: KafkaString::from(handlers.data_dir.to_string_lossy().as_ref()),
        topics: topics
            .into_iter()
            .map(|(name, mut partitions)| {
                partitions.sort_by_key(|partition| partition.partition_index);
                DescribeLogDirsTopic {
                    name: name.into(),
                    partitions,
                    ..DescribeLogDirsTopic::default()
                }
            })
            .collect(),
        total_bytes: space.map_or(-1, |(total, _)| total),
        usable_bytes: space.map_or(-1, |(_, usable)| usable),
        ..DescribeLogDirsResult::default()
    };
    DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }
}

/// Every partition that is meant and whose topic exists, with the topic's name.
fn asked(handlers: &Handlers, request: &DescribeLogDirsRequest) -> Vec<(String, ReplicaKey)> {
    let view = handlers.metadata.borrow();
    let mut found = Vec::new();
    match &request.topics {
        None => {
            for topic in view.image().topics() {
                found.extend(topic.replicas().map(|(key, _)| (topic.name.clone(), key)));
            }
        }
        Some(topics) => {
            for asked in topics {
                let Some(topic) = view.image().topic_named(&asked.topic) else { continue };
                let here = asked.partitions.iter().filter_map(|index| {
                    let (key, _) = partitions::find(topic, *index)?;
                    Some((topic.name.clone(), key))
                });
                found.extend(here);
            }
        }
    }
    found
}

/// Total and usable bytes of the filesystem under `directory`. May block.
fn space(directory: &Path) -> Option<(i64, i64)> {
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeroes is a value of this plain struct.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte and `found` is a valid place for the answer.
    let result = unsafe { libc::statvfs(path.as_ptr(), &raw mut found) };
    if result != 0 {
        return None;
    }
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize)).ok();
    Some((bytes(found.f_blocks)?, bytes(found.f_bavail)?))
}
