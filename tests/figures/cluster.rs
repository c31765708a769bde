//! Three nodes: how soon records are acknowledged after a leader is gone and after a creation, and what many idle
//! partitions cost.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use chronik_protocol::messages::metadata_response::MetadataResponseTopic;

use super::process::cpu;
use super::support::batch::Batch;
use super::support::client::Client;
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::replicated::{await_agreement, await_in_sync, create_replicated};
use super::support::requests::{
    FETCH_BY_NAME, FetchBounds, PRODUCE_BY_NAME, describe_topic, error, fetch_request, fetched,
    produce_request, produced,
};
use super::support::{PATIENCE, unique, wait_for};
use super::table::Table;
use super::{alone, is_full};

/// How often a client that got no answer asks again, at most.
const ASKING_PAUSE: Duration = Duration::from_millis(1);

/// Requests under way on a connection.
const IN_FLIGHT: usize = 64;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Leaders that go, of each kind.
    leaders: usize,
    creations: usize,
    created_partitions: i32,
    idle_topics: i32,
    idle_partitions: i32,
    window: Duration,
}

impl Size {
    fn asked_for() -> Self {
        if is_full() {
            return Self {
                leaders: 30,
                creations: 20,
                created_partitions: 1000,
                idle_topics: 10,
                idle_partitions: 1000,
                window: Duration::from_secs(20),
            };
        }
        Self {
            leaders: 3,
            creations: 2,
            created_partitions: 50,
            idle_topics: 2,
            idle_partitions: 20,
            window: Duration::from_millis(200),
        }
    }
}

fn cluster() -> Cluster {
    ClusterOptions::shards(&[2; 3]).start()
}

#[test]
fn records_are_acknowledged_again_after_a_leader_was_killed() {
    leaders_go(Gone::Killed, "kill -9, to the first acknowledgement", "median < 1 s, worst < 2 s");
}

#[test]
fn records_are_acknowledged_again_after_a_leader_was_killed_and_started() {
    leaders_go(Gone::KilledAndBack, "kill -9 and a start at once, to the first one", "worst < 2 s");
}

#[test]
fn records_are_acknowledged_again_after_a_leader_was_stopped() {
    leaders_go(Gone::Stopped, "orderly stop, longest time without one", "< 200 ms");
}

/// Lets one leader after another go, and prints how soon records are acknowledged.
fn leaders_go(how: Gone, what: &str, aim: &str) {
    let _alone = alone();
    let size = Size::asked_for();
    let mut cluster = cluster();
    let name = unique("gone");
    create_replicated(&mut cluster.client(1), &name, 3, 3, &[]);
    let (mut times, mut ends, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..size.leaders {
        let partition = round % 3;
        await_in_sync(&cluster, 1, &name, 3);
        let leader = await_agreement(&cluster, &name, 3)[partition].node;
        let mut producer = Producer::new(&cluster, &name, partition);
        producer.acknowledged();
        let begin = Instant::now();
        let took = match how {
            Gone::Killed => {
                cluster.kill9(leader);
                producer.acknowledged();
                begin.elapsed()
            }
            Gone::KilledAndBack => {
                cluster.kill9(leader);
                cluster.spawn(&[leader]);
                producer.acknowledged();
                begin.elapsed()
            }
            Gone::Stopped => {
                cluster.begin_stop(leader);
                let gap = producer.longest_gap_until_led_by_other(leader);
                cluster.await_end(leader);
                ends.push(begin.elapsed());
                gap
            }
        };
        times.push(took);
        if how == Gone::KilledAndBack {
            cluster.await_serving(&[leader]);
        } else {
            starts.push(cluster.restart(leader));
        }
    }
    let mut table = Table::new(&format!("a leader of three nodes is gone, {} times", size.leaders));
    table.row(what, spread(times), aim);
    for (what, times) in [
        ("orderly stop, until the process has ended", ends),
        ("start, until all nodes list it", starts),
    ] {
        if !times.is_empty() {
            table.row(what, spread(times), "");
        }
    }
    table.print();
}

/// How a leader goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gone {
    Killed,
    /// Back before anybody could notice that it is silent.
    KilledAndBack,
    Stopped,
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("median {:.0?}, worst {:.0?}", times[times.len() / 2], times[times.len() - 1])
}

