//! Configuration as it is told to clients.

use std::collections::BTreeMap;

use super::value::ConfigType;
use super::{BrokerConfig, Origin, broker_keys, effective, topic_keys};

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigSource {
    /// The topic overrides it.
    DynamicTopic,
    /// The group overrides it.
    DynamicGroup,
    /// The broker was started with it.
    StaticBroker,
    /// Nobody said anything.
    Default,
}

/// A key as it is described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigDescription {
    /// Kafka's name.
    pub name: &'static str,
    /// The value in force. `None`: not set, and other keys decide.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// What values look like.
    pub config_type: ConfigType,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// What it does.
    pub doc: &'static str,
    /// Every place that has a value for it, the one in force first.
    pub synonyms: Vec<ConfigSynonym>,
}

/// A place that has a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigSynonym {
    /// The key there.
    pub name: &'static str,
    /// Its value there, in that key's own unit.
    pub value: Option<String>,
    /// What kind of place it is.
    pub source: ConfigSource,
}

/// Every key of a topic with `overrides`, by name. None is sensitive, none is read-only.
#[must_use]
pub fn describe_topic(
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Vec<ConfigDescription> {
    let describe = |key: &topic_keys::TopicKey| {
        let mut synonyms = Vec::new();
        if let Some(value) = overrides.get(key.name) {
            let (value, source) = (Some(value.clone()), ConfigSource::DynamicTopic);
            synonyms.push(ConfigSynonym { name: key.name, value, source });
        }
        for synonym in key.synonyms {
            if let Some(value) = broker.explicit(synonym.key) {
                let (value, source) = (Some(value.to_owned()), ConfigSource::StaticBroker);
                synonyms.push(ConfigSynonym { name: synonym.key, value, source });
            }
        }
        if let Some(synonym) = key.synonyms.last() {
            let value = broker_keys::find(synonym.key).ok().map(|key| key.default.to_owned());
            let source = ConfigSource::Default;
            synonyms.push(ConfigSynonym { name: synonym.key, value, source });
        }
        ConfigDescription {
            name: key.name,
            value: Some(effective(key.name, overrides, broker)),
            source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
            config_type: key.rule.config_type(),
            read_only: false,
            doc: key.doc,
            synonyms,
        }
    };
    topic_keys::topic_keys().iter().map(describe).collect()
}

/// Every key of a broker, by name. None is sensitive, all are read-only.
#[must_use]
pub fn describe_broker(broker: &BrokerConfig) -> Vec<ConfigDescription> {
    let describe = |key: &broker_keys::BrokerKey| {
        let default = Some(key.default).filter(|default| !default.is_empty()).map(str::to_owned);
        let mut synonyms = Vec::new();
        if let Some(value) = broker.explicit(key.name) {
            let (value, source) = (Some(value.to_owned()), ConfigSource::StaticBroker);
            synonyms.push(ConfigSynonym { name: key.name, value, source });
        }
        if key.origin == Origin::KafkaTable && default.is_some() {
            let (value, source) = (default, ConfigSource::Default);
            synonyms.push(ConfigSynonym { name: key.name, value, source });
        }
        ConfigDescription {
            name: key.name,
            value: synonyms.first().and_then(|synonym| synonym.value.clone()),
            source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
            config_type: key.rule.config_type(),
            read_only: true,
            doc: key.doc,
            synonyms,
        }
    };
    broker_keys::broker_keys().iter().map(describe).collect()
}
