mod cluster;
mod simulation;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chronik_shards::format::metadata_command::{
    AllocateProducerIds, CreateTopic, DeleteTopic, MetadataCommand,
};
use chronik_shards::machine::metadata::{ApplyOutcome, MetadataImage, Rejection, assign};
use chronik_shards::model::{LeaderEpoch, NodeId, PartitionIndex, ProducerId, ReplicaKey, TopicId};
use crossbeam::channel::{Receiver, bounded, unbounded};
use tempfile::TempDir;

use super::*;

const NODE: NodeId = NodeId(1);

fn config(data: &Path) -> ControlConfig {
    ControlConfig {
        directory: data.join("raft"),
        node_id: NODE,
        shards: 2,
        advertised_host: "localhost".to_owned(),
        advertised_port: 9092,
        rack: None,
        identity: NodeIdentity {
            cluster_id: Some(TopicId([3; 16]).to_string()),
            node_id: NODE,
            directory_id: [4; 16],
        },
        cluster: None,
        accept_data_loss: false,
        compaction: CompactionPolicy::default(),
    }
}

fn create(name: &str, id: u8, partitions: usize) -> MetadataCommand {
    MetadataCommand::CreateTopic(CreateTopic {
        name: name.to_owned(),
        topic_id: TopicId([id; 16]),
        partitions: assign(0, partitions, 1, &[NODE]).unwrap(),
        configs: Vec::new(),
    })
}

fn delete(id: u8) -> MetadataCommand {
    MetadataCommand::DeleteTopic(DeleteTopic { topic_id: TopicId([id; 16]) })
}

fn names(image: &MetadataImage) -> Vec<&str> {
    image.topics().map(|topic| topic.name.as_str()).collect()
}

/// What a crash at this moment leaves: the files as they are, while the process still runs.
fn crash(data: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("raft")).unwrap();
    for file in fs::read_dir(data.join("raft")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("raft").join(file.file_name())).unwrap();
    }
    copy
}

