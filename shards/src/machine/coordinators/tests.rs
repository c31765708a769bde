use super::*;
use crate::format::peer_frame::ClusterId;
use crate::format::record_batch::StoredBatch;
use crate::format::wal_entry::WalEntry;
use crate::machine::group::{
    Client, CommitOffsets, FetchOffsets, Heartbeat, JoinGroup, OffsetToCommit, SyncGroup,
};
use crate::machine::input::{PartitionConfig, PartitionSpec};
use crate::machine::limits::ShardLimits;
use crate::machine::replica::{NodeIdentity, ReplicaAssignment, ReplicaNode};
use crate::machine::replication::PeerLimits;
use crate::machine::testing::{Bench, key};
use crate::model::{Acks, BrokerEpoch, LeaderEpoch, NodeId, PartitionIndex, ShardId, TopicId};

const ME: NodeId = NodeId(1);

struct Scene {
    bench: Bench,
    metadata_index: u64,
    config: PartitionConfig,
    /// How many times something was read out of segments.
    reads: usize,
}

impl Scene {
    fn new() -> Self {
        Self::with(ShardLimits::default(), PartitionConfig::default())
    }

    /// Node 1 leads partition 0 of the topic of groups, and has read it.
    fn with(limits: ShardLimits, config: PartitionConfig) -> Self {
        let mut bench = Bench::new(limits);
        let me = NodeIdentity { node_id: ME, broker_epoch: BrokerEpoch(1) };
        bench.machine.join_cluster(ClusterId([1; 16]), me, PeerLimits::default());
        let settings = GroupSettings { initial_rebalance_delay_ms: 0, ..GroupSettings::default() };
        bench.machine.coordinate_groups(settings);
        let mut scene = Self { bench, metadata_index: 0, config, reads: 0 };
        scene.assign(1, ME, &[1], &[1]);
        scene.load();
        scene
    }

    fn assign(&mut self, epoch: i32, leader: NodeId, replicas: &[i32], isr: &[i32]) {
        self.metadata_index += 1;
        let node = |id: &i32| ReplicaNode {
            node_id: NodeId(*id),
            broker_epoch: BrokerEpoch(1),
            shard: ShardId(0),
        };
        let assignment = ReplicaAssignment {
            spec: PartitionSpec {
                key: key(0),
                topic_name: GROUPS_TOPIC.to_owned(),
                leader_epoch: LeaderEpoch(epoch),
                config: self.config.clone(),
            },
            metadata_index: self.metadata_index,
            partition_epoch: i32::try_from(self.metadata_index).unwrap(),
            leader: Some(leader),
            replicas: replicas.iter().map(node).collect(),
            isr: isr.iter().map(|id| NodeId(*id)).collect(),
        };
        self.bench.act(|machine, now, out| machine.assign_replica(now, &assignment, None, out));
    }

    /// Has new coordinators read their partition.
    fn load(&mut self) {
        while let Some((key, epoch)) = self.bench.loads.pop_front() {
            loop {
                let mut step = GroupRead::Done;
                self.bench.act(|machine, now, out| {
                    step = machine.next_group_read(now, key, epoch, out);
                });
                let (end, batches) = match step {
                    GroupRead::Done => break,
                    GroupRead::NotYet => panic!("nothing is being cut"),
                    GroupRead::Cached(batches) => (batches.last().unwrap().end_offset(), batches),
                    GroupRead::InSegments { offset, end, .. } => {
                        self.reads += 1;
                        (end, self.written(offset, end))
                    }
                };
                self.bench.act(|machine, _, out| {
                    machine.group_log_read(key, epoch, end, &batches, out);
                });
            }
        }
    }

    fn written(&self, from: Offset, end: Offset) -> Vec<StoredBatch> {
        let entries = self.bench.written.iter().flat_map(|commit| &commit.entries);
        let batches = entries.filter_map(|entry| match entry {
            WalEntry::Batch { batch, .. } => Some(batch.clone()),
            _ => None,
        });
        let within =
            |batch: &StoredBatch| batch.end_offset() > from && batch.header.base_offset < end;
        batches.filter(within).collect()
    }

    fn ask(&mut self, request: GroupRequest) -> Token {
        let token = self.bench.token();
        self.bench.act(|machine, now, out| machine.group_request(now, key(0), token, request, out));
        token
    }

    fn answer(&self, token: Token) -> Option<&GroupResponse> {
        let mut answers = self.bench.group_answers.iter().filter(|(other, _)| *other == token);
        let answer = answers.next().map(|(_, response)| response);
        assert!(answers.next().is_none(), "answered once");
        answer
    }

    fn commit(&mut self, offset: i64) -> Token {
        self.commit_with(offset, String::new())
    }

    fn commit_with(&mut self, offset: i64, metadata: String) -> Token {
        self.ask(GroupRequest::CommitOffsets(CommitOffsets {
            group_id: "simple".into(),
            generation_or_epoch: -1,
            member_id: String::new(),
            instance_id: None,
            retention_ms: None,
            knows_epochs: true,
            offsets: vec![OffsetToCommit {
                topic: "t".into(),
                topic_id: TopicId::ZERO,
                partition: PartitionIndex(0),
                offset: Offset(offset),
                leader_epoch: None,
                metadata,
            }],
        }))
    }

