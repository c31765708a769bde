//! A group of the next-generation protocol: the coordinator assigns, members follow at their own pace. Source:
//! KIP-848, KIP-1251.
//!
//! All of a group is in its records; [`ConsumerGroup::replay`] is the only way in. A heartbeat reads the group
//! and says which records bring it further (`heartbeat.rs`): the group's epoch grows with what members
//! subscribe to, a target assignment is made for each epoch (`assignor.rs`), and every member goes from what it
//! has to its target (`reconcile.rs`).
//!
//! Invariant: a partition is with one member at most. Who has one keeps it until it says that it gave it up, or
//! is out; nobody else gets it before.
//!
//! Members that speak the classic protocol take part (`classic_members.rs`): to them a new epoch is a rebalance.
//! How such a group comes to be, and ends, is `conversion.rs`.

mod assignor;
mod classic_members;
mod conversion;
mod heartbeat;
mod reconcile;
mod topics;
mod view;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use heartbeat::{Surroundings, farewell};
pub use topics::{TopicFacts, Topics};
pub(super) use view::check_heartbeat;

use crate::format::group_record::{
    AssignedPartitions, ConsumerGroupMember, CurrentAssignment, GroupRecord, MemberKey,
    MemberState, ResolvedRegularExpression, TargetAssignment, TopicPartitions,
};
use crate::model::{PartitionIndex, TopicId};

/// A partition of a topic.
type Place = (TopicId, PartitionIndex);
/// Partitions, by topic.
type Partitions = BTreeSet<Place>;
/// Partitions with the member epoch in which each was given.
type Owned = BTreeMap<Place, i32>;

/// The epoch by which a member joins.
pub(super) const JOIN_EPOCH: i32 = 0;
/// The epoch by which a member leaves.
pub(super) const LEAVE_EPOCH: i32 = -1;
/// The epoch by which a static member leaves for a while, and that it has meanwhile.
pub(super) const STATIC_LEAVE_EPOCH: i32 = -2;

/// What a member has.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Current {
    epoch: i32,
    previous_epoch: i32,
    state: MemberState,
    assigned: Owned,
    /// What it shall give up. It is not with anybody else before it has.
    revoking: Owned,
}

impl Default for Current {
    fn default() -> Self {
        let (assigned, revoking) = (Owned::new(), Owned::new());
        Self { epoch: 0, previous_epoch: -1, state: MemberState::Stable, assigned, revoking }
    }
}

impl Current {
    fn read(value: &CurrentAssignment) -> Self {
        let owned = |topics: &[AssignedPartitions]| -> Owned {
            let places = topics.iter().flat_map(|topic| {
                let places = topic.partitions.iter();
                // A partition of a record without epochs was with the member in this epoch at the latest.
                places
                    .map(|(index, epoch)| ((topic.topic_id, *index), epoch.unwrap_or(value.epoch)))
            });
            places.collect()
        };
        Self {
            epoch: value.epoch,
            previous_epoch: value.previous_epoch,
            state: value.state,
            assigned: owned(&value.assigned),
            revoking: owned(&value.revoking),
        }
    }

    fn record(&self, key: MemberKey) -> GroupRecord {
        let by_topic = |owned: &Owned| -> Vec<AssignedPartitions> {
            let mut topics: Vec<AssignedPartitions> = Vec::new();
            for ((topic_id, index), epoch) in owned {
                match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
                    Some(topic) => topic.partitions.push((*index, Some(*epoch))),
                    None => topics.push(AssignedPartitions {
                        topic_id: *topic_id,
                        partitions: vec![(*index, Some(*epoch))],
                    }),
                }
            }
            topics
        };
        let value = CurrentAssignment {
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            state: self.state,
            assigned: by_topic(&self.assigned),
            revoking: by_topic(&self.revoking),
        };
        GroupRecord::Current { key, value: Some(value) }
    }
}

/// A member of a consumer group.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    /// What it told of itself.
    told: ConsumerGroupMember,
    current: Current,
}

impl Default for Member {
    fn default() -> Self {
        let told = ConsumerGroupMember {
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            topics: Vec::new(),
            // Kafka's word for none, in the records of members.
            expression: Some(String::new()),
            rebalance_timeout_ms: -1,
            server_assignor: None,
            classic: None,
        };
        Self { told, current: Current::default() }
    }
}

impl Member {
    /// The regular expression that it subscribes with.
    fn expression(&self) -> Option<&str> {
        self.told.expression.as_deref().filter(|text| !text.is_empty())
    }
}

/// A consumer group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ConsumerGroup {
    group_id: String,
    epoch: i32,
    /// Of the topics that members subscribed to when the epoch was last looked at.
    metadata_hash: i64,
    members: BTreeMap<String, Member>,
    /// Member ids by instance id.
    static_members: BTreeMap<String, String>,
    target_epoch: i32,
    target: BTreeMap<String, Partitions>,
    expressions: BTreeMap<String, ResolvedRegularExpression>,
    /// With whom each partition is.
    owners: BTreeMap<Place, String>,
}

impl ConsumerGroup {
    /// A group without anything.
    pub(super) fn new(group_id: &str) -> Self {
        Self { group_id: group_id.to_owned(), ..Self::default() }
    }

