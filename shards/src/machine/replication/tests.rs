//! What three shards do together.

mod cluster;

use self::cluster::{CLUSTER, Cluster, End, LIMITS, id};

use super::PeerEffect;
use crate::format::peer_frame::{
    Append, ClusterId, Hello, PeerFrame, Refusal, StreamFailure, StreamId,
};
use crate::machine::input::{FetchError, ProduceError};
use crate::machine::replica::ReplicaAssignment;
use crate::machine::testing::{batch, cached, idempotent, key};
use crate::model::{Acks, BrokerEpoch, LeaderEpoch, Offset, ShardId};

#[test]
fn acks_all_is_answered_when_every_replica_in_sync_has_it_durably() {
    let mut cluster = Cluster::led_by_0();
    cluster.nodes[2].holds_commits = true;
    let token = cluster.send(0, Acks::All);
    let alone = cluster.send(0, Acks::Leader);
    assert_eq!(cluster.outcome(0, token), None, "node 2 has it in memory only");
    assert_eq!(cluster.outcome(0, alone), Some(Ok(2)), "the leader has it");
    assert_eq!(cluster.ends(), [4, 4, 4]);
    cluster.nodes[2].release_commits();
    cluster.carry();
    assert_eq!(cluster.outcome(0, token), Some(Ok(0)));
    assert_eq!(cluster.high_watermarks()[0], 4);
}

#[test]
fn followers_get_records_before_the_leaders_own_disk_has_them() {
    let mut cluster = Cluster::led_by_0();
    cluster.nodes[0].holds_commits = true;
    let token = cluster.send(0, Acks::All);
    assert_eq!(cluster.ends(), [2, 2, 2]);
    assert_eq!(cluster.outcome(0, token), None, "the leader is a replica, too");
    cluster.nodes[0].release_commits();
    cluster.carry();
    assert_eq!(cluster.outcome(0, token), Some(Ok(0)));
}

#[test]
fn a_follower_serves_what_it_knows_to_be_readable() {
    let mut cluster = Cluster::led_by_0();
    cluster.send(0, Acks::All);
    assert_eq!(cluster.high_watermarks(), [2, 0, 0], "nothing to ride with yet");
    let ahead = cluster.nodes[1].fetch(2).unwrap_err();
    let (offset, high_watermark) = (Offset(2), Offset(0));
    assert_eq!(ahead, FetchError::OffsetNotAvailable { offset, high_watermark });
    cluster.pass_millis(3);
    assert_eq!(cluster.high_watermarks(), [2, 2, 2]);
    assert_eq!(cached(&cluster.nodes[1].fetch(0).expect("readable").data), [0]);
}

#[test]
fn only_the_leader_takes_records_and_deletes_them() {
    let mut cluster = Cluster::led_by_0();
    let token = cluster.send(1, Acks::Leader);
    let (leader, leader_epoch) = (Some(id(0)), LeaderEpoch(1));
    let error = ProduceError::NotLeader { key: key(0), leader, leader_epoch };
    assert_eq!(cluster.outcome(1, token), Some(Err(error)));
    let error = cluster.nodes[1].delete_records(None).unwrap_err();
    assert_eq!(error, FetchError::NotLeader { key: key(0), leader, leader_epoch });
}

#[test]
fn older_metadata_changes_nothing() {
    let mut cluster = Cluster::led_by_0();
    let older = ReplicaAssignment { metadata_index: 1, ..cluster.assignment(1, 9, 9, &[1]) };
    cluster.tell(0, &older);
    assert!(cluster.standing(0).leads);
    cluster.metadata_index += 1;
    let older = cluster.assignment(1, 0, 9, &[1]);
    cluster.tell(0, &older);
    assert!(cluster.standing(0).leads, "an older epoch under a newer index");
}

#[test]
fn too_few_in_sync_refuse_before_the_append_and_after_it() {
    let mut cluster = Cluster::led_by_0();
    cluster.cut = vec![1, 2];
    let token = cluster.send(0, Acks::All);
    cluster.assign_all(0, 1, 2, &[0]);
    let after = ProduceError::NotEnoughReplicasAfterAppend { in_sync: 1, required: 2 };
    assert_eq!(cluster.outcome(0, token), Some(Err(after)));
    assert_eq!(cluster.high_watermarks()[0], 0, "below min.insync.replicas nothing moves");
    let token = cluster.send(0, Acks::All);
    let before = ProduceError::NotEnoughReplicas { in_sync: 1, required: 2 };
    assert_eq!(cluster.outcome(0, token), Some(Err(before)));
}

