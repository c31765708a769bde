//! The coordinators of groups on a shard: one for each partition of `__consumer_offsets` that it leads.
//!
//! A coordinator is made when the shard becomes the leader, reads the partition (`loading`), serves, and ends
//! with the leadership. Its records are appended the way produced batches are; its answers leave as
//! [`After`] says: those that rest on records when the high watermark has passed them.
//!
//! Invariants
//! - A coordinator takes a turn only while the log admits appends: what comes meanwhile waits in line, bounded.
//! - What a turn asked for is appended and replayed before the next turn, or the coordinator is thrown away and
//!   another one reads the partition.
//! - While too few replicas are in sync nothing is asked for that could be refused, and nobody's session ends.
//! - Every request is answered once, whatever becomes of its coordinator.
//!
//! Deliberately absent: what a group is ([`super::group`]).

mod loading;
mod look;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub use loading::GroupRead;
pub use look::GroupPlace;

use super::effect::Effect;
use super::group::{
    After, Coordinator, GroupError, GroupOverrides, GroupRequest, GroupResponse, GroupSettings,
    Output, Ticket, TopicFacts, Topics, refused,
};
use super::input::{ProduceError, ProducePartition, Token};
use super::partition::role::RoleChange;
use super::partitions::Slot;
use super::shard::{Life, ShardMachine};
use crate::format::batch_builder::BatchBuilder;
use crate::format::compression::Codec;
use crate::format::group_record::GroupRecord;
use crate::model::{MonotonicMicros, Now, Offset, ReplicaKey};
use loading::Stage;

/// The topic whose partitions are coordinated.
pub const GROUPS_TOPIC: &str = "__consumer_offsets";

/// Requests that may wait for room in the write-ahead log; more are told to try again.
const WAITING_REQUESTS_MAX: usize = 16_384;
/// Pause before a coordinator is looked at again that could not append.
const PAUSE_MS: u64 = 100;
/// Turns of one coordinator on one tick; the rest follows at once.
const TICKS_MAX: usize = 32;

/// An answer that waits for its records to be committed.
#[derive(Debug)]
struct Held {
    /// The high watermark that it waits for.
    position: Offset,
    /// When whoever asked is told to try again.
    deadline: MonotonicMicros,
    ticket: Ticket,
    response: GroupResponse,
}

/// A coordinator, and what of it is on its way.
#[derive(Debug)]
struct Hosted {
    slot: Slot,
    coordinator: Coordinator,
    stage: Stage,
    /// What it asked for and what it has read lies below.
    asked_end: Offset,
    /// In order of position.
    held: VecDeque<Held>,
    /// Whether it was found unable to append: sessions begin anew when it can again.
    is_paused: bool,
    /// Before, it is not looked at.
    not_before: MonotonicMicros,
    /// Which topics it knows.
    topics_version: i64,
}

/// A request that waits for room in the write-ahead log.
#[derive(Debug)]
struct Waiting {
    key: ReplicaKey,
    ticket: Ticket,
    request: GroupRequest,
}

/// The coordinators of a shard. Owner: the shard.
#[derive(Debug, Default)]
pub struct Coordinators {
    /// `None`: groups are not coordinated here.
    settings: Option<GroupSettings>,
    hosted: BTreeMap<ReplicaKey, Hosted>,
    waiting: VecDeque<Waiting>,
    /// The topics of the cluster.
    topics: Topics,
    /// The same as coordinators have them; of an older version until somebody asks.
    shared_topics: Arc<Topics>,
    overrides: BTreeMap<String, GroupOverrides>,
    /// When something is due; kept, because every input of the shard asks.
    next_deadline: Option<MonotonicMicros>,
}

impl Coordinators {
    /// Takes note of when something is due. Call it when a coordinator has changed.
    fn look_ahead(&mut self) {
        let due = |hosted: &Hosted| {
            let tick = hosted.coordinator.next_deadline().map(|at| at.max(hosted.not_before));
            let answer = hosted.held.front().map(|held| held.deadline);
            tick.into_iter().chain(answer).min()
        };
        self.next_deadline = self.hosted.values().filter_map(due).min();
    }

