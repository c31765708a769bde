//! What a server refuses to start with, in one line that names the thing.

use std::fs;

use chronik_protocol::messages::fetch_response::FetchResponse;

use crate::support::batch::Batch;
use crate::support::requests::{create_topic, produce, read_values};
use crate::support::server::{Options, Server, free_address};
use crate::support::unique;

#[test]
fn a_second_server_on_the_same_port_refuses_and_the_first_goes_on() {
    let mut first = Server::start();
    let address = first.address();
    let refusal = Server::expect_refusal_at(address, Options::default());
    refusal.expect_line_with(&[&address.to_string(), "in use"]);
    first.assert_alive();
    let topic = unique("first");
    let mut client = first.client();
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["x"]));
}

#[test]
fn a_second_server_over_the_same_directory_refuses_and_the_first_goes_on() {
    let mut first = Server::start();
    let directory = first.data_dir();
    let refusal = Server::expect_refusal(Options::default().data_dir(&directory));
    refusal.expect_line_with(&[directory.to_str().unwrap(), "in use"]);
    first.assert_alive();
    let topic = unique("first");
    let mut client = first.client();
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["x"]));
    first.stop();
    first.restart();
    assert_eq!(read_values(&mut first.client(), &topic, 0, 0), ["x"]);
}

#[test]
fn unknown_configuration_keys_are_refused_by_name() {
    let refusal = Server::expect_refusal(Options::default().kafka("log.cleaner.threads", 2));
    refusal.expect_line_with(&["log.cleaner.threads"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "nodeid = 1\n").unwrap();
    let flag = format!("--config={}", file.path().display());
    Server::expect_refusal(Options::default().flag(&flag)).expect_line_with(&["nodeid"]);
    Server::expect_refusal(Options::default().flag("--no-such-flag"))
        .expect_line_with(&["--no-such-flag"]);
}

#[test]
fn impossible_values_are_refused_by_name() {
    for (key, value) in [("num.partitions", "0"), ("log.retention.ms", "soon")] {
        Server::expect_refusal(Options::default().kafka(key, value)).expect_line_with(&[key]);
    }
    Server::expect_refusal(Options::default().flag("--log-level=loud"))
        .expect_line_with(&["--log-level"]);
    Server::expect_refusal(Options::shards(0)).expect_line_with(&["--shards"]);
}

#[test]
fn what_a_profile_asks_for_and_the_host_does_not_have_is_refused_by_name() {
    Server::expect_refusal(Options::default().flag("--profile=fast"))
        .expect_line_with(&["fast", "development"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let flag = format!("--config={}", file.path().display());
    for (table, named) in [
        ("[profile]\ncores = \"1023\"\n", ["cores", "CPU 1023"]),
        ("[profile]\ncommit_bytes_max = \"128 MiB\"\n", ["commit_bytes_max", "wal_file_bytes"]),
        ("[profile]\ntail_cache = 1\n", ["[profile]", "tail_cache"]),
        (
            "[profile]\ntail_cache_bytes = \"1024 GiB\"\nmemory_fit = \"refuse\"\n",
            ["tail_cache_bytes", "memory"],
        ),
    ] {
        fs::write(file.path(), table).unwrap();
        Server::expect_refusal(Options::default().flag(&flag)).expect_line_with(&named);
    }
}

#[test]
fn a_plan_is_printed_without_a_start_and_logged_with_one() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_chronik-server"))
        .env_clear()
        .args(["--plan", "--shards=2", "--no-pin", "--data-dir=/no/such/directory"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = "shard 1 → any CPU → /no/such/directory/shards/1/wal";
    assert!(text.lines().any(|shown| shown.starts_with(line)), "{text}");

    let server = Server::start();
    let line = format!("plan: shard 0 → any CPU → {}/shards/0/wal", server.data_dir().display());
    assert!(server.stderr().contains(&line), "{}", server.stderr());
}

#[test]
fn a_server_serves_under_every_profile_and_over_the_data_of_another() {
    let small = tempfile::NamedTempFile::new().unwrap();
    let changes = "[profile]\nname = \"throughput\"\nwal_file_bytes = \"4 MiB\"\n\
                   commit_bytes_max = \"1 MiB\"\nflush_round_bytes = \"4 MiB\"\nmemory_fit = \"shrink\"\n\
                   commit_linger_us = 300\nspin_before_park_us = 20\nsocket_receive_bytes = 65536\n";
    fs::write(small.path(), changes).unwrap();
    let config = format!("--config={}", small.path().display());
    let mut server = Server::start();
    let topic = unique("profiles");
    create_topic(&mut server.client(), &topic, 1);
    let mut expected = Vec::new();
    for flags in [vec!["--profile=shared-host"], vec![config.as_str()], Vec::new()] {
        server.stop();
        server.options_mut().flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        server.restart();
        let mut client = server.client();
        let value = format!("under {flags:?}");
        produce(&mut client, &topic, 0, &Batch::of([value.as_str()]));
        expected.push(value);
        assert_eq!(read_values(&mut client, &topic, 0, 0), expected);
    }
}

#[test]
fn threads_beside_the_shards_stay_on_the_control_core_and_shards_off_it() {
    let usable = affinity("/proc/self/task", "").remove(0).1;
    if usable.len() < 2 {
        return; // One CPU cannot be shared out.
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("[profile]\ncontrol_core = \"{}\"\n", usable[0])).unwrap();
    let config = format!("--config={}", file.path().display());
    for pin in [true, false] {
        let server = Server::start_with(Options { pin, ..Options::default() }.flag(&config));
        let tasks = format!("/proc/{}/task", server.pid());
        // The thread on which the shard's runtime blocks has its name too, and is none.
        let shards = affinity(&tasks, "chronik-shard");
        let expected = if pin { &usable[1..2] } else { &usable[1..] };
        let (shard, helpers): (Vec<_>, Vec<_>) =
            shards.iter().partition(|(_, cpus)| cpus == expected);
        assert_eq!(shard.len(), 1, "{shards:?}");
        assert!(helpers.iter().all(|(_, cpus)| *cpus == usable[..1]), "{shards:?}");
        for name in ["control", "chronik-store", "chronik-walfile"] {
            let found = affinity(&tasks, name);
            assert!(!found.is_empty(), "no thread {name}");
            assert!(found.iter().all(|(_, cpus)| *cpus == usable[..1]), "{found:?}");
        }
    }
}

/// Names of the threads below `tasks` that begin with `prefix`, and the CPUs that each may use.
fn affinity(tasks: &str, prefix: &str) -> Vec<(String, Vec<usize>)> {
    let mut found = Vec::new();
    for task in fs::read_dir(tasks).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the kernel's field").trim().to_owned()
        };
        let name = field("Name:");
        if name.starts_with(prefix) {
            let cpus = chronik_tuning::cpulist::parse(&field("Cpus_allowed_list:"));
            found.push((name, cpus.expect("a list of CPUs")));
        }
    }
    found
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let mut server = Server::start();
    server.stop();
    server.options_mut().flags = vec!["--node-id=7".to_owned()];
    server.refuses_restart().expect_line_with(&["node.toml", "node 1", "node 7"]);
    server.options_mut().flags.clear();
    server.restart();
}

#[test]
fn a_directory_of_another_release_or_without_identity_is_refused() {
    let mut server = Server::start();
    create_topic(&mut server.client(), &unique("data"), 1);
    server.stop();
    let path = server.data_dir().join("node.toml");
    let text = fs::read_to_string(&path).unwrap();
    let other: Vec<String> = text
        .lines()
        .map(|line| match line.starts_with("format_version") {
            true => "format_version = 999".to_owned(),
            false => line.to_owned(),
        })
        .collect();
    fs::write(&path, other.join("\n")).unwrap();
    server.refuses_restart().expect_line_with(&["node.toml", "999"]);
    fs::remove_file(&path).unwrap();
    let directory = server.data_dir();
    server.refuses_restart().expect_line_with(&[directory.to_str().unwrap(), "node.toml"]);
    fs::write(&path, text).unwrap();
    server.restart();
}

#[test]
fn a_file_where_the_directory_should_be_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let directory = file.path().join("data");
    let refusal = Server::expect_refusal(Options::default().data_dir(&directory));
    refusal.expect_line_with(&[directory.to_str().unwrap()]);
}

#[test]
fn what_was_refused_left_no_trace_in_the_port() {
    let address = free_address();
    let refusal = Server::expect_refusal_at(address, Options::default().flag("--log-level=loud"));
    refusal.expect_line_with(&["--log-level"]);
    std::net::TcpListener::bind(address).unwrap();
}

#[test]
fn an_orderly_stop_ends_with_0_while_clients_are_idle() {
    let mut server = Server::start_with(Options::shards(2));
    let _idle: Vec<_> = (0..4).map(|_| server.client()).collect();
    // `stop` waits for the exit code.
    server.stop();
}

#[test]
fn an_orderly_stop_ends_with_0_while_clients_wait_for_records() {
    use crate::support::requests::{FETCH_BY_NAME, FetchBounds, fetch_request};
    let mut server = Server::start_with(Options::shards(2));
    let topic = unique("stop");
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    create_topic(&mut clients[0], &topic, 2);
    let bounds = FetchBounds { max_wait_ms: 600_000, min_bytes: 1, ..FetchBounds::default() };
    for (n, client) in (0..).zip(&mut clients) {
        client.send(FETCH_BY_NAME, &fetch_request(&topic, n % 2, 0, bounds));
    }
    server.stop();
    // Nobody was cut off: whoever waited has its answer.
    for client in &mut clients {
        let response = client.try_receive::<FetchResponse>();
        assert!(response.is_ok(), "a parked fetch was not answered: {response:?}");
    }
}

#[test]
fn an_orderly_stop_ends_with_0_while_clients_are_inside_a_request() {
    let mut server = Server::start_with(Options::shards(2));
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send_raw(&[0, 0, 0, 100, 0]);
    }
    server.stop();
}

