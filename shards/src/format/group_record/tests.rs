use proptest::prelude::*;

use super::*;

/// What Kafka wrote.
const GOLDEN: &str = include_str!("golden.txt");

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn golden() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, value) = line.split_once(' ').unwrap();
            (bytes(key), (value != "-").then(|| bytes(value)))
        })
        .collect()
}

fn encoded(record: &GroupRecord) -> (Vec<u8>, Option<Vec<u8>>) {
    let (key, value) = record.encode();
    (key.to_vec(), value.map(|value| value.to_vec()))
}

#[test]
fn what_kafka_wrote_is_read_and_written_byte_for_byte() {
    let mut kinds = std::collections::BTreeMap::<u8, usize>::new();
    for (key, value) in golden() {
        let decoded = GroupRecord::decode(&key, value.as_deref());
        let record = decoded.unwrap_or_else(|error| panic!("{key:02x?} {value:02x?}: {error}"));
        assert_eq!(encoded(&record), (key.clone(), value), "{record:?}");
        *kinds.entry(key[1]).or_default() += 1;
    }
    let seen: Vec<u8> = kinds.keys().copied().collect();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 16]);
}

#[test]
fn golden_offset_is_what_was_committed() {
    let (key, value) = golden().into_iter().find(|(key, _)| key[1] == 1).unwrap();
    let expected = GroupRecord::Offset {
        key: OffsetKey {
            group_id: "old".into(),
            topic: "apples".into(),
            partition: PartitionIndex(1),
        },
        value: Some(CommittedOffset {
            offset: Offset(7),
            leader_epoch: Some(0),
            metadata: "note".into(),
            committed_at: TimestampMs(1_795_279_301_928),
            expires_at: None,
            topic_id: "dkqMSMo0Q4qrY_X0_8sHQA".parse().unwrap(),
        }),
    };
    assert_eq!(GroupRecord::decode(&key, value.as_deref()), Ok(expected));
}

#[test]
fn golden_member_that_speaks_the_classic_protocol() {
    let classic = golden().into_iter().find_map(|(key, value)| {
        match GroupRecord::decode(&key, value.as_deref()).unwrap() {
            GroupRecord::Member { value: Some(member), .. } => member.classic,
            _ => None,
        }
    });
    let classic = classic.unwrap();
    assert_eq!(classic.session_timeout_ms, 45_000);
    let names: Vec<&str> = classic.protocols.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["range", "cooperative-sticky"]);
}

fn offset() -> CommittedOffset {
    CommittedOffset {
        offset: Offset(0x0102),
        leader_epoch: Some(5),
        metadata: "m".into(),
        committed_at: TimestampMs(0x0304),
        expires_at: None,
        topic_id: TopicId::ZERO,
    }
}

#[test]
fn offsets_of_every_version() {
    let epoch = "00000005";
    let [number, at, text] = ["0000000000000102", "0000000000000304", "00016d"];
    let without_epoch = CommittedOffset { leader_epoch: None, ..offset() };
    let expiring = CommittedOffset { expires_at: Some(TimestampMs(9)), ..without_epoch.clone() };
    let named = CommittedOffset { topic_id: TopicId([7; 16]), ..offset() };
    let tag = format!("010010{}", "07".repeat(16));
    let cases = [
        (1, 0, format!("0000{number}{text}{at}"), &without_epoch),
        (1, 1, format!("0001{number}{text}{at}0000000000000009"), &expiring),
        (1, 2, format!("0002{number}{text}{at}"), &without_epoch),
        (1, 3, format!("0003{number}{epoch}{text}{at}"), &offset()),
        (1, 4, format!("0004{number}{epoch}026d{at}00"), &offset()),
        (1, 4, format!("0004{number}{epoch}026d{at}{tag}"), &named),
    ];
    for (kind, version, hex, expected) in cases {
        let key = [vec![0, kind], vec![0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]].concat();
        let decoded = GroupRecord::decode(&key, Some(&bytes(&hex))).unwrap();
        let GroupRecord::Offset { value: Some(value), .. } = decoded else { panic!("an offset") };
        assert_eq!(value, *expected, "version {version}");
        assert_eq!(value.encode(version), bytes(&hex), "version {version}");
    }
    let legacy = format!("0000{number}{text}{at}");
    let key = [0, 0, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3];
    let decoded = GroupRecord::decode(&key, Some(&bytes(&legacy))).unwrap();
    let GroupRecord::Offset { value, .. } = decoded else { panic!("an offset") };
    assert_eq!(value, Some(without_epoch));
}