    /// Takes a record that is in the log and of this group. Whether the group is still there.
    pub(super) fn replay(&mut self, record: &GroupRecord) -> bool {
        match record {
            GroupRecord::ConsumerGroup { value: Some(value), .. } => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            GroupRecord::ConsumerGroup { value: None, .. } => return false,
            GroupRecord::TargetEpoch { value, .. } => {
                self.target_epoch = value.map_or(0, |value| value.epoch);
            }
            GroupRecord::RegularExpression { expression, value, .. } => match value {
                Some(value) => {
                    self.expressions.insert(expression.clone(), value.clone());
                }
                None => {
                    self.expressions.remove(expression);
                }
            },
            GroupRecord::Member { key, value } => self.replay_member(key, value.as_ref()),
            GroupRecord::Target { key, value } => match value {
                Some(value) => {
                    self.target.insert(key.member_id.clone(), places(&value.topics));
                }
                None => {
                    self.target.remove(&key.member_id);
                }
            },
            GroupRecord::Current { key, value } => {
                self.replay_current(key, value.as_ref().map(Current::read));
            }
            GroupRecord::ConsumerGroupPartitions { .. }
            | GroupRecord::Offset { .. }
            | GroupRecord::Group { .. } => {}
        }
        true
    }

    fn replay_member(&mut self, key: &MemberKey, value: Option<&ConsumerGroupMember>) {
        let instance = |member: &Member| member.told.instance_id.clone();
        let before = self.members.get(&key.member_id).and_then(instance);
        if let Some(instance_id) = before
            && self.static_members.get(&instance_id) == Some(&key.member_id)
        {
            self.static_members.remove(&instance_id);
        }
        let Some(value) = value else {
            self.replay_current(key, None);
            self.members.remove(&key.member_id);
            return;
        };
        if let Some(instance_id) = &value.instance_id {
            self.static_members.insert(instance_id.clone(), key.member_id.clone());
        }
        self.members.entry(key.member_id.clone()).or_default().told = value.clone();
    }

    fn replay_current(&mut self, key: &MemberKey, value: Option<Current>) {
        if let Some(before) = self.members.get(&key.member_id) {
            for place in before.current.assigned.keys().chain(before.current.revoking.keys()) {
                if self.owners.get(place) == Some(&key.member_id) {
                    self.owners.remove(place);
                }
            }
        }
        match value {
            Some(current) => {
                for place in current.assigned.keys().chain(current.revoking.keys()) {
                    self.owners.insert(*place, key.member_id.clone());
                }
                self.members.entry(key.member_id.clone()).or_default().current = current;
            }
            None => {
                if let Some(member) = self.members.get_mut(&key.member_id) {
                    member.current = Current::default();
                }
            }
        }
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn key(&self, member_id: &str) -> MemberKey {
        MemberKey { group_id: self.group_id.clone(), member_id: member_id.to_owned() }
    }

    /// What it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let members = self.members.iter().map(|(member_id, member)| {
            let told = &member.told;
            let topics = told.topics.iter().map(|topic| topic.len() + 24).sum::<usize>();
            let places = 2 * member.current.assigned.len() + member.current.revoking.len();
            let classic = told.classic.iter().flat_map(|classic| &classic.protocols);
            let classic = classic.map(|(name, metadata)| name.len() + metadata.len() + 48);
            let strings = member_id.len() + told.client_id.len() + classic.sum::<usize>();
            512 + strings + topics + places * 48
        });
        let expressions = self.expressions.iter().map(|(text, found)| {
            text.len() + found.topics.iter().map(|topic| topic.len() + 24).sum::<usize>()
        });
        256 + members.sum::<usize>() + expressions.sum::<usize>()
    }

    /// Scans the whole state.
    pub(super) fn check_invariants(&self) {
        let group_id = &self.group_id;
        let mut owned = 0;
        for (member_id, member) in &self.members {
            let current = &member.current;
            for place in current.assigned.keys().chain(current.revoking.keys()) {
                let owner = self.owners.get(place);
                assert_eq!(owner, Some(member_id), "{group_id}: {place:?} is with two members");
                owned += 1;
            }
            assert!(current.epoch <= self.epoch, "{group_id}: {member_id} is ahead of its group");
            let ends_revoking = current.revoking.is_empty();
            let is_revoking = current.state == MemberState::UnrevokedPartitions;
            assert!(
                is_revoking || ends_revoking,
                "{group_id}: {member_id} revokes and is not told"
            );
        }
        assert_eq!(owned, self.owners.len(), "{group_id}: a partition is with nobody");
        assert!(self.target_epoch <= self.epoch, "{group_id}: a target for an epoch to come");
        let mut targets = Partitions::new();
        for place in self.target.values().flatten() {
            assert!(targets.insert(*place), "{group_id}: {place:?} is in two targets");
        }
        for (instance_id, member_id) in &self.static_members {
            let member = self.members.get(member_id);
            let found = member.and_then(|member| member.told.instance_id.as_ref());
            assert_eq!(found, Some(instance_id), "{group_id}: a static member is under its name");
        }
    }
}

/// Partitions as records and requests list them.
fn places(topics: &[TopicPartitions]) -> Partitions {
    let places = topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |partition| (topic.topic_id, *partition))
    });
    places.collect()
}

/// Partitions as records and answers list them.
fn listed<'a>(places: impl IntoIterator<Item = &'a Place>) -> Vec<TopicPartitions> {
    let mut topics: Vec<TopicPartitions> = Vec::new();
    for (topic_id, partition) in places {
        match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
            Some(topic) => topic.partitions.push(*partition),
            None => {
                topics.push(TopicPartitions { topic_id: *topic_id, partitions: vec![*partition] });
            }
        }
    }
    topics
}

/// The record of a target assignment.
fn target_record(key: MemberKey, target: &Partitions) -> GroupRecord {
    GroupRecord::Target { key, value: Some(TargetAssignment { topics: listed(target) }) }
}
