//! What lies on disks.

use bytes::Bytes;
use chronik_shards::format::batch_builder::BatchBuilder;
use chronik_shards::format::cleaner_checkpoint::CleanerCheckpoint;
use chronik_shards::format::compression::Codec;
use chronik_shards::format::group_record::GroupRecord;
use chronik_shards::format::metadata_command::{
    Assignment, BrokerIncarnation, ConfigEntry, CreatePartitions, CreateTopic, DeleteTopic,
    ElectLeaders, Election, FoundCluster, LedPartition, MetadataCommand, ReassignPartition,
    RegisterBroker, SetClusterConfig, SetTopicConfig,
};
use chronik_shards::format::metadata_snapshot::MetadataSnapshot;
use chronik_shards::format::positions::{PartitionCheckpoint, ProducerBatch, ProducerCheckpoint};
use chronik_shards::format::record_batch::StoredBatch;
use chronik_shards::format::segment_index::{self, OffsetEntry, TimeEntry};
use chronik_shards::format::wal::{self, BLOCK_BYTES, COMMIT_HEADER_BYTES, Scanned, Scanner};
use chronik_shards::format::wal_entry::{Commit, WalEntry};
use chronik_shards::format::{
    checkpoint, cleaner_checkpoint, epoch_checkpoint, partition_metadata, producer_snapshot,
};
use chronik_shards::model::{
    BrokerEpoch, LeaderEpoch, Lsn, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    ReplicaKey, ShardId, TimestampMs, TopicId, WalFileSeq,
};

use super::driver::{Target, outcome};

const SHARD: ShardId = ShardId(1);
const GENERATION: WalFileSeq = WalFileSeq(3);

const KEY: ReplicaKey = ReplicaKey { topic_id: TopicId([9; 16]), partition: PartitionIndex(2) };

#[test]
fn write_ahead_logs() {
    let target = Target {
        name: "wal",
        corpus: "wal",
        seeds: wal_seeds(),
        repair: |input| repair_wal(input),
        run: run_wal,
        // A header names a commit that is longer than the window; the window is one megabyte, but
        // never more than the file.
        held_bytes: 16 << 10,
        held_per_byte: 16,
    };
    target.fuzz();
}

fn batch_at(offset: i64) -> StoredBatch {
    let builder = BatchBuilder::new(Codec::None).record(TimestampMs(5), None, Some(b"value"));
    StoredBatch::place(builder.build(), Offset(offset), LeaderEpoch(0))
}

fn wal_seeds() -> Vec<Vec<u8>> {
    let opened =
        WalEntry::Opened { key: KEY, topic_name: "topic".to_owned(), leader_epoch: LeaderEpoch(0) };
    let batch = |offset| WalEntry::Batch { key: KEY, batch: batch_at(offset) };
    let start = WalEntry::LogStart { key: KEY, log_start_offset: Offset(1) };
    let truncated = WalEntry::Truncated { key: KEY, end_offset: Offset(2) };
    let groups = [
        vec![opened, batch(0)],
        vec![batch(1), batch(2), start],
        vec![],
        vec![truncated, WalEntry::Closed { key: KEY }],
    ];
    let mut file = Vec::new();
    let mut seeds = Vec::new();
    for (lsn, entries) in (1..).zip(groups) {
        let commit = Commit {
            lsn: Lsn(lsn),
            file: GENERATION,
            position: file.len() as u64,
            durable: Lsn(lsn - 1),
            entries,
        };
        let at = file.len();
        file.resize(at + wal::encoded_bytes(&commit.entries), 0);
        wal::encode(SHARD, &commit, &mut file[at..]);
        seeds.push(file.clone());
    }
    // As in a file that was prepared: zeroes behind the last commit.
    file.resize(file.len() + 2 * BLOCK_BYTES as usize, 0);
    seeds.push(file);
    seeds
}

/// Makes every block that begins like a commit verify, as far as its payload is there.
fn repair_wal(input: &mut [u8]) {
    for at in (0..input.len()).step_by(BLOCK_BYTES as usize) {
        let Some(head) = input.get(at..at + COMMIT_HEADER_BYTES) else { break };
        if &head[..4] != b"CHWL" {
            continue;
        }
        let claimed = u32::from_le_bytes(head[40..44].try_into().unwrap()) as usize;
        let payload_at = at + COMMIT_HEADER_BYTES;
        let payload = &input[payload_at..input.len().min(payload_at + claimed)];
        let crc = crc32c::crc32c(payload);
        input[at + 32..at + 40].copy_from_slice(&(at as u64).to_le_bytes());
        input[at + 48..at + 52].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&input[at..at + 52]);
        input[at + 52..at + 56].copy_from_slice(&crc.to_le_bytes());
    }
}