#[test]
fn groups_of_every_version() {
    let member = ClassicMember {
        member_id: "m".into(),
        instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "h".into(),
        rebalance_timeout_ms: 3,
        session_timeout_ms: 4,
        subscription: Bytes::from_static(&[1]),
        assignment: Bytes::from_static(&[2, 2]),
    };
    let group = GroupMetadata {
        protocol_type: "consumer".into(),
        generation: 2,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        state_at: TimestampMs(6),
        members: vec![member],
    };
    let [head, at] = ["0008636f6e73756d657200000002000572616e676500016d", "0000000000000006"];
    let bodies = ["0000000101000000020202", "00000001", "00016d", "000163000168"];
    let [blobs, one, id, client] = bodies;
    let times = "0000000300000004";
    let cases = [
        format!("0000{head}{one}{id}{client}00000004{blobs}"),
        format!("0001{head}{one}{id}{client}{times}{blobs}"),
        format!("0002{head}{at}{one}{id}{client}{times}{blobs}"),
        format!("0003{head}{at}{one}{id}000169{client}{times}{blobs}"),
        format!(
            "000409636f6e73756d6572000000020672616e6765026d{at}02026d0269026302680000000300000004\
             02010302020000"
        ),
    ];
    for (version, hex) in (0..).zip(&cases) {
        let mut expected = group.clone();
        let only = &mut expected.members[0];
        if version < 3 {
            only.instance_id = None;
        }
        if version < 1 {
            only.rebalance_timeout_ms = only.session_timeout_ms;
        }
        if version < 2 {
            expected.state_at = TimestampMs::NONE;
        }
        let decoded = GroupRecord::decode(&[0, 2, 0, 1, b'g'], Some(&bytes(hex)));
        let group_id = "g".to_owned();
        let record = GroupRecord::Group { group_id, value: Some(expected.clone()) };
        assert_eq!(decoded, Ok(record), "version {version}");
        assert_eq!(expected.encode(version), bytes(hex), "version {version}");
    }
}

#[test]
fn unknown_kinds_and_versions_are_named() {
    assert_eq!(GroupRecord::decode(&[0, 11, 1], None), Err(GroupRecordError::UnknownKind(11)));
    for kind in [1, 2, 3, 5, 6, 7, 8, 16] {
        let strings = if kind >= 5 && kind != 6 { 2 } else { 1 };
        let mut key = vec![0, kind];
        match kind {
            1 => key.extend([0, 1, b'g', 0, 1, b't', 0, 0, 0, 0]),
            _ => key.extend([0, 1, b'g'].repeat(strings)),
        }
        let unknown = GroupRecordError::UnknownVersion { kind: kind.into(), version: 9 };
        assert_eq!(GroupRecord::decode(&key, Some(&[0, 9])), Err(unknown));
    }
}

#[test]
fn tags_of_later_releases_are_passed_over() {
    // Tag 5 of two bytes behind the epoch.
    let value = bytes("000000000007010502aabb");
    let expected = ConsumerGroupMetadata { epoch: 7, metadata_hash: 0 };
    assert_eq!(ConsumerGroupMetadata::decode(&value), Ok(expected));
}

#[test]
fn epochs_that_do_not_match_their_partitions_are_refused() {
    let key = bytes("000800016700016d");
    let topic = format!("{}0200000001{}", "07".repeat(16), "01000903000000010000000200");
    let value = bytes(&format!("0000000000010000000000{}{}0100", "02", &topic));
    let decoded = GroupRecord::decode(&key, Some(&value));
    assert!(
        matches!(decoded, Err(GroupRecordError::Epochs { partitions: 1, epochs: 2 })),
        "{decoded:?}"
    );
}

#[test]
fn cut_off_records_are_refused() {
    for (key, value) in golden() {
        for cut in 0..key.len() {
            assert!(
                GroupRecord::decode(&key[..cut], value.as_deref()).is_err(),
                "{key:?} at {cut}"
            );
        }
        let Some(value) = value.filter(|_| key[1] != 4) else { continue };
        for cut in 0..value.len() {
            assert!(GroupRecord::decode(&key, Some(&value[..cut])).is_err(), "{key:?} at {cut}");
        }
        let longer = [&value[..], &[0]].concat();
        assert_eq!(GroupRecord::decode(&key, Some(&longer)), Err(GroupRecordError::Trailing(1)));
    }
}

#[test]
fn counts_beyond_the_bytes_are_refused_before_anything_is_allocated() {
    let value = bytes("0003ffff");
    assert!(GroupRecord::decode(&[0, 2, 0, 1, b'g'], Some(&value)).is_err());
    let value = bytes("00000000000700000000000000ffffffff0f");
    let key = bytes("000700016700016d");
    let counted = GroupRecord::decode(&key, Some(&bytes("0000ffffffff0f")));
    assert_eq!(counted, Err(GroupRecordError::Count(u32::MAX as usize - 1)));
    assert!(GroupRecord::decode(&key, Some(&value)).is_err());
}

proptest! {
    #[test]
    fn damaged_records_decode_to_something_that_reads_back(
        which in 0usize..62,
        place in 0usize..400,
        flip in 1u8..,
    ) {
        let all = golden();
        let (key, value) = &all[which % all.len()];
        let Some(mut value) = value.clone() else { return Ok(()) };
        let place = place % value.len();
        value[place] ^= flip;
        if let Ok(record) = GroupRecord::decode(key, Some(&value)) {
            let (key, value) = record.encode();
            prop_assert_eq!(GroupRecord::decode(&key, value.as_deref()), Ok(record));
        }
    }
}
