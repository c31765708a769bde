//! Offsets: committed, fetched, deleted, expired; and groups that are deleted with theirs. Source: KIP-211.

use super::classic::RetentionFrom;
use super::request::{
    CommitOffsets, DeleteOffsets, FetchOffsets, FetchedOffset, GroupError, OffsetToCommit,
    PartitionOutcome,
};
use super::timers::Timer;
use super::turn::Output;
use super::{ClassicGroup, ConsumerGroup, Coordinator};
use crate::format::group_record::{CommittedOffset, GroupRecord, OffsetKey};
use crate::model::{Now, PartitionIndex, TimestampMs, TopicId};

/// How soon a look for expired offsets goes on that had enough to do.
const EXPIRY_PAUSE_MS: u64 = 20;

impl Coordinator {
    pub(super) fn commit_offsets(
        &mut self,
        now: Now,
        output: &mut Output,
        request: CommitOffsets,
    ) -> Result<Vec<PartitionOutcome>, GroupError> {
        let group_id = request.group_id.clone();
        let is_new = !self.is_known(&group_id);
        if is_new && request.generation_or_epoch >= 0 {
            return Err(match request.knows_epochs {
                true => GroupError::GroupIdNotFound(group_id),
                false => GroupError::IllegalGeneration,
            });
        }
        if let Some(group) = self.durable.consumer_group(&group_id) {
            group.may_commit(&self.topics, &request)?;
        } else if !is_new {
            let may = self
                .with_group(now, output, &group_id, |group, turn| group.may_commit(turn, &request));
            may.unwrap_or(Err(GroupError::UnknownMemberId))?;
        }
        let is_known = |offset: &OffsetToCommit| {
            self.durable.offset(&group_id, &offset.topic, offset.partition).is_some()
        };
        if !request.offsets.iter().all(is_known) {
            self.check_room()?;
        }
        let retention = request.retention_ms.filter(|ms| *ms >= 0);
        let expires_at = retention.map(|ms| TimestampMs(now.wall.0.saturating_add(ms)));
        let before = output.records.len();
        let outcomes = request.offsets.into_iter().map(|offset| {
            let (topic, partition) = (offset.topic.clone(), offset.partition);
            let record = self.offset_record(now, &group_id, offset, expires_at);
            let outcome = record.map(|record| output.records.push(record));
            PartitionOutcome { topic, partition, outcome }
        });
        let outcomes = outcomes.collect();
        // Whoever commits without being a member makes a group that is only offsets.
        if is_new && output.records.len() > before {
            self.groups.insert(group_id.clone(), ClassicGroup::new(&group_id));
        }
        Ok(outcomes)
    }

    fn offset_record(
        &self,
        now: Now,
        group_id: &str,
        offset: OffsetToCommit,
        expires_at: Option<TimestampMs>,
    ) -> Result<GroupRecord, GroupError> {
        let (bytes, limit) = (offset.metadata.len(), self.settings.offset_metadata_max_bytes);
        if bytes > limit {
            return Err(GroupError::OffsetMetadataTooLarge { bytes, limit });
        }
        let value = CommittedOffset {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata,
            committed_at: now.wall,
            expires_at,
            topic_id: offset.topic_id,
        };
        let group_id = group_id.to_owned();
        let key = OffsetKey { group_id, topic: offset.topic, partition: offset.partition };
        Ok(GroupRecord::Offset { key, value: Some(value) })
    }

