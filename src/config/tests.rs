mod cluster;

use std::path::Path;

use chronik_tuning::host::Memory;
use clap::Parser;

use super::*;

/// A machine with two CPUs.
fn host() -> Host {
    Host {
        cpus: vec![0, 1],
        cpu_quota_millis: None,
        memory: Memory::Physical(64 << 30),
        memlock_bytes: None,
        open_files: 1 << 20,
        socket_send_bytes_max: None,
        socket_receive_bytes_max: None,
    }
}

/// Resolves flags on top of a file with this text.
fn resolve(flags: &[&str], file: &str) -> Result<NodeConfig, NodeConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.toml");
    std::fs::write(&path, file).unwrap();
    let config = format!("--config={}", path.display());
    let line = ["chronik-server", &config].into_iter().chain(flags.iter().copied());
    NodeConfig::resolve(CommandLine::parse_from(line), &host())
}

fn refusal(flags: &[&str], file: &str) -> String {
    resolve(flags, file).unwrap_err().to_string()
}

#[test]
fn without_arguments_there_is_one_broker_on_loopback() {
    let config = NodeConfig::resolve(CommandLine::default(), &host()).unwrap();
    assert_eq!(config.node_id, NodeId(1));
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.bind.to_string(), "127.0.0.1:9092");
    assert_eq!(config.advertised.to_string(), "127.0.0.1:9092");
    assert_eq!(config.plan.shards, [Some(0), Some(1)]);
    assert_eq!(config.plan.profile, Profile::load("development").unwrap());
    assert_eq!(config.log_level, LevelFilter::INFO);
    assert!(!config.accept_data_loss);
    let limits = config_limits(&ShardLimits::default());
    let mut settings = BrokerConfig::new(limits).settings();
    // Kafka's default takes three brokers.
    settings.groups_topic.replication_factor = 1;
    assert_eq!(config.broker.settings(), settings);
}

#[test]
fn a_flag_comes_before_the_file_before_the_default() {
    let file = "node_id = 7\ndata_dir = \"/in/file\"\n\
                [bind]\nkafka = \"127.0.0.2:1000\"\n[advertise]\nkafka = \"there:2000\"\n";
    let config = resolve(&[], file).unwrap();
    assert_eq!((config.node_id, config.data_dir), (NodeId(7), "/in/file".into()));
    assert_eq!(config.bind.to_string(), "127.0.0.2:1000");
    assert_eq!(config.advertised.to_string(), "there:2000");

    let flags = ["--node-id=8", "--data-dir=/flag", "--kafka-port=3000", "--advertised-addr=here"];
    let config = resolve(&flags, file).unwrap();
    assert_eq!((config.node_id, config.data_dir), (NodeId(8), "/flag".into()));
    assert_eq!(config.bind.to_string(), "127.0.0.2:3000");
    assert_eq!(config.advertised.to_string(), "here:3000");
    assert_eq!(resolve(&["--bind-addr=::1"], file).unwrap().bind.to_string(), "[::1]:1000");
}

#[test]
fn kafka_keys_work_with_and_without_quotes() {
    let file = "[kafka]\n\"num.partitions\" = 3\nauto.create.topics.enable = false\n\
                log.retention.ms = \"5\"\nlog.retention.hours = 6\n";
    let broker = resolve(&[], file).unwrap().broker;
    assert_eq!(broker.settings().num_partitions, 3);
    assert!(!broker.settings().auto_create_topics);
    assert_eq!(broker.explicit("log.retention.ms"), Some("5"));
    assert_eq!(broker.explicit("log.retention.hours"), Some("6"));
}

#[test]
fn what_flags_decide_is_described_under_kafkas_names() {
    let broker = resolve(&["--node-id=4", "--data-dir=/d"], "").unwrap().broker;
    assert_eq!(broker.explicit("node.id"), Some("4"));
    assert_eq!(broker.explicit("broker.id"), Some("4"));
    assert_eq!(broker.explicit("listeners"), Some("PLAINTEXT://127.0.0.1:9092"));
    assert_eq!(broker.explicit("advertised.listeners"), Some("PLAINTEXT://127.0.0.1:9092"));
    assert_eq!(broker.explicit("log.dirs"), Some("/d"));
}