#[test]
fn a_node_that_is_about_to_stop_waits_for_its_own_disk_and_for_no_other() {
    let mut cluster = Cluster::led_by_0();
    cluster.cut = vec![2];
    cluster.nodes[0].holds_commits = true;
    let waits = cluster.send(0, Acks::All);
    let own = cluster.send(0, Acks::Leader);
    cluster.nodes[0].act(|machine, now, out| machine.wind_down(now, out));
    assert_eq!(cluster.outcome(0, waits), Some(Err(ProduceError::Stopping)));
    let late = cluster.send(0, Acks::All);
    assert_eq!(cluster.outcome(0, late), Some(Err(ProduceError::Stopping)));
    let late = cluster.send(0, Acks::Leader);
    cluster.nodes[0].release_commits();
    assert_eq!(cluster.outcome(0, own), Some(Ok(2)));
    assert_eq!(cluster.outcome(0, late), Some(Ok(4)), "what was refused is not in the log");

    // Alone in sync it decides for itself.
    let mut cluster = Cluster::led_by_0();
    cluster.config.min_insync_replicas = 1;
    cluster.assign_all(0, 1, 2, &[0]);
    cluster.nodes[0].act(|machine, now, out| machine.wind_down(now, out));
    let token = cluster.send(0, Acks::All);
    assert_eq!(cluster.outcome(0, token), Some(Ok(0)));
}

#[test]
fn who_has_stopped_writes_nothing_of_what_peers_still_send() {
    let mut cluster = Cluster::led_by_0();
    cluster.send(0, Acks::All);
    cluster.nodes[1].act(|machine, now, out| machine.stop(now, out));
    let token = cluster.send(0, Acks::All);
    let (mut out, now) = (Vec::new(), cluster.nodes[1].now);
    let commit = cluster.nodes[1].machine.next_commit(now, &mut out);
    assert!(commit.is_none(), "{commit:?}");
    assert_eq!(cluster.standing(1).durable_end, Offset(2));
    assert_eq!(cluster.outcome(0, token), None, "node 1 has not got it");
}

#[test]
fn a_peer_that_no_partition_has_a_replica_on_is_not_dialled_until_one_has() {
    let mut cluster = Cluster::led_by_0();
    cluster.cut = vec![2];
    cluster.pass_millis(LIMITS.peer_timeout_ms + LIMITS.reconnect_ms_max);
    cluster.dialled.clear();
    cluster.pass_millis(1000);
    assert!(cluster.dialled.contains(&(0, 2)), "it may come back");

    cluster.metadata_index += 1;
    let mut elsewhere = cluster.assignment(0, 1, 2, &[0, 1]);
    elsewhere.replicas.truncate(2);
    cluster.tell(0, &elsewhere);
    cluster.pass_millis(LIMITS.reconnect_ms_max);
    cluster.dialled.clear();
    cluster.pass_millis(1000);
    assert_eq!(cluster.dialled, [], "it was taken off");

    cluster.cut.clear();
    cluster.assign_all(0, 1, 3, &[0, 1]);
    cluster.pass_millis(1);
    assert_eq!(cluster.dialled, [(0, 2)]);
    cluster.send(0, Acks::All);
    assert_eq!(cluster.ends(), [2, 2, 2]);
}

#[test]
fn who_lost_the_leadership_refuses_what_waits() {
    let mut cluster = Cluster::led_by_0();
    cluster.cut = vec![1, 2];
    let token = cluster.send(0, Acks::All);
    cluster.assign_all(1, 2, 2, &[1, 2]);
    let (leader, leader_epoch) = (Some(id(1)), LeaderEpoch(2));
    let error = ProduceError::NotLeader { key: key(0), leader, leader_epoch };
    assert_eq!(cluster.outcome(0, token), Some(Err(error)));
}

