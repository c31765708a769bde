//! What must hold, as members see it.

use std::collections::BTreeMap;

use chronik_shards::machine::group::GroupResponse;

use super::members::Kind;

/// What all members together have seen.
///
/// A group without members that somebody joins by the other protocol is another one, and counts from the start: that
/// begins a life of the group. Whether it has is told from the answers of coordinators, and where it cannot be told for
/// sure a new life is taken to have begun: less is compared then, and what is right is never found wrong.
pub struct Checker {
    kind: Kind,
    life: u64,
    /// The highest generation or epoch of this life.
    highest: i32,
    /// The life in which an answer was given that a member is about to hear.
    heard_life: u64,
    /// Who was told that it has a partition, by life, and generation or epoch.
    owners: BTreeMap<(u64, i32, i32), String>,
    /// The highest offset that a member was told is committed, by partition.
    committed: BTreeMap<i32, i64>,
    /// How often a member was told that it has partitions.
    pub assignments: u64,
    /// How many commits were told.
    pub commits: u64,
}

impl Checker {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            life: 0,
            highest: 0,
            heard_life: 0,
            owners: BTreeMap::new(),
            committed: BTreeMap::new(),
            assignments: 0,
            commits: 0,
        }
    }

    /// A coordinator answers; in which life of the group.
    pub fn answered(&mut self, response: &GroupResponse) -> u64 {
        if self.kind != Kind::Mixed {
            return self.life;
        }
        let (generation, is_new) = match response {
            GroupResponse::Join(Ok(joined)) => {
                // Leaders are in classic groups only, where all members are in one generation.
                let is_led = !joined.leader.is_empty();
                (joined.generation, is_led && joined.generation < self.highest)
            }
            GroupResponse::ConsumerHeartbeat(Ok(beat)) => {
                // A consumer group begins in epoch 2.
                let is_first = beat.member_epoch == 2 && beat.assignment.is_some();
                (beat.member_epoch, is_first && self.highest >= 2)
            }
            _ => return self.life,
        };
        if is_new {
            self.life += 1;
            self.highest = 0;
        }
        self.highest = self.highest.max(generation);
        self.life
    }

    /// A member is about to hear an answer that was given in `life`.
    pub fn hears(&mut self, life: u64) {
        self.heard_life = life;
    }

    /// A member, or the static member that it is an incarnation of, is told that it has `partitions` in a
    /// generation or epoch.
    pub fn has(&mut self, who: &str, generation: i32, partitions: impl Iterator<Item = i32>) {
        self.assignments += 1;
        for partition in partitions {
            let owner = self.owners.entry((self.heard_life, generation, partition));
            let owner = owner.or_insert_with(|| who.to_owned());
            assert_eq!(owner, who, "partition {partition} is with two members in {generation}");
        }
    }

    /// A member is told that an offset is committed.
    pub fn committed(&mut self, partition: i32, offset: i64) {
        self.commits += 1;
        let highest = self.committed.entry(partition).or_insert(offset);
        assert!(offset >= *highest, "partition {partition} goes back from {highest} to {offset}");
        *highest = offset;
    }

    /// What must be found by whoever asks from now on.
    pub fn known(&self, partition: i32) -> i64 {
        self.committed.get(&partition).copied().unwrap_or(-1)
    }

    /// A coordinator has answered that an offset is committed. Another one, which has it from the log, may have gone
    /// on from there and have been heard before.
    pub fn acknowledged(&mut self, partition: i32, offset: i64) {
        self.commits += 1;
        let highest = self.committed.entry(partition).or_insert(offset);
        *highest = offset.max(*highest);
    }

    /// Whoever asks from now on may be told this.
    pub fn take_back(&mut self, partition: i32, offset: i64) {
        self.committed.insert(partition, offset);
    }

    /// A member that asked when `known` was committed finds `offset`.
    pub fn fetched(&self, partition: i32, known: i64, offset: i64) {
        let known = known.min(self.known(partition));
        assert!(offset >= known, "partition {partition} goes back from {known} to {offset}");
    }
}