    /// The topics as they are now.
    fn current_topics(&mut self) -> Arc<Topics> {
        if self.shared_topics.version != self.topics.version {
            self.shared_topics = Arc::new(self.topics.clone());
        }
        Arc::clone(&self.shared_topics)
    }
}

impl ShardMachine {
    /// Has the shard coordinate the groups of partitions that it leads. Call it before they are assigned.
    pub fn coordinate_groups(&mut self, settings: GroupSettings) {
        self.coordinators.settings = Some(settings);
    }

    /// Takes what the metadata of index `version` say of a topic; `None`: it is gone.
    pub fn group_topic_changed(
        &mut self,
        now: Now,
        version: i64,
        name: &str,
        facts: Option<TopicFacts>,
        out: &mut Vec<Effect>,
    ) {
        let topics = &mut self.coordinators.topics;
        topics.version = version;
        match facts {
            Some(facts) => {
                topics.by_name.insert(name.to_owned(), facts);
                return;
            }
            None => drop(topics.by_name.remove(name)),
        }
        // Where nothing can be appended its offsets stay until they expire.
        let gone = [name.to_owned()];
        for key in self.coordinated() {
            if self.may_ask(&key) && self.has_room() {
                self.take_turn(now, key, |coordinator| coordinator.forget_topics(&gone), out);
            }
        }
        self.coordinators.look_ahead();
        self.pump(now, out);
    }

    /// Takes what groups have of their own.
    pub fn group_overrides_changed(&mut self, overrides: BTreeMap<String, GroupOverrides>) {
        for hosted in self.coordinators.hosted.values_mut() {
            hosted.coordinator.set_overrides(overrides.clone());
        }
        self.coordinators.overrides = overrides;
    }

    /// Takes a request to the coordinator of a partition. Answered by [`Effect::GroupAnswered`].
    pub fn group_request(
        &mut self,
        now: Now,
        key: ReplicaKey,
        token: Token,
        request: GroupRequest,
        out: &mut Vec<Effect>,
    ) {
        let ticket = Ticket(token.0);
        if self.coordinators.waiting.is_empty() && self.has_room() {
            self.serve_group_request(now, key, ticket, request, out);
        } else if self.life != Life::Running {
            refuse(ticket, request, &GroupError::NotCoordinator, out);
        } else if self.is_out_of_space() || self.coordinators.waiting.len() >= WAITING_REQUESTS_MAX
        {
            refuse(ticket, request, &GroupError::NotAvailable, out);
        } else {
            self.coordinators.waiting.push_back(Waiting { key, ticket, request });
        }
        self.coordinators.look_ahead();
        self.pump(now, out);
    }

    fn serve_group_request(
        &mut self,
        now: Now,
        key: ReplicaKey,
        ticket: Ticket,
        request: GroupRequest,
        out: &mut Vec<Effect>,
    ) {
        let hosted = self.coordinators.hosted.get(&key).filter(|_| self.life == Life::Running);
        let Some(hosted) = hosted else {
            return refuse(ticket, request, &GroupError::NotCoordinator, out);
        };
        let is_serving = hosted.stage == Stage::Serving;
        let asks_of_topics = matches!(request, GroupRequest::ConsumerHeartbeat(_));
        if hosted.stage == Stage::Failed
            || (is_serving && request.may_record() && !self.may_ask(&key))
        {
            return refuse(ticket, request, &GroupError::NotAvailable, out);
        }
        self.tell_topics(&key, asks_of_topics);
        self.take_turn(now, key, |coordinator| coordinator.handle(now, ticket, request), out);
    }

    /// Takes the requests that waited for room.
    pub(super) fn resume_group_requests(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.coordinators.waiting.is_empty() {
            return;
        }
        while self.has_room()
            && let Some(Waiting { key, ticket, request }) = self.coordinators.waiting.pop_front()
        {
            self.serve_group_request(now, key, ticket, request, out);
        }
        if self.is_out_of_space() {
            for Waiting { ticket, request, .. } in std::mem::take(&mut self.coordinators.waiting) {
                refuse(ticket, request, &GroupError::NotAvailable, out);
            }
        }
        self.coordinators.look_ahead();
    }