fn run_wal(input: &Bytes) -> u64 {
    let read = |position: u64, buffer: &mut [u8]| {
        let at = position as usize;
        let end = at + buffer.len();
        assert!(end <= input.len(), "reads {at}..{end} of {}", input.len());
        buffer.copy_from_slice(&input[at..end]);
        Ok(())
    };
    let mut scanner = Scanner::new(SHARD, GENERATION, input.len() as u64, read);
    let mut seen = Vec::new();
    let mut end = 0;
    while let Some(scanned) = scanner.next_commit().expect("memory can be read") {
        let header = *scanned.header();
        assert!(header.position >= end, "commits overlap");
        end = header.end();
        seen.push(match scanned {
            Scanned::Commit { payload, .. } => {
                match wal::decode_entries(&payload, header.entry_count) {
                    Ok(entries) => outcome(entries.len()),
                    Err(error) => outcome(std::mem::discriminant(&error)),
                }
            }
            Scanned::Damaged { entries, .. } => outcome(("damaged", entries.len())),
        });
    }
    outcome(seen)
}

/// What is wrong, without the numbers that make every input's words its own.
fn kind(error: &impl std::fmt::Display) -> u64 {
    let words: String = error.to_string().chars().filter(|c| !c.is_ascii_hexdigit()).collect();
    outcome(words)
}

#[test]
fn metadata_commands() {
    let target = Target {
        name: "metadata_command",
        corpus: "metadata_command",
        seeds: metadata_commands_seeds(),
        repair: |input| repair_metadata(input),
        run: |input| match MetadataCommand::decode(input) {
            Ok(command) => {
                let again = MetadataCommand::decode(&command.encode()).expect("decodes again");
                assert_eq!(again, command);
                outcome(std::mem::discriminant(&command))
            }
            Err(error) => kind(&error),
        },
        held_bytes: 16 << 10,
        held_per_byte: 64,
    };
    target.fuzz();
}

fn metadata_commands_seeds() -> Vec<Vec<u8>> {
    let topic_id = TopicId([4; 16]);
    let assignment = || Assignment { replicas: vec![NodeId(1), NodeId(2)] };
    let key = ReplicaKey { topic_id, partition: PartitionIndex(1) };
    let config = || ConfigEntry { name: "retention.ms".to_owned(), value: "1000".to_owned() };
    let commands = [
        MetadataCommand::RegisterBroker(RegisterBroker {
            node_id: NodeId(1),
            incarnation: [1; 16],
            shards: 4,
            host: "127.0.0.1".to_owned(),
            port: 9092,
            directory_id: [2; 16],
            rack: Some("east".to_owned()),
            fenced: false,
            replication: None,
            control: None,
        }),
        MetadataCommand::CreateTopic(CreateTopic {
            name: "topic".to_owned(),
            topic_id,
            partitions: vec![assignment(), assignment()],
            configs: vec![config()],
        }),
        MetadataCommand::DeleteTopic(DeleteTopic { topic_id }),
        MetadataCommand::CreatePartitions(CreatePartitions {
            topic_id,
            existing: 2,
            partitions: vec![assignment()],
        }),
        MetadataCommand::SetTopicConfig(SetTopicConfig {
            topic_id,
            replace: true,
            set: vec![config(), config()],
            remove: vec!["segment.ms".to_owned()],
        }),
        MetadataCommand::FenceBroker(BrokerIncarnation {
            node_id: NodeId(1),
            broker_epoch: BrokerEpoch(1),
        }),
        MetadataCommand::ElectLeaders(ElectLeaders {
            election: Election::Unclean,
            partitions: vec![LedPartition { key, leader_epoch: LeaderEpoch(1) }],
        }),
        MetadataCommand::ReassignPartition(ReassignPartition { key, target: Some(assignment()) }),
        MetadataCommand::SetClusterConfig(SetClusterConfig {
            set: vec![config()],
            remove: vec!["min.insync.replicas".to_owned()],
        }),
        MetadataCommand::FoundCluster(FoundCluster { cluster_id: [5; 16] }),
    ];
    commands.iter().map(MetadataCommand::encode).collect()
}

