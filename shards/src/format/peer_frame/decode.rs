//! Frames out of bytes that a peer sent: nothing is allocated beyond them, and nothing panics.

use bytes::{Buf, Bytes};

use super::{
    Append, BATCH_HEAD_BYTES, ClusterId, FrameError, HEADER_BYTES, Hello, History, Magic, Open,
    POSITION_BYTES, PeerFrame, Refusal, Refused, Start, StreamFailure, StreamId, StreamPosition,
    VERSION, Welcome, kind,
};
use crate::format::record_batch::StoredBatch;
use crate::model::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, ReplicaKey, ShardId, TopicId,
};

/// A frame's first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What follows.
    pub magic: Magic,
    /// How much follows.
    pub payload_bytes: usize,
    /// Its checksum.
    pub payload_crc: u32,
}

impl FrameHeader {
    /// Reads a header. `frame_bytes_max` bounds the whole frame: what it claims is not believed beyond.
    ///
    /// # Errors
    /// [`FrameError::Magic`], [`FrameError::Version`], [`FrameError::Length`].
    pub fn parse(bytes: &[u8; HEADER_BYTES], frame_bytes_max: usize) -> Result<Self, FrameError> {
        let mut rest = &bytes[..];
        let magic = match rest.get_u16_le() {
            code if code == Magic::Data.code() => Magic::Data,
            code if code == Magic::Ack.code() => Magic::Ack,
            code if code == Magic::Heartbeat.code() => Magic::Heartbeat,
            other => return Err(FrameError::Magic(other)),
        };
        let version = rest.get_u16_le();
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let length = rest.get_u32_le() as usize;
        let bytes = length.saturating_add(HEADER_BYTES - 4);
        let limit = frame_bytes_max;
        let payload_bytes = length.checked_sub(4).filter(|_| bytes <= limit);
        let payload_bytes = payload_bytes.ok_or(FrameError::Length { bytes, limit })?;
        Ok(Self { magic, payload_bytes, payload_crc: rest.get_u32_le() })
    }
}

/// Reads a payload. Batches alias it.
///
/// # Errors
/// What is wrong with it. The connection cannot go on.
pub fn decode(header: &FrameHeader, payload: Bytes) -> Result<PeerFrame, FrameError> {
    if payload.len() != header.payload_bytes {
        return Err(FrameError::Length { bytes: payload.len(), limit: header.payload_bytes });
    }
    let (found, computed) = (header.payload_crc, crc32c::crc32c(&payload));
    if found != computed {
        return Err(FrameError::Checksum { found, computed });
    }
    let mut fields = Fields { rest: payload, kind: 0 };
    let frame = match header.magic {
        Magic::Heartbeat => PeerFrame::Heartbeat,
        Magic::Ack => PeerFrame::Ack { sequence: fields.u64()? },
        Magic::Data => {
            fields.kind = fields.u8()?;
            decode_data(&mut fields)?
        }
    };
    match fields.rest.len() {
        0 => Ok(frame),
        bytes => Err(FrameError::Trailing { kind: fields.kind, bytes }),
    }
}

fn decode_data(fields: &mut Fields) -> Result<PeerFrame, FrameError> {
    Ok(match fields.kind {
        kind::HELLO => PeerFrame::Hello(Hello {
            cluster_id: ClusterId(fields.array()?),
            node_id: NodeId(fields.i32()?),
            broker_epoch: BrokerEpoch(fields.i64()?),
            shard: ShardId(fields.u16()?),
            target_node_id: NodeId(fields.i32()?),
            target_shard: ShardId(fields.u16()?),
        }),
        kind::WELCOME => PeerFrame::Welcome(Welcome {
            node_id: NodeId(fields.i32()?),
            broker_epoch: BrokerEpoch(fields.i64()?),
            shard: ShardId(fields.u16()?),
            window_bytes: fields.u64()?,
        }),
        kind::REFUSED => {
            let code = fields.u8()?;
            let known = Refusal::ALL.into_iter().find(|reason| reason.code() == code);
            let reason = known.ok_or(FrameError::Code { kind: kind::REFUSED, code })?;
            let text = std::mem::take(&mut fields.rest);
            let text = str::from_utf8(&text).map_err(|_| FrameError::Text)?.to_owned();
            PeerFrame::Refused(Refused { reason, text })
        }
        kind::OPEN => {
            let stream = fields.stream()?;
            let topic_id = TopicId(fields.array()?);
            let partition = PartitionIndex(fields.i32()?);
            let key = ReplicaKey { topic_id, partition };
            let leader_epoch = LeaderEpoch(fields.i32()?);
            if partition.0 < 0 || leader_epoch.0 < 0 {
                return Err(FrameError::Offsets(stream));
            }
            PeerFrame::Open(Open { stream, key, leader_epoch })
        }
        kind::HISTORY => PeerFrame::History(decode_history(fields)?),
        kind::START => {
            let stream = fields.stream()?;
            let end_offset = fields.offset(stream)?;
            let log_start_offset = fields.offset(stream)?;
            let begins_anew = match fields.u8()? {
                0 => false,
                1 => true,
                code => return Err(FrameError::Code { kind: kind::START, code }),
            };
            PeerFrame::Start(Start { stream, end_offset, log_start_offset, begins_anew })
        }
        kind::READY => {
            let stream = fields.stream()?;
            PeerFrame::Ready { stream, end_offset: fields.offset(stream)? }
        }
        kind::CLOSE => PeerFrame::Close { stream: fields.stream()? },
        kind::APPEND => PeerFrame::Append(decode_append(fields)?),
        kind::FAILED => {
            let stream = fields.stream()?;
            let (code, epoch) = (fields.u8()?, LeaderEpoch(fields.i32()?));
            let offset = fields.offset(stream)?;
            // What a reason has no use for is zero: one meaning, one encoding.
            let reason = match (code, epoch, offset) {
                (1, known, Offset::ZERO) => StreamFailure::StaleEpoch { known },
                (2, known, Offset::ZERO) => StreamFailure::UnknownEpoch { known },
                (3, LeaderEpoch(0), Offset::ZERO) => StreamFailure::UnknownPartition,
                (4, LeaderEpoch(0), expected) => StreamFailure::Gap { expected },
                (5, LeaderEpoch(0), Offset::ZERO) => StreamFailure::Storage,
                (code, ..) => return Err(FrameError::Code { kind: kind::FAILED, code }),
            };
            PeerFrame::Failed { stream, reason }
        }
        other => return Err(FrameError::Kind(other)),
    })
}

