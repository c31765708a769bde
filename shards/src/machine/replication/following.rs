//! The partitions that a shard follows: how their streams begin, where their logs are cut, what they take.

use super::ConnectionId;
use super::inbound::{Inbound, InboundState, InboundStream};
use crate::format::peer_frame::{Append, History, Open, PeerFrame, Start, StreamFailure, StreamId};
use crate::format::wal_entry::WalEntry;
use crate::machine::effect::{Effect, StoreJob, StoreReply};
use crate::machine::partition::follower::{Cut, FollowError, Truncation};
use crate::machine::partitions::Slot;
use crate::machine::shard::ShardMachine;
use crate::machine::wal::Note;
use crate::model::{Now, Offset, ReplicaKey};

impl ShardMachine {
    /// A leader opens a partition. If the metadata has not come here yet, that is waited for.
    pub(super) fn open_stream(&mut self, connection: ConnectionId, open: Open) {
        let replication = self.replication.as_mut().expect("it has the connection");
        let limit = replication.limits.waiting_opens_max;
        let Some(inbound) = replication.inbound.get_mut(&connection) else { return };
        let slot = self.partitions.slot(&open.key);
        let partition = slot.and_then(|slot| self.partitions.get(slot));
        let known = partition.map(|partition| partition.leader_epoch);
        let failure = match known {
            None => Err(StreamFailure::UnknownPartition),
            Some(known) if known < open.leader_epoch => Err(StreamFailure::UnknownEpoch { known }),
            Some(known) if known > open.leader_epoch => {
                return inbound.fail(open.stream, StreamFailure::StaleEpoch { known });
            }
            Some(_) => Ok(()),
        };
        if let Err(reason) = failure {
            return self.wait_for_metadata(connection, open, reason, limit);
        }
        let (Some(slot), Some(partition)) = (slot, partition) else { return };
        if partition.leads() || partition.placement.leader != Some(inbound.node_id) {
            let known = partition.leader_epoch;
            return inbound.fail(open.stream, StreamFailure::StaleEpoch { known });
        }
        if partition.has_failed {
            return inbound.fail(open.stream, StreamFailure::Storage);
        }
        let (key, leader_epoch) = (open.key, open.leader_epoch);
        let state = InboundState::Opened;
        inbound.open(open.stream, InboundStream { slot, key, leader_epoch, state });
        inbound.control(PeerFrame::History(History {
            stream: open.stream,
            log_start_offset: partition.log_start_offset,
            log_end_offset: partition.log_end_offset,
            epochs: partition.epochs.starts().to_vec(),
        }));
    }

    /// Keeps an open until its epoch is known here. Of two leaders the later one is waited for.
    fn wait_for_metadata(
        &mut self,
        connection: ConnectionId,
        open: Open,
        reason: StreamFailure,
        limit: usize,
    ) {
        let replication = self.replication.as_mut().expect("it has the connection");
        let waiting = replication.waiting_opens.get(&open.key).copied();
        let is_full = replication.waiting_opens.len() >= limit && waiting.is_none();
        let later = waiting.is_some_and(|(other, waits)| {
            let is_there = replication.inbound.contains_key(&other);
            is_there && waits.leader_epoch > open.leader_epoch
        });
        let refused = if is_full || later {
            Some((connection, open.stream))
        } else {
            replication.waiting_opens.insert(open.key, (connection, open));
            waiting.map(|(other, waits)| (other, waits.stream))
        };
        if let Some((connection, stream)) = refused
            && let Some(inbound) = replication.inbound.get_mut(&connection)
        {
            inbound.fail(stream, reason);
        }
    }

    pub(super) fn retry_waiting_open(&mut self, key: ReplicaKey) {
        let Some(replication) = &mut self.replication else { return };
        if let Some((connection, open)) = replication.waiting_opens.remove(&key)
            && replication.inbound.contains_key(&connection)
        {
            self.open_stream(connection, open);
        }
    }

    /// The leader says where this log goes on.
    pub(super) fn start_stream(&mut self, connection: ConnectionId, start: Start) {
        let replication = self.replication.as_mut().expect("it has the connection");
        let Some(inbound) = replication.inbound.get_mut(&connection) else { return };
        let Some(stream) = inbound.streams.get_mut(&start.stream) else { return };
        let Some(partition) = self.partitions.get_mut(stream.slot) else { return };
        // A log that has to begin at another border is told so when the leader has looked at its batches.
        let may_start = match stream.state {
            InboundState::Opened => true,
            InboundState::Ready => start.begins_anew,
            InboundState::Truncating => false,
        };
        if !may_start || partition.leads() {
            return;
        }
        stream.state = InboundState::Truncating;
        partition.truncation =
            Some(Truncation { end_offset: start.end_offset, begins_anew: start.begins_anew });
        partition.learn_positions(Offset::ZERO, start.log_start_offset);
        replication.truncating.push(stream.slot);
    }

    /// Cuts the logs that are settled, and tells their leaders.
    pub(in crate::machine) fn resume_truncations(&mut self, out: &mut Vec<Effect>) {
        let Some(replication) = &mut self.replication else { return };
        if replication.truncating.is_empty() {
            return;
        }
        for slot in std::mem::take(&mut replication.truncating) {
            let Some(partition) = self.partitions.get_mut(slot) else { continue };
            let Some(truncation) = partition.truncation else { continue };
            if partition.has_failed {
                partition.truncation = None;
            } else if partition.is_settled() && !self.runs.holds(slot) {
                partition.truncation = None;
                self.truncate(slot, truncation);
                self.advance(slot, out);
            } else if let Some(replication) = &mut self.replication {
                replication.truncating.push(slot);
            }
        }
    }

