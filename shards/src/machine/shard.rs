//! A shard's machine: dispatches inputs to its partitions, its log and its waiters.
//!
//! Nothing is decided here that one of the parts can decide; this is where their results meet. After
//! every input `pump` lets go of what became possible: a spare WAL file, parked
//! produces, a round, a commit, the end of a stop. It costs nothing when nothing did.

use std::collections::BTreeSet;

use super::acks::Requests;
use super::compaction::Compaction;
use super::coordinators::Coordinators;
use super::effect::{Effect, LogView, NoSpace, RecoveredPartition, StoreJob, StoreReply, WalStart};
use super::fetch_waits::FetchWaits;
use super::input::{PartitionConfig, PartitionSpec, ProduceError};
use super::large_runs::LargeRuns;
use super::limits::ShardLimits;
use super::partition::Partition;
use super::partition::tail_cache::CacheOrder;
use super::partitions::{Partitions, Slot};
use super::produce::Parked;
use super::removals::Removals;
use super::replication::Replication;
use super::rounds::{RoundLimits, Rounds};
use super::survey::Tally;
use super::wal::{Note, WalLimits, WalQueue};
use crate::format::peer_frame::StreamFailure;
use crate::format::wal_entry::{Commit, WalEntry};
use crate::model::{Lsn, MonotonicMicros, Now, ReplicaKey, ShardId, WalFileSeq};

/// Whether the shard serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Running,
    /// It will stop: what waits for other nodes waits no longer.
    WindingDown,
    Stopping,
    Stopped,
}

/// All decisions of one shard. Owner: the shard's thread, or the simulator.
#[derive(Debug)]
pub struct ShardMachine {
    shard: ShardId,
    pub(super) limits: ShardLimits,
    pub(super) life: Life,
    pub(super) partitions: Partitions,
    pub(super) removals: Removals,
    pub(super) wal: WalQueue,
    pub(super) runs: LargeRuns,
    pub(super) rounds: Rounds,
    pub(super) requests: Requests,
    pub(super) parked: Parked,
    pub(super) cache: CacheOrder,
    pub(super) waits: FetchWaits,
    /// When the last commit was handed out.
    pub(super) last_commit: Option<MonotonicMicros>,
    /// When retention looks around next; `None` when there is nothing it could ever remove.
    pub(super) next_retention: Option<MonotonicMicros>,
    pub(super) compaction: Compaction,
    /// `None` on a node without peers.
    pub(super) replication: Option<Replication>,
    pub(super) coordinators: Coordinators,
    pub(super) tally: Tally,
}

impl ShardMachine {
    /// A shard whose WAL goes on at `wal`, and whose `recovered` partitions are about to be opened.
    ///
    /// # Panics
    /// When the limits cannot work together.
    #[must_use]
    pub fn start(
        shard: ShardId,
        limits: ShardLimits,
        wal: WalStart,
        recovered: BTreeSet<ReplicaKey>,
    ) -> Self {
        let wal_limits = WalLimits {
            file_bytes: limits.wal_file_bytes,
            files_max: limits.wal_files_max,
            commit_bytes_max: limits.commit_bytes_max,
            in_flight_max: limits.commits_in_flight_max,
        };
        let round_limits = RoundLimits {
            dirty_bytes: limits.round_bytes,
            age_ms: limits.round_age_ms,
            run_bytes: limits.round_run_bytes,
        };
        Self {
            shard,
            limits,
            life: Life::Running,
            partitions: Partitions::default(),
            removals: Removals::default(),
            rounds: Rounds::new(round_limits, wal.checkpointed, wal.uncovered_bytes, recovered),
            wal: WalQueue::new(wal_limits, wal),
            runs: LargeRuns::default(),
            requests: Requests::default(),
            parked: Parked::default(),
            cache: CacheOrder::default(),
            waits: FetchWaits::default(),
            last_commit: None,
            next_retention: None,
            compaction: Compaction::default(),
            replication: None,
            coordinators: Coordinators::default(),
            tally: Tally::default(),
        }
    }

