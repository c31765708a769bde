//! Answers leave a connection in request order, and requests are carried out in it.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::fetch_response::FetchResponse;
use chronik_protocol::messages::metadata_request::MetadataRequest;
use chronik_protocol::messages::metadata_response::MetadataResponse;
use chronik_protocol::messages::produce_response::ProduceResponse;

use crate::support::batch::Batch;
use crate::support::requests::{
    FETCH_BY_NAME, FetchBounds, PRODUCE_BY_NAME, batches, create_topic, expect_error,
    fetch_request, fetched, produce_request, produced, read_values,
};
use crate::support::server::{Options, Server};
use crate::support::unique;

#[test]
fn pipelined_produces_and_fetches_are_answered_in_order() {
    let server = Server::start_with(Options::shards(3));
    let mut client = server.client();
    let topic = unique("order");
    create_topic(&mut client, &topic, 6);
    for round in 0..20 {
        for partition in 0..6 {
            let batch = Batch::of([format!("{partition}/{round}")]).encode();
            client.send(PRODUCE_BY_NAME, &produce_request(&topic, partition, -1, batch));
            let fetch = fetch_request(&topic, partition, 0, FetchBounds::default());
            client.send(FETCH_BY_NAME, &fetch);
            client.send(9, &MetadataRequest { topics: Some(vec![]), ..Default::default() });
        }
    }
    // The client checks APIs and correlation ids as it receives.
    for round in 0..20 {
        for partition in 0..6 {
            let response = produced(client.receive::<ProduceResponse>());
            expect_error(response.error_code, ErrorCode::None, "produce");
            assert_eq!((response.index, response.base_offset), (partition, round));
            let data = fetched(client.receive::<FetchResponse>());
            assert_eq!(data.partition_index, partition);
            assert!(data.high_watermark >= round, "{} < {round}", data.high_watermark);
            client.receive::<MetadataResponse>();
        }
    }
}

#[test]
fn a_parked_fetch_holds_back_later_answers_and_not_later_appends() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("parked");
    create_topic(&mut client, &topic, 1);
    // Nobody else writes: the fetch can only be answered if the produce behind it is carried out.
    let bounds = FetchBounds { max_wait_ms: 120_000, min_bytes: 1, ..FetchBounds::default() };
    client.send(FETCH_BY_NAME, &fetch_request(&topic, 0, 0, bounds));
    let batch = Batch::of(["x"]).encode();
    client.send(PRODUCE_BY_NAME, &produce_request(&topic, 0, -1, batch));
    let data = fetched(client.receive::<FetchResponse>());
    assert_eq!(batches(&data).len(), 1);
    let response = produced(client.receive::<ProduceResponse>());
    expect_error(response.error_code, ErrorCode::None, "produce");
}

#[test]
fn pipelined_produces_to_a_partition_are_appended_in_order_at_any_acks() {
    let server = Server::start_with(Options::shards(2));
    let mut client = server.client();
    let topic = unique("appended");
    create_topic(&mut client, &topic, 2);
    let acks = [-1, 0, 1];
    for n in 0..300 {
        let acks = acks[n % 3];
        for partition in 0..2 {
            let request =
                produce_request(&topic, partition, acks, Batch::of([n.to_string()]).encode());
            if acks == 0 {
                client.send_unanswered(PRODUCE_BY_NAME, &request);
            } else {
                client.send(PRODUCE_BY_NAME, &request);
            }
        }
    }
    while client.in_flight() > 0 {
        let response = produced(client.receive::<ProduceResponse>());
        expect_error(response.error_code, ErrorCode::None, "produce");
    }
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for partition in 0..2 {
        assert_eq!(read_values(&mut client, &topic, partition, 0), expected);
    }
}
