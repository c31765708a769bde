//! What a node tells those who watch it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use chronik_protocol::ErrorCode;

use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::groups::{
    ConsumerMember, Member, await_coordinator, commit_request, committed, delete_group,
};
use crate::support::metrics::{await_scrape, get, scrape};
use crate::support::requests::{
    create_topic, delete_topic, error, high_watermark, produce, produce_bytes, read_values,
};
use crate::support::server::{Options, Server, free_address, is_reference};
use crate::support::{unique, wait_for};

/// A server of two shards that tells metrics, and where.
fn watched(flags: &[&str]) -> (Server, SocketAddr) {
    let address = free_address();
    let mut options = Options::shards(2)
        .kafka("group.initial.rebalance.delay.ms", 0)
        .flag(&format!("--metrics-addr={address}"));
    for flag in flags {
        options = options.flag(flag);
    }
    (options.start(), address)
}

fn commit(client: &mut Client, group: &str, topic: &str, partition: i32, offset: i64) {
    await_coordinator(client, group);
    wait_for("a commit to be taken", || {
        let request = commit_request(group, topic, partition, offset);
        let code = error(client.call(9, &request).topics[0].partitions[0].error_code);
        (code == ErrorCode::None).then_some(())
    });
}

#[test]
fn what_clients_do_is_counted() {
    if is_reference() {
        return;
    }
    let (server, address) = watched(&[]);
    let mut client = server.client();
    let topic = unique("topic");
    create_topic(&mut client, &topic, 4);
    for partition in 0..4 {
        produce(&mut client, &topic, partition, &Batch::of(["a", "b", "c"]));
    }
    let refused = produce_bytes(&mut client, &topic, 9, -1, Batch::of(["x"]).encode());
    assert_eq!(error(refused.error_code), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(read_values(&mut client, &topic, 1, 0).len(), 3);
    let found = await_scrape(address, "the partitions to be led", |scrape| {
        (scrape.sum("chronik_led_partitions", &[]) == 4.0).then(|| scrape.clone())
    });
    assert_eq!(found.count("chronik_partitions", &[]), 2, "one sample a shard");
    assert_eq!(found.sum("chronik_produced_records_total", &[]), 12.0);
    let bytes = found.sum("chronik_produced_bytes_total", &[]);
    assert_eq!(bytes, 4.0 * Batch::of(["a", "b", "c"]).encode().len() as f64);
    assert_eq!(found.sum("chronik_log_bytes", &[]), bytes);
    assert!(found.sum("chronik_fetched_records_total", &[]) >= 3.0);
    assert!(found.sum("chronik_fetched_bytes_total", &[]) >= bytes / 4.0);
    let produces = found.sum("chronik_requests_total", &[("api", "Produce")]);
    assert_eq!(produces, 5.0);
    let of_produce = [("api", "Produce"), ("error", "UNKNOWN_TOPIC_OR_PARTITION")];
    assert_eq!(found.sum("chronik_request_errors_total", &of_produce), 1.0);
    let commits = found.sum("chronik_wal_commit_duration_seconds_count", &[]);
    assert!(commits >= 4.0, "{commits}");
    let all = found.sum("chronik_wal_commit_duration_seconds_bucket", &[("le", "+Inf")]);
    assert_eq!(all, commits);
    assert!(found.sum("chronik_wal_commit_duration_seconds_sum", &[]) > 0.0);
    assert!(found.sum("chronik_wal_written_bytes_total", &[]) > bytes);
    let (used, size) =
        (found.sum("chronik_wal_used_bytes", &[]), found.sum("chronik_wal_size_bytes", &[]));
    assert!(bytes < used && used < size, "{bytes} < {used} < {size}");
    assert!(found.sum("chronik_connections", &[]) >= 1.0);
    assert!(found.sum("chronik_received_bytes_total", &[]) > bytes);
    for name in [
        "chronik_under_replicated_partitions",
        "chronik_under_min_isr_partitions",
        "chronik_failed_partitions",
        "chronik_offline_partitions",
        "chronik_silent_shards",
    ] {
        assert_eq!(found.sum(name, &[]), 0.0, "{name}");
    }
    assert_eq!(found.value("chronik_controller_active", &[]), Some(1.0));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(found.value("chronik_build_info", &[("version", version)]), Some(1.0));
    let resident = found.value("process_resident_memory_bytes", &[]).unwrap();
    let real = server.resident_bytes() as f64;
    assert!((real / 2.0..real * 2.0).contains(&resident), "{resident} of {real}");
    assert!(found.value("process_open_fds", &[]).unwrap() > 10.0);
}

#[test]
fn the_lag_of_a_group_is_what_its_tools_compute() {
    if is_reference() {
        return;
    }
    let (mut server, address) = watched(&[]);
    let mut client = server.client();
    let (topic, group) = (unique("topic"), unique("group"));
    create_topic(&mut client, &topic, 3);
    for partition in 0..3 {
        for _ in 0..=partition {
            produce(&mut client, &topic, partition, &Batch::of(["a", "b", "c", "d"]));
        }
    }
    for (partition, offset) in [(0, 1), (1, 8)] {
        commit(&mut client, &group, &topic, partition, offset);
    }
    let agree = |client: &mut Client| {
        for partition in 0..2 {
            // As the tool does: the end of the log and what is committed, each asked for.
            let end = high_watermark(client, &topic, partition);
            let at = committed(client, &group, &topic, partition);
            let partition = partition.to_string();
            let labels =
                [("group", &*group), ("topic", &*topic), ("partition", partition.as_str())];
            await_scrape(address, "committed offset and lag", |scrape| {
                let found = scrape.value("chronik_group_committed_offset", &labels)?;
                let lag = scrape.value("chronik_group_lag_records", &labels)?;
                (found == at as f64 && lag == (end - at) as f64).then_some(())
            });
        }
    };
    agree(&mut client);
    let found = scrape(address);
    assert_eq!(found.count("chronik_group_lag_records", &[]), 2, "nothing else is committed");
    let of_group = [("group", &*group), ("type", "classic")];
    assert_eq!(found.value("chronik_group_members", &of_group), Some(0.0));
    let state = [of_group[0], of_group[1], ("state", "Empty")];
    assert_eq!(found.value("chronik_group_state", &state), Some(1.0));
    assert_eq!(found.sum("chronik_metrics_left_out", &[]), 0.0);
    let end = [("topic", &*topic), ("partition", "2")];
    assert_eq!(found.value("chronik_partition_high_watermark_offset", &end), Some(12.0));

    produce(&mut client, &topic, 1, &Batch::of(["e"]));
    commit(&mut client, &group, &topic, 0, 3);
    agree(&mut client);
    // Beyond the end: below zero, as the tool has it.
    commit(&mut client, &group, &topic, 0, 30);
    agree(&mut client);
    server.kill9();
    server.restart();
    agree(&mut server.client());
}

#[test]
fn groups_are_told_with_their_members_and_vanish_with_what_they_are_about() {
    if is_reference() {
        return;
    }
    let (server, address) = watched(&[]);
    let mut client = server.client();
    let topic = unique("topic");
    create_topic(&mut client, &topic, 1);
    let mut member = Member::new(&unique("classic"));
    await_coordinator(&mut client, &member.group);
    member.join(&mut client);
    member.sync(&mut client, &[(&member, "all")]);
    assert_eq!(member.commit(&mut client, &topic, 0, 0), ErrorCode::None);
    let mut consumer = ConsumerMember::new(&unique("consumer"), "member");
    wait_for("the consumer group to take a member", || {
        (consumer.beat(&mut client, &[&topic]).error_code == 0).then_some(())
    });
    let states = |group: &str, kind: &str, state: &str, members: f64| {
        let of_group = [("group", group), ("type", kind)];
        let in_state = [of_group[0], of_group[1], ("state", state)];
        await_scrape(address, &format!("{group} to be {state}"), |scrape| {
            let is_so = scrape.value("chronik_group_members", &of_group) == Some(members)
                && scrape.value("chronik_group_state", &in_state) == Some(1.0)
                && scrape.count("chronik_group_state", &[("group", group)]) == 1;
            is_so.then_some(())
        });
    };
    states(&member.group, "classic", "Stable", 1.0);
    states(&consumer.group, "consumer", "Stable", 1.0);
    assert_eq!(member.leave(&mut client), ErrorCode::None);
    states(&member.group, "classic", "Empty", 0.0);

    assert_eq!(delete_topic(&mut client, &topic), ErrorCode::None);
    await_scrape(address, "offsets of a deleted topic to vanish", |scrape| {
        (scrape.count("chronik_group_committed_offset", &[]) == 0).then_some(())
    });
    wait_for("the group to be deleted", || {
        let code = delete_group(&mut client, &member.group);
        [ErrorCode::None, ErrorCode::GroupIdNotFound].contains(&code).then_some(())
    });
    await_scrape(address, "a deleted group to vanish", |scrape| {
        let left = scrape.labels("chronik_group_members", "group");
        (left == [consumer.group.clone()].into()).then_some(())
    });
}

#[test]
fn no_more_is_told_by_name_than_is_allowed_and_the_rest_is_counted() {
    if is_reference() {
        return;
    }
    let (server, address) = watched(&[
        "--metrics-groups-max=2",
        "--metrics-group-partitions-max=3",
        "--metrics-partitions-max=1",
    ]);
    let mut client = server.client();
    let topic = unique("topic");
    create_topic(&mut client, &topic, 4);
    for group in 0..5 {
        for partition in 0..2 {
            commit(&mut client, &format!("group-{group}"), &topic, partition, 0);
        }
    }
    let left_out = |of: &str| [("what", of.to_owned())];
    let found = await_scrape(address, "all groups to be counted", |scrape| {
        let of = left_out("groups");
        let groups = scrape.value("chronik_metrics_left_out", &[(of[0].0, &of[0].1)]);
        (groups == Some(3.0)).then(|| scrape.clone())
    });
    assert_eq!(found.count("chronik_group_members", &[]), 2);
    assert_eq!(found.count("chronik_group_state", &[]), 2);
    assert_eq!(found.count("chronik_group_committed_offset", &[]), 3);
    let left = found.value("chronik_metrics_left_out", &[("what", "group_partitions")]);
    assert_eq!(left, Some(7.0));
    assert_eq!(found.count("chronik_partition_high_watermark_offset", &[]), 1);
    // Those of __consumer_offsets are partitions as well.
    let left = found.value("chronik_metrics_left_out", &[("what", "partitions")]);
    assert_eq!(left, Some(53.0));
}

#[test]
fn health_is_what_is_so() {
    if is_reference() {
        return;
    }
    let (mut server, address) = watched(&[]);
    wait_for("the node to be ready", || (get(address, "/health/ready").0 == 200).then_some(()));
    assert_eq!(get(address, "/health/live").0, 200);
    assert_eq!(get(address, "/healthy").0, 404);
    server.stop();
    assert!(TcpStream::connect(address).is_err(), "a node that has stopped listens no more");
}

#[test]
fn a_node_whose_metrics_have_no_address_does_not_start() {
    if is_reference() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refusal =
        Server::expect_refusal(Options::default().flag(&format!("--metrics-addr={address}")));
    refusal.expect_line_with(&[&address, "is in use by another process"]);
    let refusal = Server::expect_refusal(Options::default().flag("--metrics-groups-max=3"));
    refusal.expect_line_with(&["--metrics-groups-max", "--metrics-addr"]);
}

#[test]
fn strangers_at_the_metrics_disturb_neither_those_who_watch_nor_clients() {
    if is_reference() {
        return;
    }
    let (mut server, address) = watched(&[]);
    let mut client = server.client();
    let topic = unique("topic");
    create_topic(&mut client, &topic, 1);
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        stream
    };
    // Silent ones, some that begin a request, some that ask and take nothing.
    let mut strangers: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    for (at, stranger) in strangers.iter_mut().enumerate() {
        let said: &[u8] = match at % 4 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nX: ",
            2 => b"GET /metrics HTTP/1.1\r\n\r\n",
            _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        };
        // It may have been closed to make room.
        let _ = stranger.write_all(said);
    }
    for round in 0..20 {
        let found = scrape(address);
        assert_eq!(found.value("chronik_silent_shards", &[]), Some(0.0));
        assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["a"])), round);
    }
    // A Kafka client that has the wrong port is told in words of HTTP, and a large request ends early.
    let mut large = connect();
    let mut said = Vec::new();
    let _ = large.write_all(&vec![b'a'; 1 << 20]).and_then(|()| large.read_to_end(&mut said));
    assert_eq!(get(address, "/health/live").0, 200);
    server.assert_alive();
}
