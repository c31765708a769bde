//! Kafka's requests, one file per API: decode → command → encode.
//!
//! The only place that maps our errors to Kafka's codes (`error`), and the only dispatcher: every
//! request of every connection comes through [`KafkaDispatcher`]. A request that is not served, or not
//! in that version, closes its connection, as clients expect who did not ask ApiVersions first.
//!
//! Invariants: `acks=0` is never answered · an error is never answered as success · what a request
//! changes is applied on this shard before its answer leaves · what the control thread told this shard before
//! a request came is known to it.

mod alter_configs;
mod alter_partition_reassignments;
mod answer;
mod api_versions;
mod concurrent;
mod configs;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod error;
mod fetch;
mod fetch_sessions;
mod find_coordinator;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod nearest_replica;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod partitions;
mod produce;
mod raft_voters;
mod records;
mod repeats;
pub mod request_counts;
pub mod served;
mod sync_group;
mod unregister_broker;

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use chronik_protocol::{ApiKey, DecodeError, ErrorCode, KafkaString, Request, RequestFrame};
use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::machine::metadata::ApplyOutcome;
use chronik_shards::machine::topic_config::BrokerSettings;
use chronik_shards::model::{
    BrokerEpoch, MonotonicMicros, Now, Offset, ReplicaKey, ShardId, TopicId,
};
use chronik_shards::shard::ShardHandle;

use crate::control::{ControlError, QuorumState, random_bytes, random_topic_id};
use crate::front::{FETCH_SESSIONS_MAX, FrontPlan};
use crate::metadata_view::MetadataView;
use crate::net::{ConnectionContext, Dispatched, Dispatcher};
use crate::proposals::Proposals;
use answer::{Answer, answer};
use fetch_sessions::FetchSessions;
use init_producer_id::ProducerIdBlock;
use partitions::TopicNamed;
use records::RecordChecks;
use request_counts::RequestCounts;

/// Largest request that carries no records. Decoded, such a request takes up to some fifty times its bytes;
/// one that names 10,000 topics takes less than this.
const PLAIN_REQUEST_BYTES_MAX: usize = 4 << 20;

/// How long the answer to a change waits for the other nodes, at most. A node that was killed a moment ago is
/// fenced before that.
const SPREAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long a request may wait for the controller when the node has begun to stop: a controller that is there takes
/// much less.
const STOP_PATIENCE: Duration = Duration::from_millis(200);

/// Bits of every operation on a topic that a client without an authorizer may do: read, write, create,
/// delete, alter, describe, describe configs, alter configs.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Likewise on the cluster: create, alter, describe, cluster action, configs, idempotent write.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// What the handlers of one shard work with. Shared by the shard's connections.
pub struct Handlers {
    /// This shard and the way to all others.
    pub shard: ShardHandle,
    /// What this shard knows of the cluster.
    pub metadata: Rc<RefCell<MetadataView>>,
    /// The way to the control thread and back.
    pub proposals: Rc<Proposals>,
    /// Identity of the cluster.
    pub cluster_id: KafkaString,
    /// This incarnation of the node.
    pub broker_epoch: BrokerEpoch,
    /// The broker's settings.
    pub settings: BrokerSettings,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Incremental fetch sessions of this shard.
    pub sessions: RefCell<FetchSessions>,
    /// Producer ids of this shard.
    pub producer_ids: RefCell<ProducerIdBlock>,
    /// The look into produced batches.
    pub record_checks: RecordChecks,
    /// What this shard's connections ask, and are told.
    pub counts: Rc<RequestCounts>,
}

impl Handlers {
    /// The handlers of a shard.
    #[must_use]
    pub fn new(
        plan: &FrontPlan,
        shard: ShardHandle,
        metadata: Rc<RefCell<MetadataView>>,
        proposals: Rc<Proposals>,
        counts: Rc<RequestCounts>,
    ) -> Self {
        let (id, shards) = (shard.id().get(), shard.shard_count());
        let slots = FETCH_SESSIONS_MAX / usize::from(shards) + 1;
        Self {
            metadata,
            proposals,
            cluster_id: KafkaString::from(plan.cluster_id.as_str()),
            broker_epoch: plan.broker_epoch,
            settings: plan.broker.settings(),
            data_dir: plan.data_dir.clone(),
            sessions: RefCell::new(FetchSessions::new(id, shards, slots, plan.session_seed)),
            producer_ids: RefCell::new(0..0),
            record_checks: RecordChecks::default(),
            counts,
            shard,
        }
    }

    fn now(&self) -> Now {
        self.shard.now()
    }

    /// When a client that waits `timeout_ms` stops waiting; a negative time-out is none at all.
    fn deadline(&self, timeout_ms: i32) -> MonotonicMicros {
        self.now().monotonic.plus_millis(u64::try_from(timeout_ms).unwrap_or(0))
    }

    /// Proposes a change; returns when it is applied on this shard. A stop of the node does not wait for a
    /// controller that does not answer.
    async fn propose(&self, command: MetadataCommand) -> Result<ApplyOutcome, ControlError> {
        let proposed = self.proposals.propose(&command);
        let answer = concurrent::before(proposed, self.long_stopping()).await;
        answer.unwrap_or(Err(ControlError::Stopped))
    }

