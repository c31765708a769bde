//! Memory, number and stall bounds.

use super::*;

#[test]
fn a_peer_that_never_reads_bounds_its_memory_and_others_go_on() {
    let config = NetConfig { response_budget_bytes: 3 << 20, ..NetConfig::default() };
    let (shard, address) = server(config);
    let mut slow = Client::connect(address);
    for _ in 0..200 {
        slow.send("fetch 1000000");
    }
    // Some go into the socket's buffers; then the writer is stuck and the reader stops.
    let stuck = shard.until("the budget is used", |stats| stats.response_bytes_reserved == 3 << 20);
    assert_eq!(stuck.connections, 1);
    let mut other = Client::connect(address);
    for n in 0..100 {
        other.send(&format!("echo {n}"));
        assert_eq!(other.receive(), format!("echo {n}"));
    }
    other.send("fetch 10");
    assert_eq!(other.receive(), "", "a fetch shrinks, it does not wait");
    assert!(shard.stats().response_bytes_reserved <= 3 << 20);
    shard.sweep_after(0);
    shard.sweep_after(61);
    shard.until_closed("write_stalled");
    shard.until("its memory is free", |stats| {
        stats.response_bytes_reserved == 0 && stats.request_bytes_reserved == 0
    });
    other.send("fetch 10");
    assert_eq!(other.receive(), "x".repeat(10));
}

#[test]
fn requests_beyond_the_memory_budget_wait_unread() {
    let config = NetConfig { request_budget_bytes: 1000, ..NetConfig::default() };
    let (shard, address) = server(config);
    let (mut first, mut second) = (Client::connect(address), Client::connect(address));
    first.send(&padded("wait 1", 800));
    shard.until("the first is dispatched", |stats| stats.requests == 1);
    second.send(&padded("echo", 800));
    shard.until("the second waits", |stats| stats.waiting_for_memory == 1);
    assert_eq!((shard.dispatched().len(), shard.stats().request_bytes_reserved), (1, 800));
    shard.open("1");
    assert_eq!((first.receive().len(), second.receive().len()), (800, 800));
    shard.until("all is released", |stats| stats.request_bytes_reserved == 0);
}

#[test]
fn requests_larger_than_the_whole_budget_pass_one_by_one() {
    let config = NetConfig { request_budget_bytes: 1000, ..NetConfig::default() };
    let (shard, address) = server(config);
    let mut small = Client::connect(address);
    small.send("wait 1");
    shard.until("a small one holds memory", |stats| stats.requests == 1);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(&padded("echo", 100_000));
        client.send(&padded("ECHO", 10));
    }
    shard.until("all large ones wait", |stats| stats.waiting_for_memory == 5);
    shard.open("1");
    assert_eq!(small.receive(), "wait 1");
    for client in &mut clients {
        assert_eq!((client.receive().len(), client.receive().len()), (100_000, 10));
    }
    shard.until("all is released", |stats| stats.request_bytes_reserved == 0);
}

#[test]
fn a_peer_that_leaves_while_it_waits_for_memory_frees_its_place() {
    let config = NetConfig { request_budget_bytes: 1000, ..NetConfig::default() };
    let (shard, address) = server(config);
    let (mut first, mut second) = (Client::connect(address), Client::connect(address));
    first.send(&padded("wait 1", 800));
    shard.until("the first is dispatched", |stats| stats.requests == 1);
    second.send(&padded("echo", 800));
    shard.until("the second waits", |stats| stats.waiting_for_memory == 1);
    second.reset();
    let deadline = Instant::now() + PATIENCE;
    while shard.stats().connections == 2 {
        shard.sweep_after(0);
        assert!(Instant::now() < deadline, "the reset was never noticed");
    }
    shard.until_closed("peer_gone");
    assert_eq!(shard.stats().waiting_for_memory, 0);
    shard.open("1");
    first.receive();
}

#[test]
fn a_begun_request_that_does_not_go_on_is_closed_and_frees_its_memory() {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    client.0.write_all(&[0, 1, 0, 0, b'e']).unwrap();
    shard.until("memory is reserved", |stats| stats.request_bytes_reserved == 65_536);
    shard.sweep_after(0);
    shard.sweep_after(31);
    client.expect_end();
    shard.until_closed("read_stalled");
    assert_eq!(shard.stats().request_bytes_reserved, 0);
}

#[test]
fn idle_connections_hold_no_buffers_and_are_closed_after_the_idle_time() {
    let (shard, address) = server(NetConfig::default());
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send("ECHO a");
        client.receive();
    }
    assert_eq!(shard.run(|host| host.connections.buffers_lent()), 0);
    shard.sweep_after(0);
    shard.sweep_after(590);
    clients[7].send("echo b");
    assert_eq!(clients[7].receive(), "echo b");
    shard.sweep_after(595);
    assert_eq!(shard.stats().connections, 100);
    shard.sweep_after(601);
    shard.until("all but one are closed", |stats| stats.connections == 1);
    clients[0].expect_end();
    clients[7].send("echo c");
    assert_eq!(clients[7].receive(), "echo c");
}

#[test]
fn connections_beyond_the_limit_are_refused_until_one_leaves() {
    let (shards, address) = listen(vec![NetConfig::default()], 2);
    let (mut first, second) = (Client::connect(address), Client::connect(address));
    shards[0].until("two are open", |stats| stats.connections == 2);
    Client::connect(address).expect_end();
    drop(second);
    shards[0].until("one is open", |stats| stats.connections == 1);
    let mut third = Client::connect(address);
    for client in [&mut first, &mut third] {
        client.send("echo a");
        assert_eq!(client.receive(), "echo a");
    }
}

#[test]
fn sockets_are_spread_over_the_shards() {
    let (shards, address) = listen(vec![NetConfig::default(), NetConfig::default()], 100);
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send("echo a");
        assert_eq!(client.receive(), "echo a");
    }
    assert_eq!((shards[0].stats().connections, shards[1].stats().connections), (5, 5));
}
