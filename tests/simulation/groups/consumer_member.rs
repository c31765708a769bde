//! A consumer of the next-generation protocol: heartbeats that say what it has, and what it is told to have.

use std::collections::{BTreeMap, BTreeSet};

use chronik_shards::format::group_record::TopicPartitions;
use chronik_shards::machine::group::{
    Client, CommitOffsets, ConsumerBeat, ConsumerHeartbeat, FetchOffsets, GroupError, GroupRequest,
    GroupResponse, OffsetToCommit,
};
use chronik_shards::model::{Offset, PartitionIndex};

use super::checker::Checker;
use super::coordinators::{PARTITIONS, TOPIC, TOPIC_ID};
use super::run::Step;
use super::terms::Terms;
use crate::rng::Rng;

/// One incarnation of a member.
pub struct ConsumerMember {
    number: u8,
    instance_id: Option<String>,
    member_id: String,
    epoch: i32,
    /// What it has.
    owned: BTreeSet<i32>,
    /// What it was told to have.
    assigned: BTreeSet<i32>,
    /// Where it is in what it has; a partition that is missing is to be asked for.
    positions: BTreeMap<i32, i64>,
    known: BTreeMap<i32, i64>,
    /// Whether the coordinator may not know what it has.
    must_tell: bool,
    /// Whether it may not know what the coordinator told: it says everything, and is told everything.
    is_unsure: bool,
    /// Heartbeats in a row that brought nothing new.
    quiet: u32,
}

impl ConsumerMember {
    pub fn new(number: u8, is_static: bool, rng: &mut Rng) -> Self {
        Self {
            number,
            instance_id: is_static.then(|| format!("i{number}")),
            member_id: format!("m{number}-{:x}", rng.next()),
            epoch: 0,
            owned: BTreeSet::new(),
            assigned: BTreeSet::new(),
            positions: BTreeMap::new(),
            known: BTreeMap::new(),
            must_tell: true,
            is_unsure: false,
            quiet: 0,
        }
    }

    fn name(&self) -> &str {
        self.instance_id.as_deref().unwrap_or(&self.member_id)
    }

