use super::*;
use crate::format::sample_batch::SampleBatch;
use crate::model::{PartitionIndex, TopicId};
use bytes::{Bytes, BytesMut};

fn joined(frame: &PeerFrame) -> Bytes {
    let mut bytes = BytesMut::new();
    frame.encode().iter().for_each(|piece| bytes.extend_from_slice(piece));
    bytes.freeze()
}

fn read(bytes: &Bytes) -> Result<PeerFrame, FrameError> {
    let head = bytes.first_chunk().expect("a header");
    let header = FrameHeader::parse(head, bytes.len())?;
    decode(&header, bytes.slice(HEADER_BYTES..))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const KEY: ReplicaKey = ReplicaKey { topic_id: TopicId([7; 16]), partition: PartitionIndex(3) };

fn every_frame() -> Vec<PeerFrame> {
    let stream = StreamId(5);
    let batch =
        |base| SampleBatch { records: 2, value: b"v", ..SampleBatch::default() }.at(base, 4);
    let failed = |reason| PeerFrame::Failed { stream, reason };
    vec![
        PeerFrame::Hello(Hello {
            cluster_id: ClusterId([1; 16]),
            node_id: NodeId(2),
            broker_epoch: BrokerEpoch(77),
            shard: ShardId(1),
            target_node_id: NodeId(3),
            target_shard: ShardId(0),
        }),
        PeerFrame::Welcome(Welcome {
            node_id: NodeId(3),
            broker_epoch: BrokerEpoch(78),
            shard: ShardId(0),
            window_bytes: 1 << 20,
        }),
        PeerFrame::Refused(Refused { reason: Refusal::Cluster, text: "another cluster".into() }),
        PeerFrame::Open(Open { stream, key: KEY, leader_epoch: LeaderEpoch(4) }),
        PeerFrame::History(History {
            stream,
            log_start_offset: Offset(1),
            log_end_offset: Offset(9),
            epochs: vec![(LeaderEpoch(0), Offset(1)), (LeaderEpoch(3), Offset(6))],
        }),
        PeerFrame::Start(Start {
            stream,
            end_offset: Offset(6),
            log_start_offset: Offset(2),
            begins_anew: true,
        }),
        PeerFrame::Ready { stream, end_offset: Offset(6) },
        PeerFrame::Close { stream },
        PeerFrame::Append(Append {
            sequence: 9,
            positions: vec![StreamPosition {
                stream,
                high_watermark: Offset(6),
                log_start_offset: Offset(2),
            }],
            batches: vec![(stream, batch(6)), (StreamId(6), batch(0)), (stream, batch(8))],
        }),
        failed(StreamFailure::StaleEpoch { known: LeaderEpoch(5) }),
        failed(StreamFailure::UnknownEpoch { known: LeaderEpoch(3) }),
        failed(StreamFailure::UnknownPartition),
        failed(StreamFailure::Gap { expected: Offset(8) }),
        failed(StreamFailure::Storage),
        PeerFrame::Ack { sequence: 9 },
        PeerFrame::Heartbeat,
    ]
}

#[test]
fn every_frame_reads_back_as_the_same_bytes() {
    for frame in every_frame() {
        let bytes = joined(&frame);
        let again = read(&bytes).unwrap_or_else(|error| panic!("{frame:?}: {error}"));
        assert_eq!(joined(&again), bytes, "{frame:?}");
        assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&frame));
    }
}

#[test]
fn golden_bytes() {
    let golden = |frame: &PeerFrame| hex(&joined(frame));
    let frames = every_frame();
    assert_eq!(golden(&PeerFrame::Heartbeat), "424801000400000000000000");
    assert_eq!(golden(&PeerFrame::Ack { sequence: 9 }), "4b4101000c00000077cb2f870900000000000000");
    assert_eq!(golden(&frames[7]), GOLDEN_CLOSE);
    assert_eq!(golden(&frames[0]), GOLDEN_HELLO);
    assert_eq!(golden(&frames[4]), GOLDEN_HISTORY);
    let small = Append {
        sequence: 2,
        positions: vec![StreamPosition {
            stream: StreamId(1),
            high_watermark: Offset(3),
            log_start_offset: Offset(0),
        }],
        batches: vec![(StreamId(1), SampleBatch::default().at(3, 1))],
    };
    assert_eq!(golden(&PeerFrame::Append(small)), GOLDEN_APPEND);
}

