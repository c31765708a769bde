//! Frames as pieces to be written in one go: record bytes are referred to, not copied.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    APPEND_BYTES, Append, BATCH_HEAD_BYTES, HEADER_BYTES, HISTORY_MAX, Magic, POSITION_BYTES,
    PeerFrame, REFUSAL_TEXT_BYTES_MAX, StreamFailure, VERSION, kind,
};
use crate::format::record_batch::{STAMPED_BYTES, StoredBatch};

impl PeerFrame {
    /// The frame's bytes, in pieces.
    ///
    /// # Panics
    /// When a frame would have 4 GiB, which the sender's window is far below.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        match self {
            Self::Append(append) => encode_append(append),
            Self::Ack { sequence } => one_piece(Magic::Ack, |out| out.put_u64_le(*sequence)),
            Self::Heartbeat => one_piece(Magic::Heartbeat, |_| {}),
            other => one_piece(Magic::Data, |out| put_data(other, out)),
        }
    }
}

fn put_data(frame: &PeerFrame, out: &mut BytesMut) {
    match frame {
        PeerFrame::Hello(hello) => {
            out.put_u8(kind::HELLO);
            out.put_slice(&hello.cluster_id.0);
            out.put_i32_le(hello.node_id.0);
            out.put_i64_le(hello.broker_epoch.0);
            out.put_u16_le(hello.shard.0);
            out.put_i32_le(hello.target_node_id.0);
            out.put_u16_le(hello.target_shard.0);
        }
        PeerFrame::Welcome(welcome) => {
            out.put_u8(kind::WELCOME);
            out.put_i32_le(welcome.node_id.0);
            out.put_i64_le(welcome.broker_epoch.0);
            out.put_u16_le(welcome.shard.0);
            out.put_u64_le(welcome.window_bytes);
        }
        PeerFrame::Refused(refused) => {
            out.put_u8(kind::REFUSED);
            out.put_u8(refused.reason.code());
            let is_end = |at: &usize| refused.text.is_char_boundary(*at);
            let limit = refused.text.len().min(REFUSAL_TEXT_BYTES_MAX);
            let end = (0..=limit).rev().find(is_end).unwrap_or(0);
            out.put_slice(&refused.text.as_bytes()[..end]);
        }
        PeerFrame::Open(open) => {
            out.put_u8(kind::OPEN);
            out.put_u32_le(open.stream.0);
            out.put_slice(&open.key.topic_id.0);
            out.put_i32_le(open.key.partition.0);
            out.put_i32_le(open.leader_epoch.0);
        }
        PeerFrame::History(history) => {
            let newest = history.epochs.len().saturating_sub(HISTORY_MAX);
            let epochs = &history.epochs[newest..];
            out.put_u8(kind::HISTORY);
            out.put_u32_le(history.stream.0);
            out.put_i64_le(history.log_start_offset.0);
            out.put_i64_le(history.log_end_offset.0);
            out.put_u32_le(epochs.len() as u32);
            for (epoch, start) in epochs {
                out.put_i32_le(epoch.0);
                out.put_i64_le(start.0);
            }
        }
        PeerFrame::Start(start) => {
            out.put_u8(kind::START);
            out.put_u32_le(start.stream.0);
            out.put_i64_le(start.end_offset.0);
            out.put_i64_le(start.log_start_offset.0);
            out.put_u8(u8::from(start.begins_anew));
        }
        PeerFrame::Ready { stream, end_offset } => {
            out.put_u8(kind::READY);
            out.put_u32_le(stream.0);
            out.put_i64_le(end_offset.0);
        }
        PeerFrame::Close { stream } => {
            out.put_u8(kind::CLOSE);
            out.put_u32_le(stream.0);
        }
        PeerFrame::Failed { stream, reason } => {
            let (code, epoch, offset) = match reason {
                StreamFailure::StaleEpoch { known } => (1, known.0, 0),
                StreamFailure::UnknownEpoch { known } => (2, known.0, 0),
                StreamFailure::UnknownPartition => (3, 0, 0),
                StreamFailure::Gap { expected } => (4, 0, expected.0),
                StreamFailure::Storage => (5, 0, 0),
            };
            out.put_u8(kind::FAILED);
            out.put_u32_le(stream.0);
            out.put_u8(code);
            out.put_i32_le(epoch);
            out.put_i64_le(offset);
        }
        PeerFrame::Append(_) | PeerFrame::Ack { .. } | PeerFrame::Heartbeat => {
            unreachable!("encoded on their own")
        }
    }
}

