//! ConsumerGroupHeartbeat: members join, say what they subscribe to and what they have, and leave.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{Assignor, MemberSpec, Spec};
use super::reconcile::Way;
use super::{
    ConsumerGroup, Current, JOIN_EPOCH, LEAVE_EPOCH, Member, Partitions, STATIC_LEAVE_EPOCH,
    Topics, listed, places, target_record,
};
use crate::format::group_record::{
    ConsumerGroupMetadata, GroupRecord, MemberState, ResolvedRegularExpression,
    TargetAssignmentMetadata,
};
use crate::machine::group::request::{ConsumerBeat, ConsumerHeartbeat, GroupError};
use crate::machine::group::timers::Timer;
use crate::machine::group::turn::Turn;
use crate::model::TopicId;

/// What a heartbeat is decided upon, beside the group.
pub(in crate::machine::group) struct Surroundings<'a> {
    pub(in crate::machine::group) topics: &'a Topics,
    /// Whether topics may have changed since the group last looked.
    pub(in crate::machine::group) is_stale: bool,
    /// Whether the group was rebalancing when it was converted: what members have is not what they are to share.
    pub(in crate::machine::group) is_unsettled: bool,
    pub(in crate::machine::group) session_timeout_ms: i32,
    pub(in crate::machine::group) heartbeat_interval_ms: i32,
}

/// What a member has told of itself.
pub(super) struct Change<'a> {
    pub(super) member_id: &'a str,
    pub(super) before: &'a Member,
    /// As it is with what it told.
    pub(super) member: Member,
    /// The static member whose place it takes.
    pub(super) replaced: Option<String>,
    /// What it says that it has, if it says so.
    pub(super) owned: Option<&'a Partitions>,
}

/// The group as it will be with the records of this turn, as far as the turn must know.
struct Draft<'a> {
    group: &'a ConsumerGroup,
    topics: &'a Topics,
    /// Members that go.
    gone: BTreeSet<String>,
    /// The member that the turn is about, as it will be.
    member: Option<(String, Member)>,
    /// Topics of expressions, where they are not those of the group.
    resolved: BTreeMap<String, Vec<String>>,
}

impl ConsumerGroup {
    /// A member is there.
    ///
    /// # Errors
    /// When the member is not one of this group and epoch, or asks for what cannot be.
    pub(in crate::machine::group) fn heartbeat(
        &self,
        turn: &mut Turn<'_>,
        around: &Surroundings<'_>,
        request: &ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        match request.member_epoch {
            LEAVE_EPOCH => Err(GroupError::InvalidRequest("who leaves has no heartbeat")),
            STATIC_LEAVE_EPOCH => self.leave_for_a_while(turn, request),
            _ => self.stay(turn, around, request),
        }
    }

    fn stay(
        &self,
        turn: &mut Turn<'_>,
        around: &Surroundings<'_>,
        request: &ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        let owned = request.owned.as_deref().map(places);
        let (before, replaced) = self.locate(turn, request, owned.as_ref())?;
        let mut member = before.clone();
        tell(&mut member, request);
        let (member_id, owned) = (request.member_id.as_str(), owned.as_ref());
        let change = Change { member_id, before: &before, member, replaced, owned };
        let member = self.advance(turn, around, change)?;
        self.watch(turn, around, &request.member_id, &member);
        let has_other_places = !member.current.assigned.keys().eq(before.current.assigned.keys());
        let is_full = request.rebalance_timeout_ms.is_some()
            && (request.topics.is_some() || request.expression.is_some())
            && request.owned.is_some();
        let tells = request.member_epoch == JOIN_EPOCH || is_full || has_other_places;
        Ok(ConsumerBeat {
            member_id: request.member_id.clone(),
            member_epoch: member.current.epoch,
            heartbeat_interval_ms: around.heartbeat_interval_ms,
            assignment: tells.then(|| listed(member.current.assigned.keys())),
        })
    }