    pub(super) fn fetch_offsets(
        &self,
        request: &FetchOffsets,
    ) -> Result<Vec<FetchedOffset>, GroupError> {
        if let Some(group) = self.durable.consumer_group(&request.group_id) {
            group.may_fetch(request)?;
        }
        let group_id = request.group_id.as_str();
        let fetched = |topic: &str, partition: PartitionIndex, found: Option<&CommittedOffset>| {
            FetchedOffset {
                topic: topic.to_owned(),
                topic_id: found.map_or(TopicId::ZERO, |found| found.topic_id),
                partition,
                committed: found.map(|it| (it.offset, it.leader_epoch, it.metadata.clone())),
            }
        };
        let Some(topics) = &request.topics else {
            let all = self.durable.offsets(group_id);
            let lines = all.flat_map(|(topic, offsets)| {
                offsets.iter().map(|(partition, offset)| fetched(topic, *partition, Some(offset)))
            });
            return Ok(lines.collect());
        };
        let named = topics.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|partition| (topic.as_str(), *partition))
        });
        let found = named.map(|(topic, partition)| {
            fetched(topic, partition, self.durable.offset(group_id, topic, partition))
        });
        Ok(found.collect())
    }

    pub(super) fn delete_offsets(
        &self,
        output: &mut Output,
        request: DeleteOffsets,
    ) -> Result<Vec<PartitionOutcome>, GroupError> {
        let group_id = request.group_id;
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        match self.groups.get(&group_id) {
            Some(group) => group.may_delete_offsets()?,
            None if self.durable.consumer_group(&group_id).is_some() => {}
            None => return Err(GroupError::GroupIdNotFound(group_id)),
        }
        let outcomes = request.partitions.into_iter().map(|(topic, partition)| {
            let outcome = match self.subscribes_to(&group_id, &topic) {
                true => Err(GroupError::GroupSubscribedToTopic),
                false => Ok(()),
            };
            let is_there = self.durable.offset(&group_id, &topic, partition).is_some();
            if outcome.is_ok() && is_there {
                output.records.push(tombstone(&group_id, &topic, partition));
            }
            PartitionOutcome { topic, partition, outcome }
        });
        Ok(outcomes.collect())
    }

    pub(super) fn delete_groups(
        &mut self,
        now: Now,
        output: &mut Output,
        group_ids: Vec<String>,
    ) -> Vec<(String, Result<(), GroupError>)> {
        let mut outcomes = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let has_members = self.has_members(&group_id);
            let outcome = match has_members {
                None => Err(GroupError::GroupIdNotFound(group_id.clone())),
                Some(true) => Err(GroupError::NonEmptyGroup),
                Some(false) => {
                    for (topic, offsets) in self.durable.offsets(&group_id) {
                        let gone = |partition: &_| tombstone(&group_id, topic, *partition);
                        output.records.extend(offsets.keys().map(gone));
                    }
                    self.delete_group(now, output, &group_id);
                    Ok(())
                }
            };
            outcomes.push((group_id, outcome));
        }
        outcomes
    }

    /// Whether a group is there, and whether it has members.
    fn has_members(&self, group_id: &str) -> Option<bool> {
        let classic = self.groups.get(group_id).map(|group| !group.is_empty());
        let consumer = || self.durable.consumer_group(group_id).map(|group| !group.is_empty());
        // A consumer group that was deleted in this turn is not replayed as gone yet.
        classic.or_else(|| consumer().filter(|_| !self.deleted.contains(group_id)))
    }

    fn subscribes_to(&self, group_id: &str, topic: &str) -> bool {
        self.groups.get(group_id).is_some_and(|group| group.subscribes_to(topic))
            || self.durable.consumer_group(group_id).is_some_and(|group| group.subscribes_to(topic))
    }

    /// A group that has no offsets any more goes, with the ids that were given out for it.
    pub(super) fn delete_group(&mut self, now: Now, output: &mut Output, group_id: &str) {
        if let Some(group) = self.durable.consumer_group(group_id) {
            output.records.extend(group.tombstones());
            self.deleted.insert(group_id.to_owned());
            return;
        }
        self.with_group(now, output, group_id, ClassicGroup::forget_pending);
        self.groups.remove(group_id);
        output.records.push(GroupRecord::Group { group_id: group_id.to_owned(), value: None });
    }

    /// Topics are deleted: nobody has a place in them any more.
    ///
    /// # Panics
    /// When records of an earlier turn have not been replayed.
    pub fn forget_topics(&mut self, topics: &[String]) -> Output {
        self.assert_replayed();
        let mut output = self.output();
        if !self.is_serving() {
            return output;
        }
        for group_id in self.durable.groups_with_offsets() {
            for (topic, offsets) in self.durable.offsets(group_id) {
                if topics.contains(topic) {
                    let gone = |partition: &_| tombstone(group_id, topic, *partition);
                    output.records.extend(offsets.keys().map(gone));
                }
            }
        }
        self.ask(output)
    }

    /// Looks through the groups for offsets whose retention is over, and for groups that have nothing left.
    pub(super) fn expire_offsets(&mut self, now: Now, output: &mut Output) {
        let limit = self.settings.expired_records_max.max(1);
        let mut room = limit;
        let from = self.expiry_from.take().unwrap_or_default();
        let mut group_ids: Vec<String> =
            self.groups.range(from.clone()..).map(|(id, _)| id.clone()).collect();
        let consumer_groups = self.durable.consumer_groups().map(|(id, _)| id);
        group_ids.extend(consumer_groups.filter(|id| **id >= from).cloned());
        group_ids.sort_unstable();
        for group_id in group_ids {
            let (expired, has_more) = self.expired_offsets(now, &group_id, room);
            room -= expired.len();
            output.records.extend(expired);
            if room == 0 {
                // It may have more, and it may have to go: it is looked at again.
                self.expiry_from = Some(group_id);
                let at = now.monotonic.plus_millis(EXPIRY_PAUSE_MS);
                return self.timers.arm(Timer::Expiry, at);
            }
            let is_deserted = self.groups.get(&group_id).is_some_and(ClassicGroup::is_deserted)
                || self.durable.consumer_group(&group_id).is_some_and(ConsumerGroup::is_empty);
            if !has_more && is_deserted {
                self.delete_group(now, output, &group_id);
                room = room.saturating_sub(1);
            }
        }
        let interval_ms = self.settings.offsets_retention_check_interval_ms;
        self.timers.arm(Timer::Expiry, now.monotonic.plus_millis(interval_ms));
    }

    /// Tombstones of at most `room` offsets of a group, and whether it keeps others.
    fn expired_offsets(&self, now: Now, group_id: &str, room: usize) -> (Vec<GroupRecord>, bool) {
        // A consumer group tells what it subscribes to: the rest expires by its commit.
        let classic = self.groups.get(group_id).map(ClassicGroup::retention_from);
        let from = classic.unwrap_or(RetentionFrom::Commit);
        let retention_ms = self.settings.offsets_retention_ms;
        let is_over = |offset: &CommittedOffset| match (from, offset.expires_at) {
            (RetentionFrom::Never, _) => false,
            (_, Some(at)) => now.wall >= at,
            (RetentionFrom::Since(at), None) => now.wall.0.saturating_sub(at.0) >= retention_ms,
            (RetentionFrom::Commit, None) => {
                now.wall.0.saturating_sub(offset.committed_at.0) >= retention_ms
            }
        };
        let mut expired = Vec::new();
        let mut has_more = false;
        for (topic, offsets) in self.durable.offsets(group_id) {
            let is_subscribed = self.subscribes_to(group_id, topic);
            for (partition, offset) in offsets {
                if !is_subscribed && is_over(offset) && expired.len() < room {
                    expired.push(tombstone(group_id, topic, *partition));
                } else {
                    has_more = true;
                }
            }
        }
        (expired, has_more)
    }
}

fn tombstone(group_id: &str, topic: &str, partition: PartitionIndex) -> GroupRecord {
    let key = OffsetKey { group_id: group_id.to_owned(), topic: topic.to_owned(), partition };
    GroupRecord::Offset { key, value: None }
}
