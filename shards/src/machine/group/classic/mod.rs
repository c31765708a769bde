//! A group of the classic protocol: who is in it, and where its rebalance stands.
//!
//! All of this is volatile. What survives is the last record that the group wrote: at the end of a rebalance
//! ([`ClassicGroup::record`]), when it became empty, and when a static member came back under a new id. After
//! a failover the group is as of that record ([`ClassicGroup::loaded`]); whoever was joining meanwhile is told
//! of an unknown member or an old generation, and joins again.
//!
//! Invariants: a member waits for one answer at most, and only in the phase that gives it; the leader is a
//! member; every static member is found under its instance id.
//!
//! Deliberately absent: Kafka's state `Dead`. A group that is deleted is not there.

mod conversion;
mod join;
mod rebalance;
mod sync;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

pub(super) use join::uuid;
pub(super) use view::RetentionFrom;

use super::request::{GroupError, GroupResponse, Joined, JoinedMember, Synced, Ticket};
use super::timers::Timer;
use super::turn::Turn;
use crate::format::group_record::{GroupMetadata, GroupRecord};
use crate::model::TimestampMs;

/// The protocol type of consumers: the coordinator can read what their members subscribe to.
pub(super) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// What a member takes beside its strings.
const MEMBER_BYTES: usize = 256;

/// Where a group stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClassicState {
    /// It has no members.
    Empty,
    /// It waits for its members to join.
    PreparingRebalance,
    /// It waits for its leader's assignment.
    CompletingRebalance,
    /// Every member can have its part.
    Stable,
}

impl ClassicState {
    /// Kafka's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What a member waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    Nothing,
    /// For the end of the join phase.
    Join(Ticket),
    /// For the leader's assignment.
    Sync(Ticket),
}

/// A member of a classic group.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_timeout_ms: i32,
    session_timeout_ms: i32,
    /// Name and metadata, in its order of preference.
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    /// Whether it has never been in a generation. It cannot send heartbeats yet.
    is_new: bool,
    waiting: Waiting,
}

impl Member {
    fn is_joining(&self) -> bool {
        matches!(self.waiting, Waiting::Join(_))
    }

    fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    fn bytes(&self) -> usize {
        let protocols = self.protocols.iter().map(|(name, metadata)| name.len() + metadata.len());
        let strings = self.client_id.len() + self.client_host.len();
        MEMBER_BYTES + strings + protocols.sum::<usize>() + self.assignment.len()
    }
}

/// The first join phase of a group that was empty: it is held open for others to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InitialPhase {
    /// How long the current delay is.
    delay_ms: i32,
    /// How much longer it may become.
    remaining_ms: i32,
    /// Whether somebody came during the current delay.
    member_added: bool,
}

/// A classic group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ClassicGroup {
    group_id: String,
    state: ClassicState,
    /// When it came into that state, if that is known.
    state_at: Option<TimestampMs>,
    protocol_type: Option<String>,
    protocol: Option<String>,
    generation: i32,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids by instance id.
    static_members: BTreeMap<String, String>,
    /// Ids that were given out and have not joined yet. Source: KIP-394.
    pending_joins: BTreeSet<String>,
    /// Members of this generation that have not asked for their part yet.
    pending_syncs: BTreeSet<String>,
    /// What the members subscribe to, if that can be known.
    subscribed_topics: Option<BTreeSet<String>>,
    initial: Option<InitialPhase>,
    /// What the members take in memory, roughly.
    bytes: usize,
}

impl ClassicGroup {
    /// A group without anything.
    pub(super) fn new(group_id: &str) -> Self {
        Self {
            group_id: group_id.to_owned(),
            state: ClassicState::Empty,
            state_at: None,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            subscribed_topics: None,
            initial: None,
            bytes: 0,
        }
    }

    /// What its members take in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nobody is in it, nor about to join.
    pub(super) fn is_deserted(&self) -> bool {
        self.state == ClassicState::Empty && self.pending_joins.is_empty()
    }

    /// Whether its members have what their leader gave them, and are not about to share anew.
    pub(super) fn is_stable(&self) -> bool {
        self.state == ClassicState::Stable
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.state == ClassicState::Empty
    }

    fn session(&self, member_id: &str) -> Timer {
        Timer::Session { group_id: self.group_id.clone(), member_id: member_id.to_owned() }
    }

    fn join_timer(&self) -> Timer {
        Timer::Join { group_id: self.group_id.clone() }
    }

    fn sync_timer(&self) -> Timer {
        Timer::Sync { group_id: self.group_id.clone() }
    }