#[test]
fn a_deposed_leader_is_cut_back_to_the_new_one_and_its_producers_too() {
    let mut cluster = Cluster::led_by_0();
    cluster.send(0, Acks::All);
    cluster.cut = vec![1, 2];
    // Node 0 alone has a batch that producer 5 will send again.
    cluster.nodes[0].send(Acks::Leader, 0, idempotent(5, 0, 0, 3));
    assert_eq!(cluster.standing(0).log_end_offset, Offset(5));
    cluster.frames.clear();
    cluster.cut.clear();
    cluster.assign_all(1, 2, 2, &[0, 1, 2]);
    cluster.pass_millis(50);
    assert_eq!(cluster.ends(), [2, 2, 2]);
    let token = cluster.nodes[1].send(Acks::All, 0, idempotent(5, 0, 0, 3));
    cluster.pass_millis(10);
    assert_eq!(cluster.outcome(1, token), Some(Ok(2)), "it is no duplicate");
    assert_eq!(cluster.ends(), [5, 5, 5]);
    // As leader again, node 0 knows the producer as of the log that it has now.
    cluster.assign_all(0, 3, 3, &[0, 1, 2]);
    cluster.pass_millis(50);
    let token = cluster.nodes[0].send(Acks::All, 0, idempotent(5, 0, 3, 1));
    cluster.pass_millis(10);
    assert_eq!(cluster.outcome(0, token), Some(Ok(5)));
}

#[test]
fn a_cut_waits_until_nothing_is_on_its_way_to_the_disk() {
    let mut cluster = Cluster::led_by_0();
    cluster.cut = vec![1, 2];
    cluster.nodes[0].holds_commits = true;
    cluster.nodes[0].send(Acks::Leader, 0, batch(3, 100));
    cluster.frames.clear();
    cluster.cut.clear();
    cluster.assign_all(1, 2, 2, &[1, 2]);
    cluster.pass_millis(10);
    assert_eq!(cluster.standing(0).log_end_offset, Offset(3), "its end is not durable yet");
    cluster.nodes[0].release_commits();
    cluster.carry();
    assert_eq!(cluster.standing(0).log_end_offset, Offset(0));
}

#[test]
fn a_read_learns_that_segments_were_cut_while_it_was_under_way() {
    let mut cluster = Cluster::led_by_0();
    cluster.send(0, Acks::All);
    cluster.cut = vec![1, 2];
    cluster.nodes[0].send(Acks::Leader, 0, batch(3, 100));
    cluster.pass_millis(7000);
    let end = |cluster: &Cluster| cluster.nodes[0].machine.log_view(key(0)).unwrap().end_offset();
    let is_swapping = |cluster: &Cluster| cluster.nodes[0].machine.is_swapping(key(0));
    let has_changed_since =
        |cluster: &Cluster, end| cluster.nodes[0].machine.has_changed_since(key(0), end);
    let before = end(&cluster);
    assert_eq!(before, Some(Offset(5)), "it was brought to segments");
    assert!(!is_swapping(&cluster) && !has_changed_since(&cluster, before));

    cluster.nodes[0].holds_store = true;
    cluster.frames.clear();
    cluster.cut.clear();
    cluster.assign_all(1, 2, 2, &[1, 2]);
    cluster.pass_millis(LIMITS.peer_timeout_ms + LIMITS.reconnect_ms_max);
    assert_eq!(cluster.standing(0).log_end_offset, Offset(2));
    assert!(is_swapping(&cluster) && has_changed_since(&cluster, before), "files are being cut");
    cluster.nodes[0].release_store();
    cluster.carry();
    assert_eq!(end(&cluster), Some(Offset(2)));
    assert!(!is_swapping(&cluster) && has_changed_since(&cluster, before), "they are shorter");
    assert!(!has_changed_since(&cluster, Some(Offset(2))), "whoever looks again reads them");
}

#[test]
fn an_epoch_opens_where_the_metadata_has_not_come_yet() {
    let mut cluster = Cluster::new();
    cluster.metadata_index += 1;
    let assignment = cluster.assignment(0, 1, 1, &[0, 1, 2]);
    cluster.tell(0, &assignment);
    cluster.carry();
    let token = cluster.send(0, Acks::All);
    cluster.tell(1, &assignment);
    cluster.carry();
    assert_eq!(cluster.outcome(0, token), None);
    cluster.tell(2, &assignment);
    cluster.carry();
    assert_eq!(cluster.outcome(0, token), Some(Ok(0)));
}

#[test]
fn of_two_leaders_that_open_the_later_one_is_waited_for() {
    let mut cluster = Cluster::new();
    cluster.metadata_index += 1;
    let first = cluster.assignment(0, 1, 1, &[0, 1, 2]);
    cluster.metadata_index += 1;
    let second = cluster.assignment(1, 2, 2, &[0, 1, 2]);
    cluster.tell(1, &second);
    cluster.carry();
    // The deposed one opens last.
    cluster.tell(0, &first);
    cluster.carry();
    cluster.tell(2, &second);
    cluster.tell(0, &second);
    cluster.carry();
    let token = cluster.nodes[1].send(Acks::All, 0, batch(2, 100));
    cluster.carry();
    assert_eq!(cluster.outcome(1, token), Some(Ok(0)));
}

