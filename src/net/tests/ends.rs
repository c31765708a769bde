//! How connections end.

use std::net::Shutdown;

use super::*;

#[test]
fn garbage_closes_its_own_connection_after_what_came_before_is_answered() {
    let (shard, address) = server(NetConfig::default());
    let mut bystander = Client::connect(address);
    let garbage: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "oversize_frame"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "oversize_frame"),
        (b"\xff\xff\xff\xff", "negative_length"),
        (b"\x06\x40\x00\x01", "oversize_frame"),
    ];
    for (bytes, reason) in garbage {
        let mut client = Client::connect(address);
        client.send("echo a");
        client.0.write_all(bytes).unwrap();
        assert_eq!(client.receive(), "echo a");
        client.expect_end();
        shard.until_closed(reason);
    }
    let stats = shard.until("they are gone", |stats| stats.connections == 1);
    assert_eq!((stats.closed.iter().sum::<u64>(), stats.request_bytes_reserved), (4, 0));
    bystander.send("echo b");
    assert_eq!(bystander.receive(), "echo b");
}

#[test]
fn a_truncated_request_closes_after_what_came_before_is_answered() {
    let (shard, address) = server(NetConfig::default());
    for cut in 1..9 {
        let mut client = Client::connect(address);
        client.send("wait 1");
        client.0.write_all(&frame("echo bc")[..cut]).unwrap();
        client.0.shutdown(Shutdown::Write).unwrap();
        shard.open("1");
        assert_eq!(client.receive(), "wait 1");
        client.expect_end();
    }
    let stats = shard.until("all are closed", |stats| stats.connections == 0);
    assert_eq!((stats.closed[CloseReason::TruncatedFrame.kind()], stats.requests), (8, 8));
    assert_eq!(stats.request_bytes_reserved, 0);
}

#[test]
fn a_half_closed_connection_is_answered_and_then_closed() {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    client.send("wait 1");
    client.send("WAIT 2");
    client.send("echo a");
    client.0.shutdown(Shutdown::Write).unwrap();
    shard.open("1");
    assert_eq!(client.receive(), "wait 1");
    shard.open("2");
    assert_eq!((client.receive(), client.receive()), ("WAIT 2".into(), "echo a".into()));
    client.expect_end();
    shard.until_closed("end_of_stream");
}

#[test]
fn an_end_of_stream_between_requests_ends_the_connection() {
    let (shard, address) = server(NetConfig::default());
    drop(Client::connect(address));
    shard.until_closed("end_of_stream");
    assert_eq!(shard.stats().connections, 0);
}

#[test]
fn a_reset_while_an_answer_is_awaited_ends_the_connection_at_once() {
    let (shard, address) = server(NetConfig::default());
    for text in ["wait never", "WAIT never"] {
        let mut client = Client::connect(address);
        client.send(text);
        shard.until("it is dispatched", |stats| stats.request_bytes_reserved > 0);
        client.reset();
        let stats = shard.until("it is closed", |stats| stats.connections == 0);
        assert_eq!(stats.request_bytes_reserved, 0);
    }
    shard.until_closed("read_failed");
}

#[test]
fn a_refused_request_closes_after_what_came_before_is_answered() {
    let (shard, address) = server(NetConfig::default());
    for refusal in ["close", "fail", "CLOSE", "FAIL"] {
        let mut client = Client::connect(address);
        for text in ["echo a", "none", refusal, "echo never"] {
            client.send(text);
        }
        assert_eq!(client.receive(), "echo a");
        client.expect_end();
    }
    let stats = shard.until("all are closed", |stats| stats.connections == 0);
    assert_eq!(stats.closed[4], 4);
    assert_eq!(stats.request_bytes_reserved, 0);
}

#[test]
fn an_orderly_stop_answers_what_was_accepted_and_refuses_the_rest() {
    let (shard, address) = server(NetConfig::default());
    let (mut busy, mut idle) = (Client::connect(address), Client::connect(address));
    idle.send("echo a");
    assert_eq!(idle.receive(), "echo a");
    busy.send("wait 1");
    shard.until("it is dispatched", |stats| stats.requests == 2);
    shard.stop(PATIENCE);
    idle.expect_end();
    let ended = || shard.run(|host| host.acceptor.borrow().as_ref().unwrap().has_ended());
    let deadline = Instant::now() + PATIENCE;
    while !ended() {
        assert!(Instant::now() < deadline, "accepting never ended");
    }
    assert!(TcpStream::connect(address).is_err());
    busy.0.write_all(&frame("echo never")).unwrap();
    shard.open("1");
    assert_eq!(busy.receive(), "wait 1");
    busy.expect_end();
}

#[test]
fn a_stop_does_not_wait_beyond_its_grace() {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    client.send("wait never");
    shard.until("it is dispatched", |stats| stats.requests == 1);
    shard.stop(Duration::from_millis(1));
    client.expect_end();
}
