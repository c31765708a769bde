//! The sending side: a connection to one shard of another node, and the partitions that go over it.
//!
//! A stream is *live* while everything that is handed to the own WAL is handed to it as well. Where the window
//! has no room, it falls behind and is served from the log, in turns with others, until it has reached the
//! log's end: then it is live again. As both look at one number, the next offset to send, there is
//! neither a gap nor an overlap.

mod frames;

use std::collections::{BTreeMap, VecDeque};

use super::{ConnectionId, PeerLimits};
use crate::format::peer_frame::{BATCH_HEAD_BYTES, Open, PeerFrame, Start, StreamId};
use crate::format::record_batch::StoredBatch;
use crate::machine::partitions::Slot;
use crate::machine::queue::pop_front_if;
use crate::model::{
    BrokerEpoch, LeaderEpoch, MonotonicMicros, NodeId, Offset, ReplicaKey, ShardId,
};

/// First pause after an attempt to connect that failed.
const RECONNECT_MS_MIN: u64 = 20;
/// How long until a stream that a follower closed is opened again.
const REOPEN_MS: u64 = 50;
/// Reads of segments at once.
const READS_MAX: usize = 2;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::machine) enum LinkState {
    /// Not connected, and no partition that is led here has a replica there: a node that was taken off, or a
    /// shard that a node has no longer.
    Idle,
    /// Not connected; the next attempt is then.
    Down { retry_at: MonotonicMicros },
    /// Being connected.
    Connecting,
    /// Connected; the peer has not answered the hello.
    Greeting,
    /// Streams may be open.
    Up {
        /// The peer's incarnation.
        broker_epoch: BrokerEpoch,
        /// What it takes unacknowledged.
        window_bytes: u64,
    },
}

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::machine) enum StreamState {
    /// The follower has not told its history.
    Opening,
    /// The follower has not said that it is ready.
    Starting,
    /// Records flow.
    Live {
        /// The next offset to send.
        next_offset: Offset,
    },
    /// The window had no room, or the follower is new.
    Behind {
        /// The next offset to send.
        next_offset: Offset,
        /// Whether segments are being read.
        is_reading: bool,
    },
}

/// A partition on a link.
#[derive(Clone, Copy, Debug)]
pub(in crate::machine) struct Stream {
    pub slot: Slot,
    pub key: ReplicaKey,
    pub leader_epoch: LeaderEpoch,
    pub state: StreamState,
    /// Whether watermarks moved that the follower does not know.
    pub has_news: bool,
    /// Where the follower's log was told to begin: below the log start, at the border of the batch that has it.
    pub anew_at: Option<Offset>,
}

#[derive(Debug)]
struct InFlight {
    sequence: u64,
    bytes: u64,
    sent_at: MonotonicMicros,
    ends: Vec<(StreamId, Offset)>,
}

/// What an acknowledgement proves.
#[derive(Debug, Default)]
pub(in crate::machine) struct Acknowledged {
    /// Positions of the follower, by replica.
    pub positions: Vec<(Slot, Offset)>,
    /// Whether the sequence number was ever sent.
    pub is_valid: bool,
}

/// A connection to a shard that follows. Owner: the leading shard.
#[derive(Debug)]
pub struct Link {
    pub(in crate::machine) connection: ConnectionId,
    pub(in crate::machine) node_id: NodeId,
    pub(in crate::machine) shard: ShardId,
    pub(in crate::machine) state: LinkState,
    pub(in crate::machine) streams: BTreeMap<StreamId, Stream>,
    by_slot: BTreeMap<Slot, StreamId>,
    next_stream: u32,
    next_sequence: u64,
    /// Everything but records, in order.
    control: VecDeque<PeerFrame>,
    /// Live batches that no frame has taken yet.
    group: VecDeque<(StreamId, StoredBatch)>,
    group_bytes: u64,
    /// Read from segments: at most one read's worth.
    read: VecDeque<(StreamId, StoredBatch)>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
    behind: VecDeque<StreamId>,
    reads_under_way: usize,
    /// Streams with news, and since when.
    news: Vec<StreamId>,
    news_since: Option<MonotonicMicros>,
    /// Replicas whose streams are to be opened again, and when.
    reopen: Vec<(MonotonicMicros, Slot)>,
    backoff_ms: u64,
    sent_at: MonotonicMicros,
    heard_at: MonotonicMicros,
    /// Moving average of the time from sending to acknowledgement.
    pub(in crate::machine) latency_micros: u64,
    /// Since when it seems to be slow where it was not, or the other way round.
    pub(in crate::machine) turning_since: Option<MonotonicMicros>,
    pub(in crate::machine) is_slow: bool,
    is_signalled: bool,
}

