//! A follower whose disk becomes slow: how soon records are acknowledged without it, and when it is in sync again.
//!
//! The disk is slowed by a control group that lets few writes a second through, which takes root and the block I/O
//! controller, of either version. Without them nothing is measured, and the test says so.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};

use super::support::batch::{Batch, Record};
use super::support::client::Client;
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::replicated::await_in_sync;
use super::support::requests::{PRODUCE_BY_NAME, describe_topic, error, produce_request, produced};
use super::support::{PATIENCE, unique};
use super::table::Table;
use super::{alone, is_full};

/// A commit of the slow disk takes 50 ms.
const SLOW_WRITES_PER_SECOND: u32 = 20;
const FOLLOWER: i32 = 3;
/// Each waits for its answer and then for its turn, so that together they keep the pace of a slow disk, too.
const PRODUCERS: u32 = 64;
const RECORDS_PER_SECOND: u32 = 1000;
const RECORD_BYTES: usize = 1024;

const WARM_UP: Duration = Duration::from_secs(3);
const BEFORE: Duration = Duration::from_secs(6);
/// Within so long it is to be as before.
const ADAPTED: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_secs(20);
const AFTER: Duration = Duration::from_secs(5);
const LOOKING_PAUSE: Duration = Duration::from_millis(10);

#[test]
fn a_follower_on_a_slow_disk_is_not_waited_for() {
    if !is_full() {
        return;
    }
    let _alone = alone();
    let cluster = ClusterOptions::shards(&[1; 3]).start();
    let name = unique("slow");
    create_led_by_others(&cluster, &name);
    await_in_sync(&cluster, 1, &name, 3);
    let throttle = match Throttle::over(cluster.pid(FOLLOWER), &cluster.data_dir(FOLLOWER)) {
        Ok(throttle) => throttle,
        Err(error) => return println!("no disk can be made slow here: {error}"),
    };
    let is_over = AtomicBool::new(false);
    let begin = Instant::now();
    thread::scope(|scope| {
        let produce = |number| {
            let leader = 1 + i32::try_from(number % 2).unwrap();
            let client = cluster.client(leader);
            let (name, is_over) = (&name, &is_over);
            scope.spawn(move || latencies(client, name, leader - 1, number, begin, is_over))
        };
        let producers: Vec<_> = (0..PRODUCERS).map(produce).collect();
        let sizes = scope.spawn(|| in_sync_over_time(&cluster, &name, begin, &is_over));

        sleep_until(begin + WARM_UP + BEFORE);
        let slow_from = begin.elapsed();
        throttle.set(Some(SLOW_WRITES_PER_SECOND)).unwrap();
        thread::sleep(SLOW);
        let slow_to = begin.elapsed();
        throttle.set(None).unwrap();
        await_in_sync(&cluster, 1, &name, 3);
        thread::sleep(AFTER);
        let end = begin.elapsed();
        is_over.store(true, Ordering::Relaxed);

        let times = producers.into_iter().flat_map(|it| it.join().unwrap()).collect::<Vec<_>>();
        let sizes = sizes.join().unwrap();
        let p99 = |from, to| format!("{:.1} ms", p99(&times, from, to).as_secs_f64() * 1000.0);
        let mut table = Table::new(&format!(
            "a follower's disk makes {SLOW_WRITES_PER_SECOND} writes a second for {SLOW:?}, {RECORDS_PER_SECOND} \
             records/s"
        ));
        table.row("p99 before", p99(WARM_UP, slow_from), "");
        table.row("p99 of the first seconds", p99(slow_from, slow_from + ADAPTED), "");
        table.row("p99 after them", p99(slow_from + ADAPTED, slow_to), "2 × before");
        table.row("p99 when the disk is well again", p99(slow_to, end), "");
        let left = sizes.iter().find(|(at, size)| *at > slow_from && *size < 3);
        let left = left.map_or("never".to_owned(), |(at, _)| format!("{:.0?}", *at - slow_from));
        table.row("until it was out of sync", left, "");
        let back = sizes.iter().rev().find(|(_, size)| *size == 3).expect("it was awaited");
        let back = back.0.saturating_sub(slow_to);
        table.row("until it was in sync again, after the disk was well", format!("{back:.0?}"), "");
        let changes = sizes.iter().filter(|(at, _)| *at > slow_from).count();
        table.row("changes of the in-sync set", changes.to_string(), "2");
        table.print();
    });
}

/// Two partitions, each led by another node than the slow one.
fn create_led_by_others(cluster: &Cluster, name: &str) {
    let assignment = |(index, nodes): (i32, [i32; 3])| CreatableReplicaAssignment {
        partition_index: index,
        broker_ids: nodes.to_vec(),
        ..CreatableReplicaAssignment::default()
    };
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: [(0, [1, 2, FOLLOWER]), (1, [2, 1, FOLLOWER])].map(assignment).into(),
        ..CreatableTopic::default()
    };
    let timeout_ms = PATIENCE.as_millis() as i32;
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms, ..Default::default() };
    let created = cluster.client(1).call(5, &request);
    assert_eq!(error(created.topics[0].error_code), ErrorCode::None);
}

