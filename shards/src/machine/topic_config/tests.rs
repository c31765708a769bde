use super::*;
use crate::model::TopicId;

const LIMITS: ConfigLimits = ConfigLimits { message_bytes_max: 16 << 20 };

fn broker(values: &[(&str, &str)]) -> BrokerConfig {
    let mut broker = BrokerConfig::new(LIMITS);
    for (name, value) in values {
        broker.set(name, value).unwrap();
    }
    broker
}

fn overrides(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    check_topic_configs(&overrides(&[(name, value)]), &broker(&[]))
}

#[test]
fn without_overrides_a_topic_has_the_engines_defaults() {
    let settings = TopicSettings::resolve(&overrides(&[]), &broker(&[])).unwrap();
    assert_eq!(settings.partition, PartitionConfig::default());
    assert_eq!(settings.compression, CompressionType::Producer);
}

#[test]
fn every_default_is_a_value_that_its_own_rule_accepts() {
    for key in topic_keys() {
        assert_eq!(key.rule.check(key.name, key.default, LIMITS), Ok(()), "{}", key.name);
        for synonym in key.synonyms {
            assert!(broker_keys::find(synonym.key).is_ok(), "{} of {}", synonym.key, key.name);
        }
    }
    for key in broker_keys().iter().filter(|key| !key.default.is_empty()) {
        assert_eq!(key.rule.check(key.name, key.default, LIMITS), Ok(()), "{}", key.name);
    }
}

#[test]
fn a_topics_default_is_that_of_its_last_broker_key() {
    for key in topic_keys() {
        let last = key.synonyms.last().unwrap();
        let default = broker_keys::find(last.key).unwrap().default;
        let scaled = match last.unit {
            1 => default.to_owned(),
            unit => (default.parse::<i64>().unwrap() * unit).to_string(),
        };
        assert_eq!(scaled, key.default, "{}", key.name);
    }
}

#[test]
fn tables_are_sorted_and_name_each_key_once() {
    assert!(topic_keys().windows(2).all(|pair| pair[0].name < pair[1].name));
    assert!(broker_keys().windows(2).all(|pair| pair[0].name < pair[1].name));
}

#[test]
fn every_topic_key_changes_what_is_resolved() {
    let changed = [
        ("cleanup.policy", "compact"),
        ("compression.type", "zstd"),
        ("delete.retention.ms", "7"),
        ("flush.messages", "100"),
        ("flush.ms", "7"),
        ("max.compaction.lag.ms", "7"),
        ("max.message.bytes", "7"),
        ("message.timestamp.after.max.ms", "7"),
        ("message.timestamp.before.max.ms", "7"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "7"),
        ("min.insync.replicas", "2"),
        ("retention.bytes", "7"),
        ("retention.ms", "-1"),
        ("segment.bytes", "77"),
        ("segment.ms", "7"),
    ];
    let default = TopicSettings::resolve(&overrides(&[]), &broker(&[])).unwrap();
    for (name, value) in changed {
        let settings = TopicSettings::resolve(&overrides(&[(name, value)]), &broker(&[])).unwrap();
        assert_ne!(settings, default, "{name}");
    }
    let mut all: Vec<&str> = changed.iter().map(|(name, _)| *name).collect();
    // The one that elections go by.
    all.push("unclean.leader.election.enable");
    assert_eq!(all, topic_keys().iter().map(|key| key.name).collect::<Vec<_>>());
}