    fn committed(&mut self) -> Option<i64> {
        let topics = Some(vec![("t".into(), vec![PartitionIndex(0)])]);
        let request = FetchOffsets { group_id: "simple".into(), member: None, topics };
        let token = self.ask(GroupRequest::FetchOffsets(request));
        match self.answer(token) {
            Some(GroupResponse::FetchOffsets(Ok(found))) => {
                found[0].committed.as_ref().map(|(offset, ..)| offset.get())
            }
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self) -> Token {
        self.ask(GroupRequest::Join(JoinGroup {
            group_id: "group".into(),
            client: Client::default(),
            member_id: String::new(),
            instance_id: None,
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), bytes::Bytes::new())],
            fresh_id: [7; 16],
            knows_member_id_required: false,
            knows_skip_assignment: false,
        }))
    }

    fn heartbeat(&mut self, member_id: &str) -> Result<(), GroupError> {
        let token = self.ask(GroupRequest::Heartbeat(Heartbeat {
            group_id: "group".into(),
            generation: 1,
            member_id: member_id.to_owned(),
            instance_id: None,
        }));
        match self.answer(token) {
            Some(GroupResponse::Heartbeat(outcome)) => outcome.clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn refused_commit(answer: Option<&GroupResponse>) -> Option<GroupError> {
    match answer {
        Some(GroupResponse::CommitOffsets(Err(error))) => Some(error.clone()),
        Some(GroupResponse::CommitOffsets(Ok(_))) | None => None,
        other => panic!("{other:?}"),
    }
}

fn is_done(answer: Option<&GroupResponse>) -> bool {
    matches!(answer, Some(GroupResponse::CommitOffsets(Ok(_))))
}

#[test]
fn an_answer_that_rests_on_records_waits_until_they_are_committed() {
    let mut scene = Scene::new();
    scene.bench.holds_commits = true;
    let first = scene.commit(1);
    let second = scene.commit(2);
    assert_eq!((scene.answer(first), scene.answer(second)), (None, None));
    scene.bench.release_commits();
    assert!(is_done(scene.answer(first)) && is_done(scene.answer(second)));
    assert_eq!(scene.committed(), Some(2));
}

#[test]
fn a_commit_that_takes_too_long_is_told_to_be_tried_again_and_counts_when_it_is_done() {
    let mut scene = Scene::new();
    scene.bench.holds_commits = true;
    let late = scene.commit(1);
    scene.bench.pass_millis(4_999);
    assert_eq!(scene.answer(late), None);
    scene.bench.pass_millis(1);
    assert_eq!(refused_commit(scene.answer(late)), Some(GroupError::NotAvailable));
    scene.bench.release_commits();
    assert_eq!(scene.committed(), Some(1));
}

#[test]
fn a_coordinator_ends_with_its_epoch_and_the_next_one_reads_what_it_wrote() {
    let mut scene = Scene::new();
    for offset in 0..50 {
        scene.commit(offset);
    }
    let joins = scene.join();
    scene.bench.holds_commits = true;
    let held = scene.commit(50);
    scene.assign(2, ME, &[1], &[1]);
    assert_eq!(refused_commit(scene.answer(held)), Some(GroupError::NotCoordinator));
    assert!(scene.answer(joins).is_some(), "nobody waits for a coordinator that is none");
    let early = scene.commit(99);
    assert_eq!(refused_commit(scene.answer(early)), Some(GroupError::LoadInProgress));
    scene.load();
    scene.bench.release_commits();
    assert_eq!(scene.committed(), Some(50), "it was in the log");
    let again = scene.commit(51);
    assert!(is_done(scene.answer(again)));
}

#[test]
fn a_coordinator_reads_segments_too() {
    let mut scene = Scene::new();
    for offset in 0..50 {
        scene.commit(offset);
    }
    scene.bench.pass_millis(60_000);
    scene.assign(2, ME, &[1], &[1]);
    scene.load();
    assert!(scene.reads > 0, "memory has nothing of it any more");
    assert_eq!(scene.committed(), Some(49));
}

#[test]
fn who_does_not_lead_coordinates_nothing() {
    let mut scene = Scene::new();
    scene.assign(2, NodeId(2), &[2, 1], &[2, 1]);
    let token = scene.commit(1);
    assert_eq!(refused_commit(scene.answer(token)), Some(GroupError::NotCoordinator));
    assert!(scene.bench.loads.is_empty());
}

#[test]
fn while_too_few_are_in_sync_members_stay_and_nothing_is_taken() {
    let config = PartitionConfig { min_insync_replicas: 2, ..PartitionConfig::default() };
    let mut scene = Scene::new();
    let joins = scene.join();
    scene.bench.pass_millis(1);
    let member_id = match scene.answer(joins) {
        Some(GroupResponse::Join(Ok(joined))) => joined.member_id.clone(),
        other => panic!("{other:?}"),
    };
    scene.ask(GroupRequest::Sync(SyncGroup {
        group_id: "group".into(),
        generation: 1,
        member_id: member_id.clone(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    }));
    scene.config = config;
    scene.assign(1, ME, &[1, 2], &[1]);
    let token = scene.commit(1);
    assert_eq!(refused_commit(scene.answer(token)), Some(GroupError::NotAvailable));
    assert_eq!(scene.heartbeat(&member_id), Ok(()));
    // Its session would be over: what is told of that could not be appended.
    scene.bench.pass_millis(9_000);
    scene.bench.pass_millis(9_000);
    scene.config = PartitionConfig::default();
    scene.assign(1, ME, &[1], &[1]);
    scene.bench.pass_millis(500);
    assert_eq!(scene.heartbeat(&member_id), Ok(()), "sessions begin anew");
    let token = scene.commit(2);
    assert!(is_done(scene.answer(token)));
}

#[test]
fn requests_wait_while_the_log_has_no_room_and_are_served_in_order() {
    let mut scene = Scene::with(Bench::small_wal(), PartitionConfig::default());
    scene.bench.holds_commits = true;
    let tokens: Vec<Token> =
        (0..40).map(|offset| scene.commit_with(offset, "x".repeat(2_000))).collect();
    assert!(tokens.iter().all(|token| scene.answer(*token).is_none()));
    assert!(!scene.bench.machine.coordinators.waiting.is_empty(), "the log is full");
    scene.bench.release_commits();
    assert!(tokens.iter().all(|token| is_done(scene.answer(*token))));
    assert_eq!(scene.committed(), Some(39));
}

#[test]
fn who_waits_for_room_is_not_served_by_the_next_coordinator() {
    let ends: [fn(&mut Scene); 2] = [
        |scene| scene.assign(2, NodeId(2), &[2, 1], &[2, 1]),
        |scene| scene.bench.act(|machine, now, out| machine.close_partition(now, key(0), out)),
    ];
    for end in ends {
        let mut scene = Scene::with(Bench::small_wal(), PartitionConfig::default());
        scene.bench.holds_commits = true;
        let tokens: Vec<Token> =
            (0..40).map(|offset| scene.commit_with(offset, "x".repeat(2_000))).collect();
        assert!(!scene.bench.machine.coordinators.waiting.is_empty(), "the log is full");
        end(&mut scene);
        assert!(scene.bench.machine.coordinators.waiting.is_empty());
        let told = |token: &Token| refused_commit(scene.answer(*token));
        assert!(tokens.iter().all(|token| told(token) == Some(GroupError::NotCoordinator)));
    }
}

#[test]
fn what_is_not_appended_is_not_known_either() {
    let config = PartitionConfig { max_message_bytes: 500, ..PartitionConfig::default() };
    let mut scene = Scene::with(ShardLimits::default(), config);
    let token = scene.commit(1);
    assert!(is_done(scene.answer(token)));
    let large = scene.commit_with(2, "x".repeat(1_000));
    let refused = refused_commit(scene.answer(large));
    assert!(matches!(refused, Some(GroupError::GroupTooLarge { .. })), "{refused:?}");
    assert_eq!(scene.bench.group_failures.len(), 1);
    scene.load();
    assert_eq!(scene.committed(), Some(1));
}

#[test]
fn a_log_that_cannot_be_read_is_said_so_and_not_guessed() {
    let mut scene = Scene::new();
    let mut batch = BatchBuilder::new(Codec::None);
    batch.push(scene.bench.now.wall, Some(&[0, 2, 0]), None, &[]);
    scene.bench.send(Acks::All, 0, batch.build());
    scene.assign(2, ME, &[1], &[1]);
    scene.load();
    assert_eq!(scene.bench.group_failures.len(), 1);
    let token = scene.commit(1);
    assert_eq!(refused_commit(scene.answer(token)), Some(GroupError::NotAvailable));
}

#[test]
fn records_of_other_kinds_are_passed_over() {
    let mut scene = Scene::new();
    scene.commit(1);
    let mut batch = BatchBuilder::new(Codec::None);
    batch.push(scene.bench.now.wall, Some(&[0, 99, 0]), None, &[]);
    scene.bench.send(Acks::All, 0, batch.build());
    scene.assign(2, ME, &[1], &[1]);
    scene.load();
    assert_eq!(scene.committed(), Some(1));
}

#[test]
fn a_stop_answers_everybody() {
    let mut scene = Scene::new();
    scene.bench.holds_commits = true;
    let tokens = [scene.join(), scene.commit(1)];
    scene.bench.act(|machine, now, out| machine.stop(now, out));
    assert!(tokens.iter().all(|token| scene.answer(*token).is_some()));
    let late = scene.commit(2);
    assert_eq!(refused_commit(scene.answer(late)), Some(GroupError::NotCoordinator));
}

#[test]
fn offsets_of_deleted_topics_are_forgotten() {
    let mut scene = Scene::new();
    scene.commit(1);
    scene.bench.act(|machine, now, out| machine.group_topic_changed(now, 2, "t", None, out));
    assert_eq!(scene.committed(), None);
}
