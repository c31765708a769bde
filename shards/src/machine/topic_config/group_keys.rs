//! Every configuration key of a group: what members of consumer groups are told, where not what the broker says.

use std::collections::BTreeMap;

use super::value::{self, Rule};
use super::{
    BrokerConfig, ConfigDescription, ConfigError, ConfigOp, ConfigSource, ConfigSynonym,
    broker_keys,
};
use crate::format::metadata_command::{ConfigEntry, SetGroupConfig};
use crate::machine::group::GroupOverrides;

/// A key that a group may override.
#[derive(Clone, Copy, Debug)]
struct GroupKey {
    name: &'static str,
    /// The broker's key of the same meaning.
    broker: &'static str,
    /// The broker's keys that bound it.
    min: &'static str,
    max: &'static str,
    doc: &'static str,
}

const HEARTBEAT_INTERVAL: &str = "consumer.heartbeat.interval.ms";
const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";

const KEYS: &[GroupKey] = &[
    GroupKey {
        name: HEARTBEAT_INTERVAL,
        broker: "group.consumer.heartbeat.interval.ms",
        min: "group.consumer.min.heartbeat.interval.ms",
        max: "group.consumer.max.heartbeat.interval.ms",
        doc: "How often members of the group are to be heard, in milliseconds.",
    },
    GroupKey {
        name: SESSION_TIMEOUT,
        broker: "group.consumer.session.timeout.ms",
        min: "group.consumer.min.session.timeout.ms",
        max: "group.consumer.max.session.timeout.ms",
        doc: "Milliseconds that a member of the group may be silent.",
    },
];

impl GroupKey {
    fn rule(&self, broker: &BrokerConfig) -> Rule {
        let bound = |key| i32::try_from(value::number(broker.effective(key))).unwrap_or(i32::MAX);
        Rule::Int { min: bound(self.min), max: bound(self.max) }
    }
}

fn find(name: &str) -> Result<&'static GroupKey, ConfigError> {
    KEYS.iter()
        .find(|key| key.name == name)
        .ok_or_else(|| ConfigError::UnknownKey { name: name.to_owned(), of: "a group" })
}

/// Turns incremental changes of a group's settings into a command.
///
/// # Errors
/// [`ConfigError`] naming the key: unknown, named twice, no list, or not with that value.
pub fn alter_group(
    group_id: &str,
    broker: &BrokerConfig,
    changes: &[(String, ConfigOp)],
) -> Result<SetGroupConfig, ConfigError> {
    let group_id = group_id.to_owned();
    let mut command = SetGroupConfig { group_id, set: Vec::new(), remove: Vec::new() };
    for (place, (name, change)) in changes.iter().enumerate() {
        let key = find(name)?;
        if changes[..place].iter().any(|(other, _)| other == name) {
            return Err(ConfigError::NamedTwice { name: name.clone() });
        }
        match change {
            ConfigOp::Delete => command.remove.push(name.clone()),
            ConfigOp::Set(value) => {
                let value = value.trim().to_owned();
                key.rule(broker).check(name, &value, broker.limits())?;
                command.set.push(ConfigEntry { name: name.clone(), value });
            }
            ConfigOp::Append(_) | ConfigOp::Subtract(_) => {
                return Err(ConfigError::NotAList { name: name.clone() });
            }
        }
    }
    Ok(command)
}

/// Every key of a group with `overrides`, by name.
#[must_use]
pub fn describe_group(
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Vec<ConfigDescription> {
    let describe = |key: &GroupKey| {
        let synonym = |name, value: Option<&str>, source| {
            value.map(|value| ConfigSynonym { name, value: Some(value.to_owned()), source })
        };
        let own = overrides.get(key.name).map(String::as_str);
        let default = broker_keys::find(key.broker).ok().map(|key| key.default);
        let synonyms: Vec<ConfigSynonym> = [
            synonym(key.name, own, ConfigSource::DynamicGroup),
            synonym(key.broker, broker.explicit(key.broker), ConfigSource::StaticBroker),
            synonym(key.broker, default, ConfigSource::Default),
        ]
        .into_iter()
        .flatten()
        .collect();
        ConfigDescription {
            name: key.name,
            value: synonyms.first().and_then(|synonym| synonym.value.clone()),
            source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
            config_type: key.rule(broker).config_type(),
            read_only: false,
            doc: key.doc,
            synonyms,
        }
    };
    KEYS.iter().map(describe).collect()
}

/// What coordinators go by in the place of the broker's values.
#[must_use]
pub fn group_overrides(configs: &BTreeMap<String, String>) -> GroupOverrides {
    let number = |name| configs.get(name).and_then(|value: &String| value.parse().ok());
    GroupOverrides {
        consumer_session_timeout_ms: number(SESSION_TIMEOUT),
        consumer_heartbeat_interval_ms: number(HEARTBEAT_INTERVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::topic_config::ConfigLimits;

    fn broker() -> BrokerConfig {
        BrokerConfig::new(ConfigLimits { message_bytes_max: 1 << 20 })
    }

    fn set(name: &str, value: &str) -> (String, ConfigOp) {
        (name.to_owned(), ConfigOp::Set(value.to_owned()))
    }

    #[test]
    fn a_groups_times_are_within_the_brokers_bounds() {
        let alter = |value| alter_group("g", &broker(), &[set(SESSION_TIMEOUT, value)]);
        assert_eq!(alter("50000").unwrap().set[0].value, "50000");
        for value in ["44999", "60001", "x"] {
            assert!(alter(value).is_err(), "{value}");
        }
        assert!(alter_group("g", &broker(), &[set("share.session.timeout.ms", "1")]).is_err());
        let twice = [set(SESSION_TIMEOUT, "50000"), (SESSION_TIMEOUT.to_owned(), ConfigOp::Delete)];
        assert!(alter_group("g", &broker(), &twice).is_err());
    }

    #[test]
    fn what_a_group_has_of_its_own_comes_before_the_brokers() {
        let own = BTreeMap::from([(HEARTBEAT_INTERVAL.to_owned(), "7000".to_owned())]);
        let described = describe_group(&own, &broker());
        let told: Vec<_> =
            described.iter().map(|it| (it.name, it.value.as_deref().unwrap(), it.source)).collect();
        let expected = [
            (HEARTBEAT_INTERVAL, "7000", ConfigSource::DynamicGroup),
            (SESSION_TIMEOUT, "45000", ConfigSource::Default),
        ];
        assert_eq!(told, expected);
        let overrides = group_overrides(&own);
        assert_eq!(overrides.consumer_heartbeat_interval_ms, Some(7000));
        assert_eq!(overrides.consumer_session_timeout_ms, None);
    }
}
