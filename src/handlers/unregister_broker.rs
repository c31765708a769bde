//! UnregisterBroker: a node that will not come back leaves the list. Source: KIP-631.
//!
//! Unlike Kafka's, ours refuses a node that runs or holds replicas: forgetting it would leave partitions
//! with fewer copies than their topics ask for.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use chronik_protocol::messages::unregister_broker_response::UnregisterBrokerResponse;
use chronik_shards::format::metadata_command::{MetadataCommand, UnregisterBroker};
use chronik_shards::model::NodeId;

use super::{Handlers, error};

/// Answers an UnregisterBroker request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: &UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let node_id = NodeId(request.broker_id);
    let command = MetadataCommand::UnregisterBroker(UnregisterBroker { node_id });
    let mut response = UnregisterBrokerResponse::default();
    if let Err(failure) = handlers.propose(command).await {
        let refusal = error::of_control(&failure);
        response.error_code = refusal.code.code();
        response.error_message = Some(refusal.message.into());
    } else {
        response.error_code = ErrorCode::None.code();
    }
    response
}
