//! From a start to the first answers: an empty directory, after a stop, after `kill -9` under load, and after
//! `kill -9` with WALs that are as long as they may become.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;

use super::load::{self, HOT, hot_batch};
use super::process;
use super::support::batch::Batch;
use super::support::client::Client;
use super::support::requests::{
    PRODUCE_BY_NAME, create_topic, expect_error, high_watermark, produce, produce_bytes,
    produce_request, produced,
};
use super::support::server::{Options, Server};
use super::support::wait_for;
use super::table::Table;
use super::{Size, alone, is_full};

/// Clients that write while the server is killed, one to each hot partition.
const WRITERS: i32 = 4;

/// A topic whose files cannot be used, so that the WALs are kept.
const HELD: &str = "figures-held";

/// Partitions of it: enough that every shard has one.
const HELD_PARTITIONS: i32 = 16;

/// Nothing is acknowledged for so long: the WALs are full.
const STALLED_FOR: Duration = Duration::from_secs(4);

#[test]
fn a_server_that_was_killed_under_load_is_back_with_everything_acknowledged() {
    let _alone = alone();
    let size = Size::asked_for();
    let mut starts = Starts::default();
    let begin = Instant::now();
    let mut server = Options::shards(2).start();
    starts.note("empty directory: Metadata", begin.elapsed());

    load::create_topics(&server, size);
    load::fill_all(&server, size);
    let mut acknowledged = vec![0; WRITERS as usize];
    for _ in 0..size.restarts {
        load::fill_hot(&server, size.hot_bytes);
        kill_under_load(&mut server, &mut acknowledged, Until::Elapsed);
        starts.measure(&mut server, "kill -9 under load", &mut acknowledged);
        server.stop();
        starts.measure(&mut server, "orderly stop", &mut acknowledged);
    }
    verify(&server, size, &acknowledged);
    starts.print(size);
}

/// Only with figures: a gigabyte or so has to be written.
#[test]
fn a_server_that_was_killed_with_full_wals_is_back_with_everything_acknowledged() {
    if !is_full() {
        return;
    }
    let _alone = alone();
    let size = Size::asked_for();
    let mut starts = Starts::default();
    let mut server = Options::shards(2).start();
    load::create_topics(&server, size);
    load::fill_all(&server, size);
    let mut acknowledged = vec![0; WRITERS as usize];
    for _ in 0..size.restarts {
        // A partition whose first segment cannot be written is fenced, and its shard keeps its WAL.
        let topic = format!("{HELD}-{}", starts.count("kill -9 with full WALs: Metadata"));
        create_topic(&mut server.client(), &topic, HELD_PARTITIONS);
        let taken = take_metadata(&server, &topic);
        for partition in 0..HELD_PARTITIONS {
            produce(&mut server.client(), &topic, partition, &Batch::of(["held"]));
        }
        kill_under_load(&mut server, &mut acknowledged, Until::Stalled);
        for (path, content) in taken {
            fs::write(path, content).unwrap();
        }
        starts.measure(&mut server, "kill -9 with full WALs", &mut acknowledged);
        for partition in 0..HELD_PARTITIONS {
            assert_eq!(high_watermark(&mut server.client(), &topic, partition), 1, "{topic}");
        }
        // The next one is to begin with WALs that are free again.
        server.stop();
        server.restart();
    }
    verify(&server, size, &acknowledged);
    starts.print(size);
}

/// Takes the files away by which the partitions' directories are known, and returns them.
fn take_metadata(server: &Server, topic: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let path = |partition| {
        let dir = server.data_dir().join("topics").join(format!("{topic}-{partition}"));
        dir.join("partition.metadata")
    };
    let take = |partition| {
        let path = path(partition);
        wait_for("the partition's directory", || path.exists().then_some(()));
        let content = fs::read(&path).unwrap();
        fs::write(&path, "taken away").unwrap();
        (path, content)
    };
    (0..HELD_PARTITIONS).map(take).collect()
}

/// How long starts took, by what they were.
#[derive(Default)]
struct Starts {
    millis: BTreeMap<String, Vec<u128>>,
    /// In the order of their first measurement.
    names: Vec<String>,
}

impl Starts {
    fn note(&mut self, what: &str, took: Duration) {
        self.note_number(what, took.as_millis());
    }

    fn note_number(&mut self, what: &str, number: u128) {
        if !self.millis.contains_key(what) {
            self.names.push(what.to_owned());
        }
        self.millis.entry(what.to_owned()).or_default().push(number);
    }

    fn count(&self, what: &str) -> usize {
        self.millis.get(what).map_or(0, Vec::len)
    }

