//! What other nodes send.

use bytes::Bytes;
use chronik_shards::format::batch_builder::BatchBuilder;
use chronik_shards::format::compression::Codec;
use chronik_shards::format::peer_frame::{
    Append, ClusterId, FrameHeader, HEADER_BYTES, Hello, History, Open, PeerFrame, Refusal,
    Refused, Start, StreamFailure, StreamId, StreamPosition, Welcome, decode,
};
use chronik_shards::format::record_batch::StoredBatch;
use chronik_shards::model::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, ReplicaKey, ShardId, TimestampMs,
    TopicId,
};

use super::driver::{Target, outcome};

/// A bound that a connection would have; inputs are shorter.
const FRAME_BYTES_MAX: usize = 1 << 20;

#[test]
fn frames_of_peers() {
    let target = Target {
        name: "peer_frame",
        corpus: "peer_frame",
        seeds: seeds(),
        repair: |input| repair(input),
        run,
        held_bytes: 4096,
        // A batch of 61 bytes and its head become a header and a reference; encoding copies heads.
        held_per_byte: 16,
    };
    target.fuzz();
}

fn seeds() -> Vec<Vec<u8>> {
    let stream = StreamId(5);
    let key = ReplicaKey { topic_id: TopicId([7; 16]), partition: PartitionIndex(3) };
    let batch = |base| {
        let builder = BatchBuilder::new(Codec::None).record(TimestampMs(5), None, Some(b"value"));
        (stream, StoredBatch::place(builder.build(), Offset(base), LeaderEpoch(2)))
    };
    let hello = Hello {
        cluster_id: ClusterId([1; 16]),
        node_id: NodeId(2),
        broker_epoch: BrokerEpoch(77),
        shard: ShardId(1),
        target_node_id: NodeId(3),
        target_shard: ShardId(0),
    };
    let welcome = Welcome {
        node_id: NodeId(3),
        broker_epoch: BrokerEpoch(78),
        shard: ShardId(0),
        window_bytes: 1 << 20,
    };
    let history = History {
        stream,
        log_start_offset: Offset(1),
        log_end_offset: Offset(90),
        epochs: (0..8).map(|n| (LeaderEpoch(n), Offset(1 + 10 * i64::from(n)))).collect(),
    };
    let position =
        StreamPosition { stream, high_watermark: Offset(6), log_start_offset: Offset(2) };
    let append = Append {
        sequence: 9,
        positions: vec![position; 3],
        batches: vec![batch(6), batch(7), batch(8)],
    };
    let start =
        Start { stream, end_offset: Offset(6), log_start_offset: Offset(2), begins_anew: false };
    let reason = StreamFailure::Gap { expected: Offset(8) };
    let frames = [
        PeerFrame::Hello(hello),
        PeerFrame::Welcome(welcome),
        PeerFrame::Refused(Refused { reason: Refusal::Cluster, text: "another".to_owned() }),
        PeerFrame::Open(Open { stream, key, leader_epoch: LeaderEpoch(4) }),
        PeerFrame::History(history),
        PeerFrame::Start(start),
        PeerFrame::Ready { stream, end_offset: Offset(6) },
        PeerFrame::Close { stream },
        PeerFrame::Append(append),
        PeerFrame::Append(Append::default()),
        PeerFrame::Failed { stream, reason },
        PeerFrame::Ack { sequence: 9 },
        PeerFrame::Heartbeat,
    ];
    frames.iter().map(|frame| frame.encode().concat()).collect()
}

/// Makes length and checksum right, and the checksum of a batch that fills an append's rest.
fn repair(input: &mut [u8]) {
    if input.len() < HEADER_BYTES {
        return;
    }
    input[2..4].copy_from_slice(&1u16.to_le_bytes());
    let length = input.len() as u32 - 8;
    input[4..8].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&input[HEADER_BYTES..]);
    input[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn run(input: &Bytes) -> u64 {
    let Some(head) = input.first_chunk() else { return 0 };
    let header = match FrameHeader::parse(head, FRAME_BYTES_MAX) {
        Ok(header) => header,
        Err(error) => return outcome(std::mem::discriminant(&error)),
    };
    assert!(header.payload_bytes < FRAME_BYTES_MAX, "bounded before it is read");
    let payload = input.slice(HEADER_BYTES..);
    match decode(&header, payload) {
        Err(error) => outcome((header.magic, std::mem::discriminant(&error))),
        Ok(frame) => {
            let again = frame.encode().concat();
            // A longer text or history than may be sent is cut when it is sent.
            if !matches!(frame, PeerFrame::Refused(_) | PeerFrame::History(_)) {
                assert_eq!(again, input[..], "what decodes is what would be sent");
            }
            outcome(std::mem::discriminant(&frame))
        }
    }
}
