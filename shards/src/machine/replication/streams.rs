//! The partitions that a shard leads, on their way to the shards that follow.

use super::divergence::{GoesOn, LeaderLog, goes_on};
use super::holes::Holes;
use super::link::{Link, LinkState, Stream, StreamState};
use super::{LogRead, PeerEffect, slowness};
use crate::format::metadata_command::{ChangePartition, IsrMember};
use crate::format::peer_frame::{History, Start, StreamFailure, StreamId};
use crate::format::record_batch::StoredBatch;
use crate::machine::partition::Partition;
use crate::machine::partition::in_sync::IsrRules;
use crate::machine::partitions::{Partitions, Slot};
use crate::machine::shard::ShardMachine;
use crate::model::{BrokerEpoch, MonotonicMicros, NodeId, Now, Offset, ReplicaKey};

impl ShardMachine {
    /// Opens the streams that a partition led from here needs, and closes those that it does not.
    pub(in crate::machine) fn attach_streams(&mut self, now: MonotonicMicros, slot: Slot) {
        let Some(replication) = &mut self.replication else { return };
        let Some(partition) = self.partitions.get(slot) else { return };
        let (key, epoch) = (partition.key, partition.leader_epoch);
        let leads = partition.leads() && !partition.has_failed;
        let wanted: Vec<_> =
            partition.in_sync.followers().iter().map(|follower| follower.node).collect();
        for link in &mut replication.links {
            let is_wanted = leads
                && wanted
                    .iter()
                    .any(|node| (node.node_id, node.shard) == (link.node_id, link.shard));
            let open = link.stream_of(slot);
            let is_current =
                |id| link.streams.get(&id).is_some_and(|s: &Stream| s.leader_epoch == epoch);
            let stale = open.filter(|id| !is_wanted || !is_current(*id));
            if let Some(stream) = stale {
                link.close(stream);
            }
            if is_wanted && link.is_up() && link.stream_of(slot).is_none() {
                link.open(slot, key, epoch);
            }
        }
        if !leads {
            return;
        }
        for node in wanted {
            let target = (node.node_id, node.shard);
            let mut links = replication.links.iter_mut();
            match links.find(|link| (link.node_id, link.shard) == target) {
                Some(link) => link.wake(now),
                None => {
                    let connection = replication.connection();
                    let link = Link::new(now, connection, node.node_id, node.shard);
                    replication.links.push(link);
                }
            }
        }
        if partition.in_sync.replica_count() > 1 && replication.next_isr_check.is_none() {
            let millis = replication.isr_check_ms();
            replication.next_isr_check = Some(now.plus_millis(millis));
        }
    }

    /// Ends every stream of a partition that is closed or cannot be used.
    pub(in crate::machine) fn detach_streams(&mut self, slot: Slot, reason: StreamFailure) {
        let Some(replication) = &mut self.replication else { return };
        for link in &mut replication.links {
            if let Some(stream) = link.stream_of(slot) {
                link.close(stream);
            }
        }
        for inbound in replication.inbound.values_mut() {
            if let Some(stream) = inbound.stream_of(slot) {
                inbound.fail(stream, reason);
            }
        }
    }

