//! What the records of the partition say: the state that another coordinator finds.
//!
//! [`Durable::replay`] is the only way in. What it keeps for a record depends on the record and on the state
//! before, on nothing else, so that two coordinators that replay the same log agree.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::consumer::ConsumerGroup;
use crate::format::group_record::{CommittedOffset, GroupMetadata, GroupRecord};
use crate::model::PartitionIndex;

/// What an entry of a map takes beside its strings.
const ENTRY_BYTES: usize = 96;

/// Offsets of one topic.
pub(super) type TopicOffsets = BTreeMap<PartitionIndex, CommittedOffset>;

/// Groups and offsets of one partition of `__consumer_offsets`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Durable {
    groups: BTreeMap<String, GroupMetadata>,
    consumer_groups: BTreeMap<String, ConsumerGroup>,
    /// By group and topic; no map is empty.
    offsets: BTreeMap<String, BTreeMap<String, TopicOffsets>>,
    held_bytes: usize,
}

impl Durable {
    /// Takes a record that is in the log.
    pub(super) fn replay(&mut self, record: &GroupRecord) {
        match record {
            GroupRecord::Offset { key, value: Some(value) } => {
                let topics = self.offsets.entry(key.group_id.clone()).or_default();
                let offsets = topics.entry(key.topic.clone()).or_default();
                let before = offsets.insert(key.partition, value.clone());
                self.held_bytes -= before.as_ref().map_or(0, offset_bytes);
                self.held_bytes += offset_bytes(value);
            }
            GroupRecord::Offset { key, value: None } => {
                let Some(topics) = self.offsets.get_mut(&key.group_id) else { return };
                let Some(offsets) = topics.get_mut(&key.topic) else { return };
                let before = offsets.remove(&key.partition);
                self.held_bytes -= before.as_ref().map_or(0, offset_bytes);
                if offsets.is_empty() {
                    topics.remove(&key.topic);
                }
                if topics.is_empty() {
                    self.offsets.remove(&key.group_id);
                }
            }
            GroupRecord::Group { group_id, value } => {
                let before = match value {
                    Some(group) => self.groups.insert(group_id.clone(), group.clone()),
                    None => self.groups.remove(group_id),
                };
                self.held_bytes -= before.as_ref().map_or(0, group_bytes);
                self.held_bytes += value.as_ref().map_or(0, group_bytes);
            }
            GroupRecord::ConsumerGroup { .. }
            | GroupRecord::ConsumerGroupPartitions { .. }
            | GroupRecord::Member { .. }
            | GroupRecord::TargetEpoch { .. }
            | GroupRecord::Target { .. }
            | GroupRecord::Current { .. }
            | GroupRecord::RegularExpression { .. } => self.replay_consumer_group(record),
        }
    }

    fn replay_consumer_group(&mut self, record: &GroupRecord) {
        let group_id = record.group_id();
        if !self.consumer_groups.contains_key(group_id) {
            if is_tombstone(record) {
                return;
            }
            self.consumer_groups.insert(group_id.to_owned(), ConsumerGroup::new(group_id));
        }
        let Some(group) = self.consumer_groups.get_mut(group_id) else { return };
        if !group.replay(record) {
            self.consumer_groups.remove(group_id);
        }
    }

    /// Consumer groups, by id.
    pub(super) fn consumer_groups(&self) -> impl Iterator<Item = (&String, &ConsumerGroup)> {
        self.consumer_groups.iter()
    }

    /// Consumer groups, by id, from one on.
    pub(super) fn consumer_groups_from(
        &self,
        group_id: &str,
    ) -> impl Iterator<Item = (&String, &ConsumerGroup)> {
        self.consumer_groups.range::<str, _>((Bound::Included(group_id), Bound::Unbounded))
    }

    /// A consumer group.
    pub(super) fn consumer_group(&self, group_id: &str) -> Option<&ConsumerGroup> {
        self.consumer_groups.get(group_id)
    }

    /// Classic groups, by id.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&String, &GroupMetadata)> {
        self.groups.iter()
    }

    /// A classic group.
    pub(super) fn group(&self, group_id: &str) -> Option<&GroupMetadata> {
        self.groups.get(group_id)
    }

    /// Groups that have offsets.
    pub(super) fn groups_with_offsets(&self) -> impl Iterator<Item = &String> {
        self.offsets.keys()
    }

    /// The offsets of a group, by topic.
    pub(super) fn offsets(
        &self,
        group_id: &str,
    ) -> impl Iterator<Item = (&String, &TopicOffsets)> + use<'_> {
        self.offsets.get(group_id).into_iter().flatten()
    }

    /// One offset.
    pub(super) fn offset(
        &self,
        group_id: &str,
        topic: &str,
        partition: PartitionIndex,
    ) -> Option<&CommittedOffset> {
        self.offsets.get(group_id)?.get(topic)?.get(&partition)
    }

    /// What all of it takes in memory, roughly.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Scans the whole state.
    pub(super) fn check_invariants(&self) {
        for (group_id, group) in &self.consumer_groups {
            assert!(!self.groups.contains_key(group_id), "{group_id} is of one protocol");
            group.check_invariants();
        }
        assert!(self.offsets.values().all(|topics| !topics.is_empty()), "no empty group");
        let mut held: usize = self.groups.values().map(group_bytes).sum();
        for offsets in self.offsets.values().flat_map(BTreeMap::values) {
            assert!(!offsets.is_empty(), "no empty topic");
            held += offsets.values().map(offset_bytes).sum::<usize>();
        }
        assert_eq!(held, self.held_bytes, "bytes are counted");
    }
}

fn offset_bytes(offset: &CommittedOffset) -> usize {
    ENTRY_BYTES + offset.metadata.len()
}

fn group_bytes(group: &GroupMetadata) -> usize {
    let members = group.members.iter().map(|member| {
        let strings = member.member_id.len() + member.client_id.len() + member.client_host.len();
        ENTRY_BYTES + strings + member.subscription.len() + member.assignment.len()
    });
    ENTRY_BYTES + members.sum::<usize>()
}

/// Whether a record says of something in a consumer group that it is not there.
fn is_tombstone(record: &GroupRecord) -> bool {
    match record {
        GroupRecord::ConsumerGroup { value, .. } => value.is_none(),
        GroupRecord::ConsumerGroupPartitions { deleted, .. } => *deleted,
        GroupRecord::Member { value, .. } => value.is_none(),
        GroupRecord::TargetEpoch { value, .. } => value.is_none(),
        GroupRecord::Target { value, .. } => value.is_none(),
        GroupRecord::Current { value, .. } => value.is_none(),
        GroupRecord::RegularExpression { value, .. } => value.is_none(),
        GroupRecord::Offset { .. } | GroupRecord::Group { .. } => false,
    }
}
