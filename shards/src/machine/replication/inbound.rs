//! The receiving side: a connection from a shard that leads, and the partitions that it sends.
//!
//! Appends are numbered without gaps. They are taken in order; where the own WAL has no room they wait, which
//! the sender's window bounds. What was taken is acknowledged, cumulatively, once all of it counts here.

use std::collections::{BTreeMap, VecDeque};

use super::{ConnectionId, PeerLimits};
use crate::format::peer_frame::{Append, PeerFrame, StreamFailure, StreamId};
use crate::machine::partitions::{Partitions, Slot};
use crate::machine::queue::pop_front_if;
use crate::model::{LeaderEpoch, MonotonicMicros, NodeId, Offset, ReplicaKey};

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::machine) enum InboundState {
    /// The history is told.
    Opened,
    /// The log is being cut.
    Truncating,
    /// Records flow.
    Ready,
}

/// A partition on an inbound connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::machine) struct InboundStream {
    pub slot: Slot,
    pub key: ReplicaKey,
    pub leader_epoch: LeaderEpoch,
    pub state: InboundState,
}

#[derive(Debug)]
struct Taken {
    sequence: u64,
    bytes: u64,
    /// Where each partition has to be before this counts.
    ends: Vec<(StreamId, Offset)>,
}

/// A connection from a shard that leads. Owner: the following shard.
#[derive(Debug)]
pub struct Inbound {
    pub(in crate::machine) connection: ConnectionId,
    pub(in crate::machine) node_id: NodeId,
    pub(in crate::machine) shard: crate::model::ShardId,
    pub(in crate::machine) streams: BTreeMap<StreamId, InboundStream>,
    by_slot: BTreeMap<Slot, StreamId>,
    /// Appends that the own WAL had no room for.
    pub(in crate::machine) waiting: VecDeque<Append>,
    taken: VecDeque<Taken>,
    unacked_bytes: u64,
    received: u64,
    acked: u64,
    ack_due: bool,
    control: VecDeque<PeerFrame>,
    sent_at: MonotonicMicros,
    heard_at: MonotonicMicros,
    is_signalled: bool,
}

impl Inbound {
    pub(in crate::machine) fn new(
        now: MonotonicMicros,
        connection: ConnectionId,
        node_id: NodeId,
        shard: crate::model::ShardId,
    ) -> Self {
        Self {
            connection,
            node_id,
            shard,
            streams: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            waiting: VecDeque::new(),
            taken: VecDeque::new(),
            unacked_bytes: 0,
            received: 0,
            acked: 0,
            ack_due: false,
            control: VecDeque::new(),
            sent_at: now,
            heard_at: now,
            is_signalled: false,
        }
    }

    pub(in crate::machine) fn heard(&mut self, now: MonotonicMicros) {
        self.heard_at = now;
    }

    pub(in crate::machine) fn is_silent(&self, now: MonotonicMicros, limits: &PeerLimits) -> bool {
        now.since(self.heard_at) >= limits.peer_timeout_ms * 1000
    }

    pub(in crate::machine) fn control(&mut self, frame: PeerFrame) {
        self.control.push_back(frame);
    }

    /// Ends a stream here: told before any later acknowledgement.
    pub(in crate::machine) fn fail(&mut self, stream: StreamId, reason: StreamFailure) {
        self.close(stream);
        self.control.push_back(PeerFrame::Failed { stream, reason });
    }

    /// Takes a stream; an older one of the same partition is gone.
    pub(in crate::machine) fn open(&mut self, id: StreamId, stream: InboundStream) {
        if let Some(older) = self.by_slot.insert(stream.slot, id) {
            self.streams.remove(&older);
        }
        self.streams.insert(id, stream);
    }