#[test]
fn topic_override_comes_before_broker_value_before_default() {
    let retention = |topic: &[(&str, &str)], node: &[(&str, &str)]| {
        let settings = TopicSettings::resolve(&overrides(topic), &broker(node)).unwrap();
        settings.partition.retention_ms
    };
    let hours = ("log.retention.hours", "2");
    let minutes = ("log.retention.minutes", "3");
    let millis = ("log.retention.ms", "4");
    assert_eq!(retention(&[], &[hours]), Some(7_200_000));
    assert_eq!(retention(&[], &[hours, minutes]), Some(180_000));
    assert_eq!(retention(&[], &[hours, minutes, millis]), Some(4));
    assert_eq!(retention(&[("retention.ms", "5")], &[hours, minutes, millis]), Some(5));
    assert_eq!(retention(&[], &[("log.retention.hours", "-1")]), None);
    assert_eq!(retention(&[("retention.ms", "-1")], &[hours]), None);
}

#[test]
fn keys_without_effect_are_refused_by_name() {
    for name in ["leader.replication.throttled.replicas", "preallocate", "no.such.key", ""] {
        let refused = check(name, "1").unwrap_err();
        assert_eq!(refused, ConfigError::UnknownKey { name: name.into(), of: "a topic" });
        assert_eq!(refused.key(), name);
    }
}