    /// How the Raft group stands.
    async fn quorum(&self) -> Result<QuorumState, ControlError> {
        let told = concurrent::before(self.proposals.quorum(), self.long_stopping()).await;
        told.unwrap_or(Err(ControlError::Stopped))
    }

    async fn long_stopping(&self) {
        self.shard.stopping().await;
        glommio::timer::sleep(STOP_PATIENCE).await;
    }

    /// Returns when the other nodes that are there know what this shard knows of the metadata, so that a client
    /// may go on with any of them; or after `timeout_ms` or [`SPREAD_PATIENCE`]: what was changed stays changed.
    async fn spread(&self, timeout_ms: i32) {
        let patience = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let index = self.metadata.borrow().image().applied();
        let spread = self.proposals.when_spread(index, patience.min(SPREAD_PATIENCE));
        let spread = concurrent::before(spread, self.shard.stopping()).await;
        if let Some(Err(error)) = spread {
            tracing::debug!(%error, "other nodes may not know yet of a change that a client is told of");
        }
    }

    /// A partition that a request names by its topic's name, if this node leads it.
    fn led_here(&self, topic: &str, partition: i32) -> Result<ReplicaKey, ErrorCode> {
        let view = self.metadata.borrow();
        partitions::led_here(&view, TopicNamed::Name(topic), partition)
            .map_err(partitions::NotHere::code)
    }

    fn fresh_bytes(&self) -> [u8; 16] {
        random_bytes().expect("the kernel gives random bytes once it has booted")
    }

    fn fresh_topic_id(&self) -> TopicId {
        random_topic_id().expect("the kernel gives random bytes once it has booted")
    }

    /// Waits on several shards at once, until one of them has news, the deadline passes, or the node
    /// begins to stop.
    async fn wait_any(
        &self,
        groups: Vec<(ShardId, Vec<(ReplicaKey, Offset)>)>,
        min_bytes: usize,
        deadline: MonotonicMicros,
    ) {
        let news = groups.into_iter().map(|(shard, partitions)| {
            Box::pin(self.shard.wait_fetch(shard, partitions, min_bytes, deadline))
                as Pin<Box<dyn Future<Output = ()> + '_>>
        });
        let stop: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(self.shard.stopping());
        concurrent::first(news.chain([stop])).await;
    }

    /// Everything but Produce, Fetch and ApiVersions: decoded, answered, encoded.
    async fn plain(
        self: Rc<Self>,
        frame: RequestFrame,
        connection: Rc<ConnectionContext>,
    ) -> Answer {
        let this = &self;
        /// Decodes the request, runs the handler, encodes its response.
        macro_rules! with {
            (|$request:ident, $version:ident| $response:expr) => {{
                let (correlation_id, $version) = (frame.header.correlation_id, frame.version());
                match decode(frame) {
                    Ok($request) => answer(&this.counts, correlation_id, $version, &$response),
                    Err(error) => Answer::Close(error.to_string()),
                }
            }};
        }
        let client = || groups::client(frame.header.client_id.as_ref(), &connection);
        match frame.api {
            ApiKey::OffsetCommit => with!(|r, v| offset_commit::handle(this, r, v).await),
            ApiKey::OffsetFetch => with!(|r, v| offset_fetch::handle(this, r, v).await),
            ApiKey::FindCoordinator => with!(|r, v| find_coordinator::handle(this, r, v).await),
            ApiKey::JoinGroup => {
                let client = client();
                with!(|r, v| join_group::handle(this, client, r, v).await)
            }
            ApiKey::Heartbeat => with!(|r, _v| heartbeat::handle(this, r).await),
            ApiKey::LeaveGroup => with!(|r, v| leave_group::handle(this, r, v).await),
            ApiKey::SyncGroup => with!(|r, _v| sync_group::handle(this, r).await),
            ApiKey::DescribeGroups => with!(|r, v| describe_groups::handle(this, r, v).await),
            ApiKey::ListGroups => with!(|r, _v| list_groups::handle(this, r).await),
            ApiKey::DeleteGroups => with!(|r, v| delete_groups::handle(this, r, v).await),
            ApiKey::OffsetDelete => with!(|r, _v| offset_delete::handle(this, r).await),
            ApiKey::ConsumerGroupHeartbeat => {
                let client = client();
                with!(|r, v| consumer_group_heartbeat::handle(this, client, r, v).await)
            }
            ApiKey::ConsumerGroupDescribe => {
                with!(|r, _v| consumer_group_describe::handle(this, r).await)
            }
            ApiKey::ListOffsets => with!(|r, v| list_offsets::handle(this, r, v).await),
            ApiKey::Metadata => with!(|r, v| metadata::handle(this, r, v).await),
            ApiKey::CreateTopics => with!(|r, v| create_topics::handle(this, r, v).await),
            ApiKey::DeleteTopics => with!(|r, v| delete_topics::handle(this, r, v).await),
            ApiKey::DeleteRecords => with!(|r, _v| delete_records::handle(this, r).await),
            ApiKey::InitProducerId => with!(|r, _v| init_producer_id::handle(this, r).await),
            ApiKey::OffsetForLeaderEpoch => {
                with!(|r, _v| offset_for_leader_epoch::handle(this, r).await)
            }
            ApiKey::DescribeConfigs => with!(|r, _v| describe_configs::handle(this, r)),
            ApiKey::AlterConfigs => with!(|r, _v| alter_configs::handle(this, r).await),
            ApiKey::DescribeLogDirs => with!(|r, _v| describe_log_dirs::handle(this, r).await),
            ApiKey::CreatePartitions => with!(|r, _v| create_partitions::handle(this, r).await),
            ApiKey::IncrementalAlterConfigs => {
                with!(|r, _v| incremental_alter_configs::handle(this, r).await)
            }
            ApiKey::ElectLeaders => with!(|r, v| elect_leaders::handle(this, r, v).await),
            ApiKey::AlterPartitionReassignments => {
                with!(|r, _v| alter_partition_reassignments::handle(this, r).await)
            }
            ApiKey::ListPartitionReassignments => {
                with!(|r, _v| list_partition_reassignments::handle(this, &r))
            }
            ApiKey::UnregisterBroker => with!(|r, _v| unregister_broker::handle(this, &r).await),
            ApiKey::AddRaftVoter => with!(|r, _v| raft_voters::add(this, &r).await),
            ApiKey::RemoveRaftVoter => with!(|r, _v| raft_voters::remove(this, &r).await),
            ApiKey::DescribeQuorum => with!(|r, v| describe_quorum::handle(this, &r, v).await),
            ApiKey::DescribeCluster => with!(|r, _v| describe_cluster::handle(this, &r)),
            ApiKey::ListConfigResources => {
                with!(|r, v| list_config_resources::handle(this, &r, v))
            }
            ApiKey::DescribeTopicPartitions => {
                with!(|r, _v| describe_topic_partitions::handle(this, &r))
            }
            other => Answer::Close(format!("{other} is not served")),
        }
    }
}

