//! DescribeConfigs: values with their source, type, documentation and synonyms. Source: KIP-133, KIP-226.

use std::collections::HashSet;
use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use chronik_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use chronik_shards::machine::topic_config::{
    ConfigDescription, describe_broker, describe_group, describe_topic,
};

use super::Handlers;
use super::configs::{self, Resource};
use super::error::Refusal;
use crate::metadata_view::MetadataView;

/// Answers a DescribeConfigs request. A resource that is named twice is answered once: an answer is hundreds of
/// times as large as its question.
pub fn handle(handlers: &Rc<Handlers>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let view = handlers.metadata.borrow();
    let mut seen = HashSet::new();
    let results = request
        .resources
        .iter()
        .filter(|resource| seen.insert((resource.resource_type, &*resource.resource_name)))
        .map(|resource| {
            let mut result = DescribeConfigsResult {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..DescribeConfigsResult::default()
            };
            match describe(&view, resource) {
                Ok(configs) => {
                    let told = |config| told(config, &request);
                    result.configs = configs.into_iter().map(told).collect();
                }
                Err(refusal) => {
                    result.error_code = refusal.code.code();
                    result.error_message = Some(refusal.message.into());
                }
            }
            result
        })
        .collect();
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

fn describe(
    view: &MetadataView,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigDescription>, Refusal> {
    let mut configs = match configs::find(view, resource.resource_type, &resource.resource_name)? {
        Resource::Topic(topic) => describe_topic(&topic.configs, view.broker_config()),
        Resource::Group(configs) => describe_group(configs, view.broker_config()),
        Resource::ThisBroker => describe_broker(view.broker_config()),
        Resource::AllBrokers => Vec::new(),
    };
    // No keys, like an empty list, asks for all of them.
    if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
        configs.retain(|config| keys.iter().any(|key| *key == config.name));
    }
    Ok(configs)
}

fn told(
    config: ConfigDescription,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let synonyms = match request.include_synonyms {
        true => config
            .synonyms
            .into_iter()
            .map(|synonym| DescribeConfigsSynonym {
                name: KafkaString::from_static(synonym.name),
                value: synonym.value.map(KafkaString::from),
                source: configs::source_code(synonym.source),
                ..DescribeConfigsSynonym::default()
            })
            .collect(),
        false => Vec::new(),
    };
    DescribeConfigsResourceResult {
        name: KafkaString::from_static(config.name),
        value: config.value.map(KafkaString::from),
        read_only: config.read_only,
        config_source: configs::source_code(config.source),
        is_sensitive: false,
        synonyms,
        config_type: configs::type_code(config.config_type),
        documentation: request.include_documentation.then(|| KafkaString::from_static(config.doc)),
        ..DescribeConfigsResourceResult::default()
    }
}
