//! Connections between shards: each direction delivers in order, late, or not at all.

use std::collections::VecDeque;

use bytes::Bytes;
use chronik_shards::format::peer_frame::{
    ClusterId, FrameHeader, HEADER_BYTES, PeerFrame, StreamId, decode,
};
use chronik_shards::format::record_batch::StoredBatch;
use chronik_shards::machine::replication::{ConnectionId, LogRead, PeerEffect};

use super::*;

pub const CLUSTER: ClusterId = ClusterId([42; 16]);
const FRAME_BYTES_MAX: usize = 1 << 20;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End {
    seat: usize,
    shard: usize,
    incarnation: u64,
    connection: Option<ConnectionId>,
}

/// A connection: the leader's end first.
struct Wire {
    ends: [End; 2],
    is_connected: bool,
    /// Frames on their way to each end.
    queues: [VecDeque<Bytes>; 2],
    streams: BTreeMap<StreamId, ReplicaKey>,
}

/// All connections.
#[derive(Default)]
pub struct Network {
    wires: BTreeMap<u64, Wire>,
    next_wire: u64,
    /// From whom to whom nothing gets through.
    cuts: BTreeSet<(usize, usize)>,
    /// Ends that have to learn that their connection is gone.
    lost: Vec<End>,
    reads: Vec<(End, LogRead)>,
}

impl Network {
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        self.cuts.remove(&(from, to));
    }

    /// Whether records may still be on their way.
    pub fn is_quiet(&self) -> bool {
        self.reads.is_empty() && self.lost.is_empty()
    }

    fn remove(&mut self, wire: u64, told: impl Fn(&End) -> bool) {
        if let Some(wire) = self.wires.remove(&wire) {
            self.lost.extend(wire.ends.iter().filter(|end| told(end)));
        }
    }

    fn wire_of(&self, end: End) -> Option<(u64, usize)> {
        self.wires.iter().find_map(|(id, wire)| {
            let is_it = |other: &End| *other == end;
            wire.ends.iter().position(is_it).map(|end| (*id, end))
        })
    }

    /// A process is gone. Its peers learn it when their system says so, or by its silence.
    pub fn gone(&mut self, seat: usize, is_told: bool) {
        let of_it = |wire: &Wire| wire.ends.iter().any(|end| end.seat == seat);
        let wires: Vec<u64> =
            self.wires.iter().filter(|(_, wire)| of_it(wire)).map(|(id, _)| *id).collect();
        for id in wires {
            if is_told {
                self.remove(id, |end| end.seat != seat);
            } else if let Some(wire) = self.wires.get_mut(&id) {
                wire.queues = Default::default();
            }
        }
        self.reads.retain(|(end, _)| end.seat != seat);
        self.lost.retain(|end| end.seat != seat);
    }
}

impl World {
    /// What the machines of a node want of their peers.
    pub(super) fn peer_effects(&mut self, seat: usize) -> Result<(), Breach> {
        let shards = self.seats[seat].node.as_ref().map_or(0, |node| node.shards.len());
        for shard in 0..shards {
            while let Some(effect) = self.machine(seat, shard).next_peer_effect() {
                self.peer_effect(seat, shard, effect);
            }
        }
        Ok(())
    }

    fn machine(
        &mut self,
        seat: usize,
        shard: usize,
    ) -> &mut chronik_shards::machine::shard::ShardMachine {
        &mut self.seats[seat].node.as_mut().expect("it runs").shards[shard].machine
    }

    fn peer_effect(&mut self, seat: usize, shard: usize, effect: PeerEffect) {
        let incarnation = self.seats[seat].incarnation;
        let end = |connection| End { seat, shard, incarnation, connection };
        match effect {
            PeerEffect::Connect { connection, node_id, shard: target_shard } => {
                let target = seat_of(node_id);
                let other = End {
                    seat: target,
                    shard: usize::from(target_shard.0),
                    incarnation: self.seats[target].incarnation,
                    connection: None,
                };
                let id = self.network.next_wire;
                self.trace(|| format!("wire {id}: node {} {connection:?} to {other:?}", seat + 1));
                self.network.next_wire += 1;
                let queues = Default::default();
                let ends = [end(Some(connection)), other];
                self.network.wires.insert(
                    id,
                    Wire { ends, is_connected: false, queues, streams: BTreeMap::new() },
                );
            }
            PeerEffect::Disconnect { connection, reason } => {
                self.trace(|| format!("node {} disconnects {connection:?}: {reason}", seat + 1));
                if let Some((id, place)) = self.network.wire_of(end(Some(connection))) {
                    let own = self.network.wires[&id].ends[place];
                    self.network.remove(id, |end| *end != own);
                }
            }
            PeerEffect::FramesReady { connection } => self.send(seat, shard, connection),
            PeerEffect::Acknowledged { node_id, key, end_offset } => {
                self.trace(|| {
                    format!("node {} hears of {node_id}: {key} up to {end_offset}", seat + 1)
                });
            }
            PeerEffect::ReadLog(read) => {
                self.note(Event::ReadForCatchUp);
                self.network.reads.push((end(Some(read.connection)), read));
            }
            PeerEffect::ProposeIsr(change) => {
                self.trace(|| format!("node {} proposes {change:?}", seat + 1));
                if self.bug == Some(Bug::CommittedIsrOnly) {
                    // As if whoever joins did not count until that is committed.
                    let (key, epoch) = (change.key, change.partition_epoch);
                    let (now, mut effects) = (self.now(seat), Vec::new());
                    let node = self.seats[seat].node.as_mut().expect("it runs");
                    node.act(now, shard, &mut effects, |machine, out| {
                        machine.isr_change_refused(now, key, epoch, out);
                    });
                }
                self.propose(seat, shard, change);
            }
        }
    }