fn decode<R: Request>(frame: RequestFrame) -> Result<R, DecodeError> {
    frame.decode()
}

/// What a request is of, before anything else of it is looked at.
fn api_key(frame: &[u8]) -> Option<i16> {
    frame.first_chunk().map(|key| i16::from_be_bytes(*key))
}

/// The connection layer's way into the handlers of its shard.
pub struct KafkaDispatcher(pub Rc<Handlers>);

impl Dispatcher for KafkaDispatcher {
    fn is_pipelined(&self, frame: &[u8]) -> bool {
        let key = api_key(frame);
        key == Some(ApiKey::Produce.key()) || key == Some(ApiKey::Fetch.key())
    }

    fn can_wait(&self, frame: &[u8]) -> bool {
        let key = api_key(frame);
        key == Some(ApiKey::Heartbeat.key()) || key == Some(ApiKey::ConsumerGroupHeartbeat.key())
    }

    async fn dispatch(&self, frame: Bytes, connection: &Rc<ConnectionContext>) -> Dispatched {
        let handlers = &self.0;
        let frame = match RequestFrame::parse(frame) {
            Ok(frame) => frame,
            Err(error) => return Dispatched::Close(error.to_string()),
        };
        if let Some(client_id) = &frame.header.client_id {
            connection.note_client_id(client_id);
        }
        if frame.api == ApiKey::ApiVersions {
            handlers.counts.came(frame.api);
            return ready(api_versions::handle(&handlers.counts, frame, connection));
        }
        let (api, version) = (frame.api, frame.version());
        if api != ApiKey::Produce && frame.body.remaining() > PLAIN_REQUEST_BYTES_MAX {
            return Dispatched::Close(format!(
                "{api} with {} bytes, {PLAIN_REQUEST_BYTES_MAX} are allowed",
                frame.body.remaining()
            ));
        }
        match served::find(api) {
            Some(served) if served.versions.contains(version) => {}
            Some(_) | None => {
                return Dispatched::Close(format!("{api} version {version} is not served"));
            }
        }
        handlers.counts.came(api);
        handlers.shard.take_events();
        match api {
            ApiKey::Produce => match produce::dispatch(handlers, frame).await {
                Ok(settled) => Dispatched::Respond(Box::pin(settled)),
                Err(reason) => Dispatched::Close(reason),
            },
            ApiKey::Fetch => {
                let fetch = fetch::handle(Rc::clone(handlers), frame, Rc::clone(connection));
                Dispatched::Respond(Box::pin(async move { fetch.await.map(Some) }))
            }
            _ => {
                let plain = Rc::clone(handlers).plain(frame, Rc::clone(connection));
                Dispatched::Respond(Box::pin(async move { plain.await.into_result().map(Some) }))
            }
        }
    }
}

fn ready(answer: Answer) -> Dispatched {
    match answer.into_result() {
        Ok(response) => Dispatched::Ready(response),
        Err(reason) => Dispatched::Close(reason),
    }
}
