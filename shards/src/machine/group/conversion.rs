//! Groups whose members change from one protocol to the other, one after the other. Source: KIP-848, "Online migration".
//!
//! A classic group with members becomes a consumer group when a member of the next-generation protocol joins it: its
//! members stay, with what they have, as members that speak the classic protocol. It becomes a classic group again when
//! the last member of the next-generation protocol has left and classic ones stay. Either is one batch of records: the
//! tombstones of what it was, and all of what it is. Where its members do not have yet, or not any more, what there is to
//! share, it rebalances with its conversion, and after a failover again: other than in Kafka, nothing stays with nobody.
//!
//! `group.consumer.migration.policy` says which way groups with members may go; those without always may.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::classic::ClassicGroup;
use super::consumer::{ConsumerGroup, LEAVE_EPOCH, farewell};
use super::request::{
    ConsumerBeat, ConsumerHeartbeat, GroupError, GroupResponse, JoinGroup, LeaveGroup, LeftMember,
    Ticket,
};
use super::settings::MigrationPolicy;
use super::turn::{After, Output, Reply, Turn};
use super::{Coordinator, surroundings};
use crate::format::group_record::GroupRecord;
use crate::model::Now;

/// What a record takes at most beside its key and its value: six numbers of variable length, and attributes.
const RECORD_BYTES: usize = 28;

/// A member on its way from one kind of group to the other.
pub(super) struct ClassicPart {
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// Its subscription, by the protocol of the group.
    pub(super) metadata: Bytes,
    /// Name and subscription, in its order of preference.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
}

/// A member that comes back as a classic one.
pub(super) struct Returning<'a> {
    pub(super) member_id: &'a str,
    pub(super) request: &'a JoinGroup,
    /// Whether it subscribes to something else than before.
    pub(super) has_other_topics: bool,
}

impl Coordinator {
    /// The records by which a classic group with members becomes a consumer group.
    ///
    /// # Errors
    /// When it may not, or cannot.
    pub(super) fn upgraded(
        &self,
        group: &ClassicGroup,
        group_id: &str,
    ) -> Result<Vec<GroupRecord>, GroupError> {
        let refused = || GroupError::GroupIdNotFound(group_id.to_owned());
        let may = self.settings.migration_policy.allows_upgrade()
            && group.is_of_consumers()
            && group.members_len() <= self.settings.consumer_members_max;
        if !may {
            return Err(refused());
        }
        let (generation, parts) = group.parts();
        let members = ConsumerGroup::of_classic(group_id, generation, &parts, &self.topics)
            .map_err(|_| refused())?;
        let gone = GroupRecord::Group { group_id: group_id.to_owned(), value: None };
        Ok([gone].into_iter().chain(members).collect())
    }

    /// The classic group ends; the records of what it becomes are in the output.
    pub(super) fn end_classic(&mut self, now: Now, output: &mut Output, group_id: &str) {
        self.with_group(now, output, group_id, ClassicGroup::end);
        if let Some(group) = self.groups.remove(group_id) {
            self.member_bytes -= group.bytes();
        }
    }

    /// Members of a consumer group are out. If all who stay speak the classic protocol, so does the group from now on.
    pub(super) fn remove_consumers(
        &mut self,
        now: Now,
        output: &mut Output,
        group_id: &str,
        gone: &BTreeSet<String>,
    ) {
        let Some(group) = self.durable.consumer_group(group_id) else { return };
        // Who was replaced meanwhile has gone already.
        let is_there = |member_id: &&String| group.has_member(member_id);
        let gone: &BTreeSet<String> = &gone.iter().filter(is_there).cloned().collect();
        if gone.is_empty() {
            return;
        }
        let may = self.settings.migration_policy.allows_downgrade()
            && group.is_classic_without(gone)
            && group.members_len() - gone.len() <= self.settings.members_max;
        if may && self.downgrade(now, output, group_id, gone, None) {
            return;
        }
        let Some(group) = self.durable.consumer_group(group_id) else { return };
        let mut turn = Turn { now, settings: &self.settings, timers: &mut self.timers, output };
        group.remove(&mut turn, &self.topics, gone);
    }