/// A producer that follows the leader of a partition, as a client does that wastes no time.
struct Producer {
    addresses: Vec<SocketAddr>,
    name: String,
    partition: i32,
    leader: Option<(i32, Client)>,
    asked: usize,
}

impl Producer {
    fn new(cluster: &Cluster, name: &str, partition: usize) -> Self {
        Self {
            addresses: cluster.ids().map(|id| cluster.address(id)).collect(),
            name: name.to_owned(),
            partition: partition as i32,
            leader: None,
            asked: 0,
        }
    }

    /// Waits until a record that is sent from now on is acknowledged by all; by which leader.
    fn acknowledged(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.attempt() {
                return leader;
            }
            assert!(Instant::now() < deadline, "no acknowledgement of {}", self.name);
            thread::sleep(ASKING_PAUSE);
        }
    }

    /// Goes on until another one leads; the longest time between two acknowledgements.
    fn longest_gap_until_led_by_other(&mut self, leader: i32) -> Duration {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        loop {
            let by = self.acknowledged();
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if by != leader {
                return longest;
            }
        }
    }

    fn attempt(&mut self) -> Option<i32> {
        let (node, mut client) = self.leader.take().or_else(|| self.find())?;
        let batch = Batch::of(["value"]).encode();
        let request = produce_request(&self.name, self.partition, -1, batch);
        let answer = produced(client.try_call(PRODUCE_BY_NAME, &request).ok()?);
        match error(answer.error_code) {
            ErrorCode::None => {
                self.leader = Some((node, client));
                Some(node)
            }
            code => {
                assert!(code.is_retriable(), "{}: {code:?}", self.name);
                None
            }
        }
    }

    fn find(&mut self) -> Option<(i32, Client)> {
        self.asked += 1;
        let asked = self.addresses[self.asked % self.addresses.len()];
        let mut client = Client::try_connect(asked).ok()?;
        let topic = try_describe(&mut client, &self.name)?;
        let found = topic.partitions.iter().find(|it| it.partition_index == self.partition)?;
        let leader = found.leader_id;
        let address = self.addresses.get(usize::try_from(leader).ok()?.checked_sub(1)?)?;
        Some((leader, Client::try_connect(*address).ok()?))
    }
}

/// What a node says of a topic, if it answers.
fn try_describe(client: &mut Client, name: &str) -> Option<MetadataResponseTopic> {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..MetadataRequestTopic::default() };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let mut response = client.try_call(12, &request).ok()?;
    response.topics.pop().filter(|topic| topic.error_code == 0)
}

#[test]
fn partitions_are_writable_once_they_are_created() {
    let _alone = alone();
    let size = Size::asked_for();
    let cluster = cluster();
    let (mut first, mut held) = (Vec::new(), Vec::new());
    for _ in 0..size.creations {
        let name = unique("new");
        let begin = Instant::now();
        create_replicated(&mut cluster.client(1), &name, 3, 3, &[]);
        held.push(await_replicas(&cluster, &name, begin));
        let again = unique("new");
        let begin = Instant::now();
        create_replicated(&mut cluster.client(2), &again, 3, 3, &[]);
        Producer::new(&cluster, &again, 0).acknowledged();
        first.push(begin.elapsed());
    }
    let name = unique("many");
    let begin = Instant::now();
    create_replicated(&mut cluster.client(1), &name, size.created_partitions, 3, &[]);
    let created = begin.elapsed();
    await_writable(&cluster, &name, size.created_partitions);
    let writable = begin.elapsed();

    let mut table = Table::new("topics with three replicas, from the request on");
    for (what, times, aim) in [
        ("3 partitions, until every replica is there", held, "< 100 ms"),
        ("3 partitions, until a record is acknowledged by all", first, "< 1 s"),
    ] {
        table.row(what, spread(times), aim);
    }
    let what = format!("{} partitions at once, until answered", size.created_partitions);
    table.row(what, format!("{created:.0?}"), "");
    let what = format!("{} partitions at once, until all took a record", size.created_partitions);
    table.row(what, format!("{writable:.0?}"), "< 3 s");
    table.print();
}

