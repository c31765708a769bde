//! A consumer of the classic protocol: join, sync, fetch, then heartbeats and commits.

use std::collections::BTreeMap;

use bytes::Bytes;
use chronik_shards::machine::group::{
    Client, CommitOffsets, FetchOffsets, GroupError, GroupRequest, GroupResponse, Heartbeat,
    JoinGroup, Joined, LeaveGroup, OffsetToCommit, SyncGroup,
};
use chronik_shards::model::{Offset, PartitionIndex};

use super::checker::Checker;
use super::coordinators::{PARTITIONS, TOPIC, TOPIC_ID};
use super::run::Step;
use super::terms::Terms;
use crate::rng::Rng;

/// What a member is about.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Joining,
    Syncing(Joined),
    Fetching,
    Stable,
}

/// One incarnation of a member.
pub struct ClassicMember {
    number: u8,
    instance_id: Option<String>,
    member_id: String,
    generation: i32,
    phase: Phase,
    parts: Vec<i32>,
    positions: BTreeMap<i32, i64>,
    /// What was committed when it asked where it is.
    known: BTreeMap<i32, i64>,
}

impl ClassicMember {
    pub fn new(number: u8, is_static: bool) -> Self {
        Self {
            number,
            instance_id: is_static.then(|| format!("i{number}")),
            member_id: String::new(),
            generation: -1,
            phase: Phase::Joining,
            parts: Vec::new(),
            positions: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Who it is, whatever its incarnation.
    fn name(&self) -> &str {
        self.instance_id.as_deref().unwrap_or(&self.member_id)
    }

    /// Whether it keeps what it has while the group rebalances, and tells of it.
    fn is_cooperative(&self) -> bool {
        self.number % 3 == 1
    }

    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Stable
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn parts(&self) -> impl Iterator<Item = i32> + '_ {
        self.parts.iter().copied()
    }

    /// The next request, and how long its answer is waited for.
    pub fn request(
        &mut self,
        terms: &Terms,
        rng: &mut Rng,
        checker: &Checker,
    ) -> (GroupRequest, u64) {
        let wait_us = terms.wait_us;
        match self.phase.clone() {
            Phase::Joining => (self.join(terms, rng), terms.wait_join_us),
            Phase::Syncing(joined) => (self.sync(terms, &joined), terms.wait_join_us),
            Phase::Fetching => {
                self.known = self.parts.iter().map(|it| (*it, checker.known(*it))).collect();
                let partitions = self.parts.iter().map(|it| PartitionIndex(*it)).collect();
                let request = FetchOffsets {
                    group_id: terms.group_id.clone(),
                    member: None,
                    topics: Some(vec![(TOPIC.to_owned(), partitions)]),
                };
                (GroupRequest::FetchOffsets(request), wait_us)
            }
            Phase::Stable if terms.commits && rng.one_in(3) && !self.parts.is_empty() => {
                (self.commit(terms, rng), wait_us)
            }
            Phase::Stable => (self.heartbeat(terms), wait_us),
        }
    }

    fn join(&self, terms: &Terms, rng: &mut Rng) -> GroupRequest {
        let mut fresh_id = [0; 16];
        fresh_id[..8].copy_from_slice(&rng.next().to_be_bytes());
        GroupRequest::Join(JoinGroup {
            group_id: terms.group_id.clone(),
            client: Client { id: format!("c{}", self.number), host: "/127.0.0.1".to_owned() },
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
            session_timeout_ms: terms.session_ms,
            rebalance_timeout_ms: terms.rebalance_ms,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), subscription_bytes(&self.parts))],
            fresh_id,
            knows_member_id_required: self.number.is_multiple_of(2),
            knows_skip_assignment: self.number.is_multiple_of(3),
        })
    }

    fn sync(&self, terms: &Terms, joined: &Joined) -> GroupRequest {
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let count = joined.members.len();
        let part = |place: usize| -> Bytes {
            let mine = (0..PARTITIONS).filter(|it| *it as usize % count == place);
            part_bytes(&mine.collect::<Vec<i32>>())
        };
        let named = joined.members.iter().enumerate().filter(|_| leads);
        let assignments = named.map(|(at, member)| (member.member_id.clone(), part(at)));
        GroupRequest::Sync(SyncGroup {
            group_id: terms.group_id.clone(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            instance_id: self.instance_id.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol: joined.protocol.clone(),
            assignments: assignments.collect(),
        })
    }

    fn heartbeat(&self, terms: &Terms) -> GroupRequest {
        GroupRequest::Heartbeat(Heartbeat {
            group_id: terms.group_id.clone(),
            generation: self.generation,
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
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
            generation_or_epoch: self.generation,
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
            retention_ms: None,
            knows_epochs: true,
            offsets: self.positions.iter().map(offset).collect(),
        })
    }

    /// Says that it leaves, where that is possible.
    pub fn farewell(&self, terms: &Terms) -> Option<GroupRequest> {
        let members = vec![(self.member_id.clone(), None)];
        let is_in = !self.member_id.is_empty() && self.instance_id.is_none();
        is_in.then(|| GroupRequest::Leave(LeaveGroup { group_id: terms.group_id.clone(), members }))
    }

    /// No answer came.
    pub fn timed_out(&mut self) -> Step {
        Step::FindCoordinator
    }

    pub fn answer(&mut self, response: GroupResponse, checker: &mut Checker) -> Step {
        match response {
            GroupResponse::Join(Ok(joined)) => {
                self.member_id.clone_from(&joined.member_id);
                self.generation = joined.generation;
                self.phase = Phase::Syncing(joined);
                Step::Next
            }
            GroupResponse::Sync(Ok(synced)) => {
                self.parts = parts_of(&synced.assignment);
                checker.has(self.name(), self.generation, self.parts.iter().copied());
                self.phase = Phase::Fetching;
                Step::Next
            }
            GroupResponse::FetchOffsets(Ok(found)) => {
                self.positions.clear();
                for line in found {
                    let offset = line.committed.map_or(-1, |(offset, ..)| offset.0);
                    let known = self.known.get(&line.partition.0).copied().unwrap_or(-1);
                    checker.fetched(line.partition.0, known, offset);
                    self.positions.insert(line.partition.0, offset.max(0));
                }
                self.phase = Phase::Stable;
                Step::Rest
            }
            GroupResponse::CommitOffsets(Ok(lines)) => {
                assert!(lines.iter().all(|line| line.outcome.is_ok()), "{lines:?}");
                Step::Rest
            }
            GroupResponse::Heartbeat(Ok(())) => Step::Rest,
            GroupResponse::Join(Err(error))
            | GroupResponse::Sync(Err(error))
            | GroupResponse::Heartbeat(Err(error))
            | GroupResponse::FetchOffsets(Err(error))
            | GroupResponse::CommitOffsets(Err(error)) => self.refused(error),
            other => panic!("nobody asked: {other:?}"),
        }
    }

    fn refused(&mut self, error: GroupError) -> Step {
        let keeps_parts = self.is_cooperative() && error == GroupError::RebalanceInProgress;
        match error {
            GroupError::MemberIdRequired { member_id } => self.member_id = member_id,
            // One that was deposed before the group came to be knows of none.
            GroupError::UnknownMemberId | GroupError::GroupIdNotFound(_) => {
                self.member_id.clear();
            }
            GroupError::IllegalGeneration | GroupError::RebalanceInProgress => {}
            GroupError::NotCoordinator | GroupError::LoadInProgress | GroupError::NotAvailable => {
                return Step::FindCoordinator;
            }
            GroupError::FencedInstanceId => return Step::Die,
            other => panic!("a member was told {other}"),
        }
        self.phase = Phase::Joining;
        if !keeps_parts {
            self.parts.clear();
        }
        Step::Next
    }
}

