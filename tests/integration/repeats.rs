//! Requests that name very much, or one thing again and again.

use chronik_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use chronik_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use chronik_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use chronik_protocol::{ErrorCode, KafkaString};

use crate::support::batch::Batch;
use crate::support::requests::{create_topic, produce};
use crate::support::server::Server;
use crate::support::unique;

#[test]
fn a_request_that_names_hundreds_of_thousands_costs_time_in_proportion() {
    const NAMED: i32 = 200_000;
    let mut server = Server::start();
    let mut client = server.client();
    let topic = unique("repeats");
    create_topic(&mut client, &topic, 1);
    let partitions = (0..NAMED).map(|n| ListOffsetsPartition {
        partition_index: n / 2 + 1,
        timestamp: -1,
        current_leader_epoch: -1,
        ..ListOffsetsPartition::default()
    });
    let asked = ListOffsetsTopic {
        name: topic.as_str().into(),
        partitions: partitions.collect(),
        ..ListOffsetsTopic::default()
    };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![asked], ..ListOffsetsRequest::default() };
    // The client's patience is the bound: comparing each with each takes minutes.
    let response = client.call(7, &request);
    let answers = &response.topics[0].partitions;
    assert_eq!(answers.len(), NAMED as usize);
    assert!(answers.iter().all(|one| one.error_code == ErrorCode::InvalidRequest.code()));
    let names = (0..NAMED).map(|n| KafkaString::from(format!("absent-{n}").as_str()));
    let request =
        DeleteTopicsRequest { topic_names: names.collect(), ..DeleteTopicsRequest::default() };
    let response = client.call(5, &request);
    assert_eq!(response.responses.len(), NAMED as usize);
    // And memory: what is asked for again and again is answered once.
    let broker = DescribeConfigsResource {
        resource_type: 4,
        resource_name: "1".into(),
        configuration_keys: None,
        ..DescribeConfigsResource::default()
    };
    let request = DescribeConfigsRequest {
        resources: vec![broker; NAMED as usize],
        ..DescribeConfigsRequest::default()
    };
    let response = client.call(4, &request);
    assert_eq!(response.results.len(), 1);
    assert!(!response.results[0].configs.is_empty());
    server.assert_alive();
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["x"])), 0);
}