/// The log file that is being written.
fn last_log(data: &Path) -> PathBuf {
    let mut logs: Vec<PathBuf> = fs::read_dir(data.join("raft"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "raftlog"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

/// Every command that a shard subscribed after `after` is handed.
fn subscribe(handle: &ControlHandle, after: u64) -> Receiver<Arc<CommittedCommand>> {
    let (queue, commands) = unbounded();
    let sink = move |update| match update {
        MetadataUpdate::Command(command) => queue.send(command).unwrap(),
        MetadataUpdate::Image(_) => panic!("the commands after {after} are compacted"),
        MetadataUpdate::Controller(_) => {}
    };
    handle.subscribe(after, Box::new(sink)).unwrap();
    commands
}

/// Whether who subscribes after `after` is handed an image instead of commands.
fn gets_an_image(handle: &ControlHandle, after: u64) -> bool {
    let (queue, updates) = unbounded();
    handle.subscribe(after, Box::new(move |update| drop(queue.send(update)))).unwrap();
    matches!(updates.try_recv(), Ok(MetadataUpdate::Image(_)))
}

#[test]
fn what_was_answered_survives_an_orderly_restart() {
    let data = tempfile::tempdir().unwrap();
    let first = start(config(data.path())).unwrap();
    first.handle.propose_and_wait(&create("a", 1, 3)).unwrap();
    first.handle.propose_and_wait(&create("b", 2, 1)).unwrap();
    first.handle.propose_and_wait(&delete(2)).unwrap();
    first.thread.stop();

    let second = start(config(data.path())).unwrap();
    assert_eq!(names(&second.image), ["a"]);
    assert_eq!(second.image.deleted_topics().collect::<Vec<_>>(), [TopicId([2; 16])]);
    second.thread.stop();
}

#[test]
fn what_was_answered_survives_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    for id in 1..=5 {
        running.handle.propose_and_wait(&create(&format!("t{id}"), id, 2)).unwrap();
        let copy = crash(data.path());
        let restarted = start(config(copy.path())).unwrap();
        assert_eq!(restarted.image.topic_count(), usize::from(id));
        restarted.thread.stop();
    }
    running.thread.stop();
}

/// A copy of the directory after "a" and "b" were answered, cut in the middle of the record of "b";
/// and the file that says how far was committed, as it was before "b".
fn cut_within_the_last_command() -> (TempDir, Vec<u8>) {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    running.handle.propose_and_wait(&create("a", 1, 1)).unwrap();
    let before = fs::read(last_log(data.path())).unwrap();
    let committed = fs::read(data.path().join("raft/committed")).unwrap();
    running.handle.propose_and_wait(&create("b", 2, 1)).unwrap();
    let copy = crash(data.path());
    running.thread.stop();

    // The file may be preallocated: the record of "b" is where the bytes begin to differ.
    let log = last_log(copy.path());
    let mut bytes = fs::read(&log).unwrap();
    let starts = before.iter().zip(&bytes).position(|(old, new)| old != new);
    let starts = starts.unwrap_or(before.len());
    let ends = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(starts + (ends - starts) / 2);
    fs::write(&log, bytes).unwrap();
    (copy, committed)
}

#[test]
fn a_torn_write_that_nobody_was_told_of_is_dropped_and_earlier_commands_survive() {
    let (copy, committed_before) = cut_within_the_last_command();
    fs::write(copy.path().join("raft/committed"), committed_before).unwrap();
    let restarted = start(config(copy.path())).unwrap();
    assert_eq!(names(&restarted.image), ["a"]);
    restarted.handle.propose_and_wait(&create("c", 3, 1)).unwrap();
    restarted.thread.stop();
}

#[test]
fn a_log_that_lost_what_was_answered_is_refused_unless_loss_is_accepted() {
    let (copy, _) = cut_within_the_last_command();
    let refused = start(config(copy.path())).err().unwrap();
    assert!(matches!(refused, ControlStartError::Log(LogError::Damaged { .. })), "{refused}");
    let accepting = ControlConfig { accept_data_loss: true, ..config(copy.path()) };
    let restarted = start(accepting).unwrap();
    assert_eq!(names(&restarted.image), ["a"]);
    restarted.thread.stop();
    start(config(copy.path())).unwrap().thread.stop();
}

#[test]
fn a_log_without_the_file_that_says_how_far_it_was_committed_is_refused() {
    let data = tempfile::tempdir().unwrap();
    start(config(data.path())).unwrap().thread.stop();
    fs::remove_file(data.path().join("raft/committed")).unwrap();
    let refused = start(config(data.path())).err().unwrap();
    assert!(matches!(refused, ControlStartError::Log(LogError::Damaged { .. })), "{refused}");
}

#[test]
fn a_removed_log_is_refused_when_something_was_committed() {
    let data = tempfile::tempdir().unwrap();
    start(config(data.path())).unwrap().thread.stop();
    fs::remove_file(last_log(data.path())).unwrap();
    let refused = start(config(data.path())).err().unwrap();
    assert!(matches!(refused, ControlStartError::Log(LogError::Damaged { .. })), "{refused}");
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_never_loses_an_answered_command_silently() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    for id in 1..=4 {
        running.handle.propose_and_wait(&create(&format!("t{id}"), id, 1)).unwrap();
    }
    let copy = crash(data.path());
    running.thread.stop();
    let log = last_log(copy.path());
    let whole = fs::read(&log).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refused = 0;
    for at in (0..used).step_by(23) {
        let attempt = crash(copy.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(last_log(attempt.path()), bytes).unwrap();
        match start(config(attempt.path())) {
            Ok(restarted) => {
                assert_eq!(restarted.image.topic_count(), 4, "byte {at}");
                restarted.thread.stop();
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0, "or the bits were not looked at");
}

#[test]
fn every_start_is_a_new_incarnation_with_new_leader_epochs() {
    let data = tempfile::tempdir().unwrap();
    let key = ReplicaKey { topic_id: TopicId([1; 16]), partition: PartitionIndex(0) };
    let mut incarnation = None;
    for restarts in 0..4 {
        let running = start(config(data.path())).unwrap();
        assert!(Some(running.broker_epoch) > incarnation);
        assert_eq!(running.image.broker(NODE).unwrap().epoch, running.broker_epoch);
        incarnation = Some(running.broker_epoch);
        match running.image.partition(key) {
            Some(partition) => assert_eq!(partition.leader_epoch, LeaderEpoch(restarts)),
            None => drop(running.handle.propose_and_wait(&create("a", 1, 1)).unwrap()),
        }
        running.thread.stop();
    }
}

#[test]
fn a_compacted_log_restarts_from_its_snapshot() {
    let data = tempfile::tempdir().unwrap();
    let policy = CompactionPolicy { entries: 5, bytes: usize::MAX, kept_entries: 2 };
    let config = ControlConfig { compaction: policy, ..config(data.path()) };
    let running = start(config.clone()).unwrap();
    for id in 1..=23 {
        running.handle.propose_and_wait(&create(&format!("t{id}"), id, 1)).unwrap();
        let copy = crash(data.path());
        let copied = ControlConfig { directory: copy.path().join("raft"), ..config.clone() };
        let restarted = start(copied).unwrap();
        assert_eq!(restarted.image.topic_count(), usize::from(id));
        restarted.image.check_invariants();
        restarted.handle.propose_and_wait(&delete(id)).unwrap();
        restarted.thread.stop();
    }
    assert!(gets_an_image(&running.handle, 1), "or nothing was compacted");
    running.thread.stop();
    let restarted = start(config).unwrap();
    assert_eq!(restarted.image.topic_count(), 23);
    restarted.thread.stop();
}

#[test]
fn a_log_is_compacted_when_its_bytes_exceed_their_bound() {
    let data = tempfile::tempdir().unwrap();
    let policy = CompactionPolicy { entries: usize::MAX, bytes: 1, kept_entries: 0 };
    let config = ControlConfig { compaction: policy, ..config(data.path()) };
    let running = start(config.clone()).unwrap();
    let before = running.image.applied();
    running.handle.propose_and_wait(&create("a", 1, 1)).unwrap();
    assert!(gets_an_image(&running.handle, before));
    running.thread.stop();
    let restarted = start(config).unwrap();
    assert_eq!(names(&restarted.image), ["a"]);
    restarted.thread.stop();
}

#[test]
fn every_shard_has_a_command_before_its_proposer_has_the_answer() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    let shards: Vec<_> =
        (0..3).map(|_| subscribe(&running.handle, running.image.applied())).collect();
    let (answer, answered) = bounded(1);
    let queues: Vec<_> = shards.clone();
    let reply = move |result| {
        let lengths: Vec<usize> = queues.iter().map(Receiver::len).collect();
        answer.send((result, lengths)).unwrap();
    };
    running.handle.propose(&create("a", 1, 1), Box::new(reply)).unwrap();
    let (result, lengths) = answered.recv().unwrap();
    assert_eq!(result, Ok(ApplyOutcome::TopicCreated { topic_id: TopicId([1; 16]) }));
    assert_eq!(lengths, [1, 1, 1]);
    running.thread.stop();
}

#[test]
fn shards_that_apply_what_they_are_handed_end_with_equal_images() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    let early = subscribe(&running.handle, running.image.applied());
    for id in 1..=20 {
        running.handle.propose(&create(&format!("t{}", id % 7), id, 1), Box::new(|_| {})).unwrap();
        running.handle.propose(&delete(id / 2), Box::new(|_| {})).unwrap();
    }
    // Subscribes in the middle, from the same starting image: gets what it missed first.
    let late = subscribe(&running.handle, running.image.applied());
    running.handle.propose_and_wait(&create("last", 99, 1)).unwrap();
    running.thread.stop();

    let replay = |commands: Receiver<Arc<CommittedCommand>>| {
        let mut image = running.image.clone();
        for command in commands {
            assert!(command.index > image.applied(), "in order, each once");
            let _ = image.apply(command.index, &command.command);
        }
        image
    };
    let image = replay(early);
    assert_eq!(image, replay(late));
    let restarted = start(config(data.path())).unwrap();
    assert_eq!(names(&image), names(&restarted.image));
    restarted.thread.stop();
}

#[test]
fn a_rejected_command_is_answered_with_its_reason() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    running.handle.propose_and_wait(&create("a", 1, 1)).unwrap();
    let exists = Rejection::TopicExists { name: "a".into(), topic_id: TopicId([1; 16]) };
    assert_eq!(
        running.handle.propose_and_wait(&create("a", 2, 1)),
        Err(ControlError::Rejected(exists))
    );
    running.thread.stop();
}

#[test]
fn producer_ids_are_not_given_out_again_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let running = start(config(data.path())).unwrap();
        let broker_epoch = running.broker_epoch;
        let command = AllocateProducerIds { node_id: NODE, broker_epoch };
        let first = ProducerId(round * 1000);
        assert_eq!(
            running.handle.propose_and_wait(&MetadataCommand::AllocateProducerIds(command)),
            Ok(ApplyOutcome::ProducerIds { first, count: 1000 })
        );
        running.thread.stop();
    }
}

