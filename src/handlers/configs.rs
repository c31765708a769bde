//! Resources whose configuration clients read and change: what DescribeConfigs, AlterConfigs and
//! IncrementalAlterConfigs have in common.

use std::collections::BTreeMap;

use chronik_protocol::ErrorCode;
use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::machine::metadata::{Topic, check_topic_name};
use chronik_shards::machine::topic_config::{ConfigSource, ConfigType};

use super::error::Refusal;
use super::{Handlers, error};
use crate::metadata_view::MetadataView;

/// Wire number of a topic as a resource.
pub const TOPIC: i8 = 2;
/// Wire number of a broker as a resource.
pub const BROKER: i8 = 4;
/// Wire number of a group as a resource.
pub const GROUP: i8 = 32;

/// A resource that exists.
pub enum Resource<'a> {
    /// A topic.
    Topic(&'a Topic),
    /// A group of consumers, whether there is one or not.
    Group(&'a BTreeMap<String, String>),
    /// This node.
    ThisBroker,
    /// What all brokers have in common and can be changed at run time: nothing.
    AllBrokers,
}

/// Finds a resource.
pub fn find<'a>(
    view: &'a MetadataView,
    resource_type: i8,
    name: &str,
) -> Result<Resource<'a>, Refusal> {
    match resource_type {
        TOPIC => {
            check_topic_name(name).map_err(|error| {
                Refusal::new(ErrorCode::InvalidTopicException, error.to_string())
            })?;
            let topic = view.image().topic_named(name).ok_or_else(|| {
                Refusal::new(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("there is no topic {name:?}"),
                )
            })?;
            Ok(Resource::Topic(topic))
        }
        GROUP if name.is_empty() => {
            Err(Refusal::new(ErrorCode::InvalidRequest, "a group has a name"))
        }
        GROUP => Ok(Resource::Group(view.group_configs(name))),
        BROKER if name.is_empty() => Ok(Resource::AllBrokers),
        BROKER if name.parse() == Ok(view.node_id().get()) => Ok(Resource::ThisBroker),
        BROKER => {
            let message = format!("this is node {}, not {name:?}", view.node_id());
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        }
        other => {
            let message = format!("resources of type {other} have no configuration here");
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        }
    }
}

/// What a request changes.
pub enum Changed<'a> {
    /// A topic.
    Topic(&'a Topic),
    /// A group.
    Group,
    /// A broker of which it changes nothing.
    Nothing,
}

/// Finds what a request changes. A broker's configuration is what it was started with, so that any change of it is
/// refused.
pub fn changed<'a>(
    view: &'a MetadataView,
    resource_type: i8,
    name: &str,
    changes_nothing: bool,
) -> Result<Changed<'a>, Refusal> {
    match find(view, resource_type, name)? {
        Resource::Topic(topic) => Ok(Changed::Topic(topic)),
        Resource::Group(_) => Ok(Changed::Group),
        Resource::ThisBroker | Resource::AllBrokers if changes_nothing => Ok(Changed::Nothing),
        Resource::ThisBroker | Resource::AllBrokers => {
            let message =
                "a broker's configuration is set where it is started and not while it runs";
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        }
    }
}

/// Proposes a change of a configuration, if there is one and it is not only to be checked.
pub async fn propose(
    handlers: &Handlers,
    command: Option<MetadataCommand>,
    validate_only: bool,
) -> Result<(), Refusal> {
    let Some(command) = command.filter(|_| !validate_only) else { return Ok(()) };
    let proposed = handlers.propose(command).await;
    proposed.map(|_| ()).map_err(|error| error::of_control(&error))
}

/// Wire number of a source.
pub fn source_code(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::DynamicTopic => 1,
        ConfigSource::DynamicGroup => 8,
        ConfigSource::StaticBroker => 4,
        ConfigSource::Default => 5,
    }
}

/// Wire number of a type.
pub fn type_code(config_type: ConfigType) -> i8 {
    match config_type {
        ConfigType::Boolean => 1,
        ConfigType::String => 2,
        ConfigType::Int => 3,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
    }
}