#[test]
fn values_out_of_range_or_of_another_kind_are_refused() {
    for (name, value) in [
        ("cleanup.policy", "compacted"),
        ("cleanup.policy", "compact,compact"),
        ("cleanup.policy", "delete,delete"),
        ("min.cleanable.dirty.ratio", "1.01"),
        ("min.cleanable.dirty.ratio", "-0.1"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("min.compaction.lag.ms", "-1"),
        ("max.compaction.lag.ms", "0"),
        ("delete.retention.ms", "-1"),
        ("cleanup.policy", ""),
        ("compression.type", "brotli"),
        ("flush.messages", "0"),
        ("max.message.bytes", "16777217"),
        ("max.message.bytes", "-1"),
        ("message.timestamp.type", "createtime"),
        ("min.insync.replicas", "0"),
        ("retention.ms", "-2"),
        ("retention.ms", "1.5"),
        ("retention.ms", "9223372036854775808"),
        ("retention.ms", ""),
        ("segment.bytes", "13"),
        ("segment.bytes", "2147483648"),
        ("segment.ms", "0"),
    ] {
        let refused = check(name, value).unwrap_err();
        assert!(matches!(&refused, ConfigError::InvalidValue { .. }), "{name}={value}: {refused}");
        assert_eq!(refused.key(), name);
    }
    for (name, value) in [
        ("max.message.bytes", "16777216"),
        ("retention.ms", " 5 "),
        ("cleanup.policy", "compact, delete"),
        ("min.cleanable.dirty.ratio", "1"),
        ("min.cleanable.dirty.ratio", "0.0"),
    ] {
        assert_eq!(check(name, value), Ok(()), "{name}={value}");
    }
}

#[test]
fn a_message_bound_above_what_a_wal_file_holds_now_is_cut_to_it() {
    let small = BrokerConfig::new(ConfigLimits { message_bytes_max: 1000 });
    let settings = TopicSettings::resolve(&overrides(&[("max.message.bytes", "2000")]), &small);
    assert_eq!(settings.unwrap().partition.max_message_bytes, 1000);
}

#[test]
fn broker_keys_that_flags_decide_are_refused_with_the_flags_name() {
    let mut broker = BrokerConfig::new(LIMITS);
    let refused = broker.set("node.id", "7").unwrap_err();
    assert!(matches!(refused, ConfigError::SetElsewhere { origin: "--node-id", .. }));
    let refused = broker.set("log.cleaner.threads", "7").unwrap_err();
    assert_eq!(
        refused,
        ConfigError::UnknownKey { name: "log.cleaner.threads".into(), of: "a broker" }
    );
    assert!(broker.set("default.replication.factor", "0").is_err());
    assert!(broker.set("broker.rack", "east").is_err(), "a flag sets it");
}

#[test]
fn broker_settings_are_what_was_set() {
    let settings = broker(&[
        ("num.partitions", "12"),
        ("auto.create.topics.enable", "false"),
        ("socket.request.max.bytes", "2048"),
        ("connections.max.idle.ms", "5000"),
    ])
    .settings();
    let expected = BrokerSettings {
        num_partitions: 12,
        default_replication_factor: 1,
        auto_create_topics: false,
        retention_interval_ms: 300_000,
        compaction_interval_ms: 15_000,
        compaction_map_bytes: 128 << 20,
        compaction_bytes_per_second_max: None,
        socket_request_max_bytes: 2048,
        connections_max_idle_ms: 5000,
        replica_lag_time_max_ms: 30_000,
        selects_replicas_by_rack: false,
        groups_topic: GroupsTopicSettings {
            partitions: 50,
            replication_factor: 3,
            segment_bytes: 100 << 20,
        },
    };
    assert_eq!(settings, expected);
}

#[test]
fn a_description_says_where_each_value_comes_from() {
    let broker = broker(&[("log.retention.hours", "2")]);
    let described = describe_topic(&overrides(&[("segment.ms", "9")]), &broker);
    let find = |name| described.iter().find(|one| one.name == name).unwrap();
    let synonyms = |name| {
        find(name)
            .synonyms
            .iter()
            .map(|one| (one.name, one.value.clone().unwrap(), one.source))
            .collect::<Vec<_>>()
    };
    assert_eq!(find("retention.ms").value.as_deref(), Some("7200000"));
    assert_eq!(find("retention.ms").source, ConfigSource::StaticBroker);
    assert_eq!(
        synonyms("retention.ms"),
        [
            ("log.retention.hours", "2".into(), ConfigSource::StaticBroker),
            ("log.retention.hours", "168".into(), ConfigSource::Default)
        ]
    );
    assert_eq!(find("segment.ms").source, ConfigSource::DynamicTopic);
    assert_eq!(synonyms("segment.ms")[0], ("segment.ms", "9".into(), ConfigSource::DynamicTopic));
    assert_eq!(find("flush.messages").source, ConfigSource::Default);
    assert_eq!(find("flush.messages").config_type, ConfigType::Long);
    assert!(described.iter().all(|one| !one.doc.is_empty() && !one.read_only));
}

#[test]
fn a_brokers_description_shows_unset_keys_without_value() {
    let mut broker = broker(&[("num.partitions", "3")]);
    broker.record("node.id", "7".to_owned()).unwrap();
    let described = describe_broker(&broker);
    let find = |name| described.iter().find(|one| one.name == name).unwrap();
    assert_eq!(find("num.partitions").value.as_deref(), Some("3"));
    assert_eq!(find("node.id").value.as_deref(), Some("7"));
    assert_eq!(find("log.retention.ms").value, None);
    assert_eq!(find("log.retention.hours").value.as_deref(), Some("168"));
    assert!(described.iter().all(|one| one.read_only));
}

#[test]
fn incremental_changes_become_sets_and_removals() {
    let current = overrides(&[("retention.ms", "5")]);
    let change = |changes: &[(&str, ConfigOp)]| {
        let changes: Vec<_> =
            changes.iter().map(|(name, op)| ((*name).to_owned(), op.clone())).collect();
        alter(TopicId([1; 16]), &current, &broker(&[]), &changes)
    };
    let command = change(&[
        ("segment.ms", ConfigOp::Set(" 7".into())),
        ("retention.ms", ConfigOp::Delete),
        ("cleanup.policy", ConfigOp::Append("delete".into())),
    ])
    .unwrap();
    let set: Vec<_> = command.set.iter().map(|one| format!("{}={}", one.name, one.value)).collect();
    assert_eq!(set, ["segment.ms=7", "cleanup.policy=delete"]);
    assert_eq!(command.remove, ["retention.ms"]);
    assert!(!command.replace);

    let error = |changes: &[(&str, ConfigOp)]| change(changes).unwrap_err();
    let twice = [("segment.ms", ConfigOp::Delete), ("segment.ms", ConfigOp::Delete)];
    assert_eq!(error(&twice), ConfigError::NamedTwice { name: "segment.ms".into() });
    let number = [("segment.ms", ConfigOp::Append("1".into()))];
    assert_eq!(error(&number), ConfigError::NotAList { name: "segment.ms".into() });
    let both = change(&[("cleanup.policy", ConfigOp::Append("compact".into()))]).unwrap();
    assert_eq!(both.set[0].value, "delete,compact");
    for op in [ConfigOp::Append("shrink".into()), ConfigOp::Subtract("delete".into())] {
        let refused = error(&[("cleanup.policy", op)]);
        assert!(matches!(refused, ConfigError::InvalidValue { .. }), "{refused}");
    }
    let unknown = [("nope", ConfigOp::Delete)];
    assert!(matches!(error(&unknown), ConfigError::UnknownKey { .. }));
}

#[test]
fn the_least_lag_of_compaction_is_no_more_than_the_most() {
    let lags = |min: &str, max: &str| {
        check_topic_configs(
            &overrides(&[("min.compaction.lag.ms", min), ("max.compaction.lag.ms", max)]),
            &broker(&[]),
        )
    };
    assert_eq!(lags("7", "7"), Ok(()));
    assert!(matches!(lags("8", "7"), Err(ConfigError::InvalidValue { .. })));
    let current = overrides(&[("max.compaction.lag.ms", "7")]);
    let change = |min: &str, node: &BrokerConfig| {
        let set = [("min.compaction.lag.ms".to_owned(), ConfigOp::Set(min.to_owned()))];
        alter(TopicId([1; 16]), &current, node, &set).map(|command| command.set.len())
    };
    assert_eq!(change("7", &broker(&[])), Ok(1));
    assert!(change("8", &broker(&[])).is_err());
}

#[test]
fn a_compacted_topics_segments_are_rolled_before_its_lag_is_over() {
    let segment_ms = |policy: &str| {
        let keys = [("cleanup.policy", policy), ("max.compaction.lag.ms", "700")];
        TopicSettings::resolve(&overrides(&keys), &broker(&[])).unwrap().partition.segment_ms
    };
    assert_eq!(segment_ms("compact"), 700);
    assert_eq!(segment_ms("delete"), PartitionConfig::default().segment_ms);
}

#[test]
fn a_cluster_agrees_on_what_decides_about_leaders() {
    let own = broker(&[("min.insync.replicas", "1"), ("num.partitions", "7")]);
    let controllers = broker(&[
        ("default.replication.factor", "3"),
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "true"),
    ]);
    let mut values = controllers.cluster_values();
    values.insert("num.partitions".to_owned(), "9".to_owned());
    let agreed = own.in_cluster(&values);
    assert_eq!(agreed.cluster_values(), controllers.cluster_values());
    assert_eq!(agreed.settings().num_partitions, 7, "every node has its own");
    assert_eq!(agreed.min_insync_replicas(), 2);
    let settings = TopicSettings::resolve(&overrides(&[]), &agreed).unwrap();
    assert_eq!(settings.partition.min_insync_replicas, 2);
}

#[test]
fn groups_may_change_their_protocol_as_the_policy_says_in_letters_of_any_case() {
    use crate::machine::group::MigrationPolicy;
    let key = "group.consumer.migration.policy";
    let policy = |values: &[(&str, &str)]| broker(values).group_settings().migration_policy;
    assert_eq!(policy(&[]), MigrationPolicy::Bidirectional);
    assert_eq!(policy(&[(key, "Upgrade")]), MigrationPolicy::Upgrade);
    assert_eq!(policy(&[(key, " DISABLED ")]), MigrationPolicy::Disabled);
    assert!(BrokerConfig::new(LIMITS).set(key, "both").is_err());
    for name in MigrationPolicy::NAMES {
        assert!(MigrationPolicy::named(name).is_some(), "{name}");
    }
}
