//! The same data under another number of shards, after orderly stops and crashes.

use chronik_protocol::ErrorCode;

use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::random::Random;
use crate::support::requests::{
    PRODUCE_BY_NAME, batches, create_topic, expect_error, fetch, high_watermark, log_start,
    produce, produce_request, produced, read_values,
};
use crate::support::server::{Options, Server};
use crate::support::unique;

const PARTITIONS: i32 = 7;

/// What was acknowledged, by partition.
struct Written {
    topic: String,
    values: Vec<Vec<String>>,
}

impl Written {
    fn new(client: &mut Client) -> Self {
        let topic = unique("restart");
        create_topic(client, &topic, PARTITIONS);
        Self { topic, values: vec![Vec::new(); PARTITIONS as usize] }
    }

    fn write(&mut self, client: &mut Client, batches: usize, random: &mut Random) {
        for _ in 0..batches {
            let partition = random.below(PARTITIONS as usize);
            let count = random.between(1, 5);
            let log = &mut self.values[partition];
            let values: Vec<String> =
                (0..count).map(|n| format!("{partition}/{}", log.len() + n)).collect();
            let base = produce(client, &self.topic, partition as i32, &Batch::of(&values));
            assert_eq!(base, log.len() as i64, "partition {partition}");
            log.extend(values);
        }
    }

    /// Everything is there, and the log ends where its high watermark is.
    fn check(&mut self, client: &mut Client, when: &str) {
        for (partition, values) in self.values.iter_mut().enumerate() {
            let index = partition as i32;
            let end = values.len() as i64;
            assert_eq!(high_watermark(client, &self.topic, index), end, "{when}, {partition}");
            assert_eq!(log_start(client, &self.topic, index), 0, "{when}, {partition}");
            let data = fetch(client, &self.topic, index, end);
            expect_error(data.error_code, ErrorCode::None, when);
            assert_eq!(data.high_watermark, end, "{when}, {partition}");
            assert!(batches(&data).is_empty(), "{when}, {partition}");
            let read = read_values(client, &self.topic, index, 0);
            assert_eq!(&read, values, "{when}, {partition}");
            // What is appended next goes to the end: nothing lies hidden behind it.
            let value = format!("{when}/{partition}");
            let base = produce(client, &self.topic, index, &Batch::of([&value]));
            assert_eq!(base, end, "{when}, {partition}: log end offset");
            values.push(value);
        }
    }
}

#[test]
fn data_does_not_depend_on_the_number_of_shards() {
    let mut random = Random::new(7);
    let mut server = Server::start_with(Options::shards(2));
    let mut written = Written::new(&mut server.client());
    for (step, shards) in [1, 2, 4, 3, 1, 4].into_iter().enumerate() {
        written.write(&mut server.client(), 40, &mut random);
        if step % 2 == 0 {
            server.stop();
        } else {
            server.kill9();
        }
        server.restart_with_shards(shards);
        written.check(&mut server.client(), &format!("step {step}, {shards} shards"));
    }
}

#[test]
fn data_survives_crashes_one_right_after_the_other() {
    let mut random = Random::new(8);
    let mut server = Server::start_with(Options::shards(4));
    let mut written = Written::new(&mut server.client());
    written.write(&mut server.client(), 60, &mut random);
    for shards in [2, 4, 1, 3] {
        // Nothing is written in between: what recovery leaves must itself be recoverable.
        server.kill9();
        server.restart_with_shards(shards);
        server.kill9();
        server.restart();
    }
    written.check(&mut server.client(), "after eight crashes");
}

#[test]
fn more_than_the_write_ahead_log_holds_survives_a_crash() {
    let mut server = Server::start_with(Options::shards(2));
    let topic = unique("rounds");
    let mut client = server.client();
    create_topic(&mut client, &topic, 4);
    // Far more than one WAL file, so that files are recycled and segments are written.
    let batch = Batch::of_size(1_000_000).encode();
    const ROUNDS: i64 = 80;
    for _ in 0..ROUNDS {
        for partition in 0..4 {
            client.send(PRODUCE_BY_NAME, &produce_request(&topic, partition, 1, batch.clone()));
        }
        while client.in_flight() > 8 {
            expect_error(produced(client.receive()).error_code, ErrorCode::None, "produce");
        }
    }
    while client.in_flight() > 0 {
        expect_error(produced(client.receive()).error_code, ErrorCode::None, "produce");
    }
    server.kill9();
    server.restart_with_shards(3);
    let mut client = server.client();
    for partition in 0..4 {
        assert_eq!(high_watermark(&mut client, &topic, partition), ROUNDS);
        let mut next = 0;
        while next < ROUNDS {
            let data = fetch(&mut client, &topic, partition, next);
            expect_error(data.error_code, ErrorCode::None, "fetch");
            for stored in batches(&data) {
                assert_eq!(stored.base_offset, next);
                assert!(stored.is_as_sent(&batch), "partition {partition} at {next}");
                next += 1;
            }
        }
    }
}

#[test]
fn a_crash_before_the_first_record_leaves_usable_topics() {
    let mut server = Server::start_with(Options::shards(2));
    let mut written = Written::new(&mut server.client());
    server.kill9();
    server.restart_with_shards(1);
    written.check(&mut server.client(), "nothing was written");
}
