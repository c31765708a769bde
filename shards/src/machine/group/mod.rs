//! The coordinator of the groups of one partition of `__consumer_offsets`. Source: KIP-62, KIP-211, KIP-345,
//! KIP-394.
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
//! Deliberately absent: the next-generation protocol of KIP-848, transactional offsets, and any clock.

mod classic;
mod durable;
mod offsets;
mod request;
mod settings;
#[cfg(test)]
mod tests;
mod timers;
mod turn;

use std::collections::BTreeMap;

pub use request::{
    Client, CommitOffsets, DeleteOffsets, DescribedGroup, DescribedMember, FetchOffsets,
    FetchedOffset, GroupError, GroupRequest, GroupResponse, Heartbeat, JoinGroup, Joined,
    JoinedMember, LeaveGroup, LeftMember, ListGroups, ListedGroup, OffsetToCommit,
    PartitionOutcome, SyncGroup, Synced, Ticket,
};
pub use settings::GroupSettings;
pub use turn::{After, Output, Reply};

use crate::format::group_record::GroupRecord;
use crate::model::{LeaderEpoch, MonotonicMicros, Now};
use classic::ClassicGroup;
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
        }
    }

    /// In which epoch of the partition it leads.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Whether it has loaded and has not been deposed.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
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
            if !self.groups.contains_key(group_id) {
                self.groups.insert(group_id.clone(), ClassicGroup::new(group_id));
            }
        }
        self.member_bytes = self.groups.values().map(ClassicGroup::bytes).sum();
        let mut output = self.output();
        let interval_ms = self.settings.offsets_retention_check_interval_ms;
        self.timers.arm(Timer::Expiry, now.monotonic.plus_millis(interval_ms));
        let mut turn =
            Turn { now, settings: &self.settings, timers: &mut self.timers, output: &mut output };
        for group in self.groups.values_mut() {
            group.begin_sessions(&mut turn);
        }
        self.ask(output)
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
            group.abandon(&mut turn);
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

    /// Does what has become due.
    ///
    /// # Panics
    /// When records of an earlier turn have not been replayed.
    pub fn tick(&mut self, now: Now) -> Output {
        self.assert_replayed();
        let mut output = self.output();
        while let Some(timer) = self.timers.pop(now.monotonic) {
            match timer {
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
            GroupRequest::Sync(request) => {
                let group_id = request.group_id.clone();
                let found = self.named_group(now, output, &group_id, |group, turn| {
                    group.sync(turn, ticket, request);
                });
                if let Err(error) = found {
                    reply(output, ticket, GroupResponse::Sync(Err(error)));
                }
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
                after_records(output, GroupResponse::FetchOffsets(Ok(fetched)));
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
        let is_new = !self.groups.contains_key(&group_id);
        if is_new {
            self.groups.insert(group_id.clone(), ClassicGroup::new(&group_id));
        }
        self.with_group(now, output, &group_id, |group, turn| {
            group.join(turn, ticket, request);
            if is_new && !group.is_deserted() && turn.output.records.is_empty() {
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
        let listed = self.groups.values().map(ClassicGroup::listed);
        listed
            .filter(|group| allowed(&request.states, group.state))
            .filter(|group| allowed(&request.types, group.group_type))
            .collect()
    }

    /// Refuses what is new when the coordinator holds what it may.
    fn check_room(&self) -> Result<(), GroupError> {
        let held = self.durable.held_bytes() + self.member_bytes;
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
        self.durable.check_invariants();
        self.timers.check_invariants();
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
        for group_id in self.durable.groups_with_offsets() {
            assert!(self.groups.contains_key(group_id), "{group_id} has offsets and is not known");
        }
        let bytes: usize = self.groups.values().map(ClassicGroup::bytes).sum();
        assert_eq!(bytes, self.member_bytes, "bytes are counted");
    }
}

fn reply(output: &mut Output, ticket: Ticket, response: GroupResponse) {
    output.replies.push(Reply { ticket, response, after: After::Nothing });
}

/// The answer to a request to a coordinator that does not serve.
fn refused(request: GroupRequest, error: &GroupError) -> GroupResponse {
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
    }
}