/// A subscription to the topic by somebody who has `parts` of it.
fn subscription_bytes(parts: &[i32]) -> Bytes {
    let mut bytes = b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\x01\0\x01t".to_vec();
    bytes.extend((parts.len() as i32).to_be_bytes());
    parts.iter().for_each(|part| bytes.extend(part.to_be_bytes()));
    bytes.into()
}

/// Partitions of the topic, as consumers tell each other.
fn part_bytes(parts: &[i32]) -> Bytes {
    let mut bytes = b"\0\x01\0\0\0\x01\0\x01t".to_vec();
    bytes.extend((parts.len() as i32).to_be_bytes());
    parts.iter().for_each(|part| bytes.extend(part.to_be_bytes()));
    bytes.extend((-1_i32).to_be_bytes());
    bytes.into()
}

/// The partitions of an assignment of at most one topic.
fn parts_of(assignment: &[u8]) -> Vec<i32> {
    let numbers = assignment.get(13..).unwrap_or_default().chunks_exact(4);
    let mut numbers = numbers.map(|it| i32::from_be_bytes(it.try_into().expect("four bytes")));
    let topics = assignment.get(2..6).map_or(0, |it| it[3]);
    let mut parts: Vec<i32> = if topics == 0 { Vec::new() } else { numbers.by_ref().collect() };
    // Behind them is that there is no user data.
    assert!(topics == 0 || parts.pop() == Some(-1), "{assignment:?}");
    parts
}
