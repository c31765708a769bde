//! The nodes that coordinate, one after the other, and the log that they share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use chronik_shards::format::group_record::GroupRecord;
use chronik_shards::machine::group::{
    After, Coordinator, GroupRequest, GroupSettings, Output, Reply, Ticket, TopicFacts, Topics,
};
use chronik_shards::model::{LeaderEpoch, MonotonicMicros, Now, TimestampMs, TopicId};

/// The topic of all groups, and the number of its partitions.
pub const TOPIC: &str = "t";
pub const TOPIC_ID: TopicId = TopicId([1; 16]);
pub const PARTITIONS: i32 = 6;

/// A record as it is written.
type Written = (Bytes, Option<Bytes>);

/// One node that coordinates, or thinks so.
pub struct Coordinating {
    pub coordinator: Coordinator,
    /// Answers that wait until the log is committed so far.
    waiting: VecDeque<(usize, Reply)>,
}

/// What may go wrong on purpose.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub answers_early: bool,
    pub forgets_assignments: bool,
    pub deposed_appends: bool,
}

/// The log of the partition and who serves it.
pub struct Coordinators {
    log: Vec<Written>,
    /// Where batches end that are not committed: one survives as a whole or not at all.
    ends: Vec<usize>,
    committed: usize,
    epoch: i32,
    pub current: Option<Coordinating>,
    /// The one before, until it learns that it is not any more.
    pub deposed: Option<Coordinating>,
    faults: Faults,
}

pub fn now(at_us: u64) -> Now {
    let wall = TimestampMs(1_700_000_000_000 + (at_us / 1000) as i64);
    Now { monotonic: MonotonicMicros(at_us), wall }
}

fn settings() -> GroupSettings {
    GroupSettings {
        initial_rebalance_delay_ms: 500,
        consumer_session_timeout_ms: 6_000,
        consumer_heartbeat_interval_ms: 500,
        new_member_join_timeout_ms: 20_000,
        ..GroupSettings::default()
    }
}

fn topics() -> Arc<Topics> {
    let facts = TopicFacts { topic_id: TOPIC_ID, partitions: PARTITIONS };
    Arc::new(Topics { version: 1, by_name: [(TOPIC.to_owned(), facts)].into() })
}

impl Coordinators {
    pub fn new(faults: Faults) -> Self {
        let mut first = Self {
            log: Vec::new(),
            ends: Vec::new(),
            committed: 0,
            epoch: 0,
            current: None,
            deposed: None,
            faults,
        };
        first.elect(0, 0);
        first
    }

    /// Another node takes over at `at_us`. Of what was not committed it has `kept` batches.
    pub fn elect(&mut self, at_us: u64, kept: usize) {
        self.ends.truncate(kept);
        self.log.truncate(self.ends.last().copied().unwrap_or(self.committed));
        self.committed = self.log.len();
        self.ends.clear();
        self.epoch += 1;
        let mut next = Coordinator::new(settings(), LeaderEpoch(self.epoch));
        next.set_topics(topics());
        self.replay_into(&mut next, self.log.iter());
        let loading = next.handle(now(at_us), Ticket(u64::MAX), list_groups());
        assert_eq!((loading.records.len(), loading.replies.len()), (0, 1), "it loads");
        self.check_replay(&next);
        // What waited for the old one's records is answered by nobody.
        let deposed = self.current.take();
        self.deposed = deposed.map(|old| Coordinating { waiting: VecDeque::new(), ..old });
        self.current = Some(Coordinating { coordinator: next, waiting: VecDeque::new() });
    }