    /// When [`tick_coordinators`](Self::tick_coordinators) has something to do.
    pub(super) fn next_group_deadline(&self) -> Option<MonotonicMicros> {
        self.coordinators.next_deadline
    }

    /// Time passed.
    pub(super) fn tick_coordinators(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.coordinators.next_deadline.is_none_or(|at| at > now.monotonic) {
            return;
        }
        for key in self.coordinated() {
            self.expire_held(now, &key, out);
            self.tick_coordinator(now, key, out);
        }
        self.coordinators.look_ahead();
    }

    fn tick_coordinator(&mut self, now: Now, key: ReplicaKey, out: &mut Vec<Effect>) {
        for _ in 0..TICKS_MAX {
            let Some(hosted) = self.coordinators.hosted.get(&key) else { return };
            let due = hosted.coordinator.next_deadline().map(|at| at.max(hosted.not_before));
            if due.is_none_or(|at| at > now.monotonic) {
                return;
            }
            let (may_ask, was_paused) = (self.may_ask(&key), hosted.is_paused);
            let has_room = self.has_room();
            let Some(hosted) = self.coordinators.hosted.get_mut(&key) else { return };
            if !may_ask || !has_room {
                hosted.is_paused |= !may_ask;
                hosted.not_before = now.monotonic.plus_millis(PAUSE_MS);
                return;
            }
            hosted.is_paused = false;
            self.tell_topics(&key, false);
            match was_paused {
                // Who was silent meanwhile may have been told that nothing works here.
                true => self.take_turn(now, key, |it| it.begin_sessions_anew(now), out),
                false => self.take_turn(now, key, |it| it.tick(now), out),
            }
        }
    }

    /// Tells whoever waited too long for a commit to try again.
    fn expire_held(&mut self, now: Now, key: &ReplicaKey, out: &mut Vec<Effect>) {
        let Some(hosted) = self.coordinators.hosted.get_mut(key) else { return };
        while hosted.held.front().is_some_and(|held| held.deadline <= now.monotonic)
            && let Some(held) = hosted.held.pop_front()
        {
            answer(held.ticket, held.response.failed(&GroupError::NotAvailable), out);
        }
    }

    /// The high watermark of a coordinated partition has moved.
    pub fn release_group_answers(
        &mut self,
        key: &ReplicaKey,
        high_watermark: Offset,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.coordinators.hosted.get_mut(key) else { return };
        while hosted.held.front().is_some_and(|held| held.position <= high_watermark)
            && let Some(held) = hosted.held.pop_front()
        {
            answer(held.ticket, held.response, out);
        }
    }

    /// A replica has another role: a coordinator ends with the leader epoch that it was made for.
    pub(super) fn follow_role(
        &mut self,
        now: Now,
        slot: Slot,
        change: RoleChange,
        out: &mut Vec<Effect>,
    ) {
        let Some(partition) = self.partitions.get(slot) else { return };
        let is_new_epoch = matches!(change, RoleChange::Leads | RoleChange::Follows);
        if partition.topic_name != GROUPS_TOPIC || !is_new_epoch {
            return;
        }
        let (key, leads) = (partition.key, partition.leads());
        self.end_coordinator(now, &key, out);
        if leads && self.life == Life::Running {
            self.begin_coordinator(slot, VecDeque::new(), out);
        }
        self.coordinators.look_ahead();
    }

    /// The shard does not coordinate a partition any more, or not in this epoch: whoever waits is to look for the next
    /// coordinator. Who waits for room, too: served by a later one of the same shard, a commit could come behind those
    /// that another node has acknowledged meanwhile.
    pub(super) fn end_coordinator(&mut self, now: Now, key: &ReplicaKey, out: &mut Vec<Effect>) {
        self.dismiss_coordinator(now, key, out);
        for waiting in std::mem::take(&mut self.coordinators.waiting) {
            if waiting.key == *key {
                refuse(waiting.ticket, waiting.request, &GroupError::NotCoordinator, out);
            } else {
                self.coordinators.waiting.push_back(waiting);
            }
        }
        self.coordinators.look_ahead();
    }

