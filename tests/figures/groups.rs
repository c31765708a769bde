//! Groups: what heartbeats of many members cost, how long commits take, and how soon a rebalance is over.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::heartbeat_request::HeartbeatRequest;
use chronik_protocol::messages::join_group_response::JoinGroupResponse;
use chronik_protocol::messages::sync_group_response::SyncGroupResponse;

use super::process::cpu;
use super::support::client::Client;
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::groups::{
    Member, OFFSETS_TOPIC, await_coordinator, commit_request, committed, find_coordinator,
};
use super::support::replicated::{await_in_sync, create_replicated};
use super::support::requests::{create_topic, error};
use super::support::server::{Options, Server};
use super::support::{unique, wait_for};
use super::table::Table;
use super::{alone, is_full};

/// How often a member is heard, as clients have it by default.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    groups: usize,
    members: usize,
    window: Duration,
    /// Commits before it are not counted: files are created, and caches filled.
    warm_up: Duration,
    committers: usize,
    commits_per_second: u32,
    rebalances: usize,
    coordinators: usize,
}

impl Size {
    fn asked_for() -> Self {
        if is_full() {
            return Self {
                groups: 1000,
                members: 10,
                window: Duration::from_secs(15),
                warm_up: Duration::from_secs(12),
                committers: 50,
                commits_per_second: 10_000,
                rebalances: 50,
                coordinators: 10,
            };
        }
        Self {
            groups: 20,
            members: 3,
            window: Duration::from_millis(500),
            warm_up: Duration::from_millis(100),
            committers: 4,
            commits_per_second: 400,
            rebalances: 3,
            coordinators: 1,
        }
    }
}

fn server(shards: u16) -> Server {
    Options::shards(shards).kafka("group.initial.rebalance.delay.ms", 30).start()
}

/// Median, 99th percentile and worst.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    format!("median {:.1} ms, p99 {:.1} ms, worst {:.1} ms", at(50), at(99), at(100))
}

/// Members of one group, all of which have joined and have their part.
fn stable_group(clients: &mut [Client]) -> Vec<Member> {
    let group = unique("many");
    let mut members: Vec<Member> = clients.iter().map(|_| Member::new(&group)).collect();
    for (member, client) in members.iter_mut().zip(&mut *clients) {
        member.session_timeout_ms = 300_000;
        member.introduce(client);
    }
    loop {
        for (member, client) in members.iter().zip(&mut *clients) {
            client.send(9, &member.join_request());
        }
        let mut generations = Vec::new();
        for (member, client) in members.iter_mut().zip(&mut *clients) {
            let joined: JoinGroupResponse = client.receive();
            member.joined(&joined);
            generations.push((joined.generation_id, joined.leader == joined.member_id));
        }
        let last = generations.iter().map(|(generation, _)| *generation).max();
        if generations.iter().all(|(generation, _)| Some(*generation) == last) {
            break;
        }
    }
    // The leader brings nothing for anybody; what counts is that all are in one generation.
    for (member, client) in members.iter().zip(&mut *clients) {
        client.send(5, &member.sync_request(&[]));
    }
    for client in clients {
        let synced: SyncGroupResponse = client.receive();
        assert_eq!(error(synced.error_code), ErrorCode::None);
    }
    members
}