    fn replay_into<'a>(
        &self,
        coordinator: &mut Coordinator,
        log: impl Iterator<Item = &'a Written>,
    ) {
        for (key, value) in log {
            let record = GroupRecord::decode(key, value.as_deref()).expect("it was written so");
            if self.faults.forgets_assignments && matches!(record, GroupRecord::Current { .. }) {
                continue;
            }
            coordinator.replay(&record);
        }
    }

    /// A log that was compacted tells the same.
    fn check_replay(&self, expected: &Coordinator) {
        let mut last: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for (place, (key, _)) in self.log.iter().enumerate() {
            last.insert(key, place);
        }
        let mut kept: Vec<usize> = last.into_values().collect();
        kept.sort_unstable();
        let kept = kept.into_iter().map(|place| &self.log[place]);
        for keeps_tombstones in [true, false] {
            let kept = kept.clone().filter(|(_, value)| keeps_tombstones || value.is_some());
            let mut other = Coordinator::new(settings(), LeaderEpoch(self.epoch));
            self.replay_into(&mut other, kept);
            assert!(other.agrees_with(expected), "compaction changes what is told");
        }
    }

    /// The log has been read.
    pub fn loaded(&mut self, at_us: u64) -> Vec<Reply> {
        let Some(current) = self.current.as_mut().filter(|it| !it.coordinator.is_serving()) else {
            return Vec::new();
        };
        let output = current.coordinator.loaded(now(at_us));
        self.take(output, false)
    }

    /// A request comes to the coordinator, or to the one that was.
    pub fn handle(
        &mut self,
        at_us: u64,
        to_deposed: bool,
        ticket: Ticket,
        request: GroupRequest,
    ) -> Vec<Reply> {
        let node = if to_deposed { &mut self.deposed } else { &mut self.current };
        let Some(node) = node else { return Vec::new() };
        let output = node.coordinator.handle(now(at_us), ticket, request);
        self.take(output, to_deposed)
    }

    /// What has become due, of both.
    pub fn tick(&mut self, at_us: u64) -> Vec<Reply> {
        let mut replies = Vec::new();
        for is_deposed in [false, true] {
            loop {
                let node = if is_deposed { &mut self.deposed } else { &mut self.current };
                let Some(node) = node else { break };
                let due = node.coordinator.next_deadline();
                if due.is_none_or(|due| due > MonotonicMicros(at_us)) {
                    break;
                }
                let output = node.coordinator.tick(now(at_us));
                replies.extend(self.take(output, is_deposed));
            }
        }
        replies
    }

    pub fn next_deadline(&self) -> Option<u64> {
        let nodes = [&self.current, &self.deposed].into_iter().flatten();
        nodes.filter_map(|node| node.coordinator.next_deadline()).map(|at| at.0).min()
    }

    /// The one that was learns that it is not any more.
    pub fn resign(&mut self, at_us: u64) -> Vec<Reply> {
        let epoch = LeaderEpoch(self.epoch);
        let Some(mut node) = self.deposed.take() else { return Vec::new() };
        assert_eq!(node.coordinator.resign(now(at_us), LeaderEpoch(0)).replies, [], "old news");
        let output = node.coordinator.resign(now(at_us), epoch);
        assert_eq!(output.records, []);
        assert!(output.replies.iter().all(|reply| reply.after == After::Nothing));
        output.replies
    }

    fn take(&mut self, output: Output, is_deposed: bool) -> Vec<Reply> {
        let node = if is_deposed { &mut self.deposed } else { &mut self.current };
        let node = node.as_mut().expect("it has just acted");
        for record in &output.records {
            node.coordinator.replay(record);
        }
        node.coordinator.check_invariants();
        // Whoever was deposed has its appends refused, whether it knows or not.
        let may_append =
            output.leader_epoch == LeaderEpoch(self.epoch) || self.faults.deposed_appends;
        if may_append {
            self.log.extend(output.records.iter().map(GroupRecord::encode));
            if !output.records.is_empty() {
                self.ends.push(self.log.len());
            }
        }
        let end = self.log.len();
        let mut leave = Vec::new();
        for reply in output.replies {
            let waits = reply.after == After::Records && !self.faults.answers_early;
            match waits {
                false => leave.push(reply),
                true if may_append => node.waiting.push_back((end, reply)),
                true => {}
            }
        }
        leave.extend(node.committed(self.committed));
        leave
    }

    /// Some of what is in the log is on all replicas.
    pub fn commit(&mut self, to: usize) -> Vec<Reply> {
        // A batch that was appended when this was sent may have been lost since, and its place be another's.
        let ends = self.ends.iter().copied().filter(|end| *end <= to);
        self.committed = ends.max().unwrap_or(self.committed);
        self.ends.retain(|end| *end > self.committed);
        let current = self.current.as_mut();
        current.map_or_else(Vec::new, |current| current.committed(self.committed))
    }

    pub fn end(&self) -> usize {
        self.log.len()
    }

    /// Batches that may be lost.
    pub fn uncommitted(&self) -> usize {
        self.ends.len()
    }

    /// What the log says is what the coordinator knows.
    pub fn check_the_end(&mut self, at_us: u64) {
        let mut fresh = Coordinator::new(settings(), LeaderEpoch(self.epoch));
        self.replay_into(&mut fresh, self.log.iter());
        let current = self.current.as_ref().expect("somebody coordinates");
        assert!(fresh.agrees_with(&current.coordinator), "a replay tells another story");
        self.check_replay(&fresh);
        let _ = fresh.loaded(now(at_us));
        fresh.check_invariants();
    }
}

impl Coordinating {
    fn committed(&mut self, to: usize) -> Vec<Reply> {
        let mut leave = Vec::new();
        while self.waiting.front().is_some_and(|(end, _)| *end <= to) {
            leave.extend(self.waiting.pop_front().map(|(_, reply)| reply));
        }
        leave
    }
}

fn list_groups() -> GroupRequest {
    GroupRequest::ListGroups(Default::default())
}