    /// A coordinator resigns; what it has not answered fails.
    fn dismiss_coordinator(&mut self, now: Now, key: &ReplicaKey, out: &mut Vec<Effect>) {
        let Some(mut hosted) = self.coordinators.hosted.remove(key) else { return };
        let epoch = hosted.coordinator.leader_epoch();
        for reply in hosted.coordinator.resign(now, epoch).replies {
            answer(reply.ticket, reply.response, out);
        }
        for held in hosted.held {
            answer(held.ticket, held.response.failed(&GroupError::NotCoordinator), out);
        }
    }

    /// The shard stops.
    pub(super) fn end_coordinators(&mut self, now: Now, out: &mut Vec<Effect>) {
        for key in self.coordinated() {
            self.end_coordinator(now, &key, out);
        }
        for Waiting { ticket, request, .. } in std::mem::take(&mut self.coordinators.waiting) {
            refuse(ticket, request, &GroupError::NotCoordinator, out);
        }
    }

    fn coordinated(&self) -> Vec<ReplicaKey> {
        self.coordinators.hosted.keys().copied().collect()
    }

    /// Whether the log takes what a turn may ask for.
    fn has_room(&self) -> bool {
        self.life == Life::Running && self.parked.is_empty() && self.admits()
    }

    /// Whether the partition takes what a turn may ask for.
    fn may_ask(&self, key: &ReplicaKey) -> bool {
        let is_serving =
            self.coordinators.hosted.get(key).is_some_and(|it| it.stage == Stage::Serving);
        is_serving && self.partitions.find(key).is_some_and(|found| found.takes_all())
    }

    /// Tells a coordinator of the topics, if it has to know them.
    fn tell_topics(&mut self, key: &ReplicaKey, asks: bool) {
        let version = self.coordinators.topics.version;
        let Some(hosted) = self.coordinators.hosted.get(key) else { return };
        let wants = asks || hosted.coordinator.has_consumer_groups();
        if hosted.topics_version == version || !wants {
            return;
        }
        let topics = self.coordinators.current_topics();
        if let Some(hosted) = self.coordinators.hosted.get_mut(key) {
            hosted.topics_version = version;
            hosted.coordinator.set_topics(topics);
        }
    }

    fn take_turn(
        &mut self,
        now: Now,
        key: ReplicaKey,
        turn: impl FnOnce(&mut Coordinator) -> Output,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.coordinators.hosted.get_mut(&key) else { return };
        let output = turn(&mut hosted.coordinator);
        let error = self.append_group_records(now, key, &output, out).err();
        let high_watermark = self.partitions.find(&key).map(|found| found.high_watermark);
        let timeout_ms = self.coordinators.settings.as_ref().map_or(0, |it| it.commit_timeout_ms);
        let Some(hosted) = self.coordinators.hosted.get_mut(&key) else { return };
        let is_committed = high_watermark.is_some_and(|reached| hosted.asked_end <= reached);
        for reply in output.replies {
            match (&error, reply.after) {
                (_, After::Nothing) => answer(reply.ticket, reply.response, out),
                (Some(error), After::Records) => {
                    answer(reply.ticket, reply.response.failed(&of_append(error)), out);
                }
                (None, After::Records) if is_committed => answer(reply.ticket, reply.response, out),
                (None, After::Records) => hosted.held.push_back(Held {
                    position: hosted.asked_end,
                    deadline: now.monotonic.plus_millis(timeout_ms),
                    ticket: reply.ticket,
                    response: reply.response,
                }),
            }
        }
        if let Some(error) = error {
            let reason = format!("what the coordinator asked for was not appended: {error}");
            out.push(Effect::GroupsFailed { key, reason });
            self.reload(now, key, out);
        }
    }