    /// The leader sends no more of it.
    pub(in crate::machine) fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id)
            && self.by_slot.get(&stream.slot) == Some(&id)
        {
            self.by_slot.remove(&stream.slot);
        }
    }

    /// The stream of a partition.
    pub(in crate::machine) fn stream_of(&self, slot: Slot) -> Option<StreamId> {
        self.by_slot.get(&slot).copied()
    }

    /// A partition's log was cut: its leader goes on at `end_offset`.
    pub(in crate::machine) fn cut_done(&mut self, slot: Slot, end_offset: Offset) {
        let Some(id) = self.stream_of(slot) else { return };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.state == InboundState::Truncating {
            stream.state = InboundState::Ready;
            self.control.push_back(PeerFrame::Ready { stream: id, end_offset });
        }
    }

    /// An append came. `false`: its number is not the next, or it is beyond the window.
    pub(in crate::machine) fn receive(&mut self, append: &Append, limits: &PeerLimits) -> bool {
        let bytes = append.frame_bytes() as u64;
        let fits = self.unacked_bytes == 0 || self.unacked_bytes + bytes <= window_bound(limits);
        if append.sequence != self.received + 1 || !fits {
            return false;
        }
        self.received = append.sequence;
        self.unacked_bytes += bytes;
        true
    }

    /// An append was taken, up to those offsets.
    pub(in crate::machine) fn took(
        &mut self,
        sequence: u64,
        bytes: u64,
        ends: Vec<(StreamId, Offset)>,
    ) {
        self.taken.push_back(Taken { sequence, bytes, ends });
    }

    /// Moves the acknowledgement to where everything counts. A stream that is closed is waited for no more: its
    /// end was told before.
    pub(in crate::machine) fn release(&mut self, partitions: &Partitions) {
        let streams = &self.streams;
        let counts = |(stream, end): &(StreamId, Offset)| {
            let Some(found) = streams.get(stream) else { return true };
            partitions.get(found.slot).is_none_or(|found| found.in_sync.own() >= *end)
        };
        while let Some(done) = pop_front_if(&mut self.taken, |next| next.ends.iter().all(counts)) {
            self.unacked_bytes -= done.bytes;
            self.acked = done.sequence;
            self.ack_due = true;
        }
    }

    fn has_frames(&self, now: MonotonicMicros, limits: &PeerLimits) -> bool {
        !self.control.is_empty() || self.ack_due || self.heartbeat_at(limits) <= now
    }

    fn heartbeat_at(&self, limits: &PeerLimits) -> MonotonicMicros {
        self.sent_at.plus_millis(limits.heartbeat_ms)
    }

    /// Whether to tell the writer, once, that there is something to pull.
    pub(in crate::machine) fn signal(&mut self, now: MonotonicMicros, limits: &PeerLimits) -> bool {
        let is_new = !self.is_signalled && self.has_frames(now, limits);
        self.is_signalled |= is_new;
        is_new
    }

    pub(in crate::machine) fn next_deadline(&self, limits: &PeerLimits) -> MonotonicMicros {
        let silent = self.heard_at.plus_millis(limits.peer_timeout_ms);
        if self.is_signalled { silent } else { silent.min(self.heartbeat_at(limits)) }
    }

    /// The next frame.
    pub(in crate::machine) fn next_frame(
        &mut self,
        now: MonotonicMicros,
        limits: &PeerLimits,
    ) -> Option<PeerFrame> {
        self.is_signalled = false;
        let frame = if let Some(frame) = self.control.pop_front() {
            frame
        } else if std::mem::take(&mut self.ack_due) {
            PeerFrame::Ack { sequence: self.acked }
        } else if self.heartbeat_at(limits) <= now {
            PeerFrame::Heartbeat
        } else {
            return None;
        };
        self.sent_at = now;
        Some(frame)
    }

    /// Panics where an invariant does not hold.
    pub(in crate::machine) fn check_invariants(&self) {
        let waiting: u64 = self.waiting.iter().map(|append| append.frame_bytes() as u64).sum();
        let taken: u64 = self.taken.iter().map(|taken| taken.bytes).sum();
        assert_eq!(waiting + taken, self.unacked_bytes, "unacknowledged bytes are counted");
        let numbers = self.taken.iter().map(|taken| taken.sequence);
        let numbers = numbers.chain(self.waiting.iter().map(|append| append.sequence));
        let expected = self.acked + 1..=self.received;
        assert!(numbers.eq(expected), "appends are taken in order, without gaps");
    }
}

/// What is taken unacknowledged: the sender counts records against its window, and watermarks ride on top.
fn window_bound(limits: &PeerLimits) -> u64 {
    2 * limits.window_bytes + limits.frame_bytes_max as u64
}