#[test]
fn heartbeats_of_many_members() {
    let _alone = alone();
    let size = Size::asked_for();
    let server = server(2);
    await_coordinator(&mut server.client(), "any");
    // A client that waits for its answer keeps its pace while that takes no longer than the pause of its lane.
    let lanes = if is_full() { 100 } else { 2 };
    let begun = Barrier::new(lanes + 1);
    let mut table = Table::new(&format!("{} groups of {} members", size.groups, size.members));
    thread::scope(|scope| {
        let lane = || {
            let mut clients: Vec<Client> = (0..size.members).map(|_| server.client()).collect();
            let groups: Vec<Vec<Member>> =
                (0..size.groups / lanes).map(|_| stable_group(&mut clients)).collect();
            begun.wait();
            let requests: Vec<(usize, HeartbeatRequest)> = groups
                .iter()
                .flat_map(|members| members.iter().map(Member::heartbeat_request).enumerate())
                .collect();
            let pause = HEARTBEAT_INTERVAL / u32::try_from(requests.len()).unwrap();
            let begin = Instant::now();
            let mut times = Vec::new();
            for (count, (place, request)) in (0..).zip(requests.iter().cycle()) {
                let due = begin + pause * count;
                if due >= begin + size.window {
                    break;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let code = error(clients[*place].call(4, request).error_code);
                assert_eq!(code, ErrorCode::None);
                times.push(due.elapsed());
            }
            times
        };
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        begun.wait();
        let (from, begin) = (cpu(server.pid()), Instant::now());
        let mut times: Vec<Duration> =
            lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect();
        let (took, elapsed) = (cpu(server.pid()) - from, begin.elapsed().as_secs_f64());
        let rate = times.len() as f64 / elapsed;
        table.row("heartbeats a second", format!("{rate:.0}"), "");
        let share = format!("{:.1} %", took.as_secs_f64() / elapsed * 100.0);
        table.row("the server's share of a core", share, "< 5 %");
        table.row("from when one was due to its answer", spread(&mut times), "");
    });
    table.print();
}

#[test]
fn commits_at_a_fixed_rate() {
    let _alone = alone();
    let size = Size::asked_for();
    let server = server(2);
    let mut client = server.client();
    await_coordinator(&mut client, "any");
    let topic = unique("topic");
    create_topic(&mut client, &topic, 10);
    let begun = Barrier::new(size.committers + 1);
    let mut table = Table::new(&format!("{} commits a second", size.commits_per_second));
    thread::scope(|scope| {
        let committer = || {
            let (mut client, group) = (server.client(), unique("commits"));
            committed(&mut client, &group, &topic, 0);
            let requests: Vec<_> =
                (0..10).map(|partition| commit_request(&group, &topic, partition, 1)).collect();
            let pause = Duration::from_secs(1) * u32::try_from(size.committers).unwrap()
                / size.commits_per_second;
            begun.wait();
            let begin = Instant::now();
            let mut times = Vec::new();
            for (count, request) in (0..).zip(requests.iter().cycle()) {
                let due = begin + pause * count;
                if due >= begin + size.warm_up + size.window {
                    break;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let response = client.call(9, request);
                let code = error(response.topics[0].partitions[0].error_code);
                assert_eq!(code, ErrorCode::None);
                if due >= begin + size.warm_up {
                    times.push(due.elapsed());
                }
            }
            times
        };
        let committers: Vec<_> = (0..size.committers).map(|_| scope.spawn(committer)).collect();
        begun.wait();
        thread::sleep(size.warm_up);
        let (from, begin) = (cpu(server.pid()), Instant::now());
        let mut times: Vec<Duration> =
            committers.into_iter().flat_map(|one| one.join().unwrap()).collect();
        let (took, elapsed) = (cpu(server.pid()) - from, begin.elapsed().as_secs_f64());
        table.row("commits a second", format!("{:.0}", times.len() as f64 / elapsed), "");
        let share = format!("{:.1} %", took.as_secs_f64() / elapsed * 100.0);
        table.row("the server's share of a core", share, "");
        table.row("from when one was due to its answer", spread(&mut times), "p99 < 20 ms");
    });
    table.print();
}

#[test]
fn a_rebalance_after_a_member_has_left() {
    let _alone = alone();
    let size = Size::asked_for();
    let server = server(2);
    await_coordinator(&mut server.client(), "any");
    let mut times = Vec::new();
    for _ in 0..size.rebalances {
        let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
        let mut members = stable_group(&mut clients);
        let begin = Instant::now();
        assert_eq!(members[2].leave(&mut clients[2]), ErrorCode::None);
        let (stay, with) = (&mut members[..2], &mut clients[..2]);
        for (member, client) in stay.iter().zip(&mut *with) {
            wait_for("the others to learn of it", || {
                (member.heartbeat(client) == ErrorCode::RebalanceInProgress).then_some(())
            });
            client.send(9, &member.join_request());
        }
        for (member, client) in stay.iter_mut().zip(&mut *with) {
            member.joined(&client.receive());
            client.send(5, &member.sync_request(&[]));
        }
        for client in with {
            let synced: SyncGroupResponse = client.receive();
            assert_eq!(error(synced.error_code), ErrorCode::None);
        }
        times.push(begin.elapsed());
    }
    let mut table = Table::new(&format!("one of three members leaves, {} times", times.len()));
    table.row("until the others have their parts", spread(&mut times), "< 1 s");
    table.print();
}

#[test]
fn another_coordinator_after_one_was_killed() {
    let _alone = alone();
    let size = Size::asked_for();
    let mut cluster =
        ClusterOptions::shards(&[2; 3]).kafka("group.initial.rebalance.delay.ms", 0).start();
    let topic = unique("topic");
    create_replicated(&mut cluster.client(1), &topic, 1, 3, &[]);
    let mut member = Member::new(&unique("group"));
    member.session_timeout_ms = 300_000;
    await_coordinator(&mut cluster.client(1), &member.group);
    let (mut client, _) = coordinator(&cluster, &member.group).unwrap();
    member.join(&mut client);
    member.sync(&mut client, &[(&member, "all")]);
    let mut times = Vec::new();
    for offset in 0..size.coordinators {
        await_in_sync(&cluster, 1, OFFSETS_TOPIC, 3);
        let (_, killed) = wait_for("a coordinator", || coordinator(&cluster, &member.group));
        let begin = Instant::now();
        cluster.kill9(killed);
        wait_for("a commit to another coordinator", || {
            let (mut client, node) = coordinator(&cluster, &member.group)?;
            let code = member.commit(&mut client, &topic, 0, i64::try_from(offset).unwrap());
            assert!(code == ErrorCode::None || code.is_retriable(), "{code:?}");
            (code == ErrorCode::None && node != killed).then_some(())
        });
        times.push(begin.elapsed());
        cluster.restart(killed);
    }
    let mut table = Table::new(&format!("a coordinator is killed, {} times", times.len()));
    table.row("until a member of it has committed", spread(&mut times), "< 3 s");
    table.print();
}

/// A connection to the coordinator of a group, as one of the nodes that run knows it.
fn coordinator(cluster: &Cluster, group: &str) -> Option<(Client, i32)> {
    let asked = cluster.running()[0];
    let found = find_coordinator(&mut cluster.client(asked), group);
    if found.error_code != 0 || !cluster.running().contains(&found.node_id) {
        return None;
    }
    Some((cluster.client(found.node_id), found.node_id))
}
