//! Records of several nodes, each a process of its own, as clients of any of them see it.

mod absence;
mod groups;
mod leaders;
mod metrics;
mod strangers;
mod versions;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use chronik_protocol::messages::fetch_request::FetchRequest;
use chronik_protocol::messages::fetch_response::PartitionData;

use crate::support::client::Client;
use crate::support::requests::{FETCH_BY_NAME, FetchBounds, expect_error, fetch_request, fetched};

/// What this node has of a partition from `offset` on, whether it leads or not, for a consumer that stands in
/// `rack`.
fn fetch_in_rack(
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
    rack: &str,
) -> PartitionData {
    let bounds = FetchBounds { max_wait_ms: 1000, min_bytes: 1, ..FetchBounds::default() };
    let request = fetch_request(topic, partition, offset, bounds);
    let request = FetchRequest { rack_id: rack.into(), ..request };
    fetched(client.call(FETCH_BY_NAME, &request))
}

/// Gives a topic more partitions.
fn grow(client: &mut Client, name: &str, count: i32) {
    let topic =
        CreatePartitionsTopic { name: name.into(), count, assignments: None, ..Default::default() };
    let request =
        CreatePartitionsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let response = client.call(3, &request);
    expect_error(response.results[0].error_code, ErrorCode::None, "more partitions");
}