    /// The member is there: its session begins anew.
    fn heard(&self, turn: &mut Turn<'_>, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            turn.arm(self.session(member_id), member.session_timeout_ms);
        }
    }

    fn enter(&mut self, turn: &Turn<'_>, state: ClassicState) {
        self.state = state;
        self.state_at = Some(turn.now.wall);
    }

    /// Whether `member_id` is a member, and the one of the instance id if it names one.
    fn validate(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(GroupError::UnknownMemberId),
        }
    }

    fn insert(&mut self, member_id: String, member: Member) {
        self.bytes += member.bytes() + member_id.len();
        self.pending_joins.remove(&member_id);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member_id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        let before = self.members.insert(member_id, member);
        assert!(before.is_none(), "a member is inserted once");
    }

    /// Takes a member out, or an id that has not joined. What it waited for is the caller's to answer.
    fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.bytes -= member.bytes() + member_id.len();
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Takes a member out and tells it, if it waits for something.
    fn dismiss(&mut self, turn: &mut Turn<'_>, member_id: &str, reason: &GroupError) {
        turn.timers.disarm(&self.session(member_id));
        if let Some(member) = self.remove(member_id) {
            refuse(turn, member.waiting, reason);
        }
    }

    fn set_assignment(&mut self, member_id: &str, assignment: Bytes) {
        if let Some(member) = self.members.get_mut(member_id) {
            self.bytes = self.bytes - member.assignment.len() + assignment.len();
            member.assignment = assignment;
        }
    }

    /// The longest rebalance time-out of the members.
    fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Whether nobody is missing from the join phase.
    fn have_all_joined(&self) -> bool {
        self.pending_joins.is_empty() && self.members.values().all(Member::is_joining)
    }

    /// Whether a member of that type with these protocols finds one that all the others have, too.
    fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.state == ClassicState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let common = |name: &str| self.members.values().all(|member| has(&member.protocols, name));
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| common(name))
    }

    /// What the members agree on: of the protocols that all have, the one that most like best.
    fn select_protocol(&self) -> Option<String> {
        let common = |name: &str| self.members.values().all(|member| has(&member.protocols, name));
        let first = self.members.values().next()?;
        let candidates: Vec<&str> = first
            .protocols
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| common(name))
            .collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let names = member.protocols.iter().map(|(name, _)| name.as_str());
            if let Some(vote) = names.into_iter().find(|name| candidates.contains(name)) {
                *votes.entry(vote).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        candidates
            .iter()
            .find(|name| votes.get(*name) == Some(&most))
            .map(|name| (*name).to_owned())
    }

    fn joined(&self, member_id: &str, members: Vec<JoinedMember>) -> Joined {
        Joined {
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members,
        }
    }

    /// What a member is told of its generation: the leader of all members, others of none.
    fn joined_as(&self, member_id: &str) -> Joined {
        let is_leader = self.leader.as_deref() == Some(member_id);
        self.joined(member_id, if is_leader { self.joined_members() } else { Vec::new() })
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let told = |(member_id, member): (&String, &Member)| JoinedMember {
            member_id: member_id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.iter().map(told).collect()
    }

    fn synced(&self, member: &Member) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        }
    }

    /// Ids that were given out and not used are no good any more.
    pub(super) fn forget_pending(&mut self, turn: &mut Turn<'_>) {
        for member_id in std::mem::take(&mut self.pending_joins) {
            turn.timers.disarm(&self.session(&member_id));
        }
    }

    /// The group, or its coordinator, is not any more: whoever waits is told why.
    pub(super) fn abandon(&mut self, turn: &mut Turn<'_>, reason: &GroupError) {
        for member in self.members.values_mut() {
            let waiting = std::mem::replace(&mut member.waiting, Waiting::Nothing);
            refuse(turn, waiting, reason);
        }
    }

    /// While it is not in between two generations, the group is what its record says.
    pub(super) fn check_record(&self, record: &GroupMetadata) {
        if self.state == ClassicState::Stable
            || (self.state == ClassicState::Empty && self.generation > 0)
        {
            let own = GroupRecord::Group {
                group_id: self.group_id.clone(),
                value: Some(GroupMetadata {
                    state_at: self.state_at.unwrap_or(TimestampMs::NONE),
                    ..record.clone()
                }),
            };
            assert_eq!(self.record(), own, "{}: the record is of another group", self.group_id);
        }
    }

    /// Scans the whole state.
    pub(super) fn check_invariants(&self) {
        use ClassicState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
        let group_id = &self.group_id;
        assert_eq!(
            self.leader.is_none(),
            self.members.is_empty(),
            "{group_id}: a leader if anybody"
        );
        if let Some(leader) = &self.leader {
            assert!(self.members.contains_key(leader), "{group_id}: the leader is a member");
        }
        for (instance_id, member_id) in &self.static_members {
            let member = self.members.get(member_id);
            let found = member.and_then(|member| member.instance_id.as_ref());
            assert_eq!(found, Some(instance_id), "{group_id}: a static member is under its name");
        }
        let statics = self.members.values().filter(|member| member.instance_id.is_some()).count();
        assert_eq!(statics, self.static_members.len(), "{group_id}: one member an instance id");
        for (member_id, member) in &self.members {
            let allowed = match member.waiting {
                Waiting::Nothing => true,
                Waiting::Join(_) => self.state == PreparingRebalance,
                Waiting::Sync(_) => self.state == CompletingRebalance,
            };
            assert!(
                allowed,
                "{group_id}: {member_id} waits {:?} in {:?}",
                member.waiting, self.state
            );
        }
        match self.state {
            Empty => assert!(self.members.is_empty(), "{group_id}: empty with members"),
            PreparingRebalance => {}
            CompletingRebalance | Stable => {
                assert!(!self.members.is_empty(), "{group_id}: {:?} without members", self.state);
            }
        }
        for member_id in &self.pending_syncs {
            assert!(
                self.members.contains_key(member_id),
                "{group_id}: awaits {member_id}, no member"
            );
        }
        let bytes: usize = self.members.iter().map(|(id, member)| id.len() + member.bytes()).sum();
        assert_eq!(bytes, self.bytes, "{group_id}: bytes are counted");
    }
}

fn has(protocols: &[(String, Bytes)], name: &str) -> bool {
    protocols.iter().any(|(known, _)| known == name)
}

/// Answers whatever is waited for with an error.
fn refuse(turn: &mut Turn<'_>, waiting: Waiting, reason: &GroupError) {
    match waiting {
        Waiting::Nothing => {}
        Waiting::Join(ticket) => turn.reply(ticket, GroupResponse::Join(Err(reason.clone()))),
        Waiting::Sync(ticket) => turn.reply(ticket, GroupResponse::Sync(Err(reason.clone()))),
    }
}
