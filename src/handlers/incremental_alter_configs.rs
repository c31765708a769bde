//! IncrementalAlterConfigs: sets, removes, appends to and subtracts from single keys. Source: KIP-339.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use chronik_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::machine::topic_config::{ConfigOp, alter, alter_group};

use super::configs::Changed;
use super::error::Refusal;
use super::{Handlers, configs, error};
use crate::metadata_view::MetadataView;

/// Answers an IncrementalAlterConfigs request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let mut told = AlterConfigsResourceResponse {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..AlterConfigsResourceResponse::default()
        };
        let command = command(&handlers.metadata.borrow(), resource);
        let changed = match command {
            Ok(command) => configs::propose(handlers, command, request.validate_only).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = changed {
            told.error_code = refusal.code.code();
            told.error_message = Some(refusal.message.into());
        }
        responses.push(told);
    }
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}

/// `None` where nothing is to be changed.
fn command(
    view: &MetadataView,
    resource: &AlterConfigsResource,
) -> Result<Option<MetadataCommand>, Refusal> {
    let changes_nothing = resource.configs.is_empty();
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    let changed = configs::changed(view, kind, name, changes_nothing)?;
    let changes: Vec<(String, ConfigOp)> =
        resource.configs.iter().map(operation).collect::<Result<_, _>>()?;
    let broker = view.broker_config();
    let command = match changed {
        Changed::Topic(topic) => {
            alter(topic.id, &topic.configs, broker, &changes).map(MetadataCommand::SetTopicConfig)
        }
        Changed::Group => alter_group(name, broker, &changes).map(MetadataCommand::SetGroupConfig),
        Changed::Nothing => return Ok(None),
    };
    command.map(Some).map_err(|error| error::of_config(&error))
}

fn operation(config: &AlterableConfig) -> Result<(String, ConfigOp), Refusal> {
    let name = config.name.to_string();
    let value = || {
        config.value.as_ref().map(|value| value.to_string()).ok_or_else(|| {
            Refusal::new(ErrorCode::InvalidRequest, format!("{name} is given no value"))
        })
    };
    let operation = match config.config_operation {
        0 => ConfigOp::Set(value()?),
        1 => ConfigOp::Delete,
        2 => ConfigOp::Append(value()?),
        3 => ConfigOp::Subtract(value()?),
        other => {
            let message = format!("{other} is not an operation on a configuration");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    };
    Ok((name, operation))
}
