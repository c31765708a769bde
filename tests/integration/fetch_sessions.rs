//! Incremental fetch sessions. Source: KIP-227.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::fetch_request::{FetchRequest, ForgottenTopic};
use chronik_protocol::messages::fetch_response::FetchResponse;

use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::requests::{
    FETCH_BY_NAME, FetchBounds, create_topic, expect_error, fetch_request, produce,
};
use crate::support::server::{Options, Server};
use crate::support::unique;

/// All partitions of a topic in a session that begins.
fn full(topic: &str, partitions: i32) -> FetchRequest {
    let mut request = fetch_request(topic, 0, 0, FetchBounds::default());
    for partition in 1..partitions {
        let mut more = request.topics[0].partitions[0].clone();
        more.partition = partition;
        request.topics[0].partitions.push(more);
    }
    request.session_id = 0;
    request.session_epoch = 0;
    request
}

fn next(session_id: i32, session_epoch: i32) -> FetchRequest {
    let mut request = full("", 1);
    request.topics.clear();
    request.session_id = session_id;
    request.session_epoch = session_epoch;
    request
}

/// Partitions in the answer with the bytes of their records.
fn said(response: &FetchResponse) -> Vec<(i32, bool)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let mut said: Vec<_> = partitions
        .map(|data| (data.partition_index, data.records.as_ref().is_some_and(|r| !r.is_empty())))
        .collect();
    said.sort_unstable();
    said
}

fn begin(client: &mut Client, topic: &str, partitions: i32) -> i32 {
    let response = client.call(FETCH_BY_NAME, &full(topic, partitions));
    expect_error(response.error_code, ErrorCode::None, "a session begins");
    assert_ne!(response.session_id, 0, "a session was asked for");
    assert_eq!(said(&response).len(), partitions as usize, "a full answer");
    response.session_id
}

#[test]
fn a_session_answers_only_with_what_is_new() {
    let server = Server::start_with(Options::shards(2));
    let mut client = server.client();
    let mut producer = server.client();
    let topic = unique("session");
    create_topic(&mut producer, &topic, 3);
    let session = begin(&mut client, &topic, 3);

    let response = client.call(FETCH_BY_NAME, &next(session, 1));
    expect_error(response.error_code, ErrorCode::None, "nothing new");
    assert_eq!(response.session_id, session);
    assert_eq!(said(&response), [], "nothing new");

    produce(&mut producer, &topic, 1, &Batch::of(["x"]));
    let response = client.call(FETCH_BY_NAME, &next(session, 2));
    assert_eq!(said(&response), [(1, true)]);

    // The consumer moves on: only that partition is named.
    let mut request = next(session, 3);
    request.topics = fetch_request(&topic, 1, 1, FetchBounds::default()).topics;
    let response = client.call(FETCH_BY_NAME, &request);
    assert!(said(&response).iter().all(|(_, has_records)| !has_records), "{response:?}");

    produce(&mut producer, &topic, 2, &Batch::of(["y"]));
    produce(&mut producer, &topic, 1, &Batch::of(["z"]));
    let response = client.call(FETCH_BY_NAME, &next(session, 4));
    assert_eq!(said(&response), [(1, true), (2, true)]);
}

#[test]
fn a_forgotten_partition_is_not_answered_any_more() {
    let server = Server::start();
    let mut client = server.client();
    let mut producer = server.client();
    let topic = unique("forget");
    create_topic(&mut producer, &topic, 2);
    let session = begin(&mut client, &topic, 2);
    let mut request = next(session, 1);
    request.forgotten_topics_data = vec![ForgottenTopic {
        topic: topic.as_str().into(),
        partitions: vec![0],
        ..ForgottenTopic::default()
    }];
    client.call(FETCH_BY_NAME, &request);
    produce(&mut producer, &topic, 0, &Batch::of(["x"]));
    produce(&mut producer, &topic, 1, &Batch::of(["y"]));
    let response = client.call(FETCH_BY_NAME, &next(session, 2));
    assert_eq!(said(&response), [(1, true)]);
}

#[test]
fn unknown_sessions_and_wrong_epochs_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("refused");
    create_topic(&mut client, &topic, 1);
    let response = client.call(FETCH_BY_NAME, &next(123_456_789, 1));
    expect_error(response.error_code, ErrorCode::FetchSessionIdNotFound, "no such session");
    let session = begin(&mut client, &topic, 1);
    let response = client.call(FETCH_BY_NAME, &next(session, 5));
    expect_error(response.error_code, ErrorCode::InvalidFetchSessionEpoch, "an epoch too far");
    // The session itself goes on.
    let response = client.call(FETCH_BY_NAME, &next(session, 1));
    expect_error(response.error_code, ErrorCode::None, "the right epoch");
}

#[test]
fn a_closed_session_is_gone() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("closed");
    create_topic(&mut client, &topic, 1);
    let session = begin(&mut client, &topic, 1);
    let mut closing = full(&topic, 1);
    closing.session_id = session;
    closing.session_epoch = -1;
    let response = client.call(FETCH_BY_NAME, &closing);
    expect_error(response.error_code, ErrorCode::None, "closing");
    assert_eq!(response.session_id, 0);
    let response = client.call(FETCH_BY_NAME, &next(session, 1));
    expect_error(response.error_code, ErrorCode::FetchSessionIdNotFound, "a closed session");
}

#[test]
fn a_parked_session_fetch_is_answered_when_a_record_arrives() {
    let server = Server::start();
    let mut client = server.client();
    let mut producer = server.client();
    let topic = unique("parked");
    create_topic(&mut producer, &topic, 2);
    let session = begin(&mut client, &topic, 2);
    let mut request = next(session, 1);
    request.max_wait_ms = 120_000;
    request.min_bytes = 1;
    client.send(FETCH_BY_NAME, &request);
    produce(&mut producer, &topic, 1, &Batch::of(["x"]));
    let response: FetchResponse = client.receive();
    assert_eq!(said(&response), [(1, true)]);
}

#[test]
fn a_fetch_of_nothing_has_nothing_to_wait_for() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("nothing");
    create_topic(&mut client, &topic, 1);
    let session = begin(&mut client, &topic, 1);
    // As clients do when they end: the last poll is parked, the session's end right behind it.
    let mut parked = next(session, 1);
    (parked.max_wait_ms, parked.min_bytes) = (300, 1);
    let mut closing = next(session, -1);
    (closing.max_wait_ms, closing.min_bytes) = (120_000, 1);
    client.send(FETCH_BY_NAME, &parked);
    client.send(FETCH_BY_NAME, &closing);
    for what in ["the parked poll", "the end of the session"] {
        let response: FetchResponse = client.receive();
        expect_error(response.error_code, ErrorCode::None, what);
        assert_eq!(said(&response), [], "{what}");
    }
    let mut sessionless = next(0, -1);
    (sessionless.max_wait_ms, sessionless.min_bytes) = (120_000, 1);
    let response = client.call(FETCH_BY_NAME, &sessionless);
    expect_error(response.error_code, ErrorCode::None, "no session and no partition");
}