#[test]
fn a_killed_server_starts_again_on_its_port_while_clients_still_hold_their_connections() {
    let mut server = Server::start_with(Options::shards(2));
    let address = server.address();
    let topic = unique("port");
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    create_topic(&mut clients[0], &topic, 1);
    for client in &mut clients {
        crate::support::requests::high_watermark(client, &topic, 0);
    }
    server.kill9();
    server.restart();
    assert_eq!(server.address(), address, "clients look for it where it was");
    server.stop();
    server.restart();
    assert_eq!(server.address(), address, "clients look for it where it was");
    drop(clients);
}

#[test]
fn a_server_that_may_pin_its_shard_serves() {
    // All other servers of these tests run with --no-pin.
    let server = Server::start_with(Options { pin: true, ..Options::default() });
    let mut client = server.client();
    let topic = unique("pinned");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["x"]));
}

#[test]
fn an_orderly_stop_ends_with_0_whatever_clients_are_doing() {
    use crate::support::requests::{FETCH_BY_NAME, FetchBounds, fetch_request};
    let mut server = Server::start_with(Options::shards(2));
    let topic = unique("stop");
    let mut waiting = server.client();
    create_topic(&mut waiting, &topic, 2);
    let bounds = FetchBounds { max_wait_ms: 600_000, min_bytes: 1, ..FetchBounds::default() };
    waiting.send(FETCH_BY_NAME, &fetch_request(&topic, 0, 0, bounds));
    let mut half = server.client();
    half.send_raw(&[0, 0, 0, 100, 0]);
    let _idle = server.client();
    server.stop();
}