    /// Appends what a turn asked for as one batch, and has the coordinator replay it.
    fn append_group_records(
        &mut self,
        now: Now,
        key: ReplicaKey,
        output: &Output,
        out: &mut Vec<Effect>,
    ) -> Result<(), ProduceError> {
        if output.records.is_empty() {
            return Ok(());
        }
        let epoch = self.partitions.find(&key).map(|found| found.leader_epoch);
        assert_eq!(epoch, Some(output.leader_epoch), "{key}: a coordinator of another epoch");
        let batch = batch(now, &output.records);
        let end = self.append_own(now, ProducePartition { key, batch }, out)?;
        if let Some(hosted) = self.coordinators.hosted.get_mut(&key) {
            hosted.asked_end = end;
            output.records.iter().for_each(|record| hosted.coordinator.replay(record));
        }
        Ok(())
    }

    /// What the coordinator knows and what the log has are not the same any more: another one reads the log.
    fn reload(&mut self, now: Now, key: ReplicaKey, out: &mut Vec<Effect>) {
        let Some(hosted) = self.coordinators.hosted.get_mut(&key) else { return };
        // What was appended before still counts when it is committed.
        let held = std::mem::take(&mut hosted.held);
        let slot = hosted.slot;
        self.dismiss_coordinator(now, &key, out);
        self.begin_coordinator(slot, held, out);
        self.coordinators.look_ahead();
    }

    /// The coordinator of a partition, if it is here.
    #[must_use]
    pub fn group_coordinator(&self, key: &ReplicaKey) -> Option<&Coordinator> {
        self.coordinators.hosted.get(key).map(|hosted| &hosted.coordinator)
    }

    /// Panics where an invariant does not hold.
    pub(super) fn check_coordinators(&self) {
        assert!(self.coordinators.waiting.len() <= WAITING_REQUESTS_MAX, "requests are bounded");
        for (key, hosted) in &self.coordinators.hosted {
            let partition =
                self.partitions.get(hosted.slot).expect("a coordinator's partition is open");
            assert!(partition.leads(), "{key}: coordinated where it is not led");
            let epoch = hosted.coordinator.leader_epoch();
            assert_eq!(epoch, partition.leader_epoch, "{key}: a coordinator of another epoch");
            assert!(hosted.held.iter().map(|held| held.position).is_sorted(), "{key}: in order");
            let waits = |held: &Held| held.position > partition.high_watermark;
            assert!(hosted.held.iter().all(waits), "{key}: an answer waits for what is committed");
            hosted.coordinator.check_invariants();
        }
    }
}

fn answer(ticket: Ticket, response: GroupResponse, out: &mut Vec<Effect>) {
    out.push(Effect::GroupAnswered { token: Token(ticket.0), response: Box::new(response) });
}

fn refuse(ticket: Ticket, request: GroupRequest, error: &GroupError, out: &mut Vec<Effect>) {
    answer(ticket, refused(request, error), out);
}

fn batch(now: Now, records: &[GroupRecord]) -> crate::format::record_batch::ProducedBatch {
    let mut batch = BatchBuilder::new(Codec::None);
    for record in records {
        let (key, value) = record.encode();
        batch.push(now.wall, Some(&key), value.as_deref(), &[]);
    }
    batch.build()
}

/// What whoever asked is told of an append that failed.
fn of_append(error: &ProduceError) -> GroupError {
    match error {
        ProduceError::TooLarge { bytes, limit } => {
            GroupError::GroupTooLarge { bytes: *bytes, limit: *limit }
        }
        ProduceError::NotEnoughReplicas { .. }
        | ProduceError::NotEnoughReplicasAfterAppend { .. }
        | ProduceError::TimedOut
        | ProduceError::StorageFull => GroupError::NotAvailable,
        ProduceError::UnknownPartition(_)
        | ProduceError::NotLeader { .. }
        | ProduceError::StorageFailed
        | ProduceError::Stopping
        | ProduceError::TimestampOutOfWindow { .. }
        | ProduceError::DuplicateSequence
        | ProduceError::OutOfOrderSequence { .. }
        | ProduceError::InvalidProducerEpoch { .. }
        | ProduceError::Transactional
        | ProduceError::ControlBatch => GroupError::NotCoordinator,
    }
}