#[test]
fn who_is_beyond_the_window_catches_up_without_a_gap() {
    let mut cluster = Cluster::led_by_0();
    cluster.cut = vec![2];
    for _ in 0..60 {
        cluster.send(0, Acks::Leader);
    }
    assert_eq!(cluster.ends(), [120, 120, 0]);
    let waiting = cluster.frames.iter().filter(|(end, _)| end.0 == 2);
    let bytes = |(_, frame): &(End, PeerFrame)| frame.encode().concat().len() as u64;
    let waiting: u64 = waiting.map(bytes).sum();
    assert!(waiting <= LIMITS.window_bytes + LIMITS.frame_bytes_max as u64, "{waiting} bytes");
    cluster.cut.clear();
    cluster.carry();
    assert_eq!(cluster.ends(), [120, 120, 120]);
    cluster.pass_millis(3);
    assert_eq!(cluster.high_watermarks(), [120, 120, 120]);
}

#[test]
fn a_connection_that_is_lost_is_made_again_and_nothing_is_sent_twice() {
    let mut cluster = Cluster::led_by_0();
    cluster.send(0, Acks::All);
    let inbound = cluster.inbound_of(1);
    let link = cluster.peers[&inbound];
    for (node, connection) in [inbound, link] {
        cluster.peers.remove(&(node, connection));
        cluster.nodes[node].act(|machine, now, out| machine.peer_lost(now, connection, out));
    }
    let token = cluster.send(0, Acks::All);
    cluster.pass_millis(30);
    assert_eq!(cluster.outcome(0, token), Some(Ok(2)));
    assert_eq!(cluster.ends(), [4, 4, 4]);
}

#[test]
fn a_failed_stream_is_told_before_any_acknowledgement() {
    let mut cluster = Cluster::led_by_0();
    cluster.nodes[1].holds_commits = true;
    let token = cluster.send(0, Acks::All);
    // Node 1 hears of a new epoch first, and only then has the records durably.
    cluster.metadata_index += 1;
    let newer = cluster.assignment(2, 2, 2, &[1, 2]);
    cluster.tell(1, &newer);
    cluster.nodes[1].release_commits();
    let (node, connection) = cluster.inbound_of(1);
    let now = cluster.nodes[node].now;
    let mut told = Vec::new();
    while let Some(frame) = cluster.nodes[node].machine.next_peer_frame(now, connection) {
        told.push(frame);
    }
    let stale = StreamFailure::StaleEpoch { known: LeaderEpoch(2) };
    assert!(matches!(told[0], PeerFrame::Failed { reason, .. } if reason == stale), "{told:?}");
    let link = cluster.peers[&(node, connection)];
    for frame in told {
        cluster.deliver(link, frame);
    }
    cluster.carry();
    assert_eq!(cluster.outcome(0, token), None, "a deposed leader counts nothing of it");
}

#[test]
fn appends_out_of_order_and_unsent_acknowledgements_end_the_connection() {
    let mut cluster = Cluster::led_by_0();
    let inbound = cluster.inbound_of(1);
    let append = Append { sequence: 99, ..Append::default() };
    cluster.deliver(inbound, PeerFrame::Append(append));
    let link = cluster.peers[&cluster.inbound_of(2)];
    cluster.deliver(link, PeerFrame::Ack { sequence: 99 });
    let ends = |cluster: &mut Cluster, node: usize| {
        let effect = cluster.nodes[node].machine.next_peer_effect();
        matches!(effect, Some(PeerEffect::Disconnect { .. }))
    };
    assert!(ends(&mut cluster, 1) && ends(&mut cluster, 0));
}

#[test]
fn a_batch_that_does_not_continue_the_log_closes_its_stream_only() {
    let mut cluster = Cluster::led_by_0();
    let inbound = cluster.inbound_of(1);
    let stored = crate::format::sample_batch::SampleBatch::default().at(7, 1);
    let append = Append { sequence: 2, positions: vec![], batches: vec![(StreamId(1), stored)] };
    // The first append carried the watermarks.
    cluster.pass_millis(3);
    cluster.deliver(inbound, PeerFrame::Append(append));
    let link = cluster.peers[&inbound];
    let now = cluster.nodes[1].now;
    let frame = cluster.nodes[1].machine.next_peer_frame(now, inbound.1);
    let gap = StreamFailure::Gap { expected: Offset(0) };
    assert!(matches!(frame, Some(PeerFrame::Failed { reason, .. }) if reason == gap), "{frame:?}");
    assert!(cluster.peers.contains_key(&link), "the connection goes on");
}