/// Waits until every node answers as a replica of all three partitions.
fn await_replicas(cluster: &Cluster, name: &str, begin: Instant) -> Duration {
    for id in cluster.ids() {
        let mut client = cluster.client(id);
        wait_for("a replica that answers", || {
            let answers = |partition| {
                let request = fetch_request(name, partition, 0, FetchBounds::default());
                fetched(client.call(FETCH_BY_NAME, &request)).error_code == 0
            };
            (0..3).all(answers).then_some(())
        });
    }
    begin.elapsed()
}

/// Waits until every partition has acknowledged a record to acks=all.
fn await_writable(cluster: &Cluster, name: &str, partitions: i32) {
    let batch = Batch::of(["value"]).encode();
    let mut left: Vec<i32> = (0..partitions).collect();
    let deadline = Instant::now() + 4 * PATIENCE;
    while !left.is_empty() {
        let topic = describe_topic(&mut cluster.client(1), name);
        let mut refused = Vec::new();
        for id in cluster.ids() {
            let led = topic.partitions.iter().filter(|it| it.leader_id == id);
            let led = led.map(|it| it.partition_index).filter(|it| left.contains(it)).collect();
            refused.extend(produce_all(&mut cluster.client(id), name, led, &batch));
        }
        let unled = topic.partitions.iter().filter(|it| it.leader_id < 0);
        refused.extend(unled.map(|it| it.partition_index).filter(|it| left.contains(it)));
        left = refused;
        assert!(Instant::now() < deadline, "{} partitions take no record", left.len());
    }
}

/// A record to each of these partitions; those that did not take it.
fn produce_all(client: &mut Client, name: &str, partitions: Vec<i32>, batch: &Bytes) -> Vec<i32> {
    let mut sent = partitions.into_iter().peekable();
    let mut refused = Vec::new();
    while sent.peek().is_some() || client.in_flight() > 0 {
        while client.in_flight() < IN_FLIGHT
            && let Some(partition) = sent.next()
        {
            client.send(PRODUCE_BY_NAME, &produce_request(name, partition, -1, batch.clone()));
        }
        let answer = produced(client.receive());
        let code = error(answer.error_code);
        if code != ErrorCode::None {
            assert!(code.is_retriable(), "{code:?}");
            refused.push(answer.index);
        }
    }
    refused
}

#[test]
fn idle_partitions_cost_next_to_nothing() {
    let _alone = alone();
    let size = Size::asked_for();
    let cluster = cluster();
    let names: Vec<String> = (0..size.idle_topics).map(|_| unique("idle")).collect();
    for name in &names {
        create_replicated(&mut cluster.client(1), name, size.idle_partitions, 3, &[]);
        // Every partition has had something to replicate.
        await_writable(&cluster, name, size.idle_partitions);
    }
    if is_full() {
        // The longest that something which follows traffic takes to come to rest.
        thread::sleep(Duration::from_secs(40));
    }
    let before: Vec<Duration> = cluster.ids().map(|id| cpu(cluster.pid(id))).collect();
    let begin = Instant::now();
    thread::sleep(size.window);
    let elapsed = begin.elapsed().as_secs_f64();
    let mut table = Table::new(&format!(
        "three idle nodes, {} partitions with three replicas, {elapsed:.0} s",
        size.idle_topics * size.idle_partitions
    ));
    for (id, before) in cluster.ids().zip(before) {
        let used = (cpu(cluster.pid(id)) - before).as_secs_f64() / elapsed * 100.0;
        table.row(format!("CPU of node {id}, % of one core"), format!("{used:.2}"), "< 2");
    }
    table.print();
    for name in &names {
        let led = await_agreement(&cluster, name, size.idle_partitions as usize);
        assert!(led.iter().all(|leader| leader.epoch >= 0), "nobody lost its leader meanwhile");
    }
}