#[test]
fn metrics_are_told_where_a_flag_or_the_file_says_and_nowhere_else() {
    assert_eq!(resolve(&[], "").unwrap().metrics, None);
    let file =
        "[bind]\nmetrics = \"127.0.0.1:9644\"\n[metrics]\ngroups_max = 7\npartitions_max = 0\n";
    let metrics = resolve(&[], file).unwrap().metrics.unwrap();
    assert_eq!(metrics.bind.to_string(), "127.0.0.1:9644");
    let limits = metrics.limits;
    assert_eq!(
        (limits.groups_max, limits.group_partitions_max, limits.partitions_max),
        (7, 5000, 0)
    );
    let flags = ["--metrics-addr=[::1]:1000", "--metrics-groups-max=8"];
    let metrics = resolve(&flags, file).unwrap().metrics.unwrap();
    assert_eq!(metrics.bind.to_string(), "[::1]:1000");
    assert_eq!((metrics.limits.groups_max, metrics.limits.partitions_max), (8, 0));
}

#[test]
fn metrics_that_could_be_told_to_nobody_are_refused() {
    for (flags, file, parts) in [
        (&["--metrics-groups-max=1"][..], "", ["--metrics-groups-max", "--metrics-addr"]),
        (&[], "[metrics]\npartitions_max = 1\n", ["--metrics-partitions-max", "[bind] metrics"]),
        (&["--metrics-addr=127.0.0.1:0"], "", ["--metrics-addr", "port 0"]),
        (&["--metrics-addr=127.0.0.1:9092"], "", ["--metrics-addr", "clients"]),
        (&[], "[bind]\nmetrics = \"localhost\"\n", ["[bind] metrics", "127.0.0.1:9644"]),
        (&[], "[advertise]\nmetrics = \"127.0.0.1:1\"\n", ["advertise.metrics", "unknown key"]),
        (&[], "[metrics]\ngroups_max = -1\n", ["metrics.groups_max", "from 0 on"]),
        (&[], "[metrics]\ngroup_max = 1\n", ["metrics.group_max", "unknown key"]),
    ] {
        let line = refusal(flags, file);
        assert!(parts.iter().all(|part| line.contains(part)) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for (file, key) in [
        ("nodeid = 1\n", "nodeid"),
        ("[bind]\nhttp = \"x\"\n", "bind.http"),
        ("[log]\nlevel = 1\n", "log"),
        ("[kafka]\n\"log.cleaner.threads\" = 1\n", "log.cleaner.threads"),
        ("[kafka]\nlog.cleaner.threads = 1\n", "log.cleaner.threads"),
        ("[kafka]\n\"node.id\" = 1\n", "--node-id"),
    ] {
        let line = refusal(&[], file);
        assert!(line.contains(key) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn values_of_another_kind_are_refused_in_one_line_that_names_the_key() {
    for (file, key) in [
        ("node_id = \"1\"\n", "node_id"),
        ("node_id = 2147483648\n", "node_id"),
        ("node_id = -1\n", "--node-id"),
        ("data_dir = 1\n", "data_dir"),
        ("bind = 1\n", "bind"),
        ("[bind]\nkafka = \"localhost\"\n", "[bind] kafka"),
        ("[advertise]\nkafka = \"a:b\"\n", "--advertised-addr"),
        ("[kafka]\nnum.partitions = 1.5\n", "num.partitions"),
        ("[kafka]\nnum.partitions = 0\n", "num.partitions"),
        ("\nnode_id =\n", "line 2"),
    ] {
        let line = refusal(&[], file);
        assert!(line.contains(key) && !line.contains('\n'), "{file}: {line}");
    }
}

#[test]
fn a_missing_file_is_refused_with_its_path() {
    let command = CommandLine { config: Some("/no/such.toml".into()), ..CommandLine::default() };
    let line = NodeConfig::resolve(command, &host()).unwrap_err().to_string();
    assert!(line.contains("/no/such.toml"), "{line}");
}

#[test]
fn more_shards_than_cpus_need_leave_to_share_them() {
    assert!(refusal(&["--shards=3"], "").contains("--no-pin"));
    let config = resolve(&["--shards=3", "--no-pin"], "").unwrap();
    assert_eq!(config.plan.shards, [None; 3]);
    assert_eq!(resolve(&["--shards=1"], "").unwrap().plan.shards, [Some(0)]);
    for count in ["--shards=0", "--shards=257"] {
        assert!(refusal(&[count, "--no-pin"], "").contains("1 to 256"));
    }
}

#[test]
fn a_profile_is_named_by_flag_or_file_and_changed_by_the_files_table() {
    let plan = |flags: &[&str], file| resolve(flags, file).unwrap().plan.profile;
    let latency = Profile::load("latency").unwrap();
    assert_eq!(plan(&["--profile=latency"], ""), latency);
    assert_eq!(plan(&[], "profile = \"latency\"\n"), latency);
    assert_eq!(plan(&["--profile=latency"], "profile = \"throughput\"\n"), latency);

    let file = "[profile]\nname = \"latency\"\ncommits_in_flight_max = 1\n";
    let changed = plan(&[], file);
    assert_eq!(changed.limits.commits_in_flight_max, 1);
    assert_eq!(changed.spin_before_park, latency.spin_before_park);
    assert!(changed.name.contains("latency") && changed.name.contains("node.toml"));
    assert_eq!(plan(&["--shards=1"], "[profile]\nshards = 2\n").shards, ShardCount::Count(1));
}

#[test]
fn keys_of_a_profile_are_refused_by_name_and_place() {
    for (file, key) in [
        ("[profile]\ntail_cache = 1\n", "tail_cache"),
        ("[profile]\nwal_files_max = 1\n", "wal_files_max"),
        ("[profile]\ncores = \"7\"\n", "CPU 7"),
        ("[profile]\nname = 1\n", "profile.name"),
        ("profile = 1\n", "profile"),
        ("profile = \"fast\"\n", "fast"),
    ] {
        let line = refusal(&[], file);
        assert!(line.contains(key) && !line.contains('\n'), "{file}: {line}");
    }
    assert!(refusal(&[], "[profile]\ntail_cache = 1\n").contains("node.toml"));
    assert!(refusal(&["--profile=fast"], "").contains("development"));
}

#[test]
fn the_largest_message_follows_from_the_profiles_wal_file() {
    let keys = "[kafka]\nmessage.max.bytes = 8000000\n";
    resolve(&[], keys).unwrap();
    let small =
        format!("{keys}[profile]\nwal_file_bytes = \"4 MiB\"\nflush_round_bytes = \"8 MiB\"\n");
    assert!(refusal(&[], &small).contains("message.max.bytes"));
}

#[test]
fn an_address_for_all_interfaces_needs_one_that_clients_can_use() {
    assert!(refusal(&["--bind-addr=0.0.0.0"], "").contains("--advertised-addr"));
    assert!(refusal(&["--bind-addr=::"], "").contains("--advertised-addr"));
    let config = resolve(&["--bind-addr=0.0.0.0", "--advertised-addr=host"], "").unwrap();
    assert_eq!(config.advertised.to_string(), "host:9092");
}

#[test]
fn advertised_addresses_come_in_several_spellings() {
    let parse = |text| parse_endpoint(text, 1).map(|endpoint| endpoint.to_string());
    for (text, shown) in [
        ("host", "host:1"),
        ("host.domain:2", "host.domain:2"),
        ("10.0.0.1", "10.0.0.1:1"),
        ("10.0.0.1:2", "10.0.0.1:2"),
        ("::1", "[::1]:1"),
        ("[::1]", "[::1]:1"),
        ("[::1]:2", "[::1]:2"),
    ] {
        assert_eq!(parse(text).as_deref(), Some(shown), "{text}");
    }
    for text in ["", ":1", "host:", "host:0", "host:65536", "a b", "[::1", "[x]:1", "a:b:c", "h/x"]
    {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn log_levels_are_words() {
    assert_eq!(resolve(&["--log-level=debug"], "").unwrap().log_level, LevelFilter::DEBUG);
    assert!(refusal(&["--log-level=loud"], "").contains("--log-level=loud"));
}

#[test]
fn port_zero_is_refused() {
    assert!(refusal(&["--kafka-port=0"], "").contains("--kafka-port"));
}
