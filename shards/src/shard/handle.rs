//! What runs on a shard's thread speaks to shards through this.

use std::rc::Rc;

use super::answer::{Answer, PendingProduce};
use super::core::{Core, Origin};
use super::request::{
    EpochQuestion, FetchedPartition, ListOffset, ListedOffset, ProduceRequestPart, Reply, Request,
    ShardReport,
};
use crate::io::local::Slot;
use crate::machine::input::{
    EpochEnd, FetchError, FetchInput, PartitionConfig, PartitionInfo, PartitionSpec,
};
use crate::model::{MonotonicMicros, Now, Offset, ReplicaKey, ShardId};

/// A shard as seen from its own thread. Cheap to clone; never leaves the thread.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    core: Rc<Core>,
}

impl ShardHandle {
    pub(super) fn new(core: Rc<Core>) -> Self {
        Self { core }
    }

    /// The shard whose thread this is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.core.id
    }

    /// How many shards the node has.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        self.core.shards
    }

    /// The shard that owns a partition.
    #[must_use]
    pub fn shard_of(&self, key: &ReplicaKey) -> ShardId {
        key.shard(self.core.shards)
    }

    /// The clocks. All shards agree on the monotonic one.
    #[must_use]
    pub fn now(&self) -> Now {
        self.core.clock.now()
    }

    /// Hands a request over and returns the answer to come. Waits for room only, in line; nothing
    /// is waited for when the shard is this one.
    async fn ask(&self, shard: ShardId, request: Request) -> Answer {
        assert!(shard.0 < self.core.shards, "shard {shard} of {}", self.core.shards);
        if shard == self.core.id {
            self.core.count(|report| report.own_requests += 1);
            let slot = Slot::default();
            let wait = self.core.handle(Origin::Own(slot.clone()), request);
            return Answer::own(Rc::clone(&self.core), slot, wait);
        }
        self.core.begin_wait();
        Answer::peer(self.core.port.call(shard, request).await)
    }

    /// Hands a produce to the shard that owns its partitions. Once this returns it has its place in
    /// the order: produces of one caller to one partition are appended in the order of these calls.
    pub async fn produce(&self, shard: ShardId, part: ProduceRequestPart) -> PendingProduce {
        PendingProduce(self.ask(shard, Request::Produce(part)).await)
    }

    /// Reads what there is now, from memory or segments.
    pub async fn fetch(&self, shard: ShardId, input: FetchInput) -> Vec<FetchedPartition> {
        match self.ask(shard, Request::Fetch(input)).await.reply().await {
            Reply::Fetched(partitions) => partitions,
            other => wrong(&other),
        }
    }

    /// Waits until `min_bytes` are readable over all of `partitions`, one of them cannot be read, or
    /// the deadline has passed. Says nothing about which: fetch again. Dropping the future ends the
    /// wait on the shard.
    pub async fn wait_fetch(
        &self,
        shard: ShardId,
        partitions: Vec<(ReplicaKey, Offset)>,
        min_bytes: usize,
        deadline: MonotonicMicros,
    ) {
        let request = Request::WaitFetch { partitions, min_bytes, deadline };
        match self.ask(shard, request).await.reply().await {
            Reply::Ready => {}
            other => wrong(&other),
        }
    }

    /// Looks offsets up. `None`: no record is that late.
    pub async fn list_offsets(
        &self,
        shard: ShardId,
        questions: Vec<ListOffset>,
    ) -> Vec<Result<Option<ListedOffset>, FetchError>> {
        match self.ask(shard, Request::ListOffsets(questions)).await.reply().await {
            Reply::Listed(offsets) => offsets,
            other => wrong(&other),
        }
    }

    /// Moves a partition's log start up to `before`, `None` for the high watermark. Returns when
    /// that is durable, with the log start.
    pub async fn delete_records(
        &self,
        shard: ShardId,
        key: ReplicaKey,
        before: Option<Offset>,
    ) -> Result<Offset, FetchError> {
        match self.ask(shard, Request::DeleteRecords { key, before }).await.reply().await {
            Reply::Deleted(result) => result,
            other => wrong(&other),
        }
    }

    /// Where leader epochs ended.
    pub async fn epoch_ends(
        &self,
        shard: ShardId,
        questions: Vec<EpochQuestion>,
    ) -> Vec<Result<Option<EpochEnd>, FetchError>> {
        match self.ask(shard, Request::EpochEnds(questions)).await.reply().await {
            Reply::EpochEnds(ends) => ends,
            other => wrong(&other),
        }
    }

    /// Positions and sizes. `None`: the partition is not there.
    pub async fn partition_infos(
        &self,
        shard: ShardId,
        keys: Vec<ReplicaKey>,
    ) -> Vec<Option<PartitionInfo>> {
        match self.ask(shard, Request::Infos(keys)).await.reply().await {
            Reply::Infos(infos) => infos,
            other => wrong(&other),
        }
    }

    /// What a shard has done since it started.
    pub async fn report(&self, shard: ShardId) -> ShardReport {
        match self.ask(shard, Request::Report).await.reply().await {
            Reply::Report(report) => *report,
            other => wrong(&other),
        }
    }

    /// Takes a partition over, with what recovery found of it; for an open one, its configuration
    /// and a newer leader epoch.
    ///
    /// # Panics
    /// When the partition belongs to another shard.
    pub fn open_partition(&self, spec: PartitionSpec) {
        self.core.open_partition(spec);
    }

    /// Changes the configuration of an open partition of this shard.
    pub fn configure_partition(&self, key: ReplicaKey, config: PartitionConfig) {
        self.core.drive(|machine, _, out| machine.configure_partition(key, config, out));
    }

    /// Deletes a partition of this shard, and its files.
    pub fn close_partition(&self, key: ReplicaKey) {
        self.core.close_partition(key);
    }

    /// Returns when the node has begun to stop: accept nothing more, answer what is under way, and
    /// return from the front's future.
    pub async fn stopping(&self) {
        self.core.stopping.wait().await;
    }

    /// Whether the node has begun to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.core.stopping.is_open()
    }
}

fn wrong(reply: &Reply) -> ! {
    unreachable!("a request was answered with {reply:?}")
}
