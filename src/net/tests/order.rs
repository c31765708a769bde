//! Order of dispatch and of responses.

use super::*;

#[test]
fn responses_leave_in_request_order_whatever_is_ready_first() {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    for text in ["wait 1", "wait 2", "echo a", "wait 3"] {
        client.send(text);
    }
    shard.until("all are dispatched", |stats| stats.requests == 4);
    for gate in ["3", "2"] {
        shard.open(gate);
    }
    assert_eq!(shard.stats().responses, 0, "the first is not ready");
    shard.open("1");
    for text in ["wait 1", "wait 2", "echo a", "wait 3"] {
        assert_eq!(client.receive(), text);
    }
}

#[test]
fn a_request_without_response_gets_none() {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    for text in ["none", "echo a", "none", "NONE", "ECHO b"] {
        client.send(text);
    }
    assert_eq!((client.receive(), client.receive()), ("echo a".into(), "ECHO b".into()));
    assert_eq!(shard.dispatched().len(), 5);
    let stats = shard.until("all is released", |stats| stats.request_bytes_reserved == 0);
    assert_eq!(stats.responses, 2);
}

#[test]
fn a_barrier_waits_for_everything_before_it() {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    for text in ["wait 1", "none", "ECHO b", "echo c"] {
        client.send(text);
    }
    shard.until("the barrier is read", |stats| stats.requests == 3);
    assert_eq!(shard.dispatched(), ["wait 1", "none "]);
    shard.open("1");
    for text in ["wait 1", "ECHO b", "echo c"] {
        assert_eq!(client.receive(), text);
    }
    assert_eq!(shard.dispatched(), ["wait 1", "none ", "echo b", "echo c"]);
}

#[test]
fn nothing_passes_a_barrier() {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    let mut other = Client::connect(address);
    client.send("WAIT 1");
    shard.until("the barrier is dispatched", |stats| stats.requests == 1);
    client.send("echo c");
    other.send("echo d");
    assert_eq!(other.receive(), "echo d");
    shard.until("the bytes have arrived", |stats| stats.bytes_in == 30);
    assert_eq!(shard.dispatched(), ["wait 1", "echo d"]);
    shard.open("1");
    assert_eq!((client.receive(), client.receive()), ("WAIT 1".into(), "echo c".into()));
}

#[test]
fn requests_beyond_the_pipelining_bound_are_not_dispatched() {
    let config = NetConfig { pipelined_requests_max: 4, ..NetConfig::default() };
    let (shard, address) = server(config);
    let mut client = Client::connect(address);
    let texts: Vec<_> = (0..10).map(|n| format!("wait {n}")).collect();
    texts.iter().for_each(|text| client.send(text));
    shard.until("the fifth is read", |stats| stats.requests == 5);
    assert_eq!(shard.dispatched().len(), 4);
    (0..10).for_each(|gate| shard.open(&gate.to_string()));
    for text in texts {
        assert_eq!(client.receive(), text);
    }
}

#[test]
fn requests_without_response_are_bounded_like_the_others() {
    let config = NetConfig { pipelined_requests_max: 4, ..NetConfig::default() };
    let (shard, address) = server(config);
    let mut client = Client::connect(address);
    (0..10).for_each(|n| client.send(&format!("settle {n}")));
    client.send("echo");
    let stats = shard.until("the fifth is read", |stats| stats.requests == 5);
    assert!(stats.request_bytes_reserved >= 4, "they hold their memory");
    assert_eq!(shard.dispatched().len(), 4);
    (0..10).for_each(|gate| shard.open(&gate.to_string()));
    assert_eq!(client.receive(), "echo");
    shard.until("all is released", |stats| stats.request_bytes_reserved == 0);
}

#[test]
fn many_requests_in_one_segment_are_all_answered() {
    let (_shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    let mut writer = client.0.try_clone().unwrap();
    let texts: Vec<_> = (0..20_000).map(|n| format!("echo {n}")).collect();
    let all: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
    let sending = std::thread::spawn(move || writer.write_all(&all).unwrap());
    for text in texts {
        assert_eq!(client.receive(), text);
    }
    sending.join().unwrap();
}

#[test]
fn requests_that_arrive_byte_by_byte_are_answered() {
    let (_shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    for text in ["echo a", "", "ECHO b"] {
        for byte in frame(text) {
            client.0.write_all(&[byte]).unwrap();
        }
        assert_eq!(client.receive(), text);
    }
}

#[test]
fn large_requests_and_responses_arrive_whole() {
    let (_shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    let mut writer = client.0.try_clone().unwrap();
    let texts: Vec<_> = (1..8).map(|n| padded("echo", n * 700_001)).collect();
    let all: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
    let sending = std::thread::spawn(move || writer.write_all(&all).unwrap());
    for text in texts {
        assert!(client.receive() == text);
    }
    sending.join().unwrap();
}
