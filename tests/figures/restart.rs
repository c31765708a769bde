//! From a start to the first answers: an empty directory, after a stop, after `kill -9` under load.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;

use super::load::{self, HOT, hot_batch};
use super::process;
use super::support::batch::Batch;
use super::support::client::Client;
use super::support::requests::{
    PRODUCE_BY_NAME, expect_error, high_watermark, produce, produce_bytes, produce_request,
    produced,
};
use super::support::server::{Options, Server};
use super::table::Table;
use super::{Size, alone, is_full};

/// Clients that write while the server is killed.
const WRITERS: i32 = 4;

#[test]
fn a_server_that_was_killed_under_load_is_back_with_everything_acknowledged() {
    let _alone = alone();
    let size = Size::asked_for();
    let mut table = Table::new(&format!(
        "time from exec to the first answers, ms; {} partitions, 2 shards",
        size.topics * size.partitions
    ));
    let begin = Instant::now();
    let mut server = Options::shards(2).start();
    row(&mut table, "empty directory: Metadata", begin.elapsed());

    load::create_topics(&server, size);
    load::fill_all(&server, size);
    let mut acknowledged = kill_under_load(&mut server, size);
    phases(&mut table, &mut server, "kill -9 before a first checkpoint", &mut acknowledged);
    acknowledged = kill_under_load(&mut server, size);
    phases(&mut table, &mut server, "kill -9 again", &mut acknowledged);
    server.stop();
    phases(&mut table, &mut server, "orderly stop", &mut acknowledged);
    verify(&server, size, &acknowledged);
    table.print();
}

fn row(table: &mut Table, what: &str, took: Duration) {
    table.row(what, took.as_millis(), "<= 1000");
}

/// Restarts, measures to the first Metadata and to the first produce, and shows the server's own words.
fn phases(table: &mut Table, server: &mut Server, what: &str, acknowledged: &mut [i64]) {
    let said = server.stderr().len();
    let begin = Instant::now();
    let took = server.restart();
    let (cpu, (read, written)) = (process::cpu(server.pid()), process::disk_mib(server.pid()));
    let offset = produce(&mut server.client(), HOT, 0, &Batch::of(["first"]));
    row(table, &format!("{what}: Metadata"), took);
    row(table, &format!("{what}: Produce with acks=all"), begin.elapsed());
    table.row("  CPU time of it", cpu.as_millis(), "");
    table.row("  MiB read, written", format!("{read}, {written}"), "");
    assert!(offset >= acknowledged[0], "{what}: offset {offset} was acknowledged before");
    acknowledged[0] = offset + 1;
    if is_full() {
        let text = server.stderr();
        let lines = text[said..].lines().filter(|line| !line.contains("bytes from the WAL"));
        let lines: Vec<&str> = lines.take(40).collect();
        println!("--- {what}\n{}", lines.join("\n"));
    }
}

/// Fills the hot topic, kills the server while clients go on writing, and says how far each of the hot
/// partitions was acknowledged.
fn kill_under_load(server: &mut Server, size: Size) -> Vec<i64> {
    load::fill_hot(server, size.hot_bytes);
    let running = AtomicBool::new(true);
    let address = server.address();
    let ends = thread::scope(|scope| {
        let write = |partition| {
            let running = &running;
            scope.spawn(move || write_until_killed(Client::connect(address), partition, running))
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        // Long enough for several commits to be under way.
        thread::sleep(Duration::from_millis(300));
        server.kill9();
        running.store(false, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(ends.iter().all(|end| *end > 0), "every writer was answered: {ends:?}");
    ends
}

/// The end of what was acknowledged.
fn write_until_killed(mut client: Client, partition: i32, running: &AtomicBool) -> i64 {
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
