//! The coordinator of the groups of one partition of `__consumer_offsets`. Source: KIP-62, KIP-211, KIP-345,
//! KIP-394, KIP-848.
//!
//! A request and the time go in; records and answers come out. What survives a failover changes in
//! [`Coordinator::replay`] only, which the coordinator sees before its next turn with everything that it had
//! appended, and a new coordinator with everything that is in the log. Beside it stands what does not survive:
//! who waits for whom, and who was heard when.
//!
//! Whoever appends sees to it that an answer leaves when [`After`] says so, and that records are appended in
//! the epoch that the coordinator was made for. A coordinator that was deposed can therefore decide what it
//! likes: none of it is in the log, and none of what rests on it is told.
//!
//! Bounded by [`GroupSettings`]: members of a group, bytes of a group's record, bytes of all groups and offsets
//! together.
//!
//! A group is of one protocol, the classic or the next-generation one. How it changes that is `conversion.rs`; while
//! its members do, one after the other, it is of the next-generation one.
//!
//! Deliberately absent: transactional offsets, and any clock.

mod classic;
mod consumer;
mod conversion;
mod durable;
mod embedded;
mod offsets;
mod request;
mod settings;
mod standing;
#[cfg(test)]
mod tests;
mod timers;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use consumer::{TopicFacts, Topics};
pub use request::{
    Client, CommitOffsets, ConsumerBeat, ConsumerHeartbeat, DeleteOffsets, DescribedConsumer,
    DescribedConsumerGroup, DescribedGroup, DescribedMember, FetchOffsets, FetchedOffset,
    GroupError, GroupRequest, GroupResponse, Heartbeat, JoinGroup, Joined, JoinedMember,
    LeaveGroup, LeftMember, ListGroups, ListedGroup, OffsetToCommit, PartitionOutcome, SyncGroup,
    Synced, Ticket,
};
pub use settings::{GroupOverrides, GroupSettings, MigrationPolicy};
pub use standing::{GroupCursor, GroupStanding, GroupsLook, TopicStanding};
pub use turn::{After, Output, Reply};

use crate::format::group_record::GroupRecord;
use crate::model::{LeaderEpoch, MonotonicMicros, Now};
use classic::ClassicGroup;
use consumer::{ConsumerGroup, JOIN_EPOCH, LEAVE_EPOCH, Surroundings, check_heartbeat};
use durable::Durable;
use timers::{Timer, Timers};
use turn::Turn;

/// How a coordinator stands to its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It reads the log.
    Loading,
    /// It answers.
    Serving,
    /// Another one has taken over.
    Resigned,
}

/// The coordinator of one partition, in one leader epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coordinator {
    settings: GroupSettings,
    leader_epoch: LeaderEpoch,
    phase: Phase,
    durable: Durable,
    /// Every group that is known, those included that are only offsets.
    groups: BTreeMap<String, ClassicGroup>,
    /// What the members of all groups take, roughly.
    member_bytes: usize,
    timers: Timers,
    /// Records that came out of a turn and have not been replayed.
    unreplayed: usize,
    /// The group at which a look for expired offsets goes on.
    expiry_from: Option<String>,
    topics: Arc<Topics>,
    /// Consumer groups that have not looked at the topics since they may have changed.
    stale: BTreeSet<String>,
    /// Consumer groups that this turn deletes.
    deleted: BTreeSet<String>,
    overrides: BTreeMap<String, GroupOverrides>,
}

impl Coordinator {
    /// A coordinator that is about to read its partition. It is the leader in `leader_epoch`.
    #[must_use]
    pub fn new(settings: GroupSettings, leader_epoch: LeaderEpoch) -> Self {
        Self {
            settings,
            leader_epoch,
            phase: Phase::Loading,
            durable: Durable::default(),
            groups: BTreeMap::new(),
            member_bytes: 0,
            timers: Timers::default(),
            unreplayed: 0,
            expiry_from: None,
            topics: Arc::default(),
            stale: BTreeSet::new(),
            deleted: BTreeSet::new(),
            overrides: BTreeMap::new(),
        }
    }

    /// In which epoch of the partition it leads.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Takes the topics of the cluster, at first and whenever they have changed. Groups look at them with the
    /// next heartbeat of a member.
    pub fn set_topics(&mut self, topics: Arc<Topics>) {
        self.topics = topics;
        self.stale = self.durable.consumer_groups().map(|(group_id, _)| group_id.clone()).collect();
    }

