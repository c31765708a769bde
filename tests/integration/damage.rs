//! A write-ahead log that is damaged is told from one that is torn.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use chronik_protocol::ErrorCode;
use chronik_shards::format::wal::COMMIT_HEADER_BYTES;
use chronik_shards::format::wal_entry::WalEntry;

use crate::support::batch::{Batch, Record};
use crate::support::requests::{
    create_topic, create_topic_with, error, fetch, high_watermark, produce, read_values,
};
use crate::support::server::Server;
use crate::support::unique;
use crate::support::wal::{self, FoundCommit};

/// All commits with records of a server with one shard.
fn commits(data_dir: &Path) -> Vec<FoundCommit> {
    let mut found = wal::commits(data_dir, 0);
    let is_batch = |entry: &WalEntry| matches!(entry, WalEntry::Batch { .. });
    found.retain(|commit| commit.entries.iter().any(is_batch));
    found
}

/// Flips one bit in the first record of the commit.
fn flip(found: &FoundCommit) {
    let file = File::options().read(true).write(true).open(&found.path).unwrap();
    let position = found.position + COMMIT_HEADER_BYTES as u64 + 28 + 61 + 8;
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], position).unwrap();
    file.sync_all().unwrap();
}

const RECORDS: usize = 12;

/// A killed server whose WAL holds acknowledged records, each in a commit of its own.
fn killed_with_records() -> (Server, String) {
    let mut server = Server::start();
    let topic = unique("damaged");
    let mut client = server.client();
    create_topic(&mut client, &topic, 1);
    for n in 0..RECORDS {
        // Each is answered before the next is sent, so no commit holds two.
        let value = format!("value-{n:04}");
        produce(&mut client, &topic, 0, &Batch::of_records(vec![Record::of(value)]));
    }
    server.kill9();
    (server, topic)
}

fn with_value(commits: &[FoundCommit], n: usize) -> &FoundCommit {
    let text = format!("value-{n:04}");
    let mut matching =
        commits.iter().filter(|found| String::from_utf8_lossy(&found.payload).contains(&text));
    matching.next_back().unwrap_or_else(|| panic!("no commit holds {text}"))
}

#[test]
fn damage_in_acknowledged_records_refuses_the_start_until_the_loss_is_accepted() {
    let (mut server, topic) = killed_with_records();
    let commits = commits(&server.data_dir());
    flip(with_value(&commits, 4));
    let refusal = server.refuses_restart();
    refusal.expect_line_with(&[&format!("{topic}-0")]);
    assert!(refusal.stderr.contains("--accept-data-loss"), "the way out:\n{}", refusal.stderr);
    // Refusing changes nothing: the second time is as the first.
    server.refuses_restart().expect_line_with(&[&format!("{topic}-0")]);

    server.options_mut().flags.push("--accept-data-loss".to_owned());
    server.restart();
    let mut client = server.client();
    let end = high_watermark(&mut client, &topic, 0);
    let kept = read_values(&mut client, &topic, 0, 0);
    assert_eq!(kept.len() as i64, end);
    let expected: Vec<String> = (0..4).map(|n| format!("value-{n:04}")).collect();
    assert_eq!(kept, expected, "what lies before the damage is there, what cannot follow is not");
    // The log is whole again.
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["after"])), end);
    server.stop();
    server.options_mut().flags.clear();
    server.restart();
    assert_eq!(read_values(&mut server.client(), &topic, 0, end), ["after"]);
}

#[test]
fn a_torn_tail_is_dropped_and_everything_acknowledged_before_is_there() {
    let (mut server, topic) = killed_with_records();
    let commits = commits(&server.data_dir());
    let last = with_value(&commits, RECORDS - 1);
    let file = File::options().write(true).open(&last.path).unwrap();
    // As a write of which only the first part reached the disk: half of the commit is zeroes, and so
    // is all that follows. The record was acknowledged, but nothing on the disk says so any more, as
    // it is when power fails before the acknowledgement.
    let torn = last.position + COMMIT_HEADER_BYTES as u64 + 20;
    let length = file.metadata().unwrap().len();
    let zeroes = vec![0; usize::try_from(length - torn).unwrap()];
    file.write_all_at(&zeroes, torn).unwrap();
    file.sync_all().unwrap();
    let after = commits.iter().filter(|found| found.lsn > last.lsn).count();
    assert_eq!(after, 0, "the last record is in the last commit");

    server.restart();
    let mut client = server.client();
    let expected: Vec<String> = (0..RECORDS - 1).map(|n| format!("value-{n:04}")).collect();
    assert_eq!(read_values(&mut client, &topic, 0, 0), expected);
    let end = (RECORDS - 1) as i64;
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["after"])), end);
    server.kill9();
    server.restart();
    assert_eq!(read_values(&mut server.client(), &topic, 0, end), ["after"]);
}

