//! What a shard is told of its peers and its role, and what it makes of it.

use super::inbound::Inbound;
use super::link::LinkState;
use super::{ConnectionId, LogRead, PeerEffect, PeerLimits, Replication};
use crate::format::peer_frame::{
    ClusterId, Hello, Open, PeerFrame, Refusal, Refused, StreamFailure, Welcome,
};
use crate::format::record_batch::StoredBatch;
use crate::format::wal_entry::WalEntry;
use crate::machine::effect::{Effect, RecoveredPartition};
use crate::machine::input::ProduceError;
use crate::machine::partition::Partition;
use crate::machine::partition::role::RoleChange;
use crate::machine::partitions::Slot;
use crate::machine::replica::{NodeIdentity, ReplicaAssignment};
use crate::machine::shard::{Life, ShardMachine};
use crate::machine::wal::Note;
use crate::model::{MonotonicMicros, Now, ReplicaKey};

impl ShardMachine {
    /// Makes the shard one of a cluster. Before that it has no peers.
    ///
    /// # Panics
    /// When it is one already.
    pub fn join_cluster(&mut self, cluster_id: ClusterId, me: NodeIdentity, limits: PeerLimits) {
        assert!(self.replication.is_none(), "a shard joins one cluster, once");
        self.replication = Some(Replication::new(cluster_id, me, limits));
    }

    /// Takes what the metadata says of a partition with a replica here: opens it if it is new, leads or follows.
    /// What is older than what is known changes nothing.
    ///
    /// # Panics
    /// When the shard has not joined a cluster, or the node is none of the replicas.
    pub fn assign_replica(
        &mut self,
        now: Now,
        assignment: &ReplicaAssignment,
        recovered: Option<RecoveredPartition>,
        out: &mut Vec<Effect>,
    ) {
        if self.life == Life::Stopped {
            return;
        }
        let replication = self.replication.as_mut().expect("a replica is assigned in a cluster");
        let me = replication.me;
        for node in &assignment.replicas {
            let known = replication.nodes.entry(node.node_id).or_insert(node.broker_epoch);
            *known = (*known).max(node.broker_epoch);
        }
        let is_here = assignment.replicas.iter().any(|node| node.node_id == me.node_id);
        assert!(is_here, "{}: no replica is on {:?}", assignment.spec.key, me.node_id);
        let key = assignment.spec.key;
        let is_new = self.partitions.slot(&key).is_none();
        if is_new {
            let known = recovered.as_ref().map(|found| found.state.high_watermark);
            let is_ahead = recovered.as_ref().is_some_and(|found| found.is_ahead);
            let mut partition = Partition::new(assignment.spec.clone(), recovered);
            if assignment.replicas.len() > 1 {
                // What only this replica is known to have is not readable.
                let (start, end) = (partition.log_start_offset, partition.log_end_offset);
                partition.high_watermark = known.unwrap_or_default().clamp(start, end);
            }
            self.insert_partition(partition, is_ahead, out);
            self.arm_retention(now.monotonic);
        }
        let slot = self.partitions.slot(&key).expect("a key names an open slot");
        let partition = self.partitions.get_mut(slot).expect("a key names an open slot");
        let in_sync = partition.in_sync.count();
        let change = partition.assign(now.monotonic, me, assignment, is_new);
        if change == RoleChange::Stale {
            return;
        }
        if change == RoleChange::Same && partition.leads() {
            self.tally.in_sync_changed(in_sync, partition.in_sync.count());
        }
        if !is_new && matches!(change, RoleChange::Leads | RoleChange::Follows) {
            let (topic_name, leader_epoch) =
                (assignment.spec.topic_name.clone(), assignment.spec.leader_epoch);
            let opened = WalEntry::Opened { key, topic_name, leader_epoch };
            self.wal.push(opened, Note::Opened);
        }
        self.change_role(now, slot, change, out);
        self.configure_partition(key, assignment.spec.config.clone(), out);
        self.follow_role(now, slot, change, out);
        self.advance(slot, out);
        self.retry_waiting_open(key);
        self.pump(now, out);
    }

    /// An in-sync set that was proposed in `partition_epoch` will never be committed.
    pub fn isr_change_refused(
        &mut self,
        now: Now,
        key: ReplicaKey,
        epoch: i32,
        out: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.partitions.slot(&key) else { return };
        if let Some(partition) = self.partitions.get_mut(slot) {
            partition.in_sync.refused(epoch);
        }
        self.advance(slot, out);
        self.pump(now, out);
    }

    /// The next thing to do for peers.
    pub fn next_peer_effect(&mut self) -> Option<PeerEffect> {
        self.replication.as_mut()?.effects.pop_front()
    }

