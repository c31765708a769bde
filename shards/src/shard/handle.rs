//! What runs on a shard's thread speaks to shards through this.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::answer::{Answer, PendingProduce};
use super::core::{Core, Origin};
use super::request::{
    EpochQuestion, FetchedPartition, ListOffset, ListedOffset, ProduceRequestPart, Reply, Request,
};
use crate::format::metadata_command::ChangePartition;
use crate::format::peer_frame::{ClusterId, Hello};
use crate::io::local::Slot;
use crate::machine::group::{
    GroupOverrides, GroupRequest, GroupResponse, GroupSettings, TopicFacts,
};
use crate::machine::input::{
    EpochEnd, FetchError, FetchInput, PartitionConfig, PartitionInfo, PartitionSpec,
};
use crate::machine::replica::{NodeIdentity, ReplicaAssignment};
use crate::machine::replication::PeerLimits;
use crate::model::{MonotonicMicros, NodeId, Now, Offset, ReplicaKey, ShardId};

/// A shard as seen from its own thread. Cheap to clone; never leaves the thread.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    pub(super) core: Rc<Core>,
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

    /// Takes what the control thread has sent so far. Without it a request could be served from metadata that are
    /// older than what its client was told elsewhere: a busy shard may find the request before the events.
    pub fn take_events(&self) {
        self.core.take_events();
    }

    /// Hands a request over and returns the answer to come. Waits for room only, in line; nothing
    /// is waited for when the shard is this one.
    pub(super) async fn ask(&self, shard: ShardId, request: Request) -> Answer {
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

    /// Asks the coordinator of a partition. What waits for other members takes none of the room that shards have for
    /// each other; dropping the future forgets the answer, not the request.
    pub async fn group(
        &self,
        shard: ShardId,
        key: ReplicaKey,
        request: GroupRequest,
    ) -> GroupResponse {
        let waits = request.waits_for_others() && shard != self.core.id;
        let request = Box::new(request);
        if !waits {
            let asked = Request::Group { key, request, answer_to: None };
            return match self.ask(shard, asked).await.reply().await {
                Reply::Group(response) => *response,
                other => wrong(&other),
            };
        }
        let wait = self.core.begin_group_wait();
        let answer_to = Some(wait.number());
        let asked = Request::Group { key, request, answer_to };
        match self.ask(shard, asked).await.reply().await {
            Reply::Taken => wait.answer().await,
            other => wrong(&other),
        }
    }

    /// Has the shard coordinate the groups of the partitions of `__consumer_offsets` that it leads. Call it before
    /// partitions are assigned.
    pub fn coordinate_groups(&self, settings: GroupSettings) {
        self.core.drive(|machine, _, _| machine.coordinate_groups(settings));
    }

    /// Says what the metadata of index `version` say of a topic, to coordinators of groups; `None`: it is gone.
    pub fn group_topic_changed(&self, version: i64, name: &str, facts: Option<TopicFacts>) {
        self.core.drive(|machine, now, out| {
            machine.group_topic_changed(now, version, name, facts, out);
        });
    }

    /// Says what groups have of their own.
    pub fn group_overrides_changed(&self, overrides: BTreeMap<String, GroupOverrides>) {
        self.core.drive(|machine, _, _| machine.group_overrides_changed(overrides));
    }

    /// Takes a partition over, with what recovery found of it; for an open one, its configuration
    /// and a newer leader epoch.
    ///
    /// # Panics
    /// When the partition belongs to another shard.
    pub fn open_partition(&self, spec: PartitionSpec) {
        self.core.open_partition(spec);
    }

    /// Makes the shard one of a cluster. Call it first of all.
    pub fn join_cluster(&self, cluster_id: ClusterId, me: NodeIdentity, limits: PeerLimits) {
        self.core.drive(|machine, _, _| machine.join_cluster(cluster_id, me, limits));
    }

    /// Says where the shards of another node are reached.
    pub fn set_peer_address(&self, node_id: NodeId, host: String, port: u16) {
        self.core.peers.set_address(node_id, host, port);
    }

    /// Takes what the metadata says of a partition with a replica here, with what recovery found of it: it is led or
    /// followed from now on. What is older than what is known changes nothing.
    ///
    /// # Panics
    /// When the partition belongs to another shard, or no replica of it to this node.
    pub fn assign_replica(&self, assignment: &ReplicaAssignment) {
        self.core.assign_replica(assignment);
    }

    /// Takes over a connection of another node's shard, which has said who it is.
    pub fn adopt_peer(&self, socket: OwnedFd, hello: Hello) {
        self.core.adopt_peer(socket, hello);
    }

    /// The next in-sync set that this shard wants to have committed. One caller at a time.
    pub async fn next_isr_change(&self) -> ChangePartition {
        self.core.peers.next_proposal().await
    }

    /// An in-sync set that was proposed will never be committed.
    pub fn isr_change_refused(&self, change: &ChangePartition) {
        let (key, epoch) = (change.key, change.partition_epoch);
        self.core.drive(|machine, now, out| machine.isr_change_refused(now, key, epoch, out));
    }

    /// Changes the configuration of an open partition of this shard.
    pub fn configure_partition(&self, key: ReplicaKey, config: PartitionConfig) {
        self.core.drive(|machine, _, out| machine.configure_partition(key, config, out));
    }

    /// Whether the shard has a replica of a partition.
    #[must_use]
    pub fn has_partition(&self, key: ReplicaKey) -> bool {
        self.core.look(|machine| machine.info(key).is_some())
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

pub(super) fn wrong(reply: &Reply) -> ! {
    unreachable!("a request was answered with {reply:?}")
}