impl Link {
    pub(in crate::machine) fn new(
        now: MonotonicMicros,
        connection: ConnectionId,
        node_id: NodeId,
        shard: ShardId,
    ) -> Self {
        Self {
            connection,
            node_id,
            shard,
            state: LinkState::Down { retry_at: now },
            streams: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            next_stream: 1,
            next_sequence: 1,
            control: VecDeque::new(),
            group: VecDeque::new(),
            group_bytes: 0,
            read: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            behind: VecDeque::new(),
            reads_under_way: 0,
            news: Vec::new(),
            news_since: None,
            reopen: Vec::new(),
            backoff_ms: 0,
            sent_at: now,
            heard_at: now,
            latency_micros: 0,
            turning_since: None,
            is_slow: false,
            is_signalled: false,
        }
    }

    pub(in crate::machine) fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Up { .. })
    }

    /// Nobody wants it: no attempt is made until somebody does.
    pub(in crate::machine) fn rest(&mut self) {
        self.state = LinkState::Idle;
        self.backoff_ms = 0;
    }

    /// Somebody wants it: where it rests, it is connected at once.
    pub(in crate::machine) fn wake(&mut self, now: MonotonicMicros) {
        if self.state == LinkState::Idle {
            self.state = LinkState::Down { retry_at: now };
        }
    }

    /// A new attempt: everything of the last connection is gone.
    pub(in crate::machine) fn connect(&mut self, connection: ConnectionId) {
        *self = Self {
            state: LinkState::Connecting,
            next_stream: self.next_stream,
            backoff_ms: self.backoff_ms,
            latency_micros: self.latency_micros,
            is_slow: self.is_slow,
            turning_since: self.turning_since,
            ..Self::new(self.heard_at, connection, self.node_id, self.shard)
        };
    }

    /// The connection stands.
    pub(in crate::machine) fn connected(&mut self, now: MonotonicMicros, hello: PeerFrame) {
        self.state = LinkState::Greeting;
        (self.sent_at, self.heard_at) = (now, now);
        self.control.push_back(hello);
    }

    /// The peer has answered.
    pub(in crate::machine) fn welcomed(&mut self, broker_epoch: BrokerEpoch, window_bytes: u64) {
        self.state = LinkState::Up { broker_epoch, window_bytes };
        self.backoff_ms = 0;
    }

    /// The connection is gone, or was never made. Returns the streams that it had.
    pub(in crate::machine) fn lost(
        &mut self,
        now: MonotonicMicros,
        limits: &PeerLimits,
    ) -> BTreeMap<StreamId, Stream> {
        let retry_at = now.plus_millis(self.backoff_ms);
        let doubled = self.backoff_ms * 2;
        self.backoff_ms = doubled.clamp(RECONNECT_MS_MIN, limits.reconnect_ms_max);
        self.state = LinkState::Down { retry_at };
        self.control.clear();
        self.group.clear();
        self.group_bytes = 0;
        self.read.clear();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.behind.clear();
        self.reads_under_way = 0;
        self.news.clear();
        self.news_since = None;
        self.reopen.clear();
        self.by_slot.clear();
        std::mem::take(&mut self.streams)
    }

    /// Something came.
    pub(in crate::machine) fn heard(&mut self, now: MonotonicMicros) {
        self.heard_at = now;
    }

    /// Whether the peer is silent for too long.
    pub(in crate::machine) fn is_silent(&self, now: MonotonicMicros, limits: &PeerLimits) -> bool {
        let is_open = matches!(self.state, LinkState::Greeting | LinkState::Up { .. });
        is_open && now.since(self.heard_at) >= limits.peer_timeout_ms * 1000
    }

    /// Begins a stream.
    pub(in crate::machine) fn open(
        &mut self,
        slot: Slot,
        key: ReplicaKey,
        leader_epoch: LeaderEpoch,
    ) -> StreamId {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        let state = StreamState::Opening;
        self.by_slot.insert(slot, stream);
        let (has_news, anew_at) = (false, None);
        let opened = Stream { slot, key, leader_epoch, state, has_news, anew_at };
        self.streams.insert(stream, opened);
        let open = Open { stream, key, leader_epoch };
        self.control.push_back(PeerFrame::Open(open));
        stream
    }

    /// The log start lies within a batch: the follower's log has to begin where that begins.
    pub(in crate::machine) fn begin_at_border(&mut self, stream: StreamId, border: Offset) {
        if let Some(found) = self.streams.get_mut(&stream) {
            found.state = StreamState::Starting;
            found.anew_at = Some(border);
            let log_start_offset = border;
            let (end_offset, begins_anew) = (border, true);
            let start = Start { stream, end_offset, log_start_offset, begins_anew };
            self.control.push_back(PeerFrame::Start(start));
        }
    }

    /// Ends a stream; what is under way for it counts no more.
    pub(in crate::machine) fn close(&mut self, stream: StreamId) -> Option<Stream> {
        let found = self.failed(stream)?;
        self.control.push_back(PeerFrame::Close { stream });
        Some(found)
    }

    /// The follower ended a stream.
    pub(in crate::machine) fn failed(&mut self, stream: StreamId) -> Option<Stream> {
        self.drop_queued(stream);
        let found = self.streams.remove(&stream)?;
        self.by_slot.remove(&found.slot);
        Some(found)
    }

    /// The stream of a partition.
    pub(in crate::machine) fn stream_of(&self, slot: Slot) -> Option<StreamId> {
        self.by_slot.get(&slot).copied()
    }

    fn drop_queued(&mut self, stream: StreamId) {
        self.group.retain(|(other, _)| *other != stream);
        self.group_bytes = self.group.iter().map(cost).sum();
        self.read.retain(|(other, _)| *other != stream);
        self.behind.retain(|other| *other != stream);
    }

    /// Opens the replica's stream again after a while.
    pub(in crate::machine) fn reopen_later(&mut self, now: MonotonicMicros, slot: Slot) {
        self.reopen.push((now.plus_millis(REOPEN_MS), slot));
    }

    /// The replicas whose streams are due to be opened again.
    pub(in crate::machine) fn due_to_reopen(&mut self, now: MonotonicMicros) -> Vec<Slot> {
        let due = self.reopen.extract_if(.., |(at, _)| *at <= now);
        due.map(|(_, slot)| slot).collect()
    }

    pub(in crate::machine) fn control(&mut self, frame: PeerFrame) {
        self.control.push_back(frame);
    }

    /// The follower's log goes on at `next_offset`.
    pub(in crate::machine) fn ready(&mut self, stream: StreamId, next_offset: Offset) {
        if let Some(found) = self.streams.get_mut(&stream) {
            found.state = StreamState::Behind { next_offset, is_reading: false };
            self.behind.push_back(stream);
        }
        self.news(stream);
    }

    /// Watermarks of a partition moved.
    pub(in crate::machine) fn news(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        let flows = matches!(found.state, StreamState::Live { .. } | StreamState::Behind { .. });
        if flows && !std::mem::replace(&mut found.has_news, true) {
            self.news.push(stream);
        }
    }

    /// The first news since the last came about now.
    pub(in crate::machine) fn date_news(&mut self, now: MonotonicMicros) {
        if !self.news.is_empty() {
            self.news_since.get_or_insert(now);
        }
    }

    /// Takes a batch that is handed to the own WAL, if its stream is live and there is room.
    pub(in crate::machine) fn offer(
        &mut self,
        limits: &PeerLimits,
        stream: StreamId,
        batch: &StoredBatch,
    ) {
        let bytes = cost(&(stream, batch.clone()));
        let has_room = self.has_room(limits, bytes);
        let Some(found) = self.streams.get_mut(&stream) else { return };
        let StreamState::Live { next_offset } = found.state else { return };
        if batch.header.base_offset < next_offset {
            // Catching up has sent it already.
            return;
        }
        if has_room && batch.header.base_offset == next_offset {
            found.state = StreamState::Live { next_offset: batch.end_offset() };
            self.group_bytes += bytes;
            self.group.push_back((stream, batch.clone()));
        } else {
            found.state = StreamState::Behind { next_offset, is_reading: false };
            self.behind.push_back(stream);
        }
    }

    fn window(&self, limits: &PeerLimits) -> u64 {
        match self.state {
            LinkState::Up { window_bytes, .. } => window_bytes.min(limits.window_bytes),
            LinkState::Idle
            | LinkState::Down { .. }
            | LinkState::Connecting
            | LinkState::Greeting => 0,
        }
    }

    /// Whether so much more may be under way. A single batch beyond the window goes alone.
    fn has_room(&self, limits: &PeerLimits, bytes: u64) -> bool {
        let queued = self.in_flight_bytes + self.group_bytes;
        queued == 0 || queued + bytes <= self.window(limits)
    }

    /// Whether catching up may take a turn: it leaves half of the window to live records.
    fn may_catch_up(&self, limits: &PeerLimits) -> bool {
        let queued = self.in_flight_bytes + self.group_bytes;
        self.in_flight.len() < limits.frames_in_flight_max
            && (queued == 0 || queued < self.window(limits) / 2)
    }

    /// Whether there is something to send now.
    pub(in crate::machine) fn has_frames(&self, now: MonotonicMicros, limits: &PeerLimits) -> bool {
        if !self.control.is_empty() {
            return matches!(self.state, LinkState::Greeting | LinkState::Up { .. });
        }
        let may_append = self.in_flight.len() < limits.frames_in_flight_max;
        self.is_up()
            && (may_append && !(self.group.is_empty() && self.read.is_empty())
                || (self.reads_under_way < READS_MAX
                    && !self.behind.is_empty()
                    && self.may_catch_up(limits))
                || (may_append && self.news_due(limits).is_some_and(|at| at <= now))
                || self.heartbeat_at(limits) <= now)
    }

    fn news_due(&self, limits: &PeerLimits) -> Option<MonotonicMicros> {
        let delay = limits.positions_delay_ms;
        self.news_since.map(|since| since.plus_millis(delay))
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

    /// The same for live records alone, which no clock has to be asked about.
    pub(in crate::machine) fn signal_records(&mut self, limits: &PeerLimits) -> bool {
        let may_append = self.in_flight.len() < limits.frames_in_flight_max;
        let is_new = !self.is_signalled && may_append && !self.group.is_empty();
        self.is_signalled |= is_new;
        is_new
    }

    /// When something is due.
    pub(in crate::machine) fn next_deadline(&self, limits: &PeerLimits) -> Option<MonotonicMicros> {
        match self.state {
            LinkState::Down { retry_at } => Some(retry_at),
            LinkState::Idle | LinkState::Connecting => None,
            LinkState::Greeting => Some(self.heard_at.plus_millis(limits.peer_timeout_ms)),
            LinkState::Up { .. } => {
                let silent = self.heard_at.plus_millis(limits.peer_timeout_ms);
                let reopen = self.reopen.iter().map(|(at, _)| *at).min();
                let may_append = self.in_flight.len() < limits.frames_in_flight_max;
                let news = self.news_due(limits).filter(|_| may_append && !self.is_signalled);
                let alive = Some(self.heartbeat_at(limits)).filter(|_| !self.is_signalled);
                [Some(silent), reopen, news, alive].into_iter().flatten().min()
            }
        }
    }

    /// Everything up to `sequence` counts on the follower.
    pub(in crate::machine) fn acknowledged(
        &mut self,
        now: MonotonicMicros,
        sequence: u64,
    ) -> Acknowledged {
        let mut proven =
            Acknowledged { is_valid: sequence < self.next_sequence, ..Acknowledged::default() };
        if !proven.is_valid {
            return proven;
        }
        while let Some(frame) =
            pop_front_if(&mut self.in_flight, |frame| frame.sequence <= sequence)
        {
            self.in_flight_bytes -= frame.bytes;
            let latency = now.since(frame.sent_at);
            if !frame.ends.is_empty() {
                self.latency_micros = (self.latency_micros * 7 + latency) / 8;
            }
            for (stream, end) in frame.ends {
                // What a stream that is closed now had under way proves nothing any more.
                if let Some(found) = self.streams.get(&stream) {
                    proven.positions.push((found.slot, end));
                }
            }
        }
        proven
    }

    /// How long acknowledgements take: what is under way counts as soon as it takes longer.
    pub(in crate::machine) fn current_latency(&mut self, now: MonotonicMicros) -> u64 {
        match self.in_flight.front() {
            Some(oldest) => self.latency_micros.max(now.since(oldest.sent_at)),
            None => {
                // Nothing is written: what was measured loses its meaning.
                self.latency_micros /= 2;
                self.latency_micros
            }
        }
    }

    /// Panics where an invariant does not hold.
    pub(in crate::machine) fn check_invariants(&self, limits: &PeerLimits) {
        let in_flight: u64 = self.in_flight.iter().map(|frame| frame.bytes).sum();
        assert_eq!(in_flight, self.in_flight_bytes, "bytes in flight are counted");
        assert_eq!(self.group.iter().map(cost).sum::<u64>(), self.group_bytes, "so is the group");
        assert!(self.in_flight.len() <= limits.frames_in_flight_max, "frames are bounded");
        for stream in &self.behind {
            let found = self.streams.get(stream).map(|found| found.state);
            let waits = matches!(found, Some(StreamState::Behind { is_reading: false, .. }));
            assert!(waits, "{stream:?} waits for its turn: {found:?}");
        }
    }
}

fn cost((_, batch): &(StreamId, StoredBatch)) -> u64 {
    (BATCH_HEAD_BYTES + batch.total_bytes()) as u64
}