#[test]
fn strangers_are_refused_with_a_reason() {
    let mut cluster = Cluster::led_by_0();
    let hello = Hello {
        cluster_id: CLUSTER,
        node_id: id(1),
        broker_epoch: BrokerEpoch(11),
        shard: ShardId(0),
        target_node_id: id(0),
        target_shard: ShardId(0),
    };
    let cases = [
        (Hello { cluster_id: ClusterId([9; 16]), ..hello }, Refusal::Cluster),
        (Hello { target_node_id: id(2), ..hello }, Refusal::Node),
        (Hello { target_shard: ShardId(4), ..hello }, Refusal::Shard),
        (Hello { node_id: id(0), ..hello }, Refusal::UnknownNode),
        (Hello { broker_epoch: BrokerEpoch(10), ..hello }, Refusal::StaleBrokerEpoch),
    ];
    for (hello, reason) in cases {
        cluster.nodes[0].act(|machine, now, out| {
            let refused = machine.peer_accepted(now, &hello, out).unwrap_err();
            assert_eq!(refused.reason, reason, "{}", refused.text);
        });
    }
}

#[test]
fn a_silent_peer_is_gone_and_leaves_the_set_after_its_time() {
    let mut cluster = Cluster::led_by_0();
    cluster.send(0, Acks::All);
    cluster.cut = vec![2];
    cluster.pass_millis(200);
    assert_eq!(cluster.members(), Vec::<Vec<i32>>::new());
    cluster.send(0, Acks::Leader);
    cluster.pass_millis(700);
    assert_eq!(cluster.members(), [vec![0, 1]], "proposed once");
    assert_eq!(cluster.high_watermarks()[0], 2, "it counts until that is committed");
    cluster.assign_all(0, 1, 2, &[0, 1]);
    assert_eq!(cluster.high_watermarks()[0], 4);
    // Back again, it catches up and is proposed in its incarnation.
    cluster.frames.retain(|(end, _)| end.0 != 2);
    cluster.cut.clear();
    cluster.pass_millis(1500);
    assert_eq!(cluster.members().last(), Some(&vec![0, 1, 2]));
    assert_eq!(cluster.ends(), [4, 4, 4]);
}

#[test]
fn a_slow_follower_leaves_the_set_and_comes_back_when_it_is_fast() {
    let mut cluster = Cluster::led_by_0();
    for _ in 0..50 {
        // Node 2's disk takes 60 ms a commit, the others' none.
        cluster.nodes[2].holds_commits = true;
        cluster.send(0, Acks::Leader);
        cluster.pass_millis(60);
        cluster.nodes[2].release_commits();
        cluster.carry();
    }
    assert_eq!(cluster.members(), [vec![0, 1]]);
    cluster.assign_all(0, 1, 2, &[0, 1]);
    for _ in 0..200 {
        cluster.send(0, Acks::Leader);
        cluster.pass_millis(10);
    }
    assert_eq!(cluster.members().last(), Some(&vec![0, 1, 2]));
}

#[test]
fn a_log_that_begins_within_a_batch_is_followed_from_the_batchs_beginning() {
    let mut cluster = Cluster::led_by_0();
    cluster.cut = vec![2];
    cluster.assign_all(0, 1, 2, &[0, 1]);
    for _ in 0..3 {
        cluster.send(0, Acks::All);
    }
    cluster.nodes[0].delete_records(Some(3)).expect("it is readable");
    cluster.frames.retain(|(end, _)| end.0 != 2);
    cluster.cut.clear();
    cluster.pass_millis(1500);
    assert_eq!(cluster.ends(), [6, 6, 6]);
    assert_eq!(cached(&cluster.nodes[2].fetch(3).expect("readable").data), [2, 4]);
    let info = cluster.nodes[2].machine.info(key(0)).expect("it is here");
    assert_eq!(info.log_start_offset, Offset(3));
}

#[test]
fn a_log_start_reaches_the_followers() {
    let mut cluster = Cluster::led_by_0();
    cluster.send(0, Acks::All);
    cluster.pass_millis(5);
    cluster.nodes[0].delete_records(Some(1)).expect("it is readable");
    cluster.pass_millis(5);
    let start =
        |node: usize| cluster.nodes[node].machine.info(key(0)).map(|info| info.log_start_offset);
    assert_eq!([0, 1, 2].map(start), [Some(Offset(1)); 3]);
}