    /// Pulls the frames of a connection onto the wire.
    fn send(&mut self, seat: usize, shard: usize, connection: ConnectionId) {
        let now = self.now(seat);
        let incarnation = self.seats[seat].incarnation;
        let end = |connection| End { seat, shard, incarnation, connection };
        let wire = self.network.wire_of(end(Some(connection)));
        while let Some(frame) = self.machine(seat, shard).next_peer_frame(now, connection) {
            let bytes = Bytes::from(frame.encode().concat());
            if let Some((id, place)) = wire
                && let Some(wire) = self.network.wires.get_mut(&id)
            {
                wire.queues[1 - place].push_back(bytes);
            }
        }
    }

    /// One thing that is under way arrives: a connection, a frame, the end of a connection, a read.
    pub(super) fn deliver_one(&mut self) -> Result<(), Breach> {
        let extra = self.network.lost.len() + self.network.reads.len();
        let ready: Vec<(u64, usize)> = self
            .network
            .wires
            .iter()
            .flat_map(|(id, wire)| {
                let arrives = |place: &usize| {
                    let (from, to) = (wire.ends[1 - place], wire.ends[*place]);
                    let is_cut = self.network.cuts.contains(&(from.seat, to.seat));
                    !is_cut && (!wire.queues[*place].is_empty() || !wire.is_connected)
                };
                [0, 1].into_iter().filter(arrives).map(|place| (*id, place)).collect::<Vec<_>>()
            })
            .collect();
        let count = ready.len() + extra;
        if count == 0 {
            return Ok(());
        }
        let place = self.rng.place(count);
        if let Some((id, place)) = ready.get(place).copied() {
            return self.deliver(id, place);
        }
        let place = place - ready.len();
        if place < self.network.lost.len() {
            let end = self.network.lost[place];
            if !self.runs(end.seat) {
                return Ok(());
            }
            self.network.lost.swap_remove(place);
            return self.tell_lost(end);
        }
        let (end, read) = self.network.reads[place - self.network.lost.len()];
        if !self.runs(end.seat) || self.seats[end.seat].slow_until > self.micros {
            return Ok(());
        }
        self.network.reads.swap_remove(place - self.network.lost.len());
        self.read_log(end, read)
    }

    fn is_current(&self, end: &End) -> bool {
        self.runs(end.seat) && self.seats[end.seat].incarnation == end.incarnation
    }

    fn tell_lost(&mut self, end: End) -> Result<(), Breach> {
        let Some(connection) = end.connection.filter(|_| self.is_current(&end)) else {
            return Ok(());
        };
        self.trace(|| format!("lost: {end:?}"));
        self.act(end, |machine, now, out| machine.peer_lost(now, connection, out))
    }

    fn act(
        &mut self,
        end: End,
        input: impl FnOnce(&mut chronik_shards::machine::shard::ShardMachine, Now, &mut Vec<Effect>),
    ) -> Result<(), Breach> {
        let (now, mut effects) = (self.now(end.seat), Vec::new());
        let node = self.seats[end.seat].node.as_mut().expect("it is current");
        node.act(now, end.shard, &mut effects, |machine, out| input(machine, now, out));
        self.take(end.seat, effects)
    }

    fn deliver(&mut self, id: u64, place: usize) -> Result<(), Breach> {
        let wire = &self.network.wires[&id];
        let (to, other) = (wire.ends[place], wire.ends[1 - place]);
        let is_frozen = |end: &End| self.seats[end.seat].frozen_until > self.micros;
        if is_frozen(&to) || (!wire.is_connected && is_frozen(&other)) {
            return Ok(());
        }
        if !wire.is_connected {
            return self.connect(id);
        }
        if !self.is_current(&to) {
            // Nobody is there any more: the system says so.
            self.network.remove(id, |end| *end == other);
            return Ok(());
        }
        let wire = self.network.wires.get_mut(&id).expect("it is there");
        let Some(bytes) = wire.queues[place].pop_front() else { return Ok(()) };
        let head = bytes.first_chunk().expect("frames are whole");
        let header = FrameHeader::parse(head, FRAME_BYTES_MAX).map_err(|e| e.to_string())?;
        let payload = bytes.slice(HEADER_BYTES..);
        let mut frame = decode(&header, payload).map_err(|error| error.to_string())?;
        self.trace(|| format!("node {} <- {}: {frame:?}", to.seat + 1, other.seat + 1));
        self.watch(id, to, &mut frame);
        match to.connection {
            Some(connection) => {
                self.act(to, |machine, now, out| machine.peer_frame(now, connection, frame, out))
            }
            None => self.accept(id, to, &frame),
        }
    }

