//! What must hold, as members see it.

use std::collections::BTreeMap;

/// What all members together have seen.
#[derive(Default)]
pub struct Checker {
    /// Who was told that it has a partition, by generation or epoch.
    owners: BTreeMap<(i32, i32), String>,
    /// The highest offset that a member was told is committed, by partition.
    committed: BTreeMap<i32, i64>,
    /// How often a member was told that it has partitions.
    pub assignments: u64,
    /// How many commits were told.
    pub commits: u64,
}

impl Checker {
    /// A member, or the static member that it is an incarnation of, is told that it has `partitions` in a
    /// generation or epoch.
    pub fn has(&mut self, who: &str, generation: i32, partitions: impl Iterator<Item = i32>) {
        self.assignments += 1;
        for partition in partitions {
            let owner =
                self.owners.entry((generation, partition)).or_insert_with(|| who.to_owned());
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