    /// Takes what groups have of their own.
    pub fn set_overrides(&mut self, overrides: BTreeMap<String, GroupOverrides>) {
        self.overrides = overrides;
    }

    /// Whether it has loaded and has not been deposed.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Whether it has groups that have to know the topics.
    #[must_use]
    pub fn has_consumer_groups(&self) -> bool {
        self.durable.consumer_groups().next().is_some()
    }

    /// Takes a record that is in the log: while it loads every record of the partition in order, later those
    /// of its own outputs.
    ///
    /// # Panics
    /// When it serves and has not asked for that many records.
    pub fn replay(&mut self, record: &GroupRecord) {
        if self.phase == Phase::Serving {
            assert!(
                self.unreplayed > 0,
                "a record that the coordinator did not ask for: {record:?}"
            );
            self.unreplayed -= 1;
        }
        self.durable.replay(record);
    }

    /// The whole log is replayed: from now on it answers. Members have a session's time to be heard.
    ///
    /// # Panics
    /// When it has loaded before.
    pub fn loaded(&mut self, now: Now) -> Output {
        assert_eq!(self.phase, Phase::Loading, "a coordinator loads once");
        self.phase = Phase::Serving;
        for (group_id, record) in self.durable.groups() {
            self.groups.insert(group_id.clone(), ClassicGroup::loaded(group_id, record));
        }
        for group_id in self.durable.groups_with_offsets() {
            let is_consumer_group = self.durable.consumer_group(group_id).is_some();
            if !self.groups.contains_key(group_id) && !is_consumer_group {
                self.groups.insert(group_id.clone(), ClassicGroup::new(group_id));
            }
        }
        self.stale = self.durable.consumer_groups().map(|(group_id, _)| group_id.clone()).collect();
        self.member_bytes = self.groups.values().map(ClassicGroup::bytes).sum();
        let mut output = self.output();
        let interval_ms = self.settings.offsets_retention_check_interval_ms;
        self.timers.arm(Timer::Expiry, now.monotonic.plus_millis(interval_ms));
        self.begin_sessions(now, &mut output);
        self.ask(output)
    }

    /// Has the sessions of all members begin anew, after a time in which they could not be served.
    ///
    /// # Panics
    /// When records of an earlier turn have not been replayed.
    pub fn begin_sessions_anew(&mut self, now: Now) -> Output {
        self.assert_replayed();
        let mut output = self.output();
        if self.is_serving() {
            self.begin_sessions(now, &mut output);
        }
        self.ask(output)
    }

    fn begin_sessions(&mut self, now: Now, output: &mut Output) {
        let mut turn = Turn { now, settings: &self.settings, timers: &mut self.timers, output };
        for (group_id, group) in &mut self.groups {
            let record = self.durable.group(group_id);
            group.begin_sessions(&mut turn, record.is_some_and(|record| record.leader.is_none()));
        }
        for (group_id, group) in self.durable.consumer_groups() {
            let around =
                surroundings(&self.settings, &self.overrides, &self.topics, group_id, true);
            group.begin_sessions(&mut turn, &around);
        }
    }

    /// Another replica leads the partition, or this one in another epoch. Whoever waits is to look for the
    /// coordinator again. News of an epoch before its own is old and changes nothing.
    pub fn resign(&mut self, now: Now, leader_epoch: LeaderEpoch) -> Output {
        let mut output = self.output();
        if leader_epoch < self.leader_epoch {
            return output;
        }
        self.phase = Phase::Resigned;
        self.unreplayed = 0;
        let mut turn =
            Turn { now, settings: &self.settings, timers: &mut self.timers, output: &mut output };
        for group in self.groups.values_mut() {
            group.abandon(&mut turn, &GroupError::NotCoordinator);
        }
        self.groups.clear();
        self.member_bytes = 0;
        self.timers = Timers::default();
        output
    }