#[test]
fn a_full_queue_refuses_and_answers_everyone() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    let (entered, inside) = bounded(1);
    let (release, released) = bounded::<()>(1);
    // Holds the control thread within this reply, so that the queue fills.
    let hold = move |_| {
        entered.send(()).unwrap();
        released.recv().unwrap();
    };
    running.handle.propose(&create("a", 1, 1), Box::new(hold)).unwrap();
    inside.recv().unwrap();
    let (answer, answers) = unbounded();
    let mut refused = Vec::new();
    for _ in 0..PROPOSALS_MAX + 7 {
        let answer = answer.clone();
        let reply = move |result| answer.send(result).unwrap();
        refused.extend(running.handle.propose(&delete(200), Box::new(reply)).err());
    }
    assert_eq!(refused, vec![ControlError::Busy; 7]);
    assert!(answers.is_empty(), "who is refused is told at once and not again");
    release.send(()).unwrap();
    drop(answer);
    let unknown = Err(ControlError::Rejected(Rejection::UnknownTopic(TopicId([200; 16]))));
    assert_eq!(answers.iter().collect::<Vec<_>>(), vec![unknown; PROPOSALS_MAX]);
    running.thread.stop();
}

#[test]
fn after_the_stop_every_proposal_is_answered_with_stopped() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    let handle = running.handle.clone();
    running.thread.stop();
    assert_eq!(handle.propose_and_wait(&delete(1)), Err(ControlError::Stopped));
    assert_eq!(handle.subscribe(0, Box::new(|_| {})), Err(ControlError::Stopped));
}