    /// A member has told of itself: records what brings the group and the member further. The member as it then is.
    pub(super) fn advance(
        &self,
        turn: &mut Turn<'_>,
        around: &Surroundings<'_>,
        change: Change<'_>,
    ) -> Result<Member, GroupError> {
        let Change { member_id, before, mut member, replaced, owned } = change;
        let is_known = self.members.contains_key(member_id);
        let mut draft = Draft {
            group: self,
            topics: around.topics,
            gone: replaced.clone().into_iter().collect(),
            member: Some((member_id.to_owned(), member.clone())),
            resolved: BTreeMap::new(),
        };
        // Everything that can be refused is, before anything is recorded.
        let new_expression =
            member.expression().filter(|text| !self.expressions.contains_key(*text));
        if let Some(text) = new_expression {
            draft.resolved.insert(text.to_owned(), around.topics.matching(text)?);
        }
        if let Some(old) = &replaced {
            self.replace(turn, old, member_id, &member);
        } else if !is_known || member.told != before.told {
            turn.record(member_record(self, member_id, &member));
        }
        let has_new_names = member.told.topics != before.told.topics;
        let has_new_expression = member.expression() != before.expression();
        draft.record_expressions(turn, around.is_stale, before.expression());
        let has_news =
            has_new_names || has_new_expression || self.epoch == 0 || around.is_unsettled;
        let epoch = draft.record_epoch(turn, has_news, around.is_stale);
        let mut target_epoch = self.target_epoch;
        let target_of = replaced.as_deref().unwrap_or(member_id);
        let mut target = self.target.get(target_of).cloned().unwrap_or_default();
        if epoch > self.target_epoch {
            target_epoch = epoch;
            target = draft.record_target(turn, epoch, replaced.as_deref());
        }
        let topics = draft.topic_ids(&member);
        let way = Way {
            target_epoch,
            target: &target,
            topics: &topics,
            has_new_topics: has_new_names || has_new_expression,
            owned,
        };
        let is_own = |owner: &String| owner == member_id || Some(owner) == replaced.as_ref();
        member.current = before
            .current
            .next(&way, |place| self.owners.get(place).is_some_and(|owner| !is_own(owner)));
        if !is_known || member.current != before.current {
            turn.record(member.current.record(self.key(member_id)));
        }
        Ok(member)
    }