    fn truncate(&mut self, slot: Slot, truncation: Truncation) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        let Truncation { end_offset, begins_anew } = truncation;
        let (key, log_end) = (partition.key, partition.log_end_offset);
        let (topic_name, leader_epoch) = (partition.topic_name.clone(), partition.leader_epoch);
        if begins_anew || end_offset != log_end {
            let Some(Cut { dropped, reaches_segments }) = partition.cut(truncation) else {
                // The leader's word does not fit this log: the histories are to be compared again.
                let reason = StreamFailure::Gap { expected: log_end };
                return self.detach_streams(slot, reason);
            };
            let segments = reaches_segments.then_some((key, end_offset, begins_anew));
            self.cache.forgot(dropped, &self.partitions);
            let note = Note::Truncated { slot, segments };
            if begins_anew {
                // As if it had been deleted and created again.
                self.wal.push(WalEntry::Closed { key }, Note::Opened);
                self.wal.push(WalEntry::Opened { key, topic_name, leader_epoch }, Note::Opened);
                let entry = WalEntry::LogStart { key, log_start_offset: end_offset };
                self.wal.push(entry, note);
            } else {
                self.wal.push(WalEntry::Truncated { key, end_offset }, note);
            }
        }
        let Some(replication) = &mut self.replication else { return };
        for inbound in replication.inbound.values_mut() {
            inbound.cut_done(slot, truncation.end_offset);
        }
    }

    /// The store cut a partition's segments.
    pub(in crate::machine) fn segments_truncated(&mut self, reply: StoreReply) {
        let StoreReply::Truncated { key, view, producers } = reply else { return };
        self.cut_is_over(&key);
        if let Some((_, partition)) = self.partitions.find_mut(&key) {
            partition.segments_cut(view, &producers);
        }
    }

    /// A cut is durable in the WAL: the segments follow.
    pub(in crate::machine) fn cut_durable(
        &mut self,
        slot: Slot,
        segments: Option<(ReplicaKey, Offset, bool)>,
        out: &mut Vec<Effect>,
    ) {
        if let Some((key, end_offset, begins_anew)) = segments
            && self.partitions.get(slot).is_some()
        {
            if let Some(replication) = &mut self.replication {
                replication.cuts.insert(key);
            }
            self.compaction.forget(&key);
            out.push(Effect::Store(StoreJob::Truncate { key, end_offset, begins_anew }));
        }
    }

    /// The store has cut a replica's segments, or never will.
    pub(in crate::machine) fn cut_is_over(&mut self, key: &ReplicaKey) {
        if let Some(replication) = &mut self.replication {
            replication.cuts.remove(key);
        }
    }

    /// Whether a leader waits for the store to cut segments here.
    pub(in crate::machine) fn is_cutting(&self) -> bool {
        self.replication.as_ref().is_some_and(|replication| !replication.cuts.is_empty())
    }

    /// Takes appends that wait, as far as the WAL has room.
    pub(in crate::machine) fn take_appends(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(replication) = &self.replication else { return };
        let waits = |inbound: &&Inbound| !inbound.waiting.is_empty();
        let waiting: Vec<ConnectionId> =
            replication.inbound.values().filter(waits).map(|inbound| inbound.connection).collect();
        for connection in waiting {
            while self.admits() {
                let replication = self.replication.as_mut().expect("it was there");
                let Some(inbound) = replication.inbound.get_mut(&connection) else { break };
                let Some(append) = inbound.waiting.pop_front() else { break };
                self.take_append(now, connection, append, out);
            }
        }
        self.cache.trim(self.limits.tail_cache_bytes, &mut self.partitions);
    }

    fn take_append(
        &mut self,
        now: Now,
        connection: ConnectionId,
        append: Append,
        out: &mut Vec<Effect>,
    ) {
        let bytes = append.frame_bytes() as u64;
        let Append { sequence, positions, batches } = append;
        let replication = self.replication.as_mut().expect("it has the connection");
        let Some(inbound) = replication.inbound.get_mut(&connection) else { return };
        let mut ends: Vec<(StreamId, Offset)> = Vec::new();
        let mut touched: Vec<Slot> = Vec::new();
        for (id, batch) in batches {
            let Some(stream) = inbound.streams.get(&id).copied() else { continue };
            let Some(partition) = self.partitions.get_mut(stream.slot) else { continue };
            let taken = match stream.state {
                InboundState::Ready => partition.append_replica(now, batch),
                InboundState::Opened | InboundState::Truncating => {
                    Err(FollowError::Gap { expected: partition.log_end_offset })
                }
            };
            let batch = match taken {
                Ok(batch) => batch,
                Err(FollowError::Gap { expected }) => {
                    inbound.fail(id, StreamFailure::Gap { expected });
                    continue;
                }
                Err(FollowError::Storage) => {
                    inbound.fail(id, StreamFailure::Storage);
                    continue;
                }
            };
            let (slot, end_offset) = (stream.slot, batch.end_offset());
            self.cache.pushed(now.monotonic, slot, &batch);
            self.runs.enqueue(&mut self.wal, slot, stream.key, batch);
            match ends.last_mut() {
                Some((last, end)) if *last == id => *end = end_offset,
                Some(_) | None => ends.push((id, end_offset)),
            }
            if partition.config.flush_messages > 1 {
                touched.push(slot);
            }
        }
        for position in positions {
            let Some(stream) = inbound.streams.get(&position.stream) else { continue };
            let Some(partition) = self.partitions.get_mut(stream.slot) else { continue };
            if stream.state == InboundState::Ready {
                partition.learn_positions(position.high_watermark, position.log_start_offset);
                touched.push(stream.slot);
            }
        }
        inbound.took(sequence, bytes, ends);
        for slot in touched {
            self.advance(slot, out);
        }
    }
}