    /// The next frame to send on a connection. [`PeerEffect::FramesReady`] says when to ask again.
    pub fn next_peer_frame(&mut self, now: Now, connection: ConnectionId) -> Option<PeerFrame> {
        let replication = self.replication.as_mut()?;
        let limits = replication.limits;
        let mut links = replication.links.iter_mut();
        if let Some(link) = links.find(|link| link.connection == connection) {
            let mut reads = Vec::new();
            let frame = link.next_frame(now.monotonic, &limits, &self.partitions, &mut reads);
            replication.effects.extend(reads.into_iter().map(PeerEffect::ReadLog));
            return frame;
        }
        replication.inbound.get_mut(&connection)?.next_frame(now.monotonic, &limits)
    }

    /// A connection that was asked for stands.
    pub fn peer_connected(&mut self, now: Now, connection: ConnectionId, out: &mut Vec<Effect>) {
        let shard = self.shard();
        let Some(replication) = &mut self.replication else { return };
        let mut links = replication.links.iter_mut();
        let Some(link) = links.find(|link| link.connection == connection) else { return };
        if link.state == LinkState::Connecting {
            let hello = PeerFrame::Hello(Hello {
                cluster_id: replication.cluster_id,
                node_id: replication.me.node_id,
                broker_epoch: replication.me.broker_epoch,
                shard,
                target_node_id: link.node_id,
                target_shard: link.shard,
            });
            link.connected(now.monotonic, hello);
        }
        self.pump(now, out);
    }

    /// Somebody connected and introduced itself: take the connection, or say why not.
    ///
    /// # Errors
    /// What to answer before the connection is closed.
    pub fn peer_accepted(
        &mut self,
        now: Now,
        hello: &Hello,
        out: &mut Vec<Effect>,
    ) -> Result<ConnectionId, Refused> {
        let shard = self.shard();
        self.check_hello(hello).map_err(|(reason, text)| Refused { reason, text })?;
        let replication = self.replication.as_mut().expect("checked with the hello");
        // A peer has one connection: an older one is what is left of it.
        let same =
            |inbound: &Inbound| (inbound.node_id, inbound.shard) == (hello.node_id, hello.shard);
        let older: Vec<ConnectionId> = replication
            .inbound
            .values()
            .filter(|inbound| same(inbound))
            .map(|inbound| inbound.connection)
            .collect();
        for connection in older {
            replication.inbound.remove(&connection);
            let reason = "the peer has connected anew";
            replication.effects.push_back(PeerEffect::Disconnect { connection, reason });
        }
        let connection = replication.connection();
        let mut inbound = Inbound::new(now.monotonic, connection, hello.node_id, hello.shard);
        inbound.control(PeerFrame::Welcome(Welcome {
            node_id: replication.me.node_id,
            broker_epoch: replication.me.broker_epoch,
            shard,
            window_bytes: replication.limits.window_bytes,
        }));
        replication.inbound.insert(connection, inbound);
        self.pump(now, out);
        Ok(connection)
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), (Refusal, String)> {
        let Some(replication) = self.replication.as_ref().filter(|_| self.is_serving()) else {
            return Err((Refusal::Stopping, "this node is not running".to_owned()));
        };
        if hello.cluster_id != replication.cluster_id {
            return Err((Refusal::Cluster, "this node is of another cluster".to_owned()));
        }
        let me = replication.me.node_id;
        if hello.target_node_id != me {
            let text = format!("this is node {me}, not {}", hello.target_node_id);
            return Err((Refusal::Node, text));
        }
        if hello.target_shard != self.shard() {
            let text = format!("this is shard {}, not {}", self.shard(), hello.target_shard);
            return Err((Refusal::Shard, text));
        }
        if hello.node_id == me {
            return Err((Refusal::UnknownNode, format!("{me} is this node itself")));
        }
        if self.is_stale_peer(hello.node_id, hello.broker_epoch) {
            let text = format!("a newer incarnation of node {} is known", hello.node_id);
            return Err((Refusal::StaleBrokerEpoch, text));
        }
        Ok(())
    }

    /// A connection ended, or could not be made.
    pub fn peer_lost(&mut self, now: Now, connection: ConnectionId, out: &mut Vec<Effect>) {
        let Some(replication) = &mut self.replication else { return };
        replication.inbound.remove(&connection);
        if let Some(place) = replication.links.iter().position(|link| link.connection == connection)
        {
            self.link_down(now, place);
        }
        self.pump(now, out);
    }