    /// Which shard this is.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Takes a partition over, empty or as recovered; for an open one, its configuration and a newer
    /// leader epoch. An older epoch is a command that came late and changes nothing.
    pub fn open_partition(
        &mut self,
        now: Now,
        spec: PartitionSpec,
        recovered: Option<RecoveredPartition>,
        out: &mut Vec<Effect>,
    ) {
        if self.life == Life::Stopped {
            return;
        }
        let PartitionSpec { key, ref topic_name, leader_epoch, ref config } = spec;
        if let Some(slot) = self.partitions.slot(&key) {
            let partition = self.partitions.get_mut(slot).expect("a key names an open slot");
            if leader_epoch < partition.leader_epoch {
                return;
            }
            if leader_epoch > partition.leader_epoch {
                partition.leader_epoch = leader_epoch;
                let topic_name = topic_name.clone();
                self.wal.push(WalEntry::Opened { key, topic_name, leader_epoch }, Note::Opened);
                // A consumer that knows the old epoch has to learn of the new one.
                self.waits.answer_all(slot, &mut self.partitions, out);
            }
            self.configure_partition(key, config.clone(), out);
        } else {
            let is_ahead = recovered.as_ref().is_some_and(|recovered| recovered.is_ahead);
            self.insert_partition(Partition::new(spec, recovered), is_ahead, out);
        }
        self.arm_retention(now.monotonic);
        self.arm_compaction(now.monotonic);
        self.pump(now, out);
    }

    /// Takes a new partition in, whatever it is by the metadata. With `is_ahead` the log is told what segments have.
    pub(super) fn insert_partition(
        &mut self,
        partition: Partition,
        is_ahead: bool,
        out: &mut Vec<Effect>,
    ) -> Slot {
        let (key, topic_name) = (partition.key, partition.topic_name.clone());
        let leader_epoch = partition.leader_epoch;
        let opened = WalEntry::Opened { key, topic_name: topic_name.clone(), leader_epoch };
        self.wal.push(opened, Note::Opened);
        // Behind the removal of a former replica, which the store is asked for when the log has it.
        if self.removals.may_open(&key) {
            let config = partition.config.clone();
            out.push(Effect::Store(StoreJob::Open { key, topic_name, config }));
        }
        if partition.has_useless_segment() {
            let log_start_offset = partition.log_start_offset;
            out.push(Effect::Store(StoreJob::DeleteSegments { key, log_start_offset }));
        }
        if is_ahead {
            // It counts already: recovery has made it durable, and would find it again.
            let end_offset = partition.segments_end;
            self.wal.push(WalEntry::Flushed { key, end_offset }, Note::Opened);
        }
        let slot = self.partitions.insert(partition);
        self.rounds.known(&key);
        slot
    }

    /// Changes the configuration of an open partition.
    pub fn configure_partition(
        &mut self,
        key: ReplicaKey,
        config: PartitionConfig,
        out: &mut Vec<Effect>,
    ) {
        let Some((slot, partition)) = self.partitions.find_mut(&key) else { return };
        if partition.config == config {
            return;
        }
        partition.is_uncleanable = false;
        partition.config = config.clone();
        out.push(Effect::Store(StoreJob::Configure { key, config }));
        // What was appended may count from now on.
        self.advance(slot, out);
        // Retention may want something else now: let the next tick look.
        if self.life == Life::Running {
            self.next_retention = Some(MonotonicMicros(0));
            self.arm_compaction(MonotonicMicros(0));
        }
    }

    /// Deletes a partition. Its files go once the WAL says so.
    pub fn close_partition(&mut self, now: Now, key: ReplicaKey, out: &mut Vec<Effect>) {
        self.rounds.known(&key);
        let Some(slot) = self.partitions.slot(&key) else { return self.pump(now, out) };
        self.end_coordinator(now, &key, out);
        self.waits.answer_all(slot, &mut self.partitions, out);
        let mut partition = self.partitions.remove(slot).expect("a key names an open slot");
        for waiter in partition.ack_waiters.take() {
            let gone = Err(ProduceError::UnknownPartition(key));
            self.requests.decide(waiter.request, waiter.index, gone, out);
        }
        self.runs.forget(slot);
        self.detach_streams(slot, StreamFailure::UnknownPartition);
        self.cache.forgot(partition.tail.clear(), &self.partitions);
        self.abandon_compaction(now.monotonic, &key);
        self.rounds.release(&key);
        if partition.append_target.is_some() {
            self.rounds.append_done(&self.partitions, out);
        }
        self.wal.push(WalEntry::Closed { key }, Note::Closed { key });
        self.removals.begin(key);
        self.pump(now, out);
    }