    fn connect(&mut self, id: u64) -> Result<(), Breach> {
        let wire = self.network.wires.get_mut(&id).expect("it is there");
        let [from, to] = wire.ends;
        let is_there = self.seats[to.seat].node.is_some();
        wire.is_connected = true;
        wire.ends[1].incarnation = self.seats[to.seat].incarnation;
        if !is_there || to.shard >= usize::from(self.seats[to.seat].shards) {
            self.network.remove(id, |end| *end == from);
            return Ok(());
        }
        let Some(connection) = from.connection.filter(|_| self.is_current(&from)) else {
            self.network.remove(id, |_| false);
            return Ok(());
        };
        self.act(from, |machine, now, out| machine.peer_connected(now, connection, out))
    }

    fn accept(&mut self, id: u64, to: End, frame: &PeerFrame) -> Result<(), Breach> {
        let PeerFrame::Hello(hello) = frame else {
            return Err(format!("{frame:?} before a hello"));
        };
        let mut accepted = None;
        let (now, mut effects) = (self.now(to.seat), Vec::new());
        let node = self.seats[to.seat].node.as_mut().expect("it is current");
        node.act(now, to.shard, &mut effects, |machine, out| {
            accepted = Some(machine.peer_accepted(now, hello, out));
        });
        match accepted.expect("the machine was asked") {
            Ok(connection) => {
                let wire = self.network.wires.get_mut(&id).expect("it is there");
                wire.ends[1].connection = Some(connection);
            }
            Err(refused) => {
                self.trace(|| format!("refused: {refused:?}"));
                let wire = self.network.wires.get_mut(&id).expect("it is there");
                let bytes = Bytes::from(PeerFrame::Refused(refused).encode().concat());
                wire.queues[0].push_back(bytes);
            }
        }
        self.take(to.seat, effects)
    }

    /// Notes what a seed set must have seen; deliberate bugs of replication act here.
    fn watch(&mut self, id: u64, to: End, frame: &mut PeerFrame) {
        let node = self.seats[to.seat].node.as_ref().expect("it is current");
        let wire = self.network.wires.get_mut(&id).expect("it is there");
        let event = match frame {
            PeerFrame::Open(open) => {
                wire.streams.insert(open.stream, open.key);
                let known = self.controller.view(to.seat).partition(open.key);
                let waits = known.is_none_or(|known| known.leader_epoch < open.leader_epoch);
                waits.then_some(Event::OpenWaited)
            }
            PeerFrame::Start(start) if start.begins_anew => Some(Event::BeganAnew),
            PeerFrame::Start(start) => {
                let machine = &node.shards[to.shard].machine;
                let info = wire.streams.get(&start.stream).and_then(|key| machine.info(*key));
                let end = info.map_or(start.end_offset, |info| info.log_end_offset);
                let is_cut = end > start.end_offset;
                if self.bug == Some(Bug::SkippedTruncation) {
                    start.end_offset = end;
                }
                is_cut.then_some(Event::Truncated)
            }
            PeerFrame::Append(append) if self.bug == Some(Bug::FollowerAckBeforeFlush) => {
                let ack = PeerFrame::Ack { sequence: append.sequence };
                wire.queues[0].push_back(Bytes::from(ack.encode().concat()));
                None
            }
            _ => None,
        };
        if let Some(event) = event {
            self.note(event);
        }
    }

    /// A connection ends for no reason.
    pub(super) fn reset_one(&mut self) {
        let ids: Vec<u64> = self.network.wires.keys().copied().collect();
        if !ids.is_empty() {
            let id = ids[self.rng.place(ids.len())];
            self.trace(|| format!("wire {id} is reset"));
            self.network.remove(id, |_| true);
            self.note(Event::Reset);
        }
    }

    /// Reads segments for a follower, as the log reader would.
    fn read_log(&mut self, end: End, read: LogRead) -> Result<(), Breach> {
        if !self.is_current(&end) {
            return Ok(());
        }
        let node = self.seats[end.seat].node.as_ref().expect("it is current");
        let view = node.shards[end.shard].machine.log_view(read.key).unwrap_or_default();
        let is_there = view.iter().next().is_some_and(|first| first.base_offset <= read.offset);
        let mut batches: Vec<StoredBatch> = Vec::new();
        if is_there {
            let mut bytes = 0;
            for batch in node.read_segments(read.key, &view, read.offset, read.end) {
                bytes += batch.total_bytes();
                if !batches.is_empty() && bytes > read.bytes_max {
                    break;
                }
                batches.push(batch);
            }
        }
        self.act(end, |machine, now, out| machine.log_read(now, read, batches, out))
    }
}