    /// Hands batches to the followers as they are handed to the own disk, by the WAL or straight to segments. What
    /// was handed to them before is not handed again.
    pub(in crate::machine) fn replicate<'a>(
        &mut self,
        batches: impl Iterator<Item = (&'a ReplicaKey, &'a StoredBatch)>,
    ) {
        let Some(replication) = &mut self.replication else { return };
        if replication.links.is_empty() {
            return;
        }
        for (key, batch) in batches {
            let Some(partition) = self.partitions.find(key) else { continue };
            if partition.leads() {
                for follower in partition.in_sync.followers() {
                    let Some((link, stream)) = follower.stream else { continue };
                    replication.links[link].offer(&replication.limits, stream, batch);
                }
            }
        }
        for link in &mut replication.links {
            if link.signal_records(&replication.limits) {
                let connection = link.connection;
                replication.effects.push_back(PeerEffect::FramesReady { connection });
            }
        }
    }

    /// A partition's watermarks moved: its followers are to learn it.
    pub(in crate::machine) fn tell_positions(&mut self, slot: Slot) {
        let Some(replication) = &mut self.replication else { return };
        let Some(partition) = self.partitions.get(slot) else { return };
        for follower in partition.in_sync.followers() {
            if let Some((link, stream)) = follower.stream {
                replication.links[link].news(stream);
            }
        }
    }

    /// A link is up: every partition that it serves gets a stream.
    pub(super) fn link_up(&mut self, now: MonotonicMicros, place: usize) {
        let Some(replication) = &mut self.replication else { return };
        let link = &replication.links[place];
        let slots: Vec<Slot> = served_by(link, &self.partitions).collect();
        for slot in slots {
            self.attach_streams(now, slot);
        }
    }

    /// A link is gone. What its followers have acknowledged stays true; that they are caught up does not.
    pub(super) fn link_down(&mut self, now: Now, place: usize) {
        let Some(replication) = &mut self.replication else { return };
        let limits = replication.limits;
        let link = &mut replication.links[place];
        let node_id = link.node_id;
        for stream in link.lost(now.monotonic, &limits).into_values() {
            self.disconnect_follower(now.monotonic, stream.slot, node_id);
        }
    }

    fn disconnect_follower(&mut self, now: MonotonicMicros, slot: Slot, node_id: NodeId) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        let log_end = partition.log_end_offset;
        if let Some(follower) = partition.in_sync.follower_mut(node_id) {
            follower.disconnected(now, log_end);
        }
    }

    /// A follower told how its log came to be: it is told where to go on.
    pub(super) fn history_told(&mut self, place: usize, history: &History) {
        let Some(replication) = &mut self.replication else { return };
        let link = &mut replication.links[place];
        let Some(stream) = link.streams.get_mut(&history.stream) else { return };
        let Some(partition) = self.partitions.get(stream.slot) else { return };
        if stream.state != StreamState::Opening {
            return;
        }
        let log = LeaderLog {
            epochs: partition.epochs.starts(),
            log_start_offset: partition.log_start_offset,
            log_end_offset: partition.log_end_offset,
        };
        let (end_offset, begins_anew) = match goes_on(log, history) {
            GoesOn::At(end) => (end, false),
            GoesOn::Anew(start) => (start, true),
        };
        stream.state = StreamState::Starting;
        link.control(crate::format::peer_frame::PeerFrame::Start(Start {
            stream: history.stream,
            end_offset,
            log_start_offset: partition.log_start_offset,
            begins_anew,
        }));
    }

    /// A follower's log goes on at `end_offset`: everything below is durable there.
    pub(super) fn stream_ready(
        &mut self,
        now: MonotonicMicros,
        place: usize,
        stream: StreamId,
        end_offset: Offset,
    ) -> Option<Slot> {
        let replication = self.replication.as_mut()?;
        let link = &mut replication.links[place];
        let LinkState::Up { broker_epoch, .. } = link.state else { return None };
        let found = *link.streams.get(&stream)?;
        let partition = self.partitions.get_mut(found.slot)?;
        let is_current = partition.leads() && partition.leader_epoch == found.leader_epoch;
        if found.state != StreamState::Starting || !is_current {
            return None;
        }
        let is_early = end_offset < partition.log_start_offset && found.anew_at != Some(end_offset);
        if end_offset > partition.log_end_offset || is_early {
            // Its log is not what was agreed: the histories are compared again.
            link.close(stream);
            link.reopen_later(now, found.slot);
            return None;
        }
        let (log_end, node_id) = (partition.log_end_offset, link.node_id);
        let follower = partition.in_sync.follower_mut(node_id)?;
        follower.connected((place, stream), broker_epoch, end_offset, now, log_end);
        link.ready(stream, end_offset);
        Some(found.slot)
    }

    /// A follower acknowledged. Returns the partitions whose high watermark may move; `None`: the number was
    /// never sent.
    pub(super) fn link_acknowledged(
        &mut self,
        now: MonotonicMicros,
        place: usize,
        sequence: u64,
    ) -> Option<Vec<Slot>> {
        let replication = self.replication.as_mut()?;
        let link = &mut replication.links[place];
        let proven = link.acknowledged(now, sequence);
        if !proven.is_valid {
            return None;
        }
        let node_id = link.node_id;
        let mut moved = Vec::with_capacity(proven.positions.len());
        for (slot, end) in proven.positions {
            let Some(partition) = self.partitions.get_mut(slot) else { continue };
            let log_end = partition.log_end_offset;
            if let Some(follower) = partition.in_sync.follower_mut(node_id) {
                follower.acknowledged(end, now, log_end);
                moved.push(slot);
            }
            if replication.limits.tells_acks {
                let (key, end_offset) = (partition.key, end);
                let told = PeerEffect::Acknowledged { node_id, key, end_offset };
                replication.effects.push_back(told);
            }
        }
        Some(moved)
    }

    /// A follower closed a stream.
    pub(super) fn stream_failed(
        &mut self,
        now: MonotonicMicros,
        place: usize,
        stream: StreamId,
        reason: StreamFailure,
    ) {
        let Some(replication) = &mut self.replication else { return };
        let link = &mut replication.links[place];
        let node_id = link.node_id;
        let Some(found) = link.failed(stream) else { return };
        match reason {
            // The metadata will tell who leads.
            StreamFailure::StaleEpoch { .. } => {}
            StreamFailure::UnknownEpoch { .. }
            | StreamFailure::UnknownPartition
            | StreamFailure::Gap { .. }
            | StreamFailure::Storage => link.reopen_later(now, found.slot),
        }
        self.disconnect_follower(now, found.slot, node_id);
    }

    /// Segments were read for a follower that is behind.
    pub(super) fn take_log_read(
        &mut self,
        now: MonotonicMicros,
        read: LogRead,
        batches: Vec<StoredBatch>,
    ) {
        let Some(replication) = &mut self.replication else { return };
        let mut links = replication.links.iter_mut();
        let Some(link) = links.find(|link| link.connection == read.connection) else { return };
        let partition = self.partitions.find(&read.key);
        let log_end = partition.map(|partition| partition.log_end_offset).unwrap_or_default();
        let batches = match partition {
            Some(partition) => {
                let epochs = partition.epochs.starts();
                Holes { end: partition.view.holes_end, epochs }.filled(read.offset, batches)
            }
            None => batches,
        };
        let node_id = link.node_id;
        if let Err(slot) = link.log_read(read.stream, batches, log_end) {
            link.close(read.stream);
            link.reopen_later(now, slot);
            self.disconnect_follower(now, slot, node_id);
        }
    }

    /// Proposes another in-sync set where one is due.
    pub(in crate::machine) fn consider_isr(&mut self, now: MonotonicMicros, slot: Slot) {
        let Some(replication) = &mut self.replication else { return };
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        if !partition.leads() {
            return;
        }
        let own = IsrMember {
            node_id: replication.me.node_id,
            broker_epoch: replication.me.broker_epoch,
        };
        let rules = IsrRules {
            lag_time_max_ms: replication.limits.lag_time_max_ms,
            min_insync_replicas: partition.config.min_insync_replicas,
        };
        let (epoch, high_watermark) =
            (partition.placement.partition_epoch, partition.high_watermark);
        let log_end = partition.log_end_offset;
        let in_sync = &mut partition.in_sync;
        if let Some(isr) = in_sync.propose(now, rules, epoch, high_watermark, log_end, own) {
            let replicas = partition.placement.replicas.iter();
            replication.effects.push_back(PeerEffect::ProposeIsr(ChangePartition {
                key: partition.key,
                leader_epoch: partition.leader_epoch,
                partition_epoch: epoch,
                leader: Some(own.node_id),
                isr,
                replicas: replicas.map(|node| node.node_id).collect(),
            }));
        }
    }

    /// Looks at all in-sync sets: who lags or is slow leaves, who has caught up joins.
    pub(super) fn check_isr(&mut self, now: MonotonicMicros) {
        let Some(replication) = &mut self.replication else { return };
        slowness::judge(now, &mut replication.links, &replication.limits);
        let slow: Vec<(NodeId, _, bool)> =
            replication.links.iter().map(|link| (link.node_id, link.shard, link.is_slow)).collect();
        let mut slots = Vec::new();
        for (slot, partition) in self.partitions.iter_mut() {
            if !partition.leads() || partition.in_sync.replica_count() == 1 {
                continue;
            }
            for (node_id, shard, is_slow) in &slow {
                if let Some(follower) = partition.in_sync.follower_mut(*node_id)
                    && follower.node.shard == *shard
                {
                    follower.is_slow = *is_slow;
                }
            }
            slots.push(slot);
        }
        let millis = replication.isr_check_ms();
        replication.next_isr_check = (!slots.is_empty()).then(|| now.plus_millis(millis));
        for slot in slots {
            self.consider_isr(now, slot);
        }
    }

    /// Opens again what followers had closed, and connects what is due.
    pub(super) fn revive_links(&mut self, now: MonotonicMicros) {
        let Some(replication) = &mut self.replication else { return };
        let mut again = Vec::new();
        for place in 0..replication.links.len() {
            again.extend(replication.links[place].due_to_reopen(now));
            if matches!(replication.links[place].state, LinkState::Down { retry_at } if retry_at <= now)
            {
                if served_by(&replication.links[place], &self.partitions).next().is_none() {
                    replication.links[place].rest();
                    continue;
                }
                let connection = replication.connection();
                let link = &mut replication.links[place];
                link.connect(connection);
                let (node_id, shard) = (link.node_id, link.shard);
                let connect = PeerEffect::Connect { connection, node_id, shard };
                replication.effects.push_back(connect);
            }
        }
        for slot in again {
            self.attach_streams(now, slot);
        }
    }

    /// The incarnation that a link's peer told.
    pub(super) fn is_stale_peer(&self, node_id: NodeId, broker_epoch: BrokerEpoch) -> bool {
        let known = self.replication.as_ref().and_then(|found| found.nodes.get(&node_id));
        known.is_some_and(|known| broker_epoch < *known)
    }
}

/// The partitions that are led here and have a replica at the other end of the link.
fn served_by(link: &Link, partitions: &Partitions) -> impl Iterator<Item = Slot> {
    let target = (link.node_id, link.shard);
    let follows = move |partition: &Partition| {
        let mut followers = partition.in_sync.followers().iter();
        followers.any(|follower| (follower.node.node_id, follower.node.shard) == target)
    };
    let served = partitions.iter();
    served
        .filter(move |(_, partition)| partition.leads() && follows(partition))
        .map(|(slot, _)| slot)
}