    /// The member as it is now, and the id of the static member whose place it takes.
    fn locate(
        &self,
        turn: &Turn<'_>,
        request: &ConsumerHeartbeat,
        owned: Option<&Partitions>,
    ) -> Result<(Member, Option<String>), GroupError> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let known = self.members.get(&request.member_id);
        let named = request.instance_id.as_ref().and_then(|name| self.static_members.get(name));
        if request.instance_id.is_some() {
            match named {
                None if !joins => return Err(GroupError::UnknownMemberId),
                Some(current) if *current != request.member_id => {
                    let old = self.members.get(current).ok_or(GroupError::UnknownMemberId)?;
                    return match joins {
                        false => Err(GroupError::FencedInstanceId),
                        // A classic one does not say that it leaves for a while.
                        true if old.told.classic.is_none()
                            && old.current.epoch != STATIC_LEAVE_EPOCH =>
                        {
                            Err(GroupError::UnreleasedInstanceId)
                        }
                        true => Ok((returned(old), Some(current.clone()))),
                    };
                }
                None | Some(_) => {}
            }
        }
        let Some(member) = known else {
            let limit = turn.settings.consumer_members_max;
            return match joins {
                false => Err(GroupError::UnknownMemberId),
                true if self.members.len() >= limit => {
                    Err(GroupError::GroupMaxSizeReached { limit })
                }
                true => Ok((Member::default(), None)),
            };
        };
        check_epoch(&member.current, request.member_epoch, owned)?;
        let is_blank = owned.is_some_and(Partitions::is_empty);
        if member.current.state == MemberState::Unknown && !is_blank {
            return Err(GroupError::FencedMemberEpoch);
        }
        Ok((member.clone(), None))
    }

    /// A static member comes back under another id, to what it had.
    fn replace(&self, turn: &mut Turn<'_>, old: &str, member_id: &str, member: &Member) {
        self.record_departure(turn, old);
        turn.record(member_record(self, member_id, member));
        if let Some(target) = self.target.get(old) {
            turn.record(target_record(self.key(member_id), target));
        }
        turn.record(member.current.record(self.key(member_id)));
    }

    /// The tombstones of a member.
    fn record_departure(&self, turn: &mut Turn<'_>, member_id: &str) {
        self.disarm(turn, member_id);
        turn.record(GroupRecord::Current { key: self.key(member_id), value: None });
        if self.target.contains_key(member_id) {
            turn.record(GroupRecord::Target { key: self.key(member_id), value: None });
        }
        turn.record(GroupRecord::Member { key: self.key(member_id), value: None });
    }

    /// A static member leaves and says that it will be back: it keeps what it has until its session ends.
    fn leave_for_a_while(
        &self,
        turn: &mut Turn<'_>,
        request: &ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        let member_id = self.leaver(request)?;
        let member = self.members.get(&member_id).ok_or(GroupError::UnknownMemberId)?;
        let mut current = Current { epoch: STATIC_LEAVE_EPOCH, ..member.current.clone() };
        // It has given up what it should; nobody may commit for it until it is back.
        current.revoking.clear();
        if current.state == MemberState::UnrevokedPartitions {
            current.state = MemberState::Stable;
        }
        current.assigned.values_mut().for_each(|epoch| *epoch = 0);
        turn.timers.disarm(&self.revocation(&member_id));
        turn.record(current.record(self.key(&member_id)));
        Ok(farewell(request))
    }

    /// The member that leaves for good or for a while.
    ///
    /// # Errors
    /// When it is no member, or not the one of its instance id.
    pub(in crate::machine::group) fn leaver(
        &self,
        request: &ConsumerHeartbeat,
    ) -> Result<String, GroupError> {
        if let Some(instance_id) = &request.instance_id {
            let current = self.static_members.get(instance_id);
            let current = current.ok_or(GroupError::UnknownMemberId)?;
            if *current != request.member_id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        match self.members.contains_key(&request.member_id) {
            true => Ok(request.member_id.clone()),
            false => Err(GroupError::UnknownMemberId),
        }
    }

    /// Members are out: what they had is free, and the others share it.
    pub(in crate::machine::group) fn remove(
        &self,
        turn: &mut Turn<'_>,
        topics: &Topics,
        gone: &BTreeSet<String>,
    ) {
        let mut expressions = BTreeSet::new();
        for member_id in gone {
            let Some(member) = self.members.get(member_id) else { continue };
            expressions.extend(member.expression());
            self.record_departure(turn, member_id);
        }
        let (gone, resolved) = (gone.clone(), BTreeMap::new());
        let mut draft = Draft { group: self, topics, gone, member: None, resolved };
        for expression in expressions {
            draft.record_expressions(turn, false, Some(expression));
        }
        draft.record_epoch(turn, true, false);
    }

    /// Nothing of a member is due any more.
    pub(in crate::machine::group) fn disarm(&self, turn: &mut Turn<'_>, member_id: &str) {
        for timer in [
            self.session(member_id),
            self.revocation(member_id),
            self.member_join(member_id),
            self.member_sync(member_id),
        ] {
            turn.timers.disarm(&timer);
        }
    }

    pub(super) fn session(&self, member_id: &str) -> Timer {
        Timer::Session { group_id: self.group_id.clone(), member_id: member_id.to_owned() }
    }

    fn revocation(&self, member_id: &str) -> Timer {
        Timer::Revocation { group_id: self.group_id.clone(), member_id: member_id.to_owned() }
    }

    pub(super) fn member_join(&self, member_id: &str) -> Timer {
        Timer::MemberJoin { group_id: self.group_id.clone(), member_id: member_id.to_owned() }
    }

    pub(super) fn member_sync(&self, member_id: &str) -> Timer {
        Timer::MemberSync { group_id: self.group_id.clone(), member_id: member_id.to_owned() }
    }

    /// How long the member may be silent, and how long it may take to give up what it was told to.
    fn watch(
        &self,
        turn: &mut Turn<'_>,
        around: &Surroundings<'_>,
        member_id: &str,
        member: &Member,
    ) {
        if let Some(classic) = &member.told.classic {
            // It is told to join again when it is heard; from then on its time runs.
            return turn.arm(self.session(member_id), classic.session_timeout_ms);
        }
        turn.arm(self.session(member_id), around.session_timeout_ms);
        turn.timers.disarm(&self.member_join(member_id));
        turn.timers.disarm(&self.member_sync(member_id));
        let revocation = self.revocation(member_id);
        if member.current.state != MemberState::UnrevokedPartitions {
            turn.timers.disarm(&revocation);
        } else if !turn.timers.is_armed(&revocation) {
            turn.arm(revocation, member.told.rebalance_timeout_ms);
        }
    }

    /// The coordinator has loaded: sessions begin.
    pub(in crate::machine::group) fn begin_sessions(
        &self,
        turn: &mut Turn<'_>,
        around: &Surroundings<'_>,
    ) {
        for (member_id, member) in &self.members {
            self.watch(turn, around, member_id, member);
        }
    }

    /// Whether a member has still to give up what it was told to.
    pub(in crate::machine::group) fn is_revoking(&self, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        member.is_some_and(|it| it.current.state == MemberState::UnrevokedPartitions)
    }
}

