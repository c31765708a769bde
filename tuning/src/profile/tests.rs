use super::*;

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::parse("/p.toml", text)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn built_in_profiles_say_every_key_once_and_are_consistent() {
    for (name, text) in BUILT_IN {
        let profile = Profile::built_in(name).unwrap();
        assert_eq!(profile.name, name);
        let table = parse_table(name, text).unwrap();
        for key in Key::ALL {
            assert!(table.contains_key(key.name()), "{name} does not say {}", key.name());
        }
        assert_eq!(table.len(), Key::ALL.len(), "{name}");
    }
}

#[test]
fn development_is_what_a_shard_does_by_itself() {
    let profile = Profile::built_in(DEFAULT_PROFILE).unwrap();
    assert_eq!(profile.limits, ShardLimits::default());
    assert_eq!((profile.cores, profile.pin), (Cores::All, true));
    assert_eq!(profile.memory_fit, MemoryFit::Shrink, "it starts on any machine");
}

#[test]
fn every_key_of_development_is_explained() {
    let mut explained = false;
    for line in BUILT_IN[0].1.lines() {
        match line.split_once('=') {
            _ if line.starts_with('#') => explained = true,
            Some((key, _)) => assert!(explained, "{key} stands without a word"),
            None => explained = false,
        }
    }
}

#[test]
fn what_is_shown_reads_back_to_the_same_profile() {
    for (name, _) in BUILT_IN {
        let profile = Profile::built_in(name).unwrap();
        let line = |key: Key| format!("{} = {}\n", key.name(), key.show(&profile));
        let text: String = Key::ALL.into_iter().map(line).collect();
        let read = Profile { name: name.to_owned(), ..parse(&text).unwrap() };
        assert_eq!(read, profile);
    }
}

#[test]
fn every_key_changes_the_profile() {
    let values = [
        ("cores", "\"1-2\""),
        ("pin", "false"),
        ("shards", "3"),
        ("control_core", "\"0\""),
        ("spin_before_park_us", "20"),
        ("wal_file_bytes", "\"128 MiB\""),
        ("wal_files_max", "9"),
        ("commit_bytes_max", "\"1 MiB\""),
        ("commits_in_flight_max", "3"),
        ("commit_linger_us", "200"),
        ("large_run_bytes", "\"1 MiB\""),
        ("flush_round_bytes", "\"48 MiB\""),
        ("flush_round_age_ms", "1000"),
        ("tail_cache_bytes", "0"),
        ("index_cache_bytes", "\"1 MiB\""),
        ("request_memory_bytes", "\"1 MiB\""),
        ("response_memory_bytes", "\"1 MiB\""),
        ("memory_fit", "\"refuse\""),
        ("socket_send_bytes", "\"8 KiB\""),
        ("socket_receive_bytes", "\"8 KiB\""),
    ];
    let before = Profile::built_in(DEFAULT_PROFILE).unwrap();
    for (key, (name, value)) in Key::ALL.into_iter().zip(values) {
        assert_eq!(key.name(), name);
        let after = parse(&format!("{name} = {value}\n")).unwrap();
        assert_ne!(Profile { name: before.name.clone(), ..after.clone() }, before, "{name}");
        assert_eq!(key.show(&after), *value, "{name}");
    }
}

#[test]
fn a_file_starts_from_its_base_and_a_table_changes_single_values() {
    let mut profile = parse("base = \"latency\"\ncommits_in_flight_max = 1\n").unwrap();
    assert_eq!(profile.limits.commits_in_flight_max, 1);
    assert_eq!(profile.control_core, ControlCore::Auto);
    let table: Table = "cores = \"2,4\"".parse().unwrap();
    profile.override_with("node.toml", &table).unwrap();
    assert_eq!(profile.cores, Cores::List(vec![2, 4]));
    assert_eq!(profile.limits.commits_in_flight_max, 1);
    assert!(profile.name.contains("latency") && profile.name.contains("node.toml"));
}

#[test]
fn unknown_keys_and_impossible_values_are_refused_in_one_line_that_names_them() {
    for (text, named) in [
        ("tail_cache = 1\n", "tail_cache"),
        ("base = 1\n", "base"),
        ("base = \"none\"\n", "none"),
        ("cores = \"3-1\"\n", "cores"),
        ("cores = 3\n", "cores"),
        ("pin = 1\n", "pin"),
        ("shards = 0\n", "shards"),
        ("shards = 257\n", "shards"),
        ("control_core = \"none\"\n", "control_core"),
        ("spin_before_park_us = -1\n", "spin_before_park_us"),
        ("wal_file_bytes = \"1 MiB\"\n", "wal_file_bytes"),
        ("wal_file_bytes = 4194305\n", "wal_file_bytes"),
        ("wal_files_max = 1\n", "wal_files_max"),
        ("commit_bytes_max = \"65 MiB\"\n", "commit_bytes_max"),
        ("flush_round_bytes = \"512 MiB\"\n", "flush_round_bytes"),
        ("commits_in_flight_max = 0\n", "commits_in_flight_max"),
        ("memory_fit = \"maybe\"\n", "memory_fit"),
        ("socket_send_bytes = 1\n", "socket_send_bytes"),
        ("cores = \"0-3\"\ncontrol_core = \"3\"\n", "control_core"),
        ("\npin =\n", "line 2"),
    ] {
        let line = refusal(text);
        assert!(line.contains(named) && !line.contains('\n'), "{text}: {line}");
    }
}

#[test]
fn a_name_that_is_none_lists_those_that_are_and_a_missing_file_is_named() {
    let line = Profile::load("fast").unwrap_err().to_string();
    assert!(line.contains("fast") && line.contains("throughput"), "{line}");
    let line = Profile::load("/no/such.toml").unwrap_err().to_string();
    assert!(line.contains("/no/such.toml"), "{line}");
}