const GOLDEN_CLOSE: &str = "4157010009000000efe672260805000000";
const GOLDEN_HELLO: &str = concat!(
    "415701002900000022a0ec990101010101010101010101010101010101020000004d0000000000000001",
    "00030000000000"
);
const GOLDEN_HISTORY: &str = concat!(
    "4157010035000000a665b07d050500000001000000000000000900000000000000020000000000000001",
    "00000000000000030000000600000000000000"
);
const GOLDEN_APPEND: &str = concat!(
    "4157010075000000feaacfa4090200000000000000010000000100000001000000030000000000000000",
    "0000000000000001000000440000000000000000000003000000380000000102dc108634000000000000",
    "00000000000003e800000000000003e8ffffffffffffffffffffffffffff000000010c000000010000"
);

#[test]
fn an_append_refers_to_its_batches_and_knows_its_size() {
    let Some(PeerFrame::Append(append)) = every_frame().into_iter().nth(8) else { panic!() };
    let expected: Vec<_> =
        append.batches.iter().map(|(_, batch)| batch.tail_bytes().as_ptr()).collect();
    let pieces = PeerFrame::Append(append.clone()).encode();
    assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), append.frame_bytes());
    for tail in expected {
        assert!(pieces.iter().any(|piece| piece.as_ptr() == tail), "a batch was copied");
    }
}

#[test]
fn any_cut_or_flipped_bit_is_an_error() {
    for frame in every_frame() {
        let bytes = joined(&frame);
        for end in HEADER_BYTES..bytes.len() {
            assert!(read(&bytes.slice(..end)).is_err(), "{frame:?} cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut flipped = BytesMut::from(&bytes[..]);
            flipped[at] ^= 0x10;
            assert!(read(&flipped.freeze()).is_err(), "{frame:?} flipped at {at}");
        }
    }
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
    let bytes = joined(&every_frame()[0]);
    let head = bytes.first_chunk().expect("a header");
    let error = FrameHeader::parse(head, bytes.len() - 1).unwrap_err();
    assert_eq!(error, FrameError::Length { bytes: bytes.len(), limit: bytes.len() - 1 });
    assert!(bytes.len() <= HANDSHAKE_BYTES_MAX);
}

#[test]
fn strangers_are_told_by_their_first_bytes() {
    let parse = |head: &[u8; HEADER_BYTES]| FrameHeader::parse(head, 1024);
    assert_eq!(parse(b"GET / HTTP/1").unwrap_err(), FrameError::Magic(0x4547));
    let mut newer = *joined(&PeerFrame::Heartbeat).first_chunk().expect("a header");
    newer[2] = 2;
    assert_eq!(parse(&newer).unwrap_err(), FrameError::Version(2));
}

#[test]
fn counts_beyond_the_payload_are_refused() {
    for (frame, at) in [(8, 9), (8, 13), (4, 21)] {
        let bytes = joined(&every_frame()[frame]);
        let mut payload = BytesMut::from(&bytes[HEADER_BYTES..]);
        payload[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let header = FrameHeader {
            magic: Magic::Data,
            payload_bytes: payload.len(),
            payload_crc: crc32c::crc32c(&payload),
        };
        let error = decode(&header, payload.freeze()).unwrap_err();
        assert!(matches!(error, FrameError::Truncated { .. }), "{error}");
    }
}

#[test]
fn a_long_refusal_and_a_long_history_are_cut_to_their_bounds() {
    let text = "ä".repeat(REFUSAL_TEXT_BYTES_MAX);
    let refused = PeerFrame::Refused(Refused { reason: Refusal::Node, text });
    let bytes = joined(&refused);
    assert!(bytes.len() <= HANDSHAKE_BYTES_MAX);
    let Ok(PeerFrame::Refused(refused)) = read(&bytes) else { panic!() };
    assert_eq!(refused.text.len(), REFUSAL_TEXT_BYTES_MAX);

    let count = HISTORY_MAX as i32 + 5;
    let epochs = (0..count).map(|n| (LeaderEpoch(n), Offset(i64::from(n)))).collect();
    let history = PeerFrame::History(History {
        stream: StreamId(1),
        log_start_offset: Offset(0),
        log_end_offset: Offset(i64::from(count)),
        epochs,
    });
    let Ok(PeerFrame::History(history)) = read(&joined(&history)) else { panic!() };
    assert_eq!(history.epochs.len(), HISTORY_MAX);
    assert_eq!(history.epochs[0].0, LeaderEpoch(5), "the newest are kept");
}