    /// A frame came.
    pub fn peer_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        frame: PeerFrame,
        out: &mut Vec<Effect>,
    ) {
        let Some(replication) = &mut self.replication else { return };
        let link = replication.links.iter().position(|link| link.connection == connection);
        let done = if let Some(place) = link {
            replication.links[place].heard(now.monotonic);
            self.link_frame(now, place, frame, out)
        } else if let Some(inbound) = replication.inbound.get_mut(&connection) {
            inbound.heard(now.monotonic);
            self.inbound_frame(now, connection, frame, out)
        } else {
            Ok(())
        };
        if let Err(reason) = done {
            self.disconnect(now, connection, reason);
        }
        self.pump(now, out);
    }

    /// Segments were read for [`PeerEffect::ReadLog`]; nothing was found where they are gone.
    pub fn log_read(
        &mut self,
        now: Now,
        read: LogRead,
        batches: Vec<StoredBatch>,
        out: &mut Vec<Effect>,
    ) {
        self.take_log_read(now.monotonic, read, batches);
        self.pump(now, out);
    }

    fn disconnect(&mut self, now: Now, connection: ConnectionId, reason: &'static str) {
        let Some(replication) = &mut self.replication else { return };
        replication.effects.push_back(PeerEffect::Disconnect { connection, reason });
        replication.inbound.remove(&connection);
        if let Some(place) = replication.links.iter().position(|link| link.connection == connection)
        {
            self.link_down(now, place);
        }
    }

    fn link_frame(
        &mut self,
        now: Now,
        place: usize,
        frame: PeerFrame,
        out: &mut Vec<Effect>,
    ) -> Result<(), &'static str> {
        let replication = self.replication.as_mut().expect("it has the link");
        let state = replication.links[place].state;
        match (frame, state) {
            (PeerFrame::Welcome(welcome), LinkState::Greeting) => {
                let link = &replication.links[place];
                if (welcome.node_id, welcome.shard) != (link.node_id, link.shard) {
                    return Err("another node or shard has answered");
                }
                if self.is_stale_peer(welcome.node_id, welcome.broker_epoch) {
                    return Err("an older incarnation of the node has answered");
                }
                let replication = self.replication.as_mut().expect("as above");
                replication.links[place].welcomed(welcome.broker_epoch, welcome.window_bytes);
                self.link_up(now.monotonic, place);
            }
            (PeerFrame::Refused(_), LinkState::Greeting) => return Err("the peer has refused"),
            (PeerFrame::History(history), LinkState::Up { .. }) => {
                self.history_told(place, &history);
            }
            (PeerFrame::Ready { stream, end_offset }, LinkState::Up { .. }) => {
                let ready = self.stream_ready(now.monotonic, place, stream, end_offset);
                if let Some(slot) = ready {
                    self.advance(slot, out);
                    self.consider_isr(now.monotonic, slot);
                }
            }
            (PeerFrame::Failed { stream, reason }, LinkState::Up { .. }) => {
                self.stream_failed(now.monotonic, place, stream, reason);
            }
            (PeerFrame::Ack { sequence }, LinkState::Up { .. }) => {
                let moved = self.link_acknowledged(now.monotonic, place, sequence);
                for slot in moved.ok_or("an acknowledgement of what was never sent")? {
                    self.advance(slot, out);
                    if self.has_outsiders(slot) {
                        self.consider_isr(now.monotonic, slot);
                    }
                }
            }
            (PeerFrame::Heartbeat, _) => {}
            _ => return Err("a frame that does not belong here"),
        }
        Ok(())
    }

    /// Whether a replica is not in sync, so that it may have caught up.
    fn has_outsiders(&self, slot: Slot) -> bool {
        let partition = self.partitions.get(slot);
        partition.is_some_and(|found| found.in_sync.count() < found.in_sync.replica_count())
    }

    fn inbound_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        frame: PeerFrame,
        out: &mut Vec<Effect>,
    ) -> Result<(), &'static str> {
        match frame {
            PeerFrame::Open(open) => self.open_stream(connection, open),
            PeerFrame::Start(start) => self.start_stream(connection, start),
            PeerFrame::Close { stream } => {
                let replication = self.replication.as_mut().expect("it has the connection");
                if let Some(inbound) = replication.inbound.get_mut(&connection) {
                    inbound.close(stream);
                }
                let waits = |(_, open): &(ConnectionId, Open)| open.stream == stream;
                let of_this = |found: &(ConnectionId, Open)| found.0 == connection && waits(found);
                replication.waiting_opens.retain(|_, found| !of_this(found));
            }
            PeerFrame::Append(append) => {
                let replication = self.replication.as_mut().expect("it has the connection");
                let limits = replication.limits;
                let Some(inbound) = replication.inbound.get_mut(&connection) else { return Ok(()) };
                if !inbound.receive(&append, &limits) {
                    return Err("an append out of order or beyond the window");
                }
                inbound.waiting.push_back(append);
                self.take_appends(now, out);
            }
            PeerFrame::Heartbeat => {}
            PeerFrame::Hello(_)
            | PeerFrame::Welcome(_)
            | PeerFrame::Refused(_)
            | PeerFrame::History(_)
            | PeerFrame::Ready { .. }
            | PeerFrame::Failed { .. }
            | PeerFrame::Ack { .. } => return Err("a frame that does not belong here"),
        }
        Ok(())
    }

    /// Serves or refuses who waited for what a replica was before.
    fn change_role(&mut self, now: Now, slot: Slot, change: RoleChange, out: &mut Vec<Effect>) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        let (key, epoch) = (partition.key, partition.leader_epoch);
        match change {
            RoleChange::Stale => return,
            RoleChange::Same => {}
            RoleChange::Leads | RoleChange::Follows => {
                let leader = partition.placement.leader;
                for waiter in partition.ack_waiters.take() {
                    let error = ProduceError::NotLeader { key, leader, leader_epoch: epoch };
                    self.requests.decide(waiter.request, waiter.index, Err(error), out);
                }
                // A consumer that knows the old epoch has to learn of the new one.
                self.waits.answer_all(slot, &mut self.partitions, out);
                let known = epoch;
                self.detach_streams(slot, StreamFailure::StaleEpoch { known });
            }
        }
        self.refuse_too_few(slot, out);
        self.attach_streams(now.monotonic, slot);
    }

    /// With too few in sync what waits for all of them waits for nothing.
    fn refuse_too_few(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        let (in_sync, required) = (partition.in_sync.count(), partition.config.min_insync_replicas);
        if !partition.leads() || in_sync >= required || partition.in_sync.replica_count() == 1 {
            return;
        }
        for waiter in partition.ack_waiters.take_all() {
            let error = ProduceError::NotEnoughReplicasAfterAppend { in_sync, required };
            self.requests.decide(waiter.request, waiter.index, Err(error), out);
        }
    }

    /// What replication does after every input: cuts, acknowledgements, log starts, signals.
    pub(in crate::machine) fn pump_peers(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.replication.is_none() {
            return;
        }
        self.resume_truncations(out);
        self.take_appends(now, out);
        let Some(replication) = &mut self.replication else { return };
        let limits = replication.limits;
        for link in &mut replication.links {
            link.date_news(now.monotonic);
            if link.signal(now.monotonic, &limits) {
                let connection = link.connection;
                replication.effects.push_back(PeerEffect::FramesReady { connection });
            }
        }
        for inbound in replication.inbound.values_mut() {
            inbound.release(&self.partitions);
            if inbound.signal(now.monotonic, &limits) {
                let connection = inbound.connection;
                replication.effects.push_back(PeerEffect::FramesReady { connection });
            }
        }
        self.revive_links(now.monotonic);
    }

    /// Time passed.
    pub(in crate::machine) fn tick_peers(&mut self, now: Now) {
        let Some(replication) = &mut self.replication else { return };
        let limits = replication.limits;
        let monotonic = now.monotonic;
        let links = replication.links.iter().filter(|link| link.is_silent(monotonic, &limits));
        let silent = links.map(|link| link.connection);
        let inbound =
            replication.inbound.values().filter(|found| found.is_silent(monotonic, &limits));
        let silent: Vec<_> = silent.chain(inbound.map(|found| found.connection)).collect();
        for connection in silent {
            self.disconnect(now, connection, "the peer is silent");
        }
        let due = self.replication.as_ref().and_then(|found| found.next_isr_check);
        if due.is_some_and(|at| at <= monotonic) {
            self.check_isr(monotonic);
        }
    }

    /// When replication has something to do.
    pub(in crate::machine) fn next_peer_deadline(&self) -> Option<MonotonicMicros> {
        self.replication.as_ref()?.next_deadline()
    }

    /// Panics where an invariant does not hold.
    pub(in crate::machine) fn check_peers(&self) {
        let Some(replication) = &self.replication else { return };
        replication.links.iter().for_each(|link| link.check_invariants(&replication.limits));
        replication.inbound.values().for_each(Inbound::check_invariants);
        let waiting = replication.waiting_opens.len();
        assert!(waiting <= replication.limits.waiting_opens_max, "waiting opens are bounded");
        for inbound in replication.inbound.values() {
            for (id, stream) in &inbound.streams {
                let Some(partition) = self.partitions.get(stream.slot) else { continue };
                let current = partition.leader_epoch == stream.leader_epoch && !partition.leads();
                assert!(current, "{}: {id:?} is of an old epoch", stream.key);
            }
        }
    }
}
