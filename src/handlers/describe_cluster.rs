//! DescribeCluster: nodes and who steers. Source: KIP-700, KIP-919.

use std::rc::Rc;

use chronik_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use chronik_protocol::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};
use chronik_protocol::{ErrorCode, KafkaString};

use super::{CLUSTER_OPERATIONS, Handlers};

/// Wire number: the client came to a listener for clients.
const BROKERS: i8 = 1;
/// Wire number: the client looks for a listener of controllers.
const CONTROLLERS: i8 = 2;

/// Answers a DescribeCluster request.
pub fn handle(
    handlers: &Rc<Handlers>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let refused = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "this is a listener for clients, not for controllers",
        )),
        _ => Some((ErrorCode::UnsupportedEndpointType, "there is no such kind of endpoint")),
    };
    if let Some((code, message)) = refused {
        return DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(message.into()),
            ..DescribeClusterResponse::default()
        };
    }
    let view = handlers.metadata.borrow();
    let brokers = view
        .image()
        .brokers()
        .filter(|(_, broker)| !broker.fenced || request.include_fenced_brokers)
        .map(|(node_id, broker)| DescribeClusterBroker {
            broker_id: node_id.get(),
            host: KafkaString::from(broker.host.as_str()),
            port: i32::from(broker.port),
            rack: broker.rack.as_deref().map(KafkaString::from),
            is_fenced: broker.fenced,
            ..DescribeClusterBroker::default()
        })
        .collect();
    let mut response = DescribeClusterResponse {
        cluster_id: handlers.cluster_id.clone(),
        controller_id: view.controller().get(),
        brokers,
        ..DescribeClusterResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}