fn one_piece(magic: Magic, put: impl FnOnce(&mut BytesMut)) -> Vec<Bytes> {
    let mut frame = BytesMut::with_capacity(64);
    frame.put_bytes(0, HEADER_BYTES);
    put(&mut frame);
    let crc = crc32c::crc32c(&frame[HEADER_BYTES..]);
    let payload_bytes = frame.len() - HEADER_BYTES;
    put_header(magic, payload_bytes, crc, &mut frame);
    vec![frame.freeze()]
}

/// Fills in the first bytes of a frame.
fn put_header(magic: Magic, payload_bytes: usize, crc: u32, frame: &mut [u8]) {
    let length = u32::try_from(payload_bytes + 4).expect("frames stay below 4 GiB");
    let mut out = &mut frame[..HEADER_BYTES];
    out.put_u16_le(magic.code());
    out.put_u16_le(VERSION);
    out.put_u32_le(length);
    out.put_u32_le(crc);
}

/// All heads lie in one buffer; between them go the batches' own bytes.
fn encode_append(append: &Append) -> Vec<Bytes> {
    const HEAD_BYTES: usize = BATCH_HEAD_BYTES + STAMPED_BYTES;
    let fixed = HEADER_BYTES + APPEND_BYTES + POSITION_BYTES * append.positions.len();
    let mut heads = BytesMut::with_capacity(fixed + HEAD_BYTES * append.batches.len());
    heads.put_bytes(0, HEADER_BYTES);
    heads.put_u8(kind::APPEND);
    heads.put_u64_le(append.sequence);
    heads.put_u32_le(append.positions.len() as u32);
    heads.put_u32_le(append.batches.len() as u32);
    for position in &append.positions {
        heads.put_u32_le(position.stream.0);
        heads.put_i64_le(position.high_watermark.0);
        heads.put_i64_le(position.log_start_offset.0);
    }
    let mut crc = crc32c::crc32c(&heads[HEADER_BYTES..]);
    let mut payload_bytes = fixed - HEADER_BYTES;
    for (stream, batch) in &append.batches {
        let at = heads.len();
        heads.put_u32_le(stream.0);
        heads.put_u32_le(batch.total_bytes() as u32);
        heads.put_slice(&batch.stamp());
        crc = crc32c::crc32c_append(crc, &heads[at..]);
        crc = crc32c::crc32c_append(crc, batch.tail());
        payload_bytes += BATCH_HEAD_BYTES + batch.total_bytes();
    }
    put_header(Magic::Data, payload_bytes, crc, &mut heads);
    let mut heads = heads.freeze();
    let mut pieces = Vec::with_capacity(1 + 2 * append.batches.len());
    // The first batch's head lies right behind the fixed part.
    let mut head_bytes = fixed + HEAD_BYTES;
    for (_, batch) in &append.batches {
        pieces.push(heads.split_to(head_bytes));
        pieces.push(batch.tail_bytes());
        head_bytes = HEAD_BYTES;
    }
    if append.batches.is_empty() {
        pieces.push(heads);
    }
    pieces
}

impl Append {
    /// Bytes of the frame that this append is.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        let batch = |(_, batch): &(_, StoredBatch)| BATCH_HEAD_BYTES + batch.total_bytes();
        HEADER_BYTES
            + APPEND_BYTES
            + POSITION_BYTES * self.positions.len()
            + self.batches.iter().map(batch).sum::<usize>()
    }
}