    /// When [`Coordinator::tick`] has something to do, if nothing comes in between.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        self.timers.next()
    }

    /// Does what has become due, or a part of it: then there is more to do at once.
    ///
    /// # Panics
    /// When records of an earlier turn have not been replayed.
    pub fn tick(&mut self, now: Now) -> Output {
        self.assert_replayed();
        let mut output = self.output();
        while let Some(timer) = self.timers.pop(now.monotonic) {
            match timer {
                Timer::Session { group_id, member_id }
                    if self.durable.consumer_group(&group_id).is_some() =>
                {
                    self.remove_consumers(now, &mut output, &group_id, &[member_id].into());
                    break;
                }
                Timer::Revocation { group_id, member_id } => {
                    let group = self.durable.consumer_group(&group_id);
                    if group.is_some_and(|group| group.is_revoking(&member_id)) {
                        self.remove_consumers(now, &mut output, &group_id, &[member_id].into());
                    }
                    break;
                }
                Timer::MemberJoin { group_id, member_id }
                | Timer::MemberSync { group_id, member_id } => {
                    self.remove_consumers(now, &mut output, &group_id, &[member_id].into());
                    break;
                }
                Timer::Session { group_id, member_id } => {
                    self.with_group(now, &mut output, &group_id, |group, turn| {
                        group.session_is_over(turn, &member_id);
                    });
                }
                Timer::Join { group_id } => {
                    self.with_group(now, &mut output, &group_id, ClassicGroup::join_time_is_up);
                }
                Timer::Sync { group_id } => {
                    self.with_group(now, &mut output, &group_id, ClassicGroup::sync_time_is_up);
                }
                Timer::Expiry => self.expire_offsets(now, &mut output),
            }
        }
        self.ask(output)
    }

    /// Decides about a request. It is answered in this output or in a later one, exactly once.
    ///
    /// # Panics
    /// When records of an earlier turn have not been replayed.
    pub fn handle(&mut self, now: Now, ticket: Ticket, request: GroupRequest) -> Output {
        self.assert_replayed();
        let mut output = self.output();
        match self.phase {
            Phase::Serving => self.serve(now, &mut output, ticket, request),
            Phase::Loading => {
                reply(&mut output, ticket, refused(request, &GroupError::LoadInProgress))
            }
            Phase::Resigned => {
                reply(&mut output, ticket, refused(request, &GroupError::NotCoordinator));
            }
        }
        self.ask(output)
    }

    fn serve(&mut self, now: Now, output: &mut Output, ticket: Ticket, request: GroupRequest) {
        let after_records = |output: &mut Output, response| {
            output.replies.push(Reply { ticket, response, after: After::Records });
        };
        match request {
            GroupRequest::Join(request) => self.join(now, output, ticket, request),
            GroupRequest::Sync(request) if self.has_consumers(&request.group_id) => {
                let synced =
                    self.with_consumers(now, output, &request.group_id, |group, turn, topics| {
                        group.sync_classic(turn, topics, &request)
                    });
                after_records(output, GroupResponse::Sync(synced));
            }
            GroupRequest::Sync(request) => {
                let group_id = request.group_id.clone();
                let found = self.named_group(now, output, &group_id, |group, turn| {
                    group.sync(turn, ticket, request);
                });
                if let Err(error) = found {
                    reply(output, ticket, GroupResponse::Sync(Err(error)));
                }
            }
            GroupRequest::Heartbeat(request) if self.has_consumers(&request.group_id) => {
                let heard =
                    self.with_consumers(now, output, &request.group_id, |group, turn, _| {
                        group.heartbeat_classic(turn, &request)
                    });
                reply(output, ticket, GroupResponse::Heartbeat(heard));
            }
            GroupRequest::Heartbeat(request) => {
                let heard =
                    |group: &mut ClassicGroup, turn: &mut Turn<'_>| group.heartbeat(turn, &request);
                let found = self.named_group(now, output, &request.group_id, heard);
                let outcome = found.and_then(|outcome| outcome);
                reply(output, ticket, GroupResponse::Heartbeat(outcome));
            }
            GroupRequest::Leave(request) => {
                let outcome = self.leave(now, output, request);
                after_records(output, GroupResponse::Leave(outcome));
            }
            GroupRequest::CommitOffsets(request) => {
                let outcome = self.commit_offsets(now, output, request);
                after_records(output, GroupResponse::CommitOffsets(outcome));
            }
            GroupRequest::FetchOffsets(request) => {
                let fetched = self.fetch_offsets(&request);
                after_records(output, GroupResponse::FetchOffsets(fetched));
            }
            GroupRequest::DeleteOffsets(request) => {
                let outcome = self.delete_offsets(output, request);
                after_records(output, GroupResponse::DeleteOffsets(outcome));
            }
            GroupRequest::DeleteGroups(group_ids) => {
                let outcomes = self.delete_groups(now, output, group_ids);
                after_records(output, GroupResponse::DeleteGroups(outcomes));
            }
            GroupRequest::DescribeGroups(group_ids) => {
                let described = group_ids.into_iter().map(|group_id| {
                    let group = self.groups.get(&group_id).map(ClassicGroup::described);
                    let group = group.ok_or_else(|| GroupError::GroupIdNotFound(group_id.clone()));
                    (group_id, group)
                });
                after_records(output, GroupResponse::DescribeGroups(described.collect()));
            }
            GroupRequest::ListGroups(request) => {
                after_records(output, GroupResponse::ListGroups(Ok(self.list_groups(&request))));
            }
            GroupRequest::ConsumerHeartbeat(request) => {
                let beat = self.consumer_heartbeat(now, output, &request);
                after_records(output, GroupResponse::ConsumerHeartbeat(beat));
            }
            GroupRequest::DescribeConsumerGroups(group_ids) => {
                let described = group_ids.into_iter().map(|group_id| {
                    let group =
                        self.durable.consumer_group(&group_id).map(ConsumerGroup::described);
                    let group = group.ok_or_else(|| GroupError::GroupIdNotFound(group_id.clone()));
                    (group_id, group)
                });
                after_records(output, GroupResponse::DescribeConsumerGroups(described.collect()));
            }
        }
    }

    fn join(&mut self, now: Now, output: &mut Output, ticket: Ticket, mut request: JoinGroup) {
        if let Err(error) = self.may_join(&request) {
            return reply(output, ticket, GroupResponse::Join(Err(error)));
        }
        // What stays must not keep the request's memory.
        for (_, metadata) in &mut request.protocols {
            *metadata = bytes::Bytes::copy_from_slice(metadata);
        }
        let group_id = request.group_id.clone();
        if self.has_consumers(&group_id) {
            return self.join_consumer_group(now, output, ticket, request);
        }
        if self.durable.consumer_group(&group_id).is_some() {
            // It has no members: the group is another one from now on.
            self.delete_group(now, output, &group_id);
        }
        let is_new = !self.groups.contains_key(&group_id);
        if is_new {
            self.groups.insert(group_id.clone(), ClassicGroup::new(&group_id));
        }
        self.with_group(now, output, &group_id, |group, turn| {
            group.join(turn, ticket, request);
            if is_new && !group.is_deserted() {
                turn.record(group.first_record(turn));
            }
        });
        if is_new && self.groups.get(&group_id).is_some_and(ClassicGroup::is_deserted) {
            self.groups.remove(&group_id);
        }
    }

    fn may_join(&self, request: &JoinGroup) -> Result<(), GroupError> {
        if request.group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let found = request.session_timeout_ms;
        let (min, max) =
            (self.settings.session_timeout_min_ms, self.settings.session_timeout_max_ms);
        if !(min..=max).contains(&found) {
            return Err(GroupError::InvalidSessionTimeout { found, min, max });
        }
        let consumers = self.durable.consumer_group(&request.group_id);
        if let Some(group) = consumers.filter(|group| !group.is_empty()) {
            // Whoever names an id that is none of the group's becomes a member under it.
            return if group.has_member(&request.member_id) { Ok(()) } else { self.check_room() };
        }
        if !self.groups.contains_key(&request.group_id) && !request.member_id.is_empty() {
            return Err(GroupError::UnknownMemberId);
        }
        if request.member_id.is_empty() { self.check_room() } else { Ok(()) }
    }

    fn leave(
        &mut self,
        now: Now,
        output: &mut Output,
        request: LeaveGroup,
    ) -> Result<Vec<LeftMember>, GroupError> {
        if request.group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let group_id = request.group_id.clone();
        if self.has_consumers(&group_id) {
            return Ok(self.leave_consumer_group(now, output, request));
        }
        if !self.groups.contains_key(&group_id) {
            let left = request.members.into_iter().map(|(member_id, instance_id)| LeftMember {
                member_id,
                instance_id,
                outcome: Err(GroupError::UnknownMemberId),
            });
            return Ok(left.collect());
        }
        let left =
            self.with_group(now, output, &group_id, |group, turn| group.leave(turn, request));
        Ok(left.unwrap_or_default())
    }

    fn list_groups(&self, request: &ListGroups) -> Vec<ListedGroup> {
        let allowed = |filter: &[String], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let consumer_groups = self.durable.consumer_groups().map(|(_, group)| group.listed());
        let mut listed: Vec<ListedGroup> =
            self.groups.values().map(ClassicGroup::listed).chain(consumer_groups).collect();
        listed.sort_by(|one, other| one.group_id.cmp(&other.group_id));
        listed
            .into_iter()
            .filter(|group| allowed(&request.states, group.state))
            .filter(|group| allowed(&request.types, group.group_type))
            .collect()
    }

    fn consumer_heartbeat(
        &mut self,
        now: Now,
        output: &mut Output,
        request: &ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        check_heartbeat(request)?;
        if request.member_epoch == LEAVE_EPOCH {
            return self.leave_by_heartbeat(now, output, request);
        }
        let group_id = &request.group_id;
        let missing = || GroupError::GroupIdNotFound(group_id.clone());
        let joins = request.member_epoch == JOIN_EPOCH;
        if joins {
            self.check_room()?;
        }
        let classic = self.groups.get(group_id);
        if classic.is_some() && !joins {
            return Err(missing());
        }
        let is_classic = classic.is_some();
        let mut first = ConsumerGroup::new(group_id);
        let mut upgrade = None;
        let is_unsettled = classic.is_some_and(|group| !group.is_empty() && !group.is_stable());
        if let Some(classic) = classic.filter(|group| !group.is_empty()) {
            let converted = self.upgraded(classic, group_id)?;
            for record in &converted {
                first.replay(record);
            }
            upgrade = Some(converted);
        }
        let known = self.durable.consumer_group(group_id);
        let group = known.or(joins.then_some(&first)).ok_or_else(missing)?;
        let is_stale = self.stale.contains(group_id);
        let around =
            surroundings(&self.settings, &self.overrides, &self.topics, group_id, is_stale);
        let around = Surroundings { is_unsettled, ..around };
        let mut records = self.output();
        let mut turn =
            Turn { now, settings: &self.settings, timers: &mut self.timers, output: &mut records };
        let beat = group.heartbeat(&mut turn, &around, request)?;
        if let Some(converted) = &upgrade {
            let limit = turn.settings.group_record_bytes_max;
            if !conversion::fit_a_batch(converted.iter().chain(&turn.output.records), limit) {
                group.disarm(&mut turn, &request.member_id);
                return Err(missing());
            }
        }
        self.stale.remove(group_id);
        if let Some(converted) = upgrade {
            self.end_classic(now, output, group_id);
            output.records.extend(converted);
        } else if is_classic {
            // It has no members: the group is another one from now on.
            self.delete_group(now, output, group_id);
        }
        output.records.append(&mut records.records);
        Ok(beat)
    }

    /// Whether a group is a consumer group with members.
    fn has_consumers(&self, group_id: &str) -> bool {
        self.durable.consumer_group(group_id).is_some_and(|group| !group.is_empty())
    }

    /// Has a consumer group answer a classic member, if it is there.
    fn with_consumers<T>(
        &mut self,
        now: Now,
        output: &mut Output,
        group_id: &str,
        act: impl FnOnce(&ConsumerGroup, &mut Turn<'_>, &Topics) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        let group = self.durable.consumer_group(group_id).ok_or(GroupError::UnknownMemberId)?;
        let mut turn = Turn { now, settings: &self.settings, timers: &mut self.timers, output };
        act(group, &mut turn, &self.topics)
    }

    /// Whether there is such a group, of either protocol.
    fn is_known(&self, group_id: &str) -> bool {
        self.groups.contains_key(group_id) || self.durable.consumer_group(group_id).is_some()
    }

    /// Refuses what is new when the coordinator holds what it may.
    fn check_room(&self) -> Result<(), GroupError> {
        let consumers = self.durable.consumer_groups().map(|(_, group)| group.bytes());
        let held = self.durable.held_bytes() + self.member_bytes + consumers.sum::<usize>();
        let limit = self.settings.held_bytes_max;
        if held > limit { Err(GroupError::CoordinatorFull { held, limit }) } else { Ok(()) }
    }

    /// Has a group that a member names act.
    fn named_group<T>(
        &mut self,
        now: Now,
        output: &mut Output,
        group_id: &str,
        act: impl FnOnce(&mut ClassicGroup, &mut Turn<'_>) -> T,
    ) -> Result<T, GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.with_group(now, output, group_id, act).ok_or(GroupError::UnknownMemberId)
    }

    /// Has a group act, if it is there.
    fn with_group<T>(
        &mut self,
        now: Now,
        output: &mut Output,
        group_id: &str,
        act: impl FnOnce(&mut ClassicGroup, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(group_id)?;
        let before = group.bytes();
        let mut turn = Turn { now, settings: &self.settings, timers: &mut self.timers, output };
        let done = act(group, &mut turn);
        self.member_bytes = self.member_bytes - before + group.bytes();
        Some(done)
    }

    fn output(&self) -> Output {
        Output { leader_epoch: self.leader_epoch, records: Vec::new(), replies: Vec::new() }
    }

    /// Lets an output out: what it asks for is to be replayed before the next turn.
    fn ask(&mut self, output: Output) -> Output {
        self.deleted.clear();
        self.unreplayed += output.records.len();
        output
    }

    fn assert_replayed(&self) {
        assert_eq!(self.unreplayed, 0, "records of the turn before have not been replayed");
    }

    /// Whether it would be the same after a failover: the durable state of two coordinators is compared.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.durable == other.durable
    }

    /// Scans the whole state.
    ///
    /// # Panics
    /// When an invariant of the module or of a group does not hold.
    pub fn check_invariants(&self) {
        self.timers.check_invariants();
        // A log that was compacted tells of members before it tells of their group.
        if self.phase == Phase::Loading {
            return;
        }
        self.durable.check_invariants();
        if self.phase != Phase::Serving || self.unreplayed > 0 {
            return;
        }
        for (group_id, group) in &self.groups {
            group.check_invariants();
            if let Some(record) = self.durable.group(group_id) {
                group.check_record(record);
            }
        }
        for (group_id, _) in self.durable.groups() {
            assert!(self.groups.contains_key(group_id), "{group_id} is in the log and not known");
        }
        for (group_id, _) in self.durable.consumer_groups() {
            assert!(!self.groups.contains_key(group_id), "{group_id} is of one protocol");
        }
        for group_id in self.durable.groups_with_offsets() {
            assert!(self.is_known(group_id), "{group_id} has offsets and is not known");
        }
        let bytes: usize = self.groups.values().map(ClassicGroup::bytes).sum();
        assert_eq!(bytes, self.member_bytes, "bytes are counted");
    }
}