#[test]
fn a_missing_wal_file_with_acknowledged_records_is_not_a_torn_tail() {
    let (mut server, topic) = killed_with_records();
    let commits = commits(&server.data_dir());
    let first = with_value(&commits, 0);
    // The whole commit is gone, header and all, and later ones are there.
    let file = File::options().write(true).open(&first.path).unwrap();
    let zeroes = vec![0; usize::try_from(first.padded_bytes).unwrap()];
    file.write_all_at(&zeroes, first.position).unwrap();
    file.sync_all().unwrap();
    let refusal = server.refuses_restart();
    assert_ne!(refusal.status.code(), Some(0));
    assert!(!refusal.stderr.contains("panicked at"), "{}", refusal.stderr);
    assert!(refusal.stderr.contains("--accept-data-loss"), "{}\n{}", topic, refusal.stderr);
}

const BATCHES: i64 = 40;
const VALUE_BYTES: usize = 10_000;

/// A stopped server with two partitions whose records are in segments of some five batches each.
fn stopped_with_segments() -> (Server, String) {
    let mut server = Server::start();
    let topic = unique("segment");
    let mut client = server.client();
    create_topic_with(&mut client, &topic, 2, &[("segment.bytes", "50000")]);
    for partition in 0..2 {
        for n in 0..BATCHES {
            let mut value = format!("value-{n:04}-");
            value.extend(std::iter::repeat_n('x', VALUE_BYTES));
            produce(&mut client, &topic, partition, &Batch::of([value]));
        }
    }
    // An orderly stop puts everything into segments.
    server.stop();
    (server, topic)
}

/// Flips one bit of a record in the segment that holds it.
fn flip_in_segment(server: &Server, topic: &str, value: &str) {
    let directory = server.data_dir().join("topics").join(format!("{topic}-0"));
    for entry in fs::read_dir(&directory).expect("the partition's directory") {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(value.len()).position(|window| window == value.as_bytes());
        if let Some(at) = at.filter(|_| path.extension().is_some_and(|name| name == "log")) {
            let mut damaged = bytes;
            damaged[at + value.len() + 20] ^= 0x10;
            return fs::write(&path, damaged).unwrap();
        }
    }
    panic!("no segment holds {value}");
}

#[test]
fn damage_in_an_old_segment_is_noticed_and_keeps_no_other_partition_from_being_served() {
    let (mut server, topic) = stopped_with_segments();
    flip_in_segment(&server, &topic, "value-0002");
    server.restart();
    let mut client = server.client();
    assert_eq!(read_values(&mut client, &topic, 1, 0).len() as i64, BATCHES);
    let data = fetch(&mut client, &topic, 0, 2);
    if error(data.error_code) == ErrorCode::None {
        // Served as it is, the CRC tells the consumer.
        let records = data.records.clone().unwrap_or_default().into_bytes();
        let verdict = std::panic::catch_unwind(|| crate::support::batch::parse(&records));
        assert!(verdict.is_err(), "a damaged record was served under a CRC that fits");
    } else {
        assert_eq!(error(data.error_code), ErrorCode::KafkaStorageError);
    }
    server.assert_alive();
    assert_eq!(high_watermark(&mut client, &topic, 0), BATCHES, "the log is not shortened");
}

#[test]
fn damage_in_the_last_segment_never_shortens_the_log_silently() {
    let (mut server, topic) = stopped_with_segments();
    let last = format!("value-{:04}", BATCHES - 1);
    flip_in_segment(&server, &topic, &last);
    server.refuses_restart().expect_line_with(&[&format!("{topic}-0")]);
    server.options_mut().flags.push("--accept-data-loss".to_owned());
    server.restart();
    let mut client = server.client();
    assert_eq!(high_watermark(&mut client, &topic, 0), BATCHES - 1, "what is before it is there");
    assert_eq!(read_values(&mut client, &topic, 0, 0).len() as i64, BATCHES - 1);
    assert_eq!(read_values(&mut client, &topic, 1, 0).len() as i64, BATCHES);
}
