use proptest::prelude::*;

use super::*;
use crate::format::sample_batch::SampleBatch;

const SHARD: ShardId = ShardId(3);
const FILE: WalFileSeq = WalFileSeq(7);

fn key(topic: u8, partition: i32) -> ReplicaKey {
    ReplicaKey { topic_id: TopicId([topic; 16]), partition: PartitionIndex(partition) }
}

fn batch(base_offset: i64, value: &[u8]) -> WalEntry {
    let batch = SampleBatch { value, ..SampleBatch::default() }.at(base_offset, 4);
    WalEntry::Batch { key: key(9, 2), batch }
}

fn commit(lsn: u64, position: u64, entries: Vec<WalEntry>) -> Commit {
    Commit { lsn: Lsn(lsn), file: FILE, position, durable: Lsn(lsn - 1), entries }
}

fn encoded(commit: &Commit) -> Vec<u8> {
    // Not zeroes: encoding must not rely on a clean buffer.
    let mut out = vec![0xAA; encoded_bytes(&commit.entries)];
    encode(SHARD, commit, &mut out);
    out
}

/// A file of commits of the entry lists given, numbered from 1, `spare` zero blocks behind.
fn file(lists: Vec<Vec<WalEntry>>, spare: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, entries) in lists.into_iter().enumerate() {
        let commit = commit(index as u64 + 1, bytes.len() as u64, entries);
        bytes.extend(encoded(&commit));
    }
    bytes.extend(vec![0; spare * BLOCK]);
    bytes
}

fn scan_as(shard: ShardId, generation: WalFileSeq, bytes: &[u8]) -> Vec<Scanned> {
    let read = |position: u64, out: &mut [u8]| {
        out.copy_from_slice(&bytes[position as usize..position as usize + out.len()]);
        Ok(())
    };
    let mut scanner = Scanner::new(shard, generation, bytes.len() as u64, read);
    let mut all = Vec::new();
    while let Some(scanned) = scanner.next_commit().unwrap() {
        all.push(scanned);
    }
    all
}

fn valid_lsns(bytes: &[u8]) -> Vec<u64> {
    let valid = |scanned: &Scanned| match scanned {
        Scanned::Commit { header, .. } => Some(header.lsn.0),
        Scanned::Damaged { .. } => None,
    };
    scan_as(SHARD, FILE, bytes).iter().filter_map(valid).collect()
}

/// Entries in a form that can be compared.
fn shown(entries: &[WalEntry]) -> Vec<String> {
    let show = |entry: &WalEntry| match entry {
        WalEntry::Batch { key, batch } => {
            format!("{key} {:?} {:?} {:?}", batch.header, batch.stamp(), batch.tail())
        }
        other => format!("{other:?}"),
    };
    entries.iter().map(show).collect()
}

#[test]
fn golden_bytes_of_a_commit_with_every_kind_of_entry() {
    let entries = vec![
        WalEntry::Opened {
            key: key(1, 0),
            topic_name: "pears".to_owned(),
            leader_epoch: LeaderEpoch(6),
        },
        batch(258, b"x"),
        WalEntry::LogStart { key: key(1, 1), log_start_offset: Offset(0x0102) },
        WalEntry::Truncated { key: key(1, 2), end_offset: Offset(0x0304) },
        WalEntry::Closed { key: key(1, 3) },
    ];
    let commit =
        Commit { lsn: Lsn(0x1122), file: FILE, position: 8192, durable: Lsn(0x1120), entries };
    let bytes = encoded(&commit);
    assert_eq!(bytes.len(), BLOCK);
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let header = [
        "4348574c01000300",
        "0700000000000000",
        "2211000000000000",
        "2011000000000000",
        "0020000000000000",
        "ea00000005000000",
    ];
    assert_eq!(hex(0..48), header.concat());
    assert_eq!(bytes[48..52], crc32c::crc32c(&bytes[56..56 + 0xea]).to_le_bytes());
    assert_eq!(bytes[52..56], crc32c::crc32c(&bytes[..52]).to_le_bytes());
    let opened = ["0100000009000000", &"01".repeat(16), "00000000", "06000000", "7065617273"];
    assert_eq!(hex(56..93), opened.concat());
    // A batch of one record with a value of one byte: 61 bytes of header and 8 of record.
    let head = ["0200000045000000", &"09".repeat(16), "02000000"];
    let stamp = ["0000000000000102", "00000039", "00000004"];
    assert_eq!(hex(93..137), head.concat() + &stamp.concat());
    let rest = [
        ["0300000008000000", &"01".repeat(16), "01000000", "0201000000000000"].concat(),
        ["0400000008000000", &"01".repeat(16), "02000000", "0403000000000000"].concat(),
        ["0500000000000000", &"01".repeat(16), "03000000"].concat(),
    ];
    assert_eq!(hex(190..290), rest.concat());
    assert!(bytes[290..].iter().all(|byte| *byte == 0));
}