    pub fn is_settled(&self) -> bool {
        self.epoch > 0 && self.owned == self.assigned && self.quiet > 2
    }

    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    pub fn parts(&self) -> impl Iterator<Item = i32> + '_ {
        self.owned.iter().copied()
    }

    pub fn request(
        &mut self,
        terms: &Terms,
        rng: &mut Rng,
        checker: &Checker,
    ) -> (GroupRequest, u64) {
        let wait_us = terms.wait_us;
        let missing: Vec<i32> =
            self.owned.iter().copied().filter(|it| !self.positions.contains_key(it)).collect();
        if self.epoch > 0 && !missing.is_empty() && rng.one_in(2) {
            return (self.fetch(terms, missing, checker), wait_us);
        }
        if terms.commits && self.epoch > 0 && !self.positions.is_empty() && rng.one_in(3) {
            return (self.commit(terms, rng), wait_us);
        }
        // It gives up what it was not told to have, after what it had to do with it.
        if self.owned.iter().any(|it| !self.assigned.contains(it)) && rng.one_in(2) {
            self.owned.retain(|it| self.assigned.contains(it));
            self.positions.retain(|it, _| self.assigned.contains(it));
            self.must_tell = true;
        }
        (self.heartbeat(terms, rng), wait_us)
    }

    fn heartbeat(&self, terms: &Terms, rng: &mut Rng) -> GroupRequest {
        let is_full = self.epoch == 0 || self.is_unsure;
        let tells = is_full || self.must_tell || rng.one_in(4);
        let partitions: Vec<PartitionIndex> =
            self.owned.iter().map(|it| PartitionIndex(*it)).collect();
        let owned = match partitions.is_empty() {
            true => Vec::new(),
            false => vec![TopicPartitions { topic_id: TOPIC_ID, partitions }],
        };
        // Some subscribe by name, some by expression.
        let by_name = self.number.is_multiple_of(2);
        GroupRequest::ConsumerHeartbeat(ConsumerHeartbeat {
            group_id: terms.group_id.clone(),
            client: Client { id: format!("c{}", self.number), host: "/127.0.0.1".to_owned() },
            member_id: self.member_id.clone(),
            member_epoch: self.epoch,
            instance_id: self.instance_id.clone(),
            rack_id: None,
            rebalance_timeout_ms: is_full.then_some(terms.rebalance_ms),
            topics: (is_full && by_name).then(|| vec![TOPIC.to_owned()]),
            expression: (is_full && !by_name).then(|| "[a-t]".to_owned()),
            server_assignor: is_full.then(|| "uniform".to_owned()),
            owned: tells.then_some(owned),
        })
    }

    fn fetch(&mut self, terms: &Terms, missing: Vec<i32>, checker: &Checker) -> GroupRequest {
        self.known = missing.iter().map(|it| (*it, checker.known(*it))).collect();
        let partitions = missing.into_iter().map(PartitionIndex).collect();
        GroupRequest::FetchOffsets(FetchOffsets {
            group_id: terms.group_id.clone(),
            member: Some((self.member_id.clone(), self.epoch)),
            topics: Some(vec![(TOPIC.to_owned(), partitions)]),
        })
    }

    fn commit(&mut self, terms: &Terms, rng: &mut Rng) -> GroupRequest {
        for position in self.positions.values_mut() {
            *position += rng.below(5) as i64;
        }
        let offset = |(partition, offset): (&i32, &i64)| OffsetToCommit {
            topic: TOPIC.to_owned(),
            topic_id: TOPIC_ID,
            partition: PartitionIndex(*partition),
            offset: Offset(*offset),
            leader_epoch: None,
            metadata: String::new(),
        };
        GroupRequest::CommitOffsets(CommitOffsets {
            group_id: terms.group_id.clone(),
            generation_or_epoch: self.epoch,
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
            retention_ms: None,
            knows_epochs: true,
            offsets: self.positions.iter().map(offset).collect(),
        })
    }

    /// Says that it leaves: for good, or for a while if it is static.
    pub fn farewell(&self, terms: &Terms) -> Option<GroupRequest> {
        let GroupRequest::ConsumerHeartbeat(beat) = self.heartbeat(terms, &mut Rng::new(0)) else {
            return None;
        };
        let member_epoch = if self.instance_id.is_some() { -2 } else { -1 };
        (self.epoch > 0)
            .then_some(GroupRequest::ConsumerHeartbeat(ConsumerHeartbeat { member_epoch, ..beat }))
    }

    pub fn timed_out(&mut self) -> Step {
        self.is_unsure = true;
        Step::FindCoordinator
    }

    pub fn answer(&mut self, response: GroupResponse, checker: &mut Checker) -> Step {
        match response {
            GroupResponse::ConsumerHeartbeat(Ok(beat)) => self.heard(beat, checker),
            GroupResponse::FetchOffsets(Ok(found)) => {
                for line in found {
                    let offset = line.committed.map_or(-1, |(offset, ..)| offset.0);
                    let known = self.known.get(&line.partition.0).copied().unwrap_or(-1);
                    checker.fetched(line.partition.0, known, offset);
                    if self.owned.contains(&line.partition.0) {
                        self.positions.insert(line.partition.0, offset.max(0));
                    }
                }
                Step::Rest
            }
            GroupResponse::CommitOffsets(Ok(lines)) => {
                assert!(lines.iter().all(|line| line.outcome.is_ok()), "{lines:?}");
                Step::Rest
            }
            GroupResponse::ConsumerHeartbeat(Err(error))
            | GroupResponse::FetchOffsets(Err(error))
            | GroupResponse::CommitOffsets(Err(error)) => self.refused(error),
            other => panic!("nobody asked: {other:?}"),
        }
    }

    fn heard(&mut self, beat: ConsumerBeat, checker: &mut Checker) -> Step {
        self.must_tell = false;
        self.is_unsure = false;
        let is_new = beat.member_epoch != self.epoch;
        self.epoch = beat.member_epoch;
        if let Some(assignment) = beat.assignment {
            let places = assignment.iter().flat_map(|topic| &topic.partitions);
            let assigned: BTreeSet<i32> = places.map(|it| it.0).collect();
            assert!(assigned.iter().all(|it| *it < PARTITIONS));
            self.quiet = if assigned == self.assigned { self.quiet } else { 0 };
            self.must_tell = assigned != self.assigned;
            self.assigned = assigned;
            // What is new is its own from now on; what is not its own any more it gives up later.
            self.owned.extend(&self.assigned);
        }
        self.quiet = if is_new { 0 } else { self.quiet + 1 };
        checker.has(self.name(), self.epoch, self.assigned.iter().copied());
        Step::Rest
    }

    fn refused(&mut self, error: GroupError) -> Step {
        match error {
            GroupError::FencedMemberEpoch
            | GroupError::UnknownMemberId
            | GroupError::GroupIdNotFound(_) => {
                self.epoch = 0;
                self.owned.clear();
                self.assigned.clear();
                self.positions.clear();
                self.must_tell = true;
                Step::Next
            }
            GroupError::StaleMemberEpoch | GroupError::UnreleasedInstanceId => Step::Rest,
            GroupError::NotCoordinator | GroupError::LoadInProgress | GroupError::NotAvailable => {
                self.is_unsure = true;
                Step::FindCoordinator
            }
            GroupError::FencedInstanceId => Step::Die,
            other => panic!("a member was told {other}"),
        }
    }
}
