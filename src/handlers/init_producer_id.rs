//! InitProducerId: identities for idempotent producers. Source: KIP-98, KIP-360.
//!
//! Ids come from blocks that a shard takes from the metadata log; a block that is lost with a process
//! leaves a gap and nothing else. Transactions are not served, so a transactional id is refused.

use std::ops::Range;
use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use chronik_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use chronik_shards::format::metadata_command::{AllocateProducerIds, MetadataCommand};
use chronik_shards::machine::metadata::ApplyOutcome;

use super::error::Refusal;
use super::{Handlers, error};

/// The ids that a shard may still give out.
pub type ProducerIdBlock = Range<i64>;

/// Answers an InitProducerId request. An idempotent producer that comes back with its old id gets a new
/// one: only transactions let an id live on.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let result = match &request.transactional_id {
        Some(_) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None => fresh(handlers).await.map_err(|refusal| refusal.code),
    };
    match result {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, ..InitProducerIdResponse::default() }
        }
        Err(code) => InitProducerIdResponse {
            error_code: code.code(),
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}

async fn fresh(handlers: &Handlers) -> Result<i64, Refusal> {
    loop {
        if let Some(id) = handlers.producer_ids.borrow_mut().next() {
            return Ok(id);
        }
        let node_id = handlers.metadata.borrow().node_id();
        let broker_epoch = handlers.broker_epoch;
        let command = AllocateProducerIds { node_id, broker_epoch };
        let outcome = handlers.propose(MetadataCommand::AllocateProducerIds(command)).await;
        match outcome.map_err(|error| error::of_control(&error))? {
            ApplyOutcome::ProducerIds { first, count } => {
                // Several requests may have asked at once; the ids of a block in use are not lost.
                let mut block = handlers.producer_ids.borrow_mut();
                if block.is_empty() {
                    *block = first.get()..first.get() + count;
                }
            }
            other => unreachable!("a block is answered with producer ids, not {other:?}"),
        }
    }
}
