//! Incremental changes of a topic's overrides, resolved before they are proposed.

use std::collections::{BTreeMap, BTreeSet};

use super::value::{self, ConfigType};
use super::{BrokerConfig, ConfigError, effective, topic_keys};
use crate::format::metadata_command::{ConfigEntry, SetTopicConfig};
use crate::model::TopicId;

/// One change. Source: KIP-339.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigOp {
    /// Override it.
    Set(String),
    /// Do not override it any more.
    Delete,
    /// Add these words to the list in force.
    Append(String),
    /// Take these words from the list in force.
    Subtract(String),
}

/// Turns incremental changes into a command that sets and removes; overrides that are not named
/// stay as they are when it is applied.
///
/// # Errors
/// [`ConfigError`] naming the key: unknown, named twice, no list, or not with the resulting value.
pub fn alter(
    topic_id: TopicId,
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
    changes: &[(String, ConfigOp)],
) -> Result<SetTopicConfig, ConfigError> {
    let mut command =
        SetTopicConfig { topic_id, replace: false, set: Vec::new(), remove: Vec::new() };
    let mut named = BTreeSet::new();
    for (name, change) in changes {
        let key = topic_keys::find(name)?;
        if !named.insert(name) {
            return Err(ConfigError::NamedTwice { name: name.clone() });
        }
        let is_list = key.rule.config_type() == ConfigType::List;
        let in_force = effective(key.name, overrides, broker);
        let value = match change {
            ConfigOp::Delete => {
                command.remove.push(name.clone());
                continue;
            }
            ConfigOp::Set(value) => value.trim().to_owned(),
            ConfigOp::Append(_) | ConfigOp::Subtract(_) if !is_list => {
                return Err(ConfigError::NotAList { name: name.clone() });
            }
            ConfigOp::Append(words) => {
                let mut all: Vec<&str> = value::list(&in_force).collect();
                for word in value::list(words) {
                    if !all.contains(&word) {
                        all.push(word);
                    }
                }
                all.join(",")
            }
            ConfigOp::Subtract(words) => {
                let gone: Vec<&str> = value::list(words).collect();
                let rest = value::list(&in_force).filter(|word| !gone.contains(word));
                rest.collect::<Vec<_>>().join(",")
            }
        };
        key.rule.check(name, &value, broker.limits())?;
        command.set.push(ConfigEntry { name: name.clone(), value });
    }
    let mut result = overrides.clone();
    result.retain(|name, _| !command.remove.contains(name));
    result.extend(command.set.iter().map(|entry| (entry.name.clone(), entry.value.clone())));
    // What was set before is not looked at again, but for what keys say together.
    super::check_together(&result, broker)?;
    Ok(command)
}
