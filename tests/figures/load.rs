//! Topics and records for a server.

use bytes::Bytes;
use chronik_protocol::ErrorCode;

use super::Size;
use super::support::batch::{Batch, Record};
use super::support::client::Client;
use super::support::requests::{
    PRODUCE_BY_NAME, create_topic, expect_error, produce_request, produced,
};
use super::support::server::Server;

/// The topic that gets most of the load.
pub const HOT: &str = "figures-hot";

/// Requests under way on the one connection.
const IN_FLIGHT: usize = 32;

/// Bytes of a batch of the hot topic.
const HOT_BATCH_BYTES: usize = 64 << 10;

/// Creates all topics and the hot one.
pub fn create_topics(server: &Server, size: Size) {
    let mut client = server.client();
    for name in size.topic_names() {
        create_topic(&mut client, &name, size.partitions);
    }
    create_topic(&mut client, HOT, 4);
}

/// Ten records to every partition, acknowledged by all.
pub fn fill_all(server: &Server, size: Size) {
    let batch = Batch::of((0..10).map(|number| format!("value {number}"))).encode();
    let topics: Vec<String> = size.topic_names().collect();
    let places = topics.iter().flat_map(|topic| (0..size.partitions).map(move |p| (topic, p)));
    pipeline(&mut server.client(), places.map(|(topic, p)| (topic.as_str(), p, batch.clone())));
}

/// `bytes` bytes to the hot topic, acknowledged by all.
pub fn fill_hot(server: &Server, bytes: u64) {
    let batch = hot_batch();
    let count = bytes.div_ceil(batch.len() as u64) as i32;
    pipeline(&mut server.client(), (0..count).map(|number| (HOT, number % 4, batch.clone())));
}

/// A batch of a hundred records or so.
pub fn hot_batch() -> Bytes {
    let value = vec![b'x'; 600];
    let records = (0..HOT_BATCH_BYTES / value.len()).map(|_| Record::of(&value)).collect();
    Batch::of_records(records).encode()
}

/// Sends requests one behind the other, each acknowledged by all.
pub fn pipeline<'a>(client: &mut Client, places: impl Iterator<Item = (&'a str, i32, Bytes)>) {
    let mut places = places.peekable();
    while places.peek().is_some() || client.in_flight() > 0 {
        while client.in_flight() < IN_FLIGHT
            && let Some((topic, partition, batch)) = places.next()
        {
            client.send(PRODUCE_BY_NAME, &produce_request(topic, partition, -1, batch));
        }
        let answer = produced(client.receive());
        expect_error(answer.error_code, ErrorCode::None, "a produce");
    }
}
