//! ListConfigResources: what has a configuration. Source: KIP-1142.

use std::rc::Rc;

use chronik_protocol::messages::list_config_resources_request::ListConfigResourcesRequest;
use chronik_protocol::messages::list_config_resources_response::{
    ConfigResource, ListConfigResourcesResponse,
};
use chronik_protocol::{ErrorCode, KafkaString};

use super::Handlers;
use super::configs::{BROKER, GROUP, TOPIC};

/// Wire numbers of resources that clients may ask for and this server has none of: broker loggers,
/// client metrics.
const NONE_HERE: [i8; 2] = [8, 16];

/// Answers a ListConfigResources request. Version 0 asks for client metrics, of which there are none.
pub fn handle(
    handlers: &Rc<Handlers>,
    request: &ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let wants = |kind: i8| {
        version > 0 && (request.resource_types.is_empty() || request.resource_types.contains(&kind))
    };
    let is_known = |kind: &i8| [TOPIC, BROKER, GROUP].contains(kind) || NONE_HERE.contains(kind);
    if !request.resource_types.iter().all(is_known) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ListConfigResourcesResponse::default()
        };
    }
    let view = handlers.metadata.borrow();
    let resource = |resource_type: i8, name: KafkaString| ConfigResource {
        resource_name: name,
        resource_type,
        ..ConfigResource::default()
    };
    let mut config_resources = Vec::new();
    if wants(TOPIC) {
        let named = |topic: &chronik_shards::machine::metadata::Topic| {
            resource(TOPIC, KafkaString::from(topic.name.as_str()))
        };
        config_resources.extend(view.image().topics().map(named));
    }
    if wants(BROKER) {
        let named = |(node_id, _)| resource(BROKER, KafkaString::from(format!("{node_id}")));
        config_resources.extend(view.image().brokers().map(named));
    }
    if wants(GROUP) {
        let named = |group_id: &String| resource(GROUP, KafkaString::from(group_id.as_str()));
        config_resources.extend(view.image().group_configs().keys().map(named));
    }
    ListConfigResourcesResponse { config_resources, ..ListConfigResourcesResponse::default() }
}