/// Produces at a fixed rate; when each record was due, and how long after that it was acknowledged by all in sync.
fn latencies(
    mut client: Client,
    name: &str,
    partition: i32,
    number: u32,
    begin: Instant,
    is_over: &AtomicBool,
) -> Vec<(Duration, Duration)> {
    let period = Duration::from_secs(1) * PRODUCERS / RECORDS_PER_SECOND;
    let batch = Batch::of_records(vec![Record::of("x".repeat(RECORD_BYTES))]).encode();
    let mut times = Vec::new();
    let mut due = begin + period * number / PRODUCERS;
    while !is_over.load(Ordering::Relaxed) {
        sleep_until(due);
        let request = produce_request(name, partition, -1, batch.clone());
        let answer = produced(client.call(PRODUCE_BY_NAME, &request));
        assert_eq!(error(answer.error_code), ErrorCode::None);
        times.push((due - begin, due.elapsed()));
        due += period;
    }
    times
}

/// Every change of the smaller of the two in-sync sets, as one node knows it.
fn in_sync_over_time(
    cluster: &Cluster,
    name: &str,
    begin: Instant,
    is_over: &AtomicBool,
) -> VecDeque<(Duration, usize)> {
    let mut client = cluster.client(1);
    let mut sizes = VecDeque::new();
    while !is_over.load(Ordering::Relaxed) {
        let partitions = describe_topic(&mut client, name).partitions;
        let size = partitions.iter().map(|it| it.isr_nodes.len()).min().expect("two partitions");
        if sizes.back().is_none_or(|(_, last)| *last != size) {
            sizes.push_back((begin.elapsed(), size));
        }
        thread::sleep(LOOKING_PAUSE);
    }
    sizes
}

fn p99(times: &[(Duration, Duration)], from: Duration, to: Duration) -> Duration {
    let between = times.iter().filter(|(due, _)| (from..to).contains(due));
    let mut found: Vec<Duration> = between.map(|(_, took)| *took).collect();
    assert!(!found.is_empty(), "nothing between {from:?} and {to:?}");
    found.sort_unstable();
    found[(found.len() - 1) * 99 / 100]
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// A control group with one process in it; it goes with this value, after the process.
struct Throttle {
    group: PathBuf,
    /// What to write for a limit, and where.
    file: &'static str,
    device: String,
}

impl Throttle {
    fn over(pid: u32, path: &Path) -> io::Result<Self> {
        let name = format!("chronik-figures-{pid}");
        let device = disk_of(path)?;
        let (root, file) = [
            ("/sys/fs/cgroup/blkio", "blkio.throttle.write_iops_device"),
            ("/sys/fs/cgroup", "io.max"),
        ]
        .into_iter()
        .find(|(root, file)| *file != "io.max" || has_io_controller(root))
        .filter(|(root, _)| Path::new(root).is_dir())
        .ok_or_else(|| io::Error::other("there is no controller of block I/O"))?;
        let group = Path::new(root).join(name);
        fs::create_dir(&group)?;
        let throttle = Self { group, file, device };
        fs::write(throttle.group.join("cgroup.procs"), pid.to_string())?;
        Ok(throttle)
    }

    /// So many writes a second, or as many as the disk makes.
    fn set(&self, writes_per_second: Option<u32>) -> io::Result<()> {
        let device = &self.device;
        let line = match (self.file, writes_per_second) {
            ("io.max", Some(writes)) => format!("{device} wiops={writes}"),
            ("io.max", None) => format!("{device} wiops=max"),
            (_, writes) => format!("{device} {}", writes.unwrap_or(0)),
        };
        fs::write(self.group.join(self.file), line)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // The process is in it still: back to where everything is, so that the group can go.
        let parent = self.group.parent().expect("a group in a group").join("cgroup.procs");
        let members = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        let gone = members.lines().try_for_each(|pid| fs::write(&parent, pid));
        if let Err(error) = gone.and_then(|()| fs::remove_dir(&self.group)) {
            println!("{}: {error}", self.group.display());
        }
    }
}

fn has_io_controller(root: &str) -> bool {
    let controllers = fs::read_to_string(Path::new(root).join("cgroup.subtree_control"));
    controllers.is_ok_and(|names| names.split_whitespace().any(|name| name == "io"))
}

/// `major:minor` of the disk under a path: limits are of whole disks.
fn disk_of(path: &Path) -> io::Result<String> {
    let device = fs::metadata(path)?.dev();
    let numbers = format!("{}:{}", libc::major(device), libc::minor(device));
    let known = Path::new("/sys/dev/block").join(&numbers).canonicalize()?;
    if !known.join("partition").exists() {
        return Ok(numbers);
    }
    let disk = known.parent().expect("a partition is below its disk").join("dev");
    Ok(fs::read_to_string(disk)?.trim().to_owned())
}
