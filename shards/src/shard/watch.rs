//! What whoever watches a shard may look at. All of it is bounded: by a count that the caller gives, or by what a
//! shard keeps of itself anyway.

use super::handle::{ShardHandle, wrong};
use super::request::{Reply, Request, ShardReport};
use crate::machine::coordinators::GroupPlace;
use crate::machine::group::GroupsLook;
use crate::machine::survey::Survey;
use crate::model::{Offset, ReplicaKey, ShardId};

impl ShardHandle {
    /// What a shard has done since it started.
    pub async fn report(&self, shard: ShardId) -> ShardReport {
        match self.ask(shard, Request::Report).await.reply().await {
            Reply::Report(report) => *report,
            other => wrong(&other),
        }
    }

    /// Adds up to `count` partitions of this shard to a survey, from place `first` on. Returns where to go on.
    #[must_use]
    pub fn survey(&self, first: usize, count: usize, survey: &mut Survey) -> Option<usize> {
        self.core.look(|machine| machine.survey(first, count, survey))
    }

    /// Looks at groups that this shard coordinates, until `budget` is used up. Returns where to go on.
    #[must_use]
    pub fn look_at_groups(
        &self,
        from: Option<GroupPlace>,
        budget: usize,
        look: &mut GroupsLook,
    ) -> Option<GroupPlace> {
        self.core.look(|machine| machine.look_at_groups(from, budget, look))
    }

    /// Up to where consumers may read partitions, as far as a shard that has a replica knows.
    pub async fn known_high_watermarks(
        &self,
        shard: ShardId,
        keys: Vec<ReplicaKey>,
    ) -> Vec<Option<Offset>> {
        match self.ask(shard, Request::HighWatermarks(keys)).await.reply().await {
            Reply::HighWatermarks(known) => known,
            other => wrong(&other),
        }
    }
}
