//! An idle server: a thousand partitions, a hundred connections, nothing to do.

use std::time::Duration;

use chronik_protocol::messages::api_versions_request::ApiVersionsRequest;

use super::process::{Cost, watch};
use super::support::client::Client;
use super::support::server::{Options, Server};
use super::support::wait_for;
use super::table::Table;
use super::{Size, alone, is_full, load};

/// Below this an idle server's memory must stay.
const RESIDENT_BYTES_MAX: u64 = 150 << 20;

/// Wake-ups of one shard thread within the window: the connection sweep every ten seconds, with one
/// more for a window's edge. A wake-up may take more than one switch when the thread is preempted.
fn switches_max(window_seconds: u64) -> u64 {
    2 * (window_seconds / 10 + 1)
}

/// The longest that something which follows traffic takes to come to rest: the flush round at five
/// seconds of age, and the tail cache, which is given back thirty seconds after the last produce.
const SETTLED_WITHIN: Duration = Duration::from_secs(40);

#[test]
fn an_idle_server_sleeps_and_is_small() {
    let _alone = alone();
    let size = Size::asked_for();
    let server = Options::shards(2).start();
    load::create_topics(&server, size);
    let connections = connect(&server, size.connections);
    settle(&server);
    look(&server, size, "idle, fresh");

    load::fill_all(&server, size);
    load::fill_hot(&server, size.traffic_bytes);
    let right_behind = server.resident_bytes();
    settle(&server);
    let title = format!(
        "idle, after {} MiB of traffic ({} MiB resident at its end)",
        size.traffic_bytes >> 20,
        right_behind >> 20
    );
    look(&server, size, &title);
    drop(connections);
}

fn connect(server: &Server, count: usize) -> Vec<Client> {
    let connect = |_| {
        let mut client = server.client();
        client.call(3, &ApiVersionsRequest::default());
        client
    };
    (0..count).map(connect).collect()
}

/// Waits until the shards have come to rest; without figures, until nothing runs but timers far ahead.
fn settle(server: &Server) {
    if is_full() {
        std::thread::sleep(SETTLED_WITHIN);
        return;
    }
    wait_for("shards at rest", || {
        let cost = watch(server, Duration::from_millis(500));
        (cost.switches_of("chronik-") == 0).then_some(())
    });
}

fn look(server: &Server, size: Size, title: &str) {
    let cost = watch(server, Duration::from_secs(size.window_seconds));
    let resident = server.resident_bytes();
    print(&cost, resident, size, title);
    for shard in 0..2 {
        let switches = cost.switches_of(&format!("chronik-shard-{shard}"));
        let most = switches_max(size.window_seconds);
        assert!(switches <= most, "shard {shard} was woken {switches} times: {cost:?}");
    }
    assert!(resident < RESIDENT_BYTES_MAX, "{title}: {} MiB resident", resident >> 20);
}

fn print(cost: &Cost, resident: u64, size: Size, title: &str) {
    let Size { topics, partitions, connections, window_seconds, .. } = size;
    let mut table = Table::new(&format!(
        "{title}: {} partitions, {connections} connections, 2 shards, {window_seconds} s",
        topics * partitions
    ));
    table.row("CPU, % of one core", format!("{:.2}", cost.cpu_percent()), "< 1");
    table.row("resident, MiB", resident >> 20, "< 150");
    for (name, switches) in &cost.switches {
        table.row(format!("context switches of {name}"), switches, "");
    }
    if cost.switches.is_empty() {
        table.row("context switches of any thread", 0, "");
    }
    table.print();
}