/// Makes a metadata frame's length and CRC right.
fn repair_metadata(input: &mut [u8]) {
    if input.len() >= 16 {
        let body = input.len() as u32 - 16;
        input[8..12].copy_from_slice(&body.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&input[..12]), &input[16..]);
        input[12..16].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn metadata_snapshots() {
    let target = Target {
        name: "metadata_snapshot",
        corpus: "metadata_snapshot",
        seeds: metadata_snapshot_seeds(),
        repair: |input| repair_metadata(input),
        run: |input| match MetadataSnapshot::decode(input) {
            Ok(snapshot) => {
                let again = MetadataSnapshot::decode(&snapshot.encode()).expect("decodes again");
                assert_eq!(again, snapshot);
                outcome((snapshot.topics.len(), snapshot.brokers.len()))
            }
            Err(error) => kind(&error),
        },
        held_bytes: 16 << 10,
        held_per_byte: 64,
    };
    target.fuzz();
}

fn metadata_snapshot_seeds() -> Vec<Vec<u8>> {
    use chronik_shards::machine::metadata::MetadataImage;
    let mut image = MetadataImage::default();
    let mut seeds = vec![image.encode()];
    for (index, bytes) in (1..).zip(metadata_commands_seeds()) {
        let command = MetadataCommand::decode(&bytes).expect("a seed");
        let _ = image.apply(index, &command);
        seeds.push(image.encode());
    }
    seeds
}

#[test]
fn checkpoints() {
    let target = Target {
        name: "checkpoint",
        corpus: "checkpoint",
        seeds: checkpoint_seeds(),
        repair: |input| {
            if input.len() >= 16 {
                let body = input.len() as u32 - 16;
                input[8..12].copy_from_slice(&body.to_le_bytes());
                let crc = crc32c::crc32c_append(crc32c::crc32c(&input[..12]), &input[16..]);
                input[12..16].copy_from_slice(&crc.to_le_bytes());
            }
        },
        run: |input| match checkpoint::decode(input) {
            Ok(found) => {
                let again = checkpoint::decode(&checkpoint::encode(&found));
                assert_eq!(again.as_ref(), Ok(&found));
                outcome(found.partitions.len())
            }
            Err(error) => outcome(std::mem::discriminant(&error)),
        },
        held_bytes: 16 << 10,
        held_per_byte: 64,
    };
    target.fuzz();
}

fn producers() -> Vec<ProducerCheckpoint> {
    let batch = |n: i32| ProducerBatch {
        first_sequence: n,
        last_sequence: n,
        base_offset: Offset(n.into()),
        last_offset: Offset(n.into()),
        timestamp: TimestampMs(7),
    };
    vec![ProducerCheckpoint {
        producer_id: ProducerId(5),
        producer_epoch: ProducerEpoch(1),
        last_timestamp: TimestampMs(7),
        batches: (0..5).map(batch).collect(),
    }]
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let partition = PartitionCheckpoint {
        key: KEY,
        log_start_offset: Offset(1),
        high_watermark: Offset(9),
        flushed_end: Offset(9),
        leader_epoch: LeaderEpoch(2),
        epochs: vec![(LeaderEpoch(0), Offset(0)), (LeaderEpoch(2), Offset(5))],
        producers: producers(),
    };
    let of = |partitions| {
        checkpoint::encode(&checkpoint::Checkpoint { shard: SHARD, lsn: Lsn(8), partitions })
    };
    vec![of(vec![]), of(vec![partition.clone()]), of(vec![partition.clone(), partition])]
}

#[test]
fn producer_snapshots() {
    let target = Target {
        name: "producer_snapshot",
        corpus: "producer_snapshot",
        seeds: vec![producer_snapshot::encode(&[]), producer_snapshot::encode(&producers())],
        repair: |input| {
            if input.len() >= 10 {
                let count = ((input.len() - 10) / 46) as i32;
                input.truncate(10 + 46 * count as usize);
                input[6..10].copy_from_slice(&count.to_be_bytes());
                let crc = crc32c::crc32c(&input[6..]);
                input[2..6].copy_from_slice(&crc.to_be_bytes());
            }
        },
        run: |input| match producer_snapshot::decode(input) {
            Ok(found) => outcome(found.len()),
            Err(error) => outcome(std::mem::discriminant(&error)),
        },
        held_bytes: 16 << 10,
        held_per_byte: 64,
    };
    target.fuzz();
}

#[test]
fn segment_indexes() {
    let offsets = (0..20u32)
        .flat_map(|n| OffsetEntry { relative_offset: n * 10, position: n * 4096 }.encode());
    let times = (0..20u32).flat_map(|n| {
        TimeEntry { timestamp: TimestampMs(1000 + i64::from(n)), relative_offset: n * 10 }.encode()
    });
    let target = Target {
        name: "segment_index",
        corpus: "segment_index",
        seeds: vec![offsets.collect(), times.collect(), Vec::new()],
        repair: |input| input.truncate(input.len() / 24 * 24),
        run: |input| {
            let log_bytes = 100_000;
            let offsets = segment_index::offset_index_is_sound(input, log_bytes);
            let times = segment_index::time_index_is_sound(input, 1000);
            let mut positions = Vec::new();
            for target in [0, 5, 10, 199, i64::from(u32::MAX), i64::MAX] {
                let position = segment_index::position_for_offset(input, Offset(0), Offset(target));
                assert!(!offsets || u64::from(position) < log_bytes, "{position} is outside");
                let time = TimestampMs(target);
                positions.push(position);
                let _ = segment_index::offset_for_timestamp(input, Offset(0), time);
            }
            let counts = (
                segment_index::offset_entries(input).count(),
                segment_index::time_entries(input).count(),
            );
            outcome((offsets, times, counts, positions))
        },
        held_bytes: 16 << 10,
        held_per_byte: 1,
    };
    target.fuzz();
}

#[test]
fn text_files_of_a_partition() {
    let epochs = [(LeaderEpoch(0), Offset(0)), (LeaderEpoch(4), Offset(99))];
    let target = Target {
        name: "partition_text",
        corpus: "partition_text",
        seeds: vec![
            epoch_checkpoint::encode(&epochs).into_bytes(),
            partition_metadata::encode(TopicId([5; 16])).into_bytes(),
            cleaner_checkpoint::encode(CleanerCheckpoint {
                first_dirty_offset: Offset(17),
                holes_end: Offset(1234),
            })
            .into_bytes(),
        ],
        repair: |_| {},
        run: |input| {
            let Ok(text) = std::str::from_utf8(input) else { return 0 };
            let epochs = epoch_checkpoint::decode(text);
            if let Some(epochs) = &epochs {
                let again = epoch_checkpoint::decode(&epoch_checkpoint::encode(epochs));
                assert_eq!(again.as_ref(), Some(epochs));
            }
            let cleaner = cleaner_checkpoint::decode(text);
            if let Some(cleaner) = cleaner {
                let again = cleaner_checkpoint::decode(&cleaner_checkpoint::encode(cleaner));
                assert_eq!(again, Some(cleaner));
            }
            assert_eq!(cleaner_checkpoint::decode_swap(text).is_some(), cleaner.is_some());
            let epochs = epochs.map(|epochs| epochs.len());
            outcome((epochs, partition_metadata::decode(text).is_some(), cleaner.is_some()))
        },
        held_bytes: 16 << 10,
        held_per_byte: 64,
    };
    target.fuzz();
}

#[test]
fn records_of_groups() {
    let target = Target {
        name: "group_record",
        corpus: "group_record",
        seeds: group_record_seeds(),
        repair: |_| {},
        run: |input| match split_group_record(input) {
            None => 0,
            Some((key, value)) => match GroupRecord::decode(key, value) {
                Ok(record) => {
                    let (key, value) = record.encode();
                    let again = GroupRecord::decode(&key, value.as_deref());
                    assert_eq!(again.as_ref(), Ok(&record));
                    outcome((key.first_chunk::<2>(), value.map(|value| value.len())))
                }
                Err(error) => kind(&error),
            },
        },
        held_bytes: 16 << 10,
        held_per_byte: 128,
    };
    target.fuzz();
}

/// A byte that is the key's length, the key, the value; no value where nothing follows.
fn split_group_record(input: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (length, rest) = input.split_first()?;
    let (key, value) = rest.split_at_checked(usize::from(*length))?;
    Some((key, (!value.is_empty()).then_some(value)))
}

fn group_record_seeds() -> Vec<Vec<u8>> {
    let golden = include_str!("../../shards/src/format/group_record/golden.txt");
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().chunks_exact(2);
        digits.map(|d| u8::from_str_radix(str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    };
    let lines = golden.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, value) = line.split_once(' ').expect("key and value");
            let key = bytes(key);
            let value = if value == "-" { Vec::new() } else { bytes(value) };
            [vec![key.len() as u8], key, value].concat()
        })
        .collect()
}

#[test]
fn names_of_wal_files() {
    let target = Target {
        name: "wal_name",
        corpus: "wal_name",
        seeds: vec![wal::file_name(WalFileSeq(17)).into_bytes()],
        repair: |_| {},
        run: |input| {
            let Ok(text) = std::str::from_utf8(input) else { return 0 };
            let parsed = wal::parse_file_name(text);
            if let Some(seq) = parsed {
                assert_eq!(wal::file_name(seq), text, "one name for one file");
            }
            outcome(parsed)
        },
        held_bytes: 4096,
        held_per_byte: 16,
    };
    target.fuzz();
}