#[test]
fn commits_read_back_in_order_and_zeroes_behind_them_are_nothing() {
    let lists = vec![
        vec![batch(0, b"a"), batch(1, &[7; 9000])],
        vec![],
        vec![WalEntry::Closed { key: key(1, 1) }],
    ];
    let expected: Vec<_> = lists.iter().map(|list| shown(list)).collect();
    let bytes = file(lists, 3);
    let found: Vec<_> = scan_as(SHARD, FILE, &bytes)
        .iter()
        .map(|scanned| match scanned {
            Scanned::Commit { header, payload } => {
                shown(&decode_entries(payload, header.entry_count).unwrap())
            }
            Scanned::Damaged { .. } => panic!("damaged"),
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn commits_of_another_generation_shard_or_place_are_nothing() {
    let bytes = file(vec![vec![batch(0, b"a")], vec![batch(1, b"b")]], 0);
    assert!(scan_as(SHARD, FILE.next(), &bytes).is_empty());
    assert!(scan_as(ShardId(4), FILE, &bytes).is_empty());
    let moved = [vec![0; BLOCK], bytes].concat();
    assert!(scan_as(SHARD, FILE, &moved).is_empty());
}

#[test]
fn commits_behind_a_damaged_header_are_found() {
    let lists = vec![vec![batch(0, b"a")], vec![batch(1, &[7; 9000])], vec![batch(2, b"c")]];
    let mut bytes = file(lists, 1);
    bytes[BLOCK + 17] ^= 1;
    assert_eq!(valid_lsns(&bytes), [1, 3]);
}

#[test]
fn a_damaged_payload_is_named_by_its_header_and_entries() {
    let lists = vec![vec![batch(5, b"a"), batch(6, &[7; 9000])], vec![batch(7, b"c")]];
    let mut bytes = file(lists, 0);
    bytes[5000] ^= 0x40;
    let scanned = scan_as(SHARD, FILE, &bytes);
    assert_eq!(valid_lsns(&bytes), [2]);
    let Scanned::Damaged { header, entries } = &scanned[0] else { panic!("not damaged") };
    assert_eq!(header.lsn, Lsn(1));
    let offsets: Vec<_> = entries.iter().filter_map(|entry| entry.offsets).collect();
    assert_eq!(offsets, [(Offset(5), Offset(6)), (Offset(6), Offset(7))]);
}

#[test]
fn salvage_stops_where_nothing_makes_sense() {
    let bytes = encoded(&commit(1, 0, vec![batch(5, b"a"), batch(6, b"b")]));
    let second = COMMIT_HEADER_BYTES + entry_bytes(&batch(5, b"a"));
    let mut damaged = bytes.clone();
    damaged[second] = 99;
    assert_eq!(salvage(&damaged).len(), 1);
    assert_eq!(salvage(&bytes[..20]), []);
    assert_eq!(salvage(&[0; BLOCK]), []);
}

#[test]
fn entries_that_do_not_fill_their_commit_are_errors() {
    let bytes = Bytes::from(encoded(&commit(1, 0, vec![WalEntry::Closed { key: key(1, 1) }])));
    let payload = bytes.slice(COMMIT_HEADER_BYTES..COMMIT_HEADER_BYTES + ENTRY_HEADER_BYTES);
    let error = |payload: &[u8], count| {
        decode_entries(&Bytes::copy_from_slice(payload), count).expect_err("must fail")
    };
    assert_eq!(error(&payload, 2), WalError::Truncated);
    assert_eq!(error(&payload, 0), WalError::Trailing(ENTRY_HEADER_BYTES));
    assert_eq!(error(&payload, u32::MAX), WalError::Truncated);
    let mut unknown = payload.to_vec();
    unknown[0] = 77;
    assert_eq!(error(&unknown, 1), WalError::UnknownKind(77));
    let mut body = payload.to_vec();
    body[0] = LOG_START as u8;
    assert_eq!(error(&body, 1), WalError::BodyBytes { kind: LOG_START, bytes: 0 });
}

#[test]
fn file_names_read_back_and_others_are_refused() {
    assert_eq!(file_name(WalFileSeq(12)), "00000000000000000012.wal");
    assert_eq!(parse_file_name(&file_name(WalFileSeq(u64::MAX))), Some(WalFileSeq(u64::MAX)));
    for name in ["12.wal", "00000000000000000012.tmp", "+0000000000000000012.wal", ".wal", ""] {
        assert_eq!(parse_file_name(name), None, "{name}");
    }
    assert_eq!(parse_file_name("99999999999999999999.wal"), None);
}

fn any_entry() -> impl Strategy<Value = WalEntry> {
    let key = (any::<[u8; 16]>(), 0..i32::MAX).prop_map(|(topic_id, partition)| ReplicaKey {
        topic_id: TopicId(topic_id),
        partition: PartitionIndex(partition),
    });
    let value = prop::collection::vec(any::<u8>(), 0..5000);
    (key, 0..5, any::<i64>(), "[a-z.é]{0,20}", value).prop_map(
        |(key, kind, number, name, value)| match kind {
            0 => {
                WalEntry::Opened { key, topic_name: name, leader_epoch: LeaderEpoch(number as i32) }
            }
            1 => {
                let sample = SampleBatch { value: &value, records: 2, ..SampleBatch::default() };
                WalEntry::Batch { key, batch: sample.at(number >> 2 & i64::MAX >> 2, 3) }
            }
            2 => WalEntry::LogStart { key, log_start_offset: Offset(number) },
            3 => WalEntry::Truncated { key, end_offset: Offset(number) },
            _ => WalEntry::Closed { key },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_commits_read_back(lists in prop::collection::vec(prop::collection::vec(any_entry(), 0..6), 1..6)) {
        let expected: Vec<_> = lists.iter().map(|list| shown(list)).collect();
        let bytes = file(lists, 2);
        let mut found = Vec::new();
        for scanned in scan_as(SHARD, FILE, &bytes) {
            let Scanned::Commit { header, payload } = scanned else { panic!("damaged") };
            found.push(shown(&decode_entries(&payload, header.entry_count).unwrap()));
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_flipped_bit_costs_the_commit_it_hits_and_no_other(
        lists in prop::collection::vec(prop::collection::vec(any_entry(), 1..4), 2..5),
        place in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        let mut ends = Vec::new();
        let mut end = 0;
        for list in &lists {
            let payload: usize = list.iter().map(entry_bytes).sum();
            ends.push((end, end + COMMIT_HEADER_BYTES + payload));
            end += encoded_bytes(list);
        }
        let mut bytes = file(lists, 0);
        let place = place.index(bytes.len());
        bytes[place] ^= 1u8 << bit;
        let intact: Vec<u64> = (0..ends.len())
            .filter(|index| !(ends[*index].0..ends[*index].1).contains(&place))
            .map(|index| index as u64 + 1)
            .collect();
        prop_assert_eq!(valid_lsns(&bytes), intact);
    }

    #[test]
    fn a_file_cut_anywhere_keeps_the_commits_before_the_cut(
        lists in prop::collection::vec(prop::collection::vec(any_entry(), 1..4), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut whole = Vec::new();
        let mut end = 0;
        for (index, list) in lists.iter().enumerate() {
            let payload: usize = list.iter().map(entry_bytes).sum();
            whole.push((end + COMMIT_HEADER_BYTES + payload, index as u64 + 1));
            end += encoded_bytes(list);
        }
        let bytes = file(lists, 0);
        let cut = cut.index(bytes.len());
        let expected: Vec<u64> =
            whole.iter().filter(|(end, _)| *end <= cut).map(|(_, lsn)| *lsn).collect();
        prop_assert_eq!(valid_lsns(&bytes[..cut]), expected);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
        scan_as(SHARD, FILE, &bytes);
        let _ = salvage(&bytes);
        let _ = decode_entries(&Bytes::from(bytes), 3);
    }
}

#[test]
fn an_unused_file_says_whose_it_is_and_a_single_flipped_bit_takes_that_back() {
    let (shard, generation) = (ShardId(3), WalFileSeq(0x0102_0304));
    let block = unused_block(shard, generation);
    assert_eq!(block[..16], *b"CHWU\x01\0\x03\0\x04\x03\x02\x01\0\0\0\0");
    assert!(block[20..].iter().all(|byte| *byte == 0));
    assert!(is_unused(&block, shard, generation));
    assert!(!is_unused(&block, shard, generation.next()));
    assert!(!is_unused(&block, ShardId(4), generation));
    assert!(!is_unused(&block[..512], shard, generation));
    assert_eq!(CommitHeader::parse(&block), None);
    for bit in 0..block.len() * 8 {
        let mut flipped = block;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_unused(&flipped, shard, generation), "bit {bit}");
    }
}