#[test]
fn proposals_queued_before_the_stop_are_committed_and_answered() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    let (answer, answers) = unbounded();
    for id in 1..=50 {
        let answer = answer.clone();
        let reply = move |result: Result<_, _>| answer.send(result.is_ok()).unwrap();
        running.handle.propose(&create(&format!("t{id}"), id, 1), Box::new(reply)).unwrap();
    }
    drop(answer);
    running.thread.stop();
    assert_eq!(answers.iter().collect::<Vec<_>>(), vec![true; 50]);
    let restarted = start(config(data.path())).unwrap();
    assert_eq!(restarted.image.topic_count(), 50);
    restarted.thread.stop();
}

#[test]
fn a_command_beyond_the_bound_is_refused_before_it_is_proposed() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    let refused = running.handle.propose_and_wait(&create(&"x".repeat(COMMAND_BYTES_MAX), 1, 1));
    assert!(matches!(refused, Err(ControlError::TooLarge(_))));
    running.thread.stop();
}

#[test]
fn a_second_control_plane_on_one_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path())).unwrap();
    assert!(matches!(start(config(data.path())), Err(ControlStartError::Log(_))));
    running.thread.stop();
}

#[test]
fn an_identity_is_given_once_and_checked_ever_after() {
    let data = tempfile::tempdir().unwrap();
    let given = NodeIdentity::establish(data.path(), NODE, Founding::Alone).unwrap();
    assert!(given.cluster_id_bytes().is_some());
    assert_eq!(NodeIdentity::establish(data.path(), NODE, Founding::Alone).unwrap(), given);
    let other = NodeIdentity::establish(data.path(), NodeId(2), Founding::Alone).unwrap_err();
    assert!(matches!(other, IdentityError::OtherNode { found: 1, expected: NodeId(2), .. }));
    assert!(!data.path().join("node.toml.new").exists());
}

#[test]
fn an_identity_that_is_damaged_or_of_another_release_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let given = NodeIdentity::establish(data.path(), NODE, Founding::Alone).unwrap();
    let id = given.cluster_id.unwrap();
    let establish = |text: &str| {
        fs::write(data.path().join("node.toml"), text).unwrap();
        NodeIdentity::establish(data.path(), NODE, Founding::Alone).unwrap_err()
    };
    let newer = establish("format_version = 2\nwhatever = 3\n");
    assert!(matches!(newer, IdentityError::FormatVersion { found: 2, .. }));
    for text in [
        String::new(),
        "format_version =".to_owned(),
        "format_version = 1\nnode_id = 1\ncluster_id = \"x\"\n".to_owned(),
        format!("format_version = 1\ncluster_id = \"{id}\"\n"),
        format!("format_version = 1\nnode_id = 1\ncluster_id = \"{id}\"\nmore = 1\n"),
    ] {
        assert!(matches!(establish(&text), IdentityError::Damaged { .. }), "{text}");
    }
}

#[test]
fn a_directory_with_data_and_without_identity_is_refused() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("topics")).unwrap();
    let refused = NodeIdentity::establish(data.path(), NODE, Founding::Alone).unwrap_err();
    assert!(matches!(refused, IdentityError::Orphaned(_)));
}

#[test]
fn topic_ids_are_random_version_4_and_never_look_like_an_option() {
    let ids: std::collections::BTreeSet<TopicId> =
        (0..500).map(|_| random_topic_id().unwrap()).collect();
    assert_eq!(ids.len(), 500);
    for id in ids {
        assert_eq!((id.0[6] >> 4, id.0[8] >> 6), (4, 2));
        assert!(!id.to_string().starts_with('-'));
    }
}