    /// Makes a consumer group a classic one; whether that can be. Its members join again, unless all that happens is
    /// that the last one of the next-generation protocol comes back as a classic one.
    fn downgrade(
        &mut self,
        now: Now,
        output: &mut Output,
        group_id: &str,
        gone: &BTreeSet<String>,
        returning: Option<&Returning<'_>>,
    ) -> bool {
        let Some(group) = self.durable.consumer_group(group_id) else { return false };
        let parts = group.classic_parts(gone, returning, &self.topics);
        let rebalances = returning
            .is_none_or(|it| it.has_other_topics || !group.is_settled_but_for(it.member_id));
        let classic = ClassicGroup::of_parts(group_id, group.generation(), parts, now);
        let record = if rebalances { classic.unled_record() } else { classic.record() };
        let records: Vec<GroupRecord> = group.tombstones().into_iter().chain([record]).collect();
        if !fit_a_batch(&records, self.settings.group_record_bytes_max) {
            return false;
        }
        output.records.extend(records);
        let mut turn = Turn { now, settings: &self.settings, timers: &mut self.timers, output };
        for member_id in group.member_ids() {
            group.disarm(&mut turn, member_id);
        }
        self.stale.remove(group_id);
        self.member_bytes += classic.bytes();
        self.groups.insert(group_id.to_owned(), classic);
        self.with_group(now, output, group_id, |group, turn| group.begin(turn, rebalances));
        true
    }

    /// A classic member joins a consumer group with members.
    pub(super) fn join_consumer_group(
        &mut self,
        now: Now,
        output: &mut Output,
        ticket: Ticket,
        request: JoinGroup,
    ) {
        let joined = self.try_join_consumer_group(now, output, &request);
        let response = match joined {
            // From here on it is one of a classic group.
            Ok(None) => {
                let group_id = request.group_id.clone();
                let join = |group: &mut ClassicGroup, turn: &mut Turn<'_>| {
                    group.join(turn, ticket, request)
                };
                self.with_group(now, output, &group_id, join);
                return;
            }
            Ok(Some(joined)) => Ok(joined),
            Err(error) => Err(error),
        };
        let response = GroupResponse::Join(response);
        output.replies.push(Reply { ticket, response, after: After::Records });
    }

    fn try_join_consumer_group(
        &mut self,
        now: Now,
        output: &mut Output,
        request: &JoinGroup,
    ) -> Result<Option<super::Joined>, GroupError> {
        let group_id = request.group_id.as_str();
        let policy = self.settings.migration_policy;
        if policy == MigrationPolicy::Disabled {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let unknown = || GroupError::UnknownMemberId;
        let group = self.durable.consumer_group(group_id).ok_or_else(unknown)?;
        let returning = group.last_consumer(request).filter(|_| {
            policy.allows_downgrade() && group.members_len() <= self.settings.members_max
        });
        if let Some(member_id) = returning {
            let subscription = group.subscription(request)?;
            let has_other_topics = group.has_other_topics(&member_id, &subscription);
            let returning = Returning { member_id: &member_id, request, has_other_topics };
            if self.downgrade(now, output, group_id, &BTreeSet::new(), Some(&returning)) {
                return Ok(None);
            }
        }
        let group = self.durable.consumer_group(group_id).ok_or_else(unknown)?;
        let is_stale = self.stale.contains(group_id);
        let around =
            surroundings(&self.settings, &self.overrides, &self.topics, group_id, is_stale);
        let mut records = self.output();
        let mut turn =
            Turn { now, settings: &self.settings, timers: &mut self.timers, output: &mut records };
        let joined = group.join_classic(&mut turn, &around, request)?;
        self.stale.remove(group_id);
        output.records.append(&mut records.records);
        Ok(Some(joined))
    }

    /// Classic members of a consumer group leave.
    pub(super) fn leave_consumer_group(
        &mut self,
        now: Now,
        output: &mut Output,
        request: LeaveGroup,
    ) -> Vec<LeftMember> {
        let group_id = request.group_id.clone();
        let Some(group) = self.durable.consumer_group(&group_id) else { return Vec::new() };
        let (left, gone) = group.leavers_classic(request);
        if !gone.is_empty() {
            self.remove_consumers(now, output, &group_id, &gone);
        }
        left
    }

    /// A member of the next-generation protocol leaves.
    pub(super) fn leave_by_heartbeat(
        &mut self,
        now: Now,
        output: &mut Output,
        request: &ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        assert_eq!(request.member_epoch, LEAVE_EPOCH, "it leaves");
        let group_id = &request.group_id;
        let missing = || GroupError::GroupIdNotFound(group_id.clone());
        let group = self.durable.consumer_group(group_id).ok_or_else(missing)?;
        let gone = BTreeSet::from([group.leaver(request)?]);
        self.remove_consumers(now, output, group_id, &gone);
        Ok(farewell(request))
    }
}

/// Whether records fit one batch of the topic, in which they must be.
pub(super) fn fit_a_batch<'a>(
    records: impl IntoIterator<Item = &'a GroupRecord>,
    bytes_max: usize,
) -> bool {
    let bytes = records.into_iter().map(|record| {
        let (key, value) = record.encode();
        RECORD_BYTES + key.len() + value.map_or(0, |value| value.len())
    });
    bytes.sum::<usize>() <= bytes_max
}