impl Draft<'_> {
    /// The members as they will be.
    fn members(&self) -> impl Iterator<Item = (&String, &Member)> {
        let about = self.member.as_ref();
        let stays = move |member_id: &&String| {
            !self.gone.contains(*member_id) && about.is_none_or(|(id, _)| id != *member_id)
        };
        let others = self.group.members.iter().filter(move |(member_id, _)| stays(member_id));
        others.chain(about.map(|(member_id, member)| (member_id, member)))
    }

    /// The topics that an expression stands for.
    fn resolved(&self, expression: &str) -> &[String] {
        let known = || self.group.expressions.get(expression).map(|found| &found.topics);
        self.resolved.get(expression).or_else(known).map_or(&[], Vec::as_slice)
    }

    /// Names of the topics that a member subscribes to, by name or by expression.
    fn names<'b>(&'b self, member: &'b Member) -> impl Iterator<Item = &'b String> {
        let matched = member.expression().map_or(&[][..], |text| self.resolved(text));
        member.told.topics.iter().chain(matched)
    }

    /// The topics that a member subscribes to and that exist.
    fn topic_ids(&self, member: &Member) -> BTreeSet<TopicId> {
        self.topics.known(self.names(member)).map(|(_, topic)| topic.topic_id).collect()
    }

    /// Expressions that came, that stand for other topics now, and that nobody has any more.
    fn record_expressions(&mut self, turn: &mut Turn<'_>, is_stale: bool, old: Option<&str>) {
        if is_stale {
            let used: BTreeSet<String> = self
                .members()
                .filter_map(|(_, member)| member.expression().map(str::to_owned))
                .collect();
            for text in used {
                // It was looked at when it came: that it is none cannot be.
                let Ok(topics) = self.topics.matching(&text) else { continue };
                if self.resolved(&text) != topics.as_slice() {
                    self.resolved.insert(text, topics);
                }
            }
        }
        for (text, topics) in &self.resolved {
            let value = ResolvedRegularExpression {
                topics: topics.clone(),
                version: self.topics.version,
                resolved_at: turn.now.wall,
            };
            turn.record(self.expression_record(text, Some(value)));
        }
        if let Some(old) = old
            && self.group.expressions.contains_key(old)
            && !self.members().any(|(_, member)| member.expression() == Some(old))
        {
            turn.record(self.expression_record(old, None));
        }
    }

    fn expression_record(
        &self,
        text: &str,
        value: Option<ResolvedRegularExpression>,
    ) -> GroupRecord {
        let group_id = self.group.group_id.clone();
        GroupRecord::RegularExpression { group_id, expression: text.to_owned(), value }
    }

    /// The group's epoch. It grows with news of members, and with topics that have changed.
    fn record_epoch(&self, turn: &mut Turn<'_>, has_news: bool, is_stale: bool) -> i32 {
        if !has_news && !is_stale {
            return self.group.epoch;
        }
        let names = self.members().flat_map(|(_, member)| self.names(member));
        let metadata_hash = self.topics.hash(&names.cloned().collect());
        if !has_news && metadata_hash == self.group.metadata_hash {
            return self.group.epoch;
        }
        // As in Kafka, the first is 2.
        let epoch = self.group.epoch.max(1).saturating_add(1);
        let value = Some(ConsumerGroupMetadata { epoch, metadata_hash });
        let group_id = self.group.group_id.clone();
        turn.record(GroupRecord::ConsumerGroup { group_id, value });
        epoch
    }

    /// Makes the target assignment of an epoch; that of the member in question.
    fn record_target(&self, turn: &mut Turn<'_>, epoch: i32, replaced: Option<&str>) -> Partitions {
        let about = self.member.as_ref().map(|(member_id, _)| member_id.as_str());
        // Whoever takes a place has its target, too.
        let before = |member_id: &str| match replaced.filter(|_| about == Some(member_id)) {
            Some(old) => self.group.target.get(old),
            None => self.group.target.get(member_id),
        };
        let specs: Vec<MemberSpec<'_>> = self
            .members()
            .map(|(member_id, member)| MemberSpec {
                member_id,
                instance_id: member.told.instance_id.as_deref(),
                topics: self.topic_ids(member),
                target: before(member_id),
            })
            .collect();
        let names = self.members().flat_map(|(_, member)| self.names(member));
        let topics = self.topics.known(names).map(|(_, topic)| (topic.topic_id, topic.partitions));
        let topics = topics.collect();
        let parts = self.assignor().assign(&Spec::new(specs, topics));
        for (member_id, part) in &parts {
            if before(member_id) != Some(part) {
                turn.record(target_record(self.group.key(member_id), part));
            }
        }
        let value = Some(TargetAssignmentMetadata { epoch, assigned_at: turn.now.wall });
        let group_id = self.group.group_id.clone();
        turn.record(GroupRecord::TargetEpoch { group_id, value });
        about.and_then(|member_id| parts.get(member_id)).cloned().unwrap_or_default()
    }

    /// What most members ask for.
    fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        let named = self.members().filter_map(|(_, member)| member.told.server_assignor.as_deref());
        for assignor in named.filter_map(Assignor::named) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes
            .into_iter()
            .max_by_key(|(assignor, count)| (*count, std::cmp::Reverse(*assignor)));
        most.map_or(Assignor::DEFAULT, |(assignor, _)| assignor)
    }
}

