//! FindCoordinator: which node coordinates a group. Source: KIP-699.

use std::collections::BTreeMap;
use std::rc::Rc;

use chronik_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use chronik_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use chronik_protocol::{ErrorCode, KafkaString};

use super::error::Refusal;
use super::{Handlers, groups};

/// Wire numbers of what is coordinated.
mod key_type {
    pub const GROUP: i8 = 0;
    pub const TRANSACTION: i8 = 1;
}

/// Answers a FindCoordinator request. A key that is named twice is answered twice.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    if version < 4 {
        let found = one(handlers, request.key_type, &request.key).await;
        return FindCoordinatorResponse {
            error_code: found.error_code,
            // Kafka says NONE where there is no error.
            error_message: found.error_message.or(Some(KafkaString::from_static("NONE"))),
            node_id: found.node_id,
            host: found.host,
            port: found.port,
            ..FindCoordinatorResponse::default()
        };
    }
    // The answer is some twenty times as large as its question: what is asked twice is looked up once.
    let mut known: BTreeMap<KafkaString, Coordinator> = BTreeMap::new();
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in &request.coordinator_keys {
        if let Some(found) = known.get(key) {
            coordinators.push(found.clone());
            continue;
        }
        let found = one(handlers, request.key_type, key).await;
        known.insert(key.clone(), found.clone());
        coordinators.push(found);
    }
    FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() }
}

async fn one(handlers: &Rc<Handlers>, key_type: i8, key: &KafkaString) -> Coordinator {
    let found = match key_type {
        key_type::GROUP => groups::coordinator(handlers, key).await,
        // Not served, as InitProducerId says: a client must not look for it again and again.
        key_type::TRANSACTION => Err(Refusal::new(
            ErrorCode::TransactionalIdAuthorizationFailed,
            "transactions are not served",
        )),
        other => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("nothing of type {other} is coordinated here"),
        )),
    };
    let nobody = Coordinator { key: key.clone(), node_id: -1, port: -1, ..Coordinator::default() };
    let view = handlers.metadata.borrow();
    match found {
        Ok(node_id) => match view.image().broker(node_id) {
            Some(broker) => Coordinator {
                node_id: node_id.get(),
                host: KafkaString::from(broker.host.as_str()),
                port: i32::from(broker.port),
                ..nobody
            },
            None => Coordinator { error_code: ErrorCode::CoordinatorNotAvailable.code(), ..nobody },
        },
        Err(refusal) => Coordinator {
            error_code: refusal.code.code(),
            error_message: Some(refusal.message.into()),
            ..nobody
        },
    }
}