    /// Restarts, measures to the first Metadata and to the first produce, and shows the server's own words.
    fn measure(&mut self, server: &mut Server, what: &str, acknowledged: &mut [i64]) {
        let said = server.stderr().len();
        let begin = Instant::now();
        let took = server.restart();
        let (cpu, (read, _)) = (process::cpu(server.pid()), process::disk_mib(server.pid()));
        let offset = produce(&mut server.client(), HOT, 0, &Batch::of(["first"]));
        self.note(&format!("{what}: Metadata"), took);
        self.note(&format!("{what}: Produce with acks=all"), begin.elapsed());
        self.note_number(&format!("{what}: CPU time of it"), cpu.as_millis());
        self.note_number(&format!("{what}: MiB read from disk"), u128::from(read));
        assert!(offset >= acknowledged[0], "{what}: offset {offset} was acknowledged before");
        acknowledged[0] = offset + 1;
        if is_full() {
            let text = server.stderr();
            let lines = text[said..].lines().filter(|line| !line.contains("bytes from the WAL"));
            let lines: Vec<&str> = lines.take(40).collect();
            println!("--- {what}\n{}", lines.join("\n"));
        }
    }

    fn print(&self, size: Size) {
        let mut table = Table::new(&format!(
            "from exec to the first answers, median and worst of N, ms; {} partitions, 2 shards",
            size.topics * size.partitions
        ));
        for name in &self.names {
            let mut found = self.millis[name].clone();
            found.sort_unstable();
            let (median, worst) = (found[found.len() / 2], found[found.len() - 1]);
            let is_time = name.ends_with("Metadata") || name.ends_with("acks=all");
            let aim = if is_time { "<= 1000" } else { "" };
            table.row(name, format!("{median}, {worst} of {}", found.len()), aim);
        }
        table.print();
    }
}

/// When a server is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    /// A moment later, with several commits under way.
    Elapsed,
    /// When nothing is acknowledged any more.
    Stalled,
}

/// Kills the server while clients write, and notes how far each of the hot partitions was acknowledged.
fn kill_under_load(server: &mut Server, acknowledged: &mut [i64], until: Until) {
    let (running, answers) = (AtomicBool::new(true), AtomicU64::new(0));
    let address = server.address();
    let ends = thread::scope(|scope| {
        let write = |partition| {
            let (running, answers) = (&running, &answers);
            let client = Client::connect(address);
            scope.spawn(move || write_until_killed(client, partition, running, answers))
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        match until {
            Until::Elapsed => thread::sleep(Duration::from_millis(300)),
            Until::Stalled => wait_for_stall(&answers),
        }
        server.kill9();
        running.store(false, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    if until == Until::Elapsed {
        assert!(ends.iter().all(|end| *end > 0), "every writer was answered: {ends:?}");
    }
    for (acknowledged, end) in acknowledged.iter_mut().zip(ends) {
        *acknowledged = end.max(*acknowledged);
    }
}

fn wait_for_stall(answers: &AtomicU64) {
    let mut last = (answers.load(Ordering::Relaxed), Instant::now());
    while last.1.elapsed() < STALLED_FOR {
        thread::sleep(Duration::from_millis(100));
        let now = answers.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

/// The end of what was acknowledged.
fn write_until_killed(
    mut client: Client,
    partition: i32,
    running: &AtomicBool,
    answers: &AtomicU64,
) -> i64 {
    let batch = hot_batch();
    let records = i64::from(i32::from_be_bytes(batch[57..61].try_into().unwrap()));
    let mut acknowledged = 0;
    let mut next = || -> io::Result<()> {
        while client.in_flight() < 8 {
            let request = produce_request(HOT, partition, -1, batch.clone());
            client.try_send(PRODUCE_BY_NAME, &request)?;
        }
        let answer = produced(client.try_receive()?);
        expect_error(answer.error_code, ErrorCode::None, "a produce under load");
        acknowledged = answer.base_offset + records;
        answers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    while running.load(Ordering::Relaxed) && next().is_ok() {}
    acknowledged
}

/// Every partition is led, takes records, and has what was acknowledged.
fn verify(server: &Server, size: Size, acknowledged: &[i64]) {
    let mut client = server.client();
    for (partition, end) in (0..).zip(acknowledged) {
        let found = high_watermark(&mut client, HOT, partition);
        assert!(found >= *end, "{HOT}-{partition} ends at {found}, {end} was acknowledged");
    }
    let batch = Batch::of(["after"]).encode();
    for topic in size.topic_names() {
        for partition in 0..size.partitions {
            let answer = produce_bytes(&mut client, &topic, partition, -1, batch.clone());
            expect_error(answer.error_code, ErrorCode::None, &format!("{topic}-{partition}"));
            assert_eq!(answer.base_offset, 10, "{topic}-{partition} had ten records");
        }
    }
}