/// What a heartbeat says of the member; what it leaves out stays.
fn tell(member: &mut Member, request: &ConsumerHeartbeat) {
    let told = &mut member.told;
    told.classic = None;
    told.client_id.clone_from(&request.client.id);
    told.client_host.clone_from(&request.client.host);
    if request.instance_id.is_some() {
        told.instance_id.clone_from(&request.instance_id);
    }
    if request.rack_id.is_some() {
        told.rack_id.clone_from(&request.rack_id);
    }
    if let Some(ms) = request.rebalance_timeout_ms {
        told.rebalance_timeout_ms = ms;
    }
    if request.server_assignor.is_some() {
        told.server_assignor.clone_from(&request.server_assignor);
    }
    if let Some(topics) = &request.topics {
        let topics: BTreeSet<&String> = topics.iter().collect();
        told.topics = topics.into_iter().cloned().collect();
    }
    if request.expression.is_some() {
        told.expression.clone_from(&request.expression);
    }
}

/// A static member that comes back: it has what it had, in no epoch.
pub(super) fn returned(old: &Member) -> Member {
    let current = Current { epoch: JOIN_EPOCH, previous_epoch: JOIN_EPOCH, ..old.current.clone() };
    Member { told: old.told.clone(), current }
}

/// Whether a member that names `epoch` is the one that the coordinator knows.
fn check_epoch(
    current: &Current,
    epoch: i32,
    owned: Option<&Partitions>,
) -> Result<(), GroupError> {
    if epoch == JOIN_EPOCH || epoch == current.epoch {
        return Ok(());
    }
    // The answer that told it of its epoch may have been lost. Then it has nothing of what came with it.
    let has_only_its_own =
        owned.is_some_and(|owned| owned.iter().all(|place| current.assigned.contains_key(place)));
    match epoch == current.previous_epoch && epoch < current.epoch && has_only_its_own {
        true => Ok(()),
        false => Err(GroupError::FencedMemberEpoch),
    }
}

fn member_record(group: &ConsumerGroup, member_id: &str, member: &Member) -> GroupRecord {
    GroupRecord::Member { key: group.key(member_id), value: Some(member.told.clone()) }
}

/// The answer to a member that leaves.
pub(in crate::machine::group) fn farewell(request: &ConsumerHeartbeat) -> ConsumerBeat {
    ConsumerBeat {
        member_id: request.member_id.clone(),
        member_epoch: request.member_epoch,
        heartbeat_interval_ms: 0,
        assignment: None,
    }
}