    /// The next commit to write, or `None` when nothing waits, enough are being written, or no file
    /// has room. [`Effect::CommitPending`] says when to ask again. What it holds goes to followers at the same
    /// time: see [`next_peer_effect`](Self::next_peer_effect).
    pub fn next_commit(&mut self, now: Now, out: &mut Vec<Effect>) -> Option<Commit> {
        // Peers may go on for a moment; the WAL is complete, and about to be closed.
        if self.life == Life::Stopped {
            return None;
        }
        self.divert_large_runs(now, out);
        let commit = self.wal.next_commit()?;
        self.last_commit = Some(now.monotonic);
        self.replicate(commit.entries.iter().filter_map(|entry| match entry {
            WalEntry::Batch { key, batch } => Some((key, batch)),
            _ => None,
        }));
        Some(commit)
    }

    /// A commit is on the disk. It counts once all before it are, too.
    pub fn commit_written(&mut self, now: Now, lsn: Lsn, out: &mut Vec<Effect>) {
        self.wal.written(lsn);
        while let Some(commit) = self.wal.pop_durable(now.monotonic, self.limits.seal_after_ms) {
            self.rounds.commit_durable(now.monotonic, commit.bytes);
            for note in &commit.notes {
                self.apply(*note, out);
            }
            if !commit.notes.is_empty() {
                self.arm_retention(now.monotonic);
            }
            self.wal.reuse(commit.notes);
        }
        self.pump(now, out);
    }

    /// A WAL file was prepared, or did not fit the disk.
    pub fn wal_file_prepared(
        &mut self,
        now: Now,
        seq: WalFileSeq,
        result: Result<(), NoSpace>,
        out: &mut Vec<Effect>,
    ) {
        self.wal.prepared(now.monotonic, seq, result);
        self.pump(now, out);
    }

    /// The storage thread did a job. Answers for partitions closed meanwhile are ignored.
    pub fn store_done(&mut self, now: Now, reply: StoreReply, out: &mut Vec<Effect>) {
        // What is answered for a partition that was closed says nothing of the one that was opened since.
        let is_late = reply.key().is_some_and(|key| self.removals.awaits(&key));
        match reply {
            StoreReply::Removed { key } => self.removals.done(&key),
            StoreReply::Leftovers { count } => self.removals.left_over(now.monotonic, count),
            _ if is_late => {}
            StoreReply::Segments { key, view } => self.take_view(now, key, view, out),
            StoreReply::RunsDone => self.large_runs_done(),
            StoreReply::Checkpointed { lsn } => {
                let lsn = self.rounds.checkpointed(lsn, &mut self.partitions);
                self.wal.checkpointed(lsn);
                self.arm_compaction(now.monotonic);
            }
            reply @ StoreReply::Truncated { .. } => self.segments_truncated(reply),
            StoreReply::SegmentsRewritten { key, id } => self.segments_rewritten(key, id, out),
            StoreReply::Swapped { key, view } => self.segments_swapped(now, key, view, out),
            StoreReply::Compacted { key, id, view, result } => {
                self.take_view(now, key, view, out);
                self.compacted(now, key, id, result);
            }
            StoreReply::NoSpace { key } => {
                let whose = key.and_then(|key| Some((self.partitions.slot(&key)?, key)));
                if key.is_none() || whose.is_some() {
                    self.rounds.refused(now.monotonic, whose);
                }
            }
            StoreReply::Failed { key, .. } => self.fail_partition(now, key, out),
        }
        self.pump(now, out);
    }