fn reply(output: &mut Output, ticket: Ticket, response: GroupResponse) {
    output.replies.push(Reply { ticket, response, after: After::Nothing });
}

/// What a heartbeat to a consumer group is decided upon.
fn surroundings<'a>(
    settings: &GroupSettings,
    overrides: &BTreeMap<String, GroupOverrides>,
    topics: &'a Topics,
    group_id: &str,
    is_stale: bool,
) -> Surroundings<'a> {
    let own = overrides.get(group_id).copied().unwrap_or_default();
    let (session, interval) = (own.consumer_session_timeout_ms, own.consumer_heartbeat_interval_ms);
    Surroundings {
        topics,
        is_stale,
        is_unsettled: false,
        session_timeout_ms: session.unwrap_or(settings.consumer_session_timeout_ms),
        heartbeat_interval_ms: interval.unwrap_or(settings.consumer_heartbeat_interval_ms),
    }
}

/// The answer to a request that is refused as a whole.
#[must_use]
pub fn refused(request: GroupRequest, error: &GroupError) -> GroupResponse {
    let error = error.clone();
    match request {
        GroupRequest::Join(_) => GroupResponse::Join(Err(error)),
        GroupRequest::Sync(_) => GroupResponse::Sync(Err(error)),
        GroupRequest::Heartbeat(_) => GroupResponse::Heartbeat(Err(error)),
        GroupRequest::Leave(_) => GroupResponse::Leave(Err(error)),
        GroupRequest::CommitOffsets(_) => GroupResponse::CommitOffsets(Err(error)),
        GroupRequest::FetchOffsets(_) => GroupResponse::FetchOffsets(Err(error)),
        GroupRequest::DeleteOffsets(_) => GroupResponse::DeleteOffsets(Err(error)),
        GroupRequest::DeleteGroups(ids) => GroupResponse::DeleteGroups(
            ids.into_iter().map(|id| (id, Err(error.clone()))).collect(),
        ),
        GroupRequest::DescribeGroups(ids) => {
            let lines = ids.into_iter().map(|id| (id, Err(error.clone())));
            GroupResponse::DescribeGroups(lines.collect())
        }
        GroupRequest::ListGroups(_) => GroupResponse::ListGroups(Err(error)),
        GroupRequest::ConsumerHeartbeat(_) => GroupResponse::ConsumerHeartbeat(Err(error)),
        GroupRequest::DescribeConsumerGroups(ids) => {
            let lines = ids.into_iter().map(|id| (id, Err(error.clone())));
            GroupResponse::DescribeConsumerGroups(lines.collect())
        }
    }
}