fn decode_history(fields: &mut Fields) -> Result<History, FrameError> {
    const EPOCH_BYTES: usize = 12;
    let stream = fields.stream()?;
    let log_start_offset = fields.offset(stream)?;
    let log_end_offset = fields.offset(stream)?;
    let count = fields.count(EPOCH_BYTES)?;
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = (LeaderEpoch(fields.i32()?), fields.offset(stream)?);
        let grows = epochs.last().is_none_or(|last| last.0 < entry.0 && last.1 < entry.1);
        if !grows || entry.0.0 < 0 || entry.1 > log_end_offset {
            return Err(FrameError::Offsets(stream));
        }
        epochs.push(entry);
    }
    if log_start_offset > log_end_offset {
        return Err(FrameError::Offsets(stream));
    }
    Ok(History { stream, log_start_offset, log_end_offset, epochs })
}

fn decode_append(fields: &mut Fields) -> Result<Append, FrameError> {
    let sequence = fields.u64()?;
    let position_count = fields.u32()?;
    let batch_count = fields.u32()?;
    let most = fields.bounded(position_count, POSITION_BYTES)?;
    let mut positions = Vec::with_capacity(most);
    for _ in 0..position_count {
        let stream = fields.stream()?;
        let high_watermark = fields.offset(stream)?;
        let log_start_offset = fields.offset(stream)?;
        positions.push(StreamPosition { stream, high_watermark, log_start_offset });
    }
    let most = fields.bounded(batch_count, BATCH_HEAD_BYTES)?;
    let mut batches = Vec::with_capacity(most);
    for _ in 0..batch_count {
        let stream = fields.stream()?;
        let bytes = fields.u32()? as usize;
        let batch = StoredBatch::from_log(fields.take(bytes)?)
            .map_err(|error| FrameError::Batch { stream, error })?;
        batches.push((stream, batch));
    }
    Ok(Append { sequence, positions, batches })
}

/// What is left of a payload.
struct Fields {
    rest: Bytes,
    /// For errors.
    kind: u8,
}

impl Fields {
    fn take(&mut self, count: usize) -> Result<Bytes, FrameError> {
        match count <= self.rest.len() {
            true => Ok(self.rest.split_to(count)),
            false => Err(FrameError::Truncated { kind: self.kind }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let head = self.rest.first_chunk::<N>().copied();
        let head = head.ok_or(FrameError::Truncated { kind: self.kind })?;
        self.rest.advance(N);
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    fn i32(&mut self) -> Result<i32, FrameError> {
        self.array().map(i32::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, FrameError> {
        self.array().map(i64::from_le_bytes)
    }

    fn stream(&mut self) -> Result<StreamId, FrameError> {
        self.u32().map(StreamId)
    }

    fn offset(&mut self, stream: StreamId) -> Result<Offset, FrameError> {
        match self.i64()? {
            raw @ 0.. => Ok(Offset(raw)),
            _ => Err(FrameError::Offsets(stream)),
        }
    }

    /// A number of elements of that size, which the rest has room for.
    fn count(&mut self, element_bytes: usize) -> Result<usize, FrameError> {
        let count = self.u32()?;
        self.bounded(count, element_bytes)
    }

    fn bounded(&self, count: u32, element_bytes: usize) -> Result<usize, FrameError> {
        match (count as usize).checked_mul(element_bytes) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count as usize),
            _ => Err(FrameError::Truncated { kind: self.kind }),
        }
    }
}