    /// When [`tick`](Self::tick) has something to do; `None` when nothing ever will be due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        if self.life == Life::Stopped {
            return None;
        }
        let parts = [
            self.requests.next_deadline(),
            self.parked.next_deadline(),
            self.waits.next_deadline(),
            self.wal.next_deadline(),
            self.rounds.next_deadline(),
            self.removals.next_deadline(),
            self.cache.idle_deadline(self.limits.tail_cache_idle_ms),
            self.next_retention,
            self.compaction.next_deadline(),
            self.next_peer_deadline(),
            self.next_group_deadline(),
        ];
        parts.into_iter().flatten().min()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.life == Life::Stopped {
            return;
        }
        self.requests.expire(now.monotonic, out);
        self.expire_parked(now, out);
        self.waits.expire(now.monotonic, &mut self.partitions, out);
        self.wal.tick(now.monotonic);
        self.rounds.tick(now, &self.partitions, out);
        self.removals.tick(now.monotonic, out);
        let idle_ms = self.limits.tail_cache_idle_ms;
        self.cache.trim_idle(now.monotonic, idle_ms, &mut self.partitions);
        self.tick_peers(now);
        self.tick_coordinators(now, out);
        if self.next_retention.is_some_and(|at| at <= now.monotonic) {
            self.run_retention(now, out);
        }
        self.look_for_dirt(now, out);
        self.pump(now, out);
    }

    /// The node is about to stop. What waits for replicas on other nodes is answered: leadership goes where it can
    /// before that, and where it does not nobody knows how long the others take. What the own disk decides goes on.
    pub fn wind_down(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.life != Life::Running {
            return;
        }
        self.life = Life::WindingDown;
        for (_, partition) in self.partitions.iter_mut() {
            if partition.waits_for_others() {
                for waiter in partition.ack_waiters.take_all() {
                    let stopping = Err(ProduceError::Stopping);
                    self.requests.decide(waiter.request, waiter.index, stopping, out);
                }
            }
        }
        self.pump(now, out);
    }

    /// Whether requests are taken.
    pub(super) fn is_serving(&self) -> bool {
        matches!(self.life, Life::Running | Life::WindingDown)
    }

    /// Begins the orderly stop: produces are refused, waiting fetches answered, everything goes to
    /// segments. [`Effect::Stopped`] is the end.
    pub fn stop(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.is_serving() {
            return;
        }
        self.life = Life::Stopping;
        self.next_retention = None;
        self.compaction.stop();
        self.refuse_parked(now, &ProduceError::Stopping, out);
        self.end_coordinators(now, out);
        self.waits.expire(MonotonicMicros(u64::MAX), &mut self.partitions, out);
        self.pump(now, out);
    }

    /// What recent batches take in memory.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Looks at the whole state and panics where an invariant does not hold. For the simulator.
    pub fn check_invariants(&self) {
        self.partitions.check_invariants();
        for (_, partition) in self.partitions.iter() {
            partition.check_invariants();
        }
        let cached: usize = self.partitions.iter().map(|(_, found)| found.tail.cost()).sum();
        assert_eq!(cached, self.cache.bytes(), "cached bytes are counted");
        self.wal.check_invariants();
        self.runs.check_invariants();
        self.check_peers();
        self.check_coordinators();
        self.rounds.check_invariants(&self.partitions);
        self.waits.check_invariants(&self.partitions);
        assert!(
            self.parked.len() <= self.limits.parked_produces_max,
            "parked produces are bounded"
        );
        assert!(self.waits.len() <= self.limits.fetch_waits_max, "parked fetches are bounded");
    }

    /// Moves a partition's positions and serves who waited for that.
    pub(super) fn advance(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        let before = partition.advance();
        let (own, high_watermark) = (partition.in_sync.own(), partition.high_watermark);
        let due_log_start = partition.due_log_start();
        let coordinated = partition.is_coordinated.then_some(partition.key);
        while let Some(mut waiter) = partition.ack_waiters.pop(own, high_watermark) {
            waiter.appended.log_start_offset = partition.log_start_offset;
            self.requests.decide(waiter.request, waiter.index, Ok(waiter.appended), out);
        }
        if let Some(before) = before
            && !partition.fetch_waits.is_empty()
        {
            let bytes = partition.tail.bytes_between(before, high_watermark);
            self.waits.readable(slot, bytes, &mut self.partitions, out);
        }
        if before.is_some() {
            if let Some(key) = coordinated {
                self.release_group_answers(&key, high_watermark, out);
            }
            self.tell_positions(slot);
        }
        if let Some(log_start) = due_log_start {
            self.move_log_start(slot, log_start, None);
        }
    }

    /// Lets go of what became possible.
    pub(super) fn pump(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.life == Life::Stopped {
            return;
        }
        self.wal.prepare_spare(out);
        self.begin_large_runs(now, out);
        self.pump_peers(now, out);
        self.resume_parked(now, out);
        self.resume_group_requests(now, out);
        let unflushed = self.wal.durable() > self.wal.checkpointed_lsn();
        // A checkpoint that frees nothing would be wanted again at once.
        let frees = unflushed && !self.rounds.is_held();
        let wanted = (self.wal.wants_checkpoint() && frees)
            || (self.life == Life::Stopping && self.is_written() && !self.rounds.is_clean());
        if self.rounds.is_due(now.monotonic) || (wanted && self.rounds.may_start()) {
            self.rounds.start(now, self.wal.durable(), &mut self.partitions, out);
        }
        self.wal.signal(out);
        if self.life == Life::Stopping && self.is_stop_complete() {
            self.life = Life::Stopped;
            // Only a full disk leaves requests behind: theirs is what nobody knows.
            self.requests.expire(MonotonicMicros(u64::MAX), out);
            out.push(Effect::Stopped);
        }
    }

    /// A stop does not wait for somebody to free the disk: the WAL has what was acknowledged.
    fn is_stop_complete(&self) -> bool {
        let (idle, stuck) = (self.is_written(), self.wal.is_stuck());
        (idle && (self.rounds.is_clean() || self.rounds.awaits_opening()))
            || ((idle || stuck) && self.rounds.lacks_space())
            || (stuck && self.wal.lacks_space() && self.rounds.is_idle())
    }

    /// Whether nothing waits for the disk but what is durable in the log.
    fn is_written(&self) -> bool {
        self.wal.is_idle() && self.runs.is_idle()
    }

    fn apply(&mut self, note: Note, out: &mut Vec<Effect>) {
        match note {
            Note::Batch { slot, end_offset } => {
                let Some(partition) = self.partitions.get_mut(slot) else { return };
                partition.durable_end = end_offset;
                if !partition.is_dirty && end_offset > partition.segments_end {
                    partition.is_dirty = true;
                    self.rounds.mark_dirty(slot);
                }
                self.advance(slot, out);
            }
            Note::LogStart { slot, key, log_start_offset, token } => {
                let mut reached = log_start_offset;
                if let Some(partition) = self.partitions.get_mut(slot) {
                    if partition.advance_log_start(log_start_offset) {
                        out.push(Effect::Store(StoreJob::DeleteSegments { key, log_start_offset }));
                    }
                    reached = partition.log_start_offset;
                }
                self.tell_positions(slot);
                if let Some(token) = token {
                    out.push(Effect::RecordsDeleted { token, log_start_offset: reached });
                }
            }
            Note::Truncated { slot, segments } => self.cut_durable(slot, segments, out),
            Note::Opened => {}
            Note::Closed { key } => self.closed_durably(key, out),
        }
    }

    pub(super) fn take_view(
        &mut self,
        now: Now,
        key: ReplicaKey,
        view: LogView,
        out: &mut Vec<Effect>,
    ) {
        let Some((slot, partition)) = self.partitions.find_mut(&key) else { return };
        // Until the cut is answered, answers speak of what is void.
        if partition.awaits_cut {
            return;
        }
        let was_appending = partition.append_target.is_some();
        if partition.set_view(view) {
            let log_start_offset = partition.log_start_offset;
            out.push(Effect::Store(StoreJob::DeleteSegments { key, log_start_offset }));
        }
        let (is_appending, awaits_roll) =
            (partition.append_target.is_some(), partition.awaits_roll);
        if was_appending && !is_appending {
            self.rounds.append_done(&self.partitions, out);
        }
        self.cache.trim(self.limits.tail_cache_bytes, &mut self.partitions);
        if awaits_roll {
            self.retain(now, slot, out);
        }
    }

    fn fail_partition(&mut self, now: Now, key: ReplicaKey, out: &mut Vec<Effect>) {
        self.cut_is_over(&key);
        self.abandon_compaction(now.monotonic, &key);
        self.end_coordinator(now, &key, out);
        let Some((slot, partition)) = self.partitions.find_mut(&key) else { return };
        let was_appending = partition.append_target.is_some();
        if partition.durable_end > partition.segments_end {
            self.rounds.hold(key);
        }
        let dropped = partition.fail();
        self.runs.forget(slot);
        partition.awaits_cut = false;
        partition.truncation = None;
        for waiter in partition.ack_waiters.take() {
            let failed = Err(ProduceError::StorageFailed);
            self.requests.decide(waiter.request, waiter.index, failed, out);
        }
        self.cache.forgot(dropped, &self.partitions);
        if was_appending {
            self.rounds.append_done(&self.partitions, out);
        }
        self.waits.answer_all(slot, &mut self.partitions, out);
        self.detach_streams(slot, StreamFailure::Storage);
    }
}
