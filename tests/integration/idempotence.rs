//! Idempotent producers, before and after a crash. Source: KIP-98.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use chronik_protocol::messages::produce_response::PartitionProduceResponse;

use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::requests::{
    create_topic, expect_error, high_watermark, init_producer, produce_bytes, read_values,
};
use crate::support::server::{Options, Server};
use crate::support::unique;

/// Batches per producer and partition whose duplicates are recognized.
const REMEMBERED_BATCHES: i32 = 5;

fn send(
    client: &mut Client,
    topic: &str,
    (id, epoch): (i64, i16),
    sequence: i32,
    values: &[&str],
) -> PartitionProduceResponse {
    let batch = Batch::of(values).idempotent(id, epoch, sequence);
    produce_bytes(client, topic, 0, -1, batch.encode())
}

#[test]
fn producer_ids_are_given_once() {
    let mut server = Server::start_with(Options::shards(2));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        for _ in 0..20 {
            let (id, epoch) = init_producer(&mut server.client());
            assert!(id >= 0);
            assert_eq!(epoch, 0);
            assert!(seen.insert(id), "{id} was given twice");
        }
        server.kill9();
        server.restart();
    }
}

#[test]
fn transactional_ids_are_refused() {
    let server = Server::start();
    let request = InitProducerIdRequest {
        transactional_id: Some("t".into()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let response = server.client().call(4, &request);
    assert_ne!(response.error_code, 0, "transactions are not served");
    assert_eq!(response.producer_id, -1);
}

/// Runs the rules of one producer against `server`, restarting in between with `disturb`.
fn rules(server: &mut Server, mut disturb: impl FnMut(&mut Server)) {
    let topic = unique("rules");
    let producer = {
        let mut client = server.client();
        create_topic(&mut client, &topic, 1);
        init_producer(&mut client)
    };
    // Two records a batch; the numbers of the six batches are 0, 2, 4, 6, 8, 10.
    for n in 0..=REMEMBERED_BATCHES {
        let value = n.to_string();
        let response = send(&mut server.client(), &topic, producer, 2 * n, &[&value, "-"]);
        expect_error(response.error_code, ErrorCode::None, &format!("batch {n}"));
        assert_eq!(response.base_offset, i64::from(2 * n));
    }
    disturb(server);
    let mut client = server.client();
    for n in 1..=REMEMBERED_BATCHES {
        let value = n.to_string();
        let response = send(&mut client, &topic, producer, 2 * n, &[&value, "-"]);
        expect_error(response.error_code, ErrorCode::None, &format!("batch {n} again"));
        assert_eq!(response.base_offset, i64::from(2 * n), "its original offset");
    }
    let end = i64::from(2 * (REMEMBERED_BATCHES + 1));
    assert_eq!(high_watermark(&mut client, &topic, 0), end, "nothing was stored twice");

    disturb(server);
    let mut client = server.client();
    let next = 2 * (REMEMBERED_BATCHES + 1);
    let response = send(&mut client, &topic, producer, next + 2, &["gap"]);
    expect_error(response.error_code, ErrorCode::OutOfOrderSequenceNumber, "a gap");
    assert_eq!(high_watermark(&mut client, &topic, 0), end, "the gap was not stored");

    let newer = (producer.0, producer.1 + 1);
    let response = send(&mut client, &topic, newer, 1, &["new epoch, wrong start"]);
    expect_error(response.error_code, ErrorCode::OutOfOrderSequenceNumber, "an epoch begins at 0");
    let response = send(&mut client, &topic, newer, 0, &["new epoch"]);
    expect_error(response.error_code, ErrorCode::None, "a new epoch");

    disturb(server);
    let mut client = server.client();
    let response = send(&mut client, &topic, producer, next, &["old epoch"]);
    expect_error(response.error_code, ErrorCode::InvalidProducerEpoch, "an old epoch");
    let response = send(&mut client, &topic, newer, 1, &["goes on"]);
    expect_error(response.error_code, ErrorCode::None, "the new epoch goes on");
    assert_eq!(response.base_offset, end + 1);
    let values = read_values(&mut client, &topic, 0, end);
    assert_eq!(values, ["new epoch", "goes on"]);
}

#[test]
fn duplicates_gaps_and_old_epochs_are_recognized() {
    rules(&mut Server::start(), |_| {});
}

#[test]
fn duplicates_gaps_and_old_epochs_are_recognized_after_a_crash() {
    rules(&mut Server::start_with(Options::shards(2)), |server| {
        server.kill9();
        server.restart();
    });
}

#[test]
fn duplicates_gaps_and_old_epochs_are_recognized_after_an_orderly_stop() {
    rules(&mut Server::start_with(Options::shards(2)), |server| {
        server.stop();
        let shards = server.options_mut().shards % 3 + 1;
        server.restart_with_shards(shards);
    });
}

#[test]
fn duplicate_before_the_first_is_answered_gets_the_same_offset() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("in-flight");
    create_topic(&mut client, &topic, 1);
    let (id, epoch) = init_producer(&mut client);
    let batch = Batch::of(["x"]).idempotent(id, epoch, 0).encode();
    let request = crate::support::requests::produce_request(&topic, 0, -1, batch);
    for _ in 0..5 {
        client.send(crate::support::requests::PRODUCE_BY_NAME, &request);
    }
    for _ in 0..5 {
        let response = crate::support::requests::produced(client.receive());
        expect_error(response.error_code, ErrorCode::None, "the same batch");
        assert_eq!(response.base_offset, 0);
    }
    assert_eq!(high_watermark(&mut client, &topic, 0), 1);
}

#[test]
fn producers_of_one_partition_do_not_disturb_each_other() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("two");
    create_topic(&mut client, &topic, 1);
    let producers: Vec<_> = (0..3).map(|_| init_producer(&mut client)).collect();
    for sequence in 0..10 {
        for producer in &producers {
            let response = send(&mut client, &topic, *producer, sequence, &["x"]);
            expect_error(response.error_code, ErrorCode::None, "in sequence");
        }
    }
    assert_eq!(high_watermark(&mut client, &topic, 0), 30);
}
